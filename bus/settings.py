"""Settings of one deployment: ``bus.toml`` and ``BUS_*`` variables, read here and nowhere else.

Looked for in this order: the file that ``BUS_CONFIG`` names, ``./bus.toml``, ``./.sealbus/bus.toml`` (written by
``bus stack up``). A variable ``BUS_<KEY>`` overrides the key. Unknown keys and variables are refused: a misspelt safety
setting must not be ignored.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Self

from bus.errors import SettingsError

MAX_TOKEN_AGE_MS: Final = 15 * 60 * 1000
"""lead + rotation interval + grace may not exceed this: the longest that a stolen key is of use."""


MAX_FILE: Final = 4096
"""Bytes of a settings file: some twenty lines. Keys with thousands of dots take TOML's parser seconds."""
MAX_BITS: Final = 63
UNSET: Final = Path()
"""A path that is not given."""


class Mode(StrEnum):
    """DEVELOPMENT permits the PLAINTEXT tier on a loopback broker and clients without a certificate."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class Mechanism(StrEnum):
    """How agents authenticate to the broker: by passwords, by short tokens of the issuer, or by Kerberos tickets."""

    SCRAM = "SCRAM-SHA-512"
    OAUTHBEARER = "OAUTHBEARER"
    KERBEROS = "GSSAPI"


class BrokerSource(StrEnum):
    """Who runs the broker: the local stack, from the published jars, or someone else."""

    JARS = "jars"
    EXTERNAL = "external"


class GuardrailEngine(StrEnum):
    """What finds the types that guardrails name: patterns, or patterns and a language model."""

    PATTERNS = "patterns"
    PRESIDIO = "presidio"


class Issuing(StrEnum):
    """How agents get their keys: files that the local issuer writes, or leases that they ask the authority for."""

    FILES = "files"
    AUTHORITY = "authority"


class AttesterKind(StrEnum):
    """What an agent of these settings attests with (``bus.attester``); others are given to ``Bus`` itself."""

    NONE = "none"
    SOFTWARE = "software"
    TPM = "tpm"


class Custody(StrEnum):
    """Who holds the key that wraps roots (``bus.authority.custody``)."""

    FILE = "file"
    VAULT = "vault"
    AWS_KMS = "aws-kms"
    AZURE = "azure"
    GCP_KMS = "gcp-kms"
    PKCS11 = "pkcs11"


@dataclass(frozen=True, slots=True)
class Settings:
    """One deployment. Times in ms, sizes in bytes; ``deployment`` is the 32 hex digits made at init."""

    deployment: str = ""
    mode: Mode = Mode.DEVELOPMENT
    bootstrap: str = ""
    broker: BrokerSource = BrokerSource.JARS
    brokers: int = 1
    sasl_mechanism: Mechanism = Mechanism.OAUTHBEARER
    rotate_passwords: bool = False
    kerberos_service: str = "kafka"
    kerberos_realm: str = ""
    kerberos_keytab: Path = UNSET
    state: Path = Path(".sealbus")
    policies: Path = Path("policies")
    max_clock_skew_ms: int = 30_000
    lead_ms: int = 120_000
    grace_ms: int = 120_000
    backlog_horizon_ms: int = 86_400_000
    transaction_ms: int = 20
    transaction_bytes: int = 8 * 1024 * 1024
    compiled: bool = True
    guardrail_engine: GuardrailEngine = GuardrailEngine.PATTERNS
    guardrail_model: str = "en_core_web_sm"
    enforcers: int = 1
    issuing: Issuing = Issuing.FILES
    authority: str = ""
    authority_addresses: str = ""
    authority_database: str = ""
    ledger_database: str = ""
    enrolment: str = ""
    attester: AttesterKind = AttesterKind.NONE
    attester_code: Path = UNSET
    tpm_tcti: str = "device:/dev/tpmrm0"
    tpm_chain: Path = UNSET
    tpm_pcr: int = 14
    user_issuers: Path = UNSET
    instance: str = ""
    http: str = ""
    key_provider: Custody = Custody.FILE
    key_timeout_ms: int = 5000
    vault_address: str = ""
    vault_key: str = "transit/sealbus"
    vault_token_file: Path = UNSET
    vault_ca: Path = UNSET
    aws_key: str = ""
    aws_region: str = ""
    aws_endpoint: str = ""
    azure_key: str = ""
    gcp_key: str = ""
    pkcs11_module: Path = UNSET
    pkcs11_token: str = ""
    pkcs11_key: str = "sealbus"
    pkcs11_pin_file: Path = UNSET
    owners: dict[str, int] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    peers: dict[str, str] = field(default_factory=dict)
    """bus.toml of other deployments, by name: for shares of parties there."""
    witnesses: dict[str, str] = field(default_factory=dict)
    """URLs of witnesses by their verifier key, which the audit consumer has checkpoints co-signed by."""
    source: str = "defaults"

    @property
    def deployment_id(self) -> bytes:
        """The 16 bytes that bind every record to this deployment."""
        if not self.deployment:
            raise SettingsError(
                "no deployment id: found no bus.toml",
                hint="start a local stack with `bus stack up`, or name the file in BUS_CONFIG",
            )
        return bytes.fromhex(self.deployment)

    @property
    def rotates(self) -> bool:
        """Whether agents have passwords that the rotator replaces."""
        return self.rotate_passwords and self.sasl_mechanism is Mechanism.SCRAM

    @property
    def client_certificates(self) -> bool:
        """Whether the broker asks every client for a certificate."""
        return self.mode is Mode.PRODUCTION

    @property
    def authorities(self) -> str:
        """HOST:PORT of every replica of the authority that agents may ask, separated by commas."""
        return self.authority_addresses or self.authority

    @property
    def seal_deadline_ms(self) -> int:
        """How long a sealed record may take to reach the broker, resends included: grace less twice the skew."""
        return self.grace_ms - 2 * self.max_clock_skew_ms

    def checked(self) -> Self:
        """These settings, or SettingsError where a value cannot be lived with."""

        def refuse(key: str, expected: str) -> SettingsError:
            return SettingsError(f"{self.source}: {key}: expected {expected}, found {getattr(self, key)!r}")

        if self.deployment and not re.fullmatch(r"[0-9a-f]{32}", self.deployment):
            raise refuse("deployment", "32 lower-case hex digits")
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, int) and not isinstance(value, bool) and value < 0:
                raise refuse(each.name, "a number that is not negative")
        if self.seal_deadline_ms < 100:
            raise refuse("grace_ms", f"at least 2 x max_clock_skew_ms + 100 = {2 * self.max_clock_skew_ms + 100}")
        if self.lead_ms + self.grace_ms >= MAX_TOKEN_AGE_MS:
            raise refuse("lead_ms", f"less than {MAX_TOKEN_AGE_MS} - grace_ms = {MAX_TOKEN_AGE_MS - self.grace_ms}")
        if self.lead_ms + self.max_clock_skew_ms == 0:
            raise refuse("lead_ms", "at least 1, as max_clock_skew_ms is 0: the next epoch must be there in time")
        if not 1 <= self.enforcers <= 64:
            raise refuse("enforcers", "1 to 64")
        if self.brokers not in (1, 3):
            raise refuse("brokers", "1 or 3")
        if not 64 * 1024 <= self.transaction_bytes <= 64 * 1024 * 1024:
            raise refuse("transaction_bytes", "64 KiB to 64 MiB")
        if not 1 <= self.transaction_ms <= 5000:
            raise refuse("transaction_ms", "1 to 5000")
        if not 0 <= self.tpm_pcr <= 15:
            raise refuse("tpm_pcr", "0 to 15")
        if self.authority_database and self.issuing is not Issuing.AUTHORITY:
            raise SettingsError(f'{self.source}: authority_database: expected issuing = "authority" with it')
        if not 100 <= self.key_timeout_ms <= 30_000:
            raise refuse("key_timeout_ms", "100 to 30000")
        return self

    def check_interval(self, interval_ms: int) -> None:
        """Raise SettingsError where lead + interval + grace is over 15 minutes."""
        total = self.lead_ms + interval_ms + self.grace_ms
        if total > MAX_TOKEN_AGE_MS:
            raise SettingsError(
                f"{self.source}: lead_ms + credential_rotation_interval_ms + grace_ms: "
                f"expected at most {MAX_TOKEN_AGE_MS}, found {total}"
            )


_DERIVED: Final = {"source"}
_TABLES: Final = {"owners": int, "secrets": str, "peers": str, "witnesses": str}
_KEYS: Final = {each.name: each for each in fields(Settings) if each.name not in _DERIVED}
_ELSEWHERE: Final = {"BUS_CONFIG"}


def find_file(environ: Mapping[str, str], directory: Path) -> Path | None:
    """The settings file in force, or None."""
    if named := environ.get("BUS_CONFIG"):
        return Path(named)
    for candidate in (directory / "bus.toml", directory / ".sealbus" / "bus.toml"):
        if candidate.is_file():
            return candidate
    return None


def load(environ: Mapping[str, str] | None = None, directory: Path | None = None) -> Settings:
    """The settings in force. Raises SettingsError with the key, what was expected and the nearest known key."""
    environ = os.environ if environ is None else environ
    directory = Path.cwd() if directory is None else directory
    file = find_file(environ, directory)
    values: dict[str, Any] = {}
    if file is not None:
        values |= _from_file(file)
    for name, text in sorted(environ.items()):
        if name.startswith("BUS_") and name not in _ELSEWHERE:
            key = name[4:].lower()
            _known(key, name)
            values[key] = _convert(key, text, name)
    source = str(file) if file is not None else "environment"
    return replace(Settings(), source=source, **values).checked()


def load_peer(settings: Settings, name: str) -> Settings:
    """Settings of the deployment that ``settings`` has under this name. Raises SettingsError."""
    if name not in settings.peers:
        known = ", ".join(sorted(settings.peers)) or "none"
        raise SettingsError(f"{settings.source}: peers: expected {name!r} with the path of its bus.toml, found {known}")
    return load({"BUS_CONFIG": str((Path(settings.source).parent / settings.peers[name]).resolve())})


def _from_file(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_FILE:
            raise SettingsError(f"{file}: expected at most {MAX_FILE} bytes, found {file.stat().st_size}")
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"{file}: cannot be read: {error}") from error
    values = {}
    for key, value in document.items():
        _known(key, f"{file}: {key}")
        value = _convert(key, value, f"{file}: {key}")
        # A relative path in a file is meant from that file's own folder.
        values[key] = (file.parent / value).resolve() if isinstance(value, Path) else value
    return values


def _known(key: str, where: str) -> None:
    if key not in _KEYS:
        near = difflib.get_close_matches(key, _KEYS, 1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(_KEYS))}"
        raise SettingsError(f"{where}: unknown setting", hint=hint)


def _convert(key: str, value: Any, where: str) -> Any:
    default = getattr(Settings(), key)
    try:
        if isinstance(default, StrEnum):
            return type(default)(value)
        if isinstance(default, Path):
            return Path(_expect(value, str))
        if isinstance(default, dict):
            table = _expect(value, dict)
            return {str(name): _expect(each, _TABLES[key]) for name, each in table.items()}
        if isinstance(default, bool):
            return {"true": True, "false": False, True: True, False: False}[value]
        if isinstance(default, int):
            return int(value) if isinstance(value, str) else _expect(value, int)
        return _expect(value, str)
    except (ValueError, TypeError, KeyError):
        kind = " or ".join(type(default)) if isinstance(default, StrEnum) else type(default).__name__
        found = repr(value)[:80] if isinstance(value, str | float | bool) else f"a {type(value).__name__}"
        raise SettingsError(f"{where}: expected {kind}, found {found}") from None


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ValueError(f"a number of {value.bit_length()} bits")
    if isinstance(value, str) and "\0" in value:
        raise ValueError("a zero byte")
    return value
