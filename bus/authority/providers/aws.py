"""The `aws-kms` provider: a symmetric key of AWS KMS. The context goes as encryption context.

KMS keeps its key's versions to itself: the name of the wrapping key is its ARN, before and after a rotation.
Credentials come from AWS's own chain (role, environment, profile); the service's role needs kms:Encrypt and
kms:Decrypt on the key, no more. The encryption context (deployment, domain and epoch, in hex) is in CloudTrail.
"""

from __future__ import annotations

from typing import Any, Final

from bus.authority.providers.base import Wrapped, away, does_not_open, unwrapped
from bus.crypto.keys import Secret
from bus.errors import SettingsError
from bus.extras import package
from bus.settings import Settings

SCHEME: Final = "aws-kms"
_FORGED: Final = {"InvalidCiphertextException", "IncorrectKeyException"}


def aws_client(settings: Settings, service: str, endpoint: str = "") -> Any:
    """A client of one of AWS's services, which tries once. Raises SettingsError."""
    boto3, config = package("boto3", "aws"), package("botocore.config", "aws")
    errors, seconds = package("botocore.exceptions", "aws"), settings.key_timeout_ms / 1000
    try:
        return boto3.client(
            service,
            region_name=settings.aws_region or None,
            endpoint_url=endpoint or None,
            config=config.Config(
                connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 1}, tcp_keepalive=True
            ),
        )
    except (errors.BotoCoreError, ValueError) as error:
        raise SettingsError(
            f"AWS {service}: no client can be made: {type(error).__name__}", hint="set aws_region"
        ) from None


def code_of(error: Any) -> str:
    """What AWS calls a ClientError."""
    return str(error.response.get("Error", {}).get("Code", ""))


class AwsProvider:
    """``aws_key`` is an ARN, an id or `alias/<name>`; ``aws_endpoint`` is for a VPC endpoint."""

    def __init__(self, settings: Settings) -> None:
        self._client = aws_client(settings, "kms", settings.aws_endpoint)
        self._errors = package("botocore.exceptions", "aws")
        self._key = settings.aws_key

    def wrap(self, key: Secret, context: bytes) -> Wrapped:
        """One call of Encrypt."""
        answer = self._call(self._client.encrypt, context, KeyId=self._key, Plaintext=key.reveal())
        return Wrapped(f"{SCHEME}:{answer['KeyId']}", answer["CiphertextBlob"])

    def unwrap(self, wrapped: Wrapped, context: bytes, name: str) -> Secret:
        """One call of Decrypt, of the key that wrapped and no other."""
        if not wrapped.data or not wrapped.key:
            raise does_not_open(name)
        try:
            answer = self._call(self._client.decrypt, context, KeyId=wrapped.key, CiphertextBlob=wrapped.data)
        except _Forged:
            raise does_not_open(name) from None
        return unwrapped(answer["Plaintext"], name)

    def _call(self, operation: Any, context: bytes, **arguments: Any) -> dict[str, Any]:
        try:
            return dict(operation(EncryptionContext={"sealbus": context.hex()}, **arguments))
        except self._errors.ClientError as error:
            code = code_of(error)
            if code in _FORGED:
                raise _Forged from None
            raise away(SCHEME, error, f"KMS says {code[:60]}") from None
        except self._errors.BotoCoreError as error:
            raise away(SCHEME, error) from None


class _Forged(Exception):
    pass
