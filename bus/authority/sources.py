"""Where bootstrap secrets come from: `[secrets]` in bus.toml names each, and `bus secrets pull` writes them.

A source is `<scheme>:<name>[#<field>][|base64]`; with a field the secret is a JSON object, and one string of it is it:

- `vault:<mount>/<path>#<field>`: version 2 of Vault's or OpenBao's KV engine; address and token as the `vault` provider
- `aws-secrets:<name or ARN>`: AWS Secrets Manager; credentials from AWS's own chain, region `aws_region`
- `azure-secrets:https://<vault>/secrets/<name>[/<version>]`: Azure Key Vault; credentials from DefaultAzureCredential

The record path never comes here: services read the 0600 files. A keeper that is away is RetryLater; what it says is not
repeated.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, Final, Self

from bus.authority.providers.aws import aws_client, code_of
from bus.authority.providers.base import away
from bus.authority.providers.vault import vault_client, vault_failures
from bus.codes import Code
from bus.errors import Refused, SettingsError
from bus.extras import package
from bus.files import make_folder, read_secret, write_secret
from bus.settings import UNSET, Settings

MAX_SECRET: Final = 65_536
_BASE64: Final = "|base64"
_AZURE: Final = re.compile(r"(https://[^/]+)/secrets/([A-Za-z0-9-]+)(?:/([0-9a-f]{32}))?")


class Scheme(StrEnum):
    """Who keeps a secret."""

    VAULT = "vault"
    AWS = "aws-secrets"
    AZURE = "azure-secrets"


@dataclass(frozen=True, slots=True)
class Source:
    """One secret at its keeper; ``field`` is empty where all of it is meant."""

    scheme: Scheme
    name: str
    field: str = ""
    encoded: bool = False
    """Whether it is base64 of the bytes that are meant."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The source that ``text`` names. Raises SettingsError."""
        scheme, _, rest = text.partition(":")
        name, _, field = rest.removesuffix(_BASE64).partition("#")
        if scheme not in set(Scheme) or not name:
            expected = ", ".join(f"{each}:…" for each in Scheme)
            raise SettingsError(f"source: expected one of {expected}, found {text!r}")
        if scheme == Scheme.VAULT and (not field or not all(name.partition("/")[::2])):
            raise SettingsError(f"source: expected vault:<mount>/<path>#<field>, found {text!r}")
        if scheme == Scheme.AZURE and not _AZURE.fullmatch(name):
            raise SettingsError(f"source: expected azure-secrets:https://<vault>/secrets/<name>, found {text!r}")
        return cls(Scheme(scheme), name, field, rest.endswith(_BASE64))

    def __str__(self) -> str:
        return f"{self.scheme}:{self.name}{self.field and f'#{self.field}'}{_BASE64 if self.encoded else ''}"


def fetch(settings: Settings, source: Source) -> bytes:
    """The secret. Raises RetryLater where its keeper cannot give it now, Refused where there is none, SettingsError
    where a setting or a package is missing."""
    value = _KEEPERS[source.scheme](settings, source)
    if isinstance(value, str | bytes) and source.field:
        value = _object(value, source)
    if isinstance(value, Mapping):
        value = value.get(source.field)
    if not isinstance(value, str | bytes):
        raise Refused(f"{source}: expected a string, found {_kind(value)}", code=Code.SETTINGS)
    data = value.encode() if isinstance(value, str) else value
    if source.encoded:
        try:
            data = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise Refused(f"{source}: expected base64", code=Code.SETTINGS) from None
    if not 0 < len(data) <= MAX_SECRET:
        raise Refused(f"{source}: expected 1 to {MAX_SECRET} bytes, found {len(data)}", code=Code.SETTINGS)
    return data


def place_of(state: Path, name: str) -> Path:
    """Where the secret called ``name`` is written. Raises SettingsError for a place outside ``state``."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or str(path) != name:
        raise SettingsError(f"secrets: expected a path inside the state folder, found {name!r}")
    return state.joinpath(*path.parts)


def pull(settings: Settings, name: str, source: Source) -> bool:
    """Fetch the secret called ``name`` to its place, 0600; returns whether that changed it. Raises like ``fetch``."""
    path = place_of(settings.state, name)
    data = fetch(settings, source)
    try:
        if read_secret(path) == data:
            return False
    except (OSError, Refused):
        pass  # not there yet, or open to others: written anew
    make_folder(path.parent)
    write_secret(path, data)
    return True


def _object(text: str | bytes, source: Source) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(f"{source}: expected a JSON object with that field", code=Code.SETTINGS)
    return found


def _kind(value: object) -> str:
    return "no such field" if value is None else f"a {type(value).__name__}"


def _missing(source: Source) -> Refused:
    return Refused(f"{source}: no such secret", code=Code.SETTINGS)


def _vault(settings: Settings, source: Source) -> object:
    for key in ("vault_address", "vault_token_file"):
        if getattr(settings, key) in ("", UNSET):
            raise SettingsError(f"{source}: {key} is not set")
    hvac, client = package("hvac", "vault", "secrets"), vault_client(settings)
    mount, _, path = source.name.partition("/")
    try:
        client.token = read_secret(settings.vault_token_file).decode().strip()
        told = client.secrets.kv.v2.read_secret_version(path, mount_point=mount, raise_on_deleted_version=True)
        return told["data"]["data"]
    except hvac.exceptions.InvalidPath:
        raise _missing(source) from None
    except vault_failures() as error:
        raise away(source.scheme, error) from None


def _aws(settings: Settings, source: Source) -> object:
    errors = package("botocore.exceptions", "aws", "secrets")
    try:
        told = aws_client(settings, "secretsmanager").get_secret_value(SecretId=source.name)
    except errors.ClientError as error:
        code = code_of(error)
        if code == "ResourceNotFoundException":
            raise _missing(source) from None
        raise away(source.scheme, error, f"Secrets Manager says {code[:60]}") from None
    except errors.BotoCoreError as error:
        raise away(source.scheme, error) from None
    return told["SecretString"] if "SecretString" in told else told.get("SecretBinary")


def _azure(settings: Settings, source: Source) -> object:
    secrets, errors = package("azure.keyvault.secrets", "azure", "secrets"), package("azure.core.exceptions", "azure")
    identity = package("azure.identity", "azure", "secrets")
    where = _AZURE.fullmatch(source.name)
    if where is None:
        raise SettingsError(f"{source}: expected azure-secrets:https://<vault>/secrets/<name>")
    seconds = settings.key_timeout_ms / 1000
    try:
        client = secrets.SecretClient(
            where[1],
            identity.DefaultAzureCredential(),
            retry_total=0,
            connection_timeout=seconds,
            read_timeout=seconds,
        )
        return client.get_secret(where[2], where[3]).value
    except errors.ResourceNotFoundError:
        raise _missing(source) from None
    except errors.AzureError as error:
        raise away(source.scheme, error) from None


_KEEPERS: Final[Mapping[Scheme, Callable[[Settings, Source], object]]] = {
    Scheme.VAULT: _vault,
    Scheme.AWS: _aws,
    Scheme.AZURE: _azure,
}
