"""The `vault` provider: a transit key of HashiCorp Vault or OpenBao, which never leaves it.

The context goes as associated data of AES-256-GCM. The token is read from its 0600 file at each call, so that an agent
that renews it there needs no restart here. The service's policy needs `update` on `<mount>/encrypt/<key>` and
`<mount>/decrypt/<key>`, no more.
"""

from __future__ import annotations

import base64
import re
from typing import Any, Final
from urllib.parse import urlsplit

from bus.authority.providers.base import Wrapped, away, does_not_open, missing, unwrapped
from bus.crypto.keys import Secret
from bus.errors import SettingsError
from bus.extras import package
from bus.files import read_secret
from bus.settings import UNSET, Settings

SCHEME: Final = "vault"
_FORGED: Final = ("message authentication failed", "invalid ciphertext")
"""What Vault says of bytes that it did not make. Everything else that it refuses may be mended."""
_MISSING: Final = ("version is too new", "(too old)", "encryption key not found")
"""A version that a restored Vault does not have, one below min_decryption_version, a key that was deleted."""


def vault_client(settings: Settings) -> Any:
    """Vault at ``vault_address``, without a token yet. Raises SettingsError."""
    url = urlsplit(settings.vault_address)
    if url.scheme != "https" and url.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise SettingsError("vault_address: expected https://, or http:// of this machine: it is sent a token")
    return package("hvac", "vault").Client(
        url=settings.vault_address,
        verify=str(settings.vault_ca) if settings.vault_ca != UNSET else True,
        timeout=settings.key_timeout_ms / 1000,
        token="",
    )


def vault_failures() -> tuple[type[Exception], ...]:
    """What a call raises that an operator can mend, an answer of another form among it."""
    return package("hvac", "vault").exceptions.VaultError, OSError, ValueError, LookupError, TypeError


class VaultProvider:
    """``vault_key`` is `<mount>/<key>`; what is wrapped begins with `vault:v<version>:`."""

    def __init__(self, settings: Settings) -> None:
        mount, _, name = settings.vault_key.rpartition("/")
        if not mount or not name:
            raise SettingsError(f"vault_key: expected <mount>/<key>, found {settings.vault_key!r}")
        self._key = (mount, name)
        self._token_file = settings.vault_token_file
        self._client = vault_client(settings)
        self._failed = vault_failures()
        self._refused: type[Exception] = package("hvac", "vault").exceptions.InvalidRequest

    def wrap(self, key: Secret, context: bytes) -> Wrapped:
        """One call of `encrypt`."""
        mount, name = self._key
        text = base64.b64encode(key.reveal()).decode()
        try:
            answer = self._transit().encrypt_data(
                name, plaintext=text, associated_data=base64.b64encode(context).decode(), mount_point=mount
            )
            made = str(answer["data"]["ciphertext"])
            version = made.split(":")[1]
        except self._failed as error:
            raise away(SCHEME, error) from None
        return Wrapped(f"{SCHEME}:{mount}/{name}:{version}", made.encode())

    def unwrap(self, wrapped: Wrapped, context: bytes, name: str) -> Secret:
        """One call of `decrypt`, of the key that wrapped."""
        where = re.fullmatch(r"([A-Za-z0-9_./-]+)/([A-Za-z0-9_.-]+):v[0-9]+", wrapped.key)
        if where is None or ".." in wrapped.key or not wrapped.data or not wrapped.data.isascii():
            raise does_not_open(name)
        try:
            answer = self._transit().decrypt_data(
                where[2],
                ciphertext=wrapped.data.decode(),
                associated_data=base64.b64encode(context).decode(),
                mount_point=where[1],
            )
            value = base64.b64decode(answer["data"]["plaintext"], validate=True)
        except self._refused as error:
            if any(each in str(error) for each in _MISSING):
                raise missing(wrapped, "see the key's versions and min_decryption_version") from None
            if any(each in str(error) for each in _FORGED):
                raise does_not_open(name) from None
            raise away(SCHEME, error) from None
        except self._failed as error:
            raise away(SCHEME, error) from None
        return unwrapped(value, name)

    def _transit(self) -> Any:
        self._client.token = read_secret(self._token_file).decode().strip()
        return self._client.secrets.transit
