"""The `azure` provider: an RSA key of Azure Key Vault or a Managed HSM.

Azure's wrapKey takes no context. So each root is sealed (AES-256-GCM, context as associated data) under a fresh key of
its own, and RSA-OAEP-256 of the vault wraps that. Credentials come from Azure's own chain (DefaultAzureCredential); the
service needs `wrapKey` and `unwrapKey` on the key; `get` spares a call to the vault for each wrap.
"""

from __future__ import annotations

import os
import re
from typing import Any, Final

from bus.authority.providers.base import SEALED_LENGTH, Wrapped, away, does_not_open, missing, seal, unseal
from bus.crypto.keys import KEY_LENGTH, Secret
from bus.errors import SettingsError
from bus.extras import package
from bus.settings import Settings

SCHEME: Final = "azure"


class AzureProvider:
    """``azure_key`` is `https://<vault>/keys/<key>`; the name of a wrapping key adds its version.

    Wrapped: nonce | sealed root | tag | RSA-OAEP-256 of the fresh key.
    """

    def __init__(self, settings: Settings) -> None:
        if not re.fullmatch(r"https://[^/]+/keys/[A-Za-z0-9-]+", settings.azure_key):
            raise SettingsError(f"azure_key: expected https://<vault>/keys/<key>, found {settings.azure_key!r}")
        self._crypto = package("azure.keyvault.keys.crypto", "azure")
        self._identity = package("azure.identity", "azure")
        self._errors = package("azure.core.exceptions", "azure")
        self._key = settings.azure_key
        self._seconds = settings.key_timeout_ms / 1000
        self._clients: dict[str, Any] = {}

    def wrap(self, key: Secret, context: bytes) -> Wrapped:
        """One call of wrapKey with the key's newest version."""
        fresh = os.urandom(KEY_LENGTH)
        self._clients.pop(self._key, None)  # a client stays with the version that it found first
        try:
            answer = self._client(self._key).wrap_key(self._crypto.KeyWrapAlgorithm.rsa_oaep_256, fresh)
        except self._errors.AzureError as error:
            raise away(SCHEME, error) from None
        return Wrapped(f"{SCHEME}:{answer.key_id}", seal(fresh, key, context) + answer.encrypted_key)

    def unwrap(self, wrapped: Wrapped, context: bytes, name: str) -> Secret:
        """One call of unwrapKey with the version that wrapped."""
        if not wrapped.key.startswith(f"{self._key}/"):
            raise missing(wrapped, "name its key in azure_key")  # no token goes to another vault
        sealed, encrypted = wrapped.data[:SEALED_LENGTH], wrapped.data[SEALED_LENGTH:]
        algorithm = self._crypto.KeyWrapAlgorithm.rsa_oaep_256
        try:
            fresh = self._client(wrapped.key).unwrap_key(algorithm, encrypted).key
        except self._errors.HttpResponseError as error:
            if error.status_code == 400:
                raise does_not_open(name) from None
            raise away(SCHEME, error) from None
        except self._errors.AzureError as error:
            raise away(SCHEME, error) from None
        if len(fresh) != KEY_LENGTH:
            raise does_not_open(name)
        return unseal(fresh, sealed, context, name)

    def _client(self, key: str) -> Any:
        if key not in self._clients:
            self._clients[key] = self._crypto.CryptographyClient(
                key,
                self._identity.DefaultAzureCredential(),
                retry_total=0,
                connection_timeout=self._seconds,
                read_timeout=self._seconds,
            )
        return self._clients[key]
