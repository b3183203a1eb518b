"""Which key provider wraps, from the settings; what another one wrapped is unwrapped by that one.

So a deployment moves between providers without a moment in which a root cannot be read: both are set, all services are
restarted, `bus keys rewrap`, the old one is taken away.
"""

from __future__ import annotations

from typing import Final

from bus.authority.providers.aws import AwsProvider
from bus.authority.providers.azure import AzureProvider
from bus.authority.providers.base import KeyProvider, Wrapped, away, does_not_open, missing
from bus.authority.providers.file import FileProvider
from bus.authority.providers.gcp import GcpProvider
from bus.authority.providers.pkcs11 import Pkcs11Provider
from bus.authority.providers.vault import VaultProvider
from bus.crypto.keys import Secret
from bus.errors import SettingsError
from bus.files import Layout
from bus.settings import UNSET, Custody, Settings

NEEDS: Final = {
    Custody.FILE: (),
    Custody.VAULT: ("vault_address", "vault_key", "vault_token_file"),
    Custody.AWS_KMS: ("aws_key",),
    Custody.AZURE: ("azure_key",),
    Custody.GCP_KMS: ("gcp_key",),
    Custody.PKCS11: ("pkcs11_module", "pkcs11_token", "pkcs11_key", "pkcs11_pin_file"),
}
"""Settings that each cannot do without."""


def open_provider(name: Custody, settings: Settings, layout: Layout) -> KeyProvider:
    """The provider called ``name``; none is spoken to yet. Raises SettingsError where a setting or its package is
    missing, RetryLater where its file is away."""
    for key in NEEDS[name]:
        if getattr(settings, key) in ("", UNSET):
            raise SettingsError(f"key_provider {name}: {key} is not set")
    match name:
        case Custody.FILE:
            try:
                return FileProvider(layout.kek)
            except OSError as error:
                raise away(name, error, f"see {layout.kek}") from None
        case Custody.VAULT:
            return VaultProvider(settings)
        case Custody.AWS_KMS:
            return AwsProvider(settings)
        case Custody.AZURE:
            return AzureProvider(settings)
        case Custody.GCP_KMS:
            return GcpProvider(settings)
        case Custody.PKCS11:
            return Pkcs11Provider(settings)


class Custodian:
    """The providers of one process. Raises SettingsError at once where the one that wraps is not usable."""

    def __init__(self, settings: Settings, layout: Layout) -> None:
        self._settings = settings
        self._layout = layout
        self._wraps = settings.key_provider
        self._open: dict[Custody, KeyProvider] = {}
        if self._wraps is not Custody.FILE or layout.kek.exists():
            self._provider(self._wraps)

    def wrap(self, key: Secret, context: bytes) -> Wrapped:
        """``key`` under the provider that wraps."""
        return self._provider(self._wraps).wrap(key, context)

    def unwrap(self, wrapped: Wrapped, context: bytes, name: str) -> Secret:
        """The key, from the provider that wrapped it."""
        if wrapped.provider not in set(Custody):
            raise does_not_open(name)
        try:
            provider = self._provider(Custody(wrapped.provider))
        except SettingsError as error:  # mended by an operator: records wait
            raise missing(wrapped, f"{error}; {error.hint}" if error.hint else str(error)) from None
        return provider.unwrap(wrapped, context, name)

    def _provider(self, name: Custody) -> KeyProvider:
        if name not in self._open:
            self._open[name] = open_provider(name, self._settings, self._layout)
        return self._open[name]
