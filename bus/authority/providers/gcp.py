"""The `gcp-kms` provider: a symmetric key of Google Cloud KMS. The context goes as additional authenticated data.

Credentials come from Google's own chain (Application Default Credentials); the service needs
roles/cloudkms.cryptoKeyEncrypterDecrypter on the key, no more.
"""

from __future__ import annotations

import re
from typing import Any, Final

from bus.authority.providers.base import Wrapped, away, does_not_open, unwrapped
from bus.crypto.keys import Secret
from bus.errors import SettingsError
from bus.extras import package
from bus.settings import Settings

SCHEME: Final = "gcp-kms"
_KEY: Final = r"projects/[^/]+/locations/[^/]+/keyRings/[^/]+/cryptoKeys/[^/]+"


class GcpProvider:
    """``gcp_key`` is `projects/…/locations/…/keyRings/…/cryptoKeys/…`; the name of a wrapping key adds its version."""

    def __init__(self, settings: Settings) -> None:
        if not re.fullmatch(_KEY, settings.gcp_key):
            raise SettingsError(f"gcp_key: expected projects/…/cryptoKeys/<key>, found {settings.gcp_key!r}")
        self._kms = package("google.cloud.kms", "gcp")
        self._errors = package("google.api_core.exceptions", "gcp")
        self._auth = package("google.auth.exceptions", "gcp")
        self._key = settings.gcp_key
        self._seconds = settings.key_timeout_ms / 1000
        self._client: Any = None

    def wrap(self, key: Secret, context: bytes) -> Wrapped:
        """One call of Encrypt, with the key's primary version."""
        answer = self._call(
            "encrypt",
            {"name": self._key, "plaintext": key.reveal(), "additional_authenticated_data": context},
        )
        return Wrapped(f"{SCHEME}:{answer.name}", answer.ciphertext)

    def unwrap(self, wrapped: Wrapped, context: bytes, name: str) -> Secret:
        """One call of Decrypt; Google finds the version in the ciphertext."""
        where = re.match(f"{_KEY}(?=/cryptoKeyVersions/[0-9]+$)", wrapped.key)
        if where is None:
            raise does_not_open(name)
        try:
            answer = self._call(
                "decrypt",
                {"name": where[0], "ciphertext": wrapped.data, "additional_authenticated_data": context},
            )
        except self._errors.InvalidArgument:
            raise does_not_open(name) from None
        return unwrapped(answer.plaintext, name)

    def _call(self, operation: str, request: dict[str, Any]) -> Any:
        try:
            if self._client is None:
                self._client = self._kms.KeyManagementServiceClient()
            return getattr(self._client, operation)(request=request, timeout=self._seconds, retry=None)
        except self._errors.InvalidArgument:
            if operation == "decrypt":
                raise
            raise SettingsError("gcp_key: Google refuses it as a symmetric key") from None
        except (self._errors.GoogleAPIError, self._auth.GoogleAuthError) as error:
            raise away(SCHEME, error) from None
