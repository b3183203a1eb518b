"""Scalar types of the policy files: durations, sizes, rates, names; what is written as text becomes a number here."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from bus.errors import WireError
from bus.wire import measurement

_LONGEST: Final = 3650 * 86_400_000
_DURATION: Final = r"([1-9][0-9]{0,8})(ms|s|m|h|d)"
_SIZE: Final = r"([1-9][0-9]{0,8})(B|KiB|MiB)"
_PERCENT: Final = r"([1-9][0-9]{0,4})%"
_RECORD_RATE: Final = r"([1-9][0-9]{0,6})/(s|m|h)"
_REFUSALS: Final = r"([1-9][0-9]?) refusals? in ([1-9][0-9]{0,8})(ms|s|m|h)"
_UNITS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZES: Final = {"B": 1, "KiB": 1024, "MiB": 1024 * 1024}
MAX_EXPRESSION: Final = 1000
"""Characters of a CEL expression."""


def _milliseconds(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(_DURATION, value)):
        return min(int(match[1]) * _UNITS[match[2]], _LONGEST + 1)
    raise ValueError('expected a duration, as in "90s", 24h or 7d')


def _bytes(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(_SIZE, value)):
        return int(match[1]) * _SIZES[match[2]]
    raise ValueError("expected a size, as in 256KiB or 4MiB")


def _bytes_a_second(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(f"{_SIZE}/s", value)):
        return int(match[1]) * _SIZES[match[2]]
    raise ValueError("expected bytes a second, as in 256KiB/s or 4MiB/s")


def _percent(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(_PERCENT, value)):
        return int(match[1])
    raise ValueError("expected a share of one of the broker's threads, as in 20%")


def _per_hour(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(_RECORD_RATE, value)):
        return int(match[1]) * 3_600_000 // _UNITS[match[2]]
    raise ValueError("expected records in a time, as in 50/s, 20/m or 100/h")


def _refusals(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(_REFUSALS, value)):
        return int(match[1]), int(match[2]) * _UNITS[match[3]]
    raise ValueError("expected refusals in a time, as in 5 refusals in 30s, at most 64")


def _measured(value: str) -> str:
    try:
        return str(measurement.parse_measurement(value))
    except WireError:
        example = "software:sha256:HEX, tpm:pcr14:HEX, snp:HEX or nitro:pcr0:HEX"
        raise ValueError(f"expected a measurement that is not zeros, as in {example}") from None


def _first_version(value: Any) -> Any:
    if type(value) is not int or value != 1:
        raise ValueError("expected 1")
    return value


def _written(pattern: str, description: str) -> WithJsonSchema:
    """What the published schema says of a number that the file has as text; the last annotation of its type."""
    return WithJsonSchema({"type": "string", "pattern": f"^{pattern}$", "description": description})


Duration = Annotated[
    int,
    BeforeValidator(_milliseconds),
    Field(le=_LONGEST),
    _written(_DURATION, "A duration, as in 90s, 24h or 7d; at most 3650d."),
]
Size = Annotated[int, BeforeValidator(_bytes), _written(_SIZE, "A size, as in 256KiB or 4MiB.")]
ByteRate = Annotated[
    int,
    BeforeValidator(_bytes_a_second),
    Field(ge=1024),
    _written(f"{_SIZE}/s", "Bytes a second, as in 256KiB/s or 4MiB/s; at least 1KiB/s."),
]
Percent = Annotated[int, BeforeValidator(_percent), _written(_PERCENT, "A share of one of the broker's threads: 20%.")]
RecordRate = Annotated[
    int, BeforeValidator(_per_hour), _written(_RECORD_RATE, "Records in a time, as in 50/s, 20/m or 100/h.")
]
"""Records an hour."""
Refusals = Annotated[
    tuple[Annotated[int, Field(le=64)], int],
    BeforeValidator(_refusals),
    _written(_REFUSALS, "Refusals in a time, as in 5 refusals in 30s; at most 64."),
]
"""How many, in how many ms."""
Version = Annotated[int, BeforeValidator(_first_version), WithJsonSchema({"type": "integer", "const": 1})]
LowerName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
RoleText = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{0,62}$")]
ToolText = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,30}(\.[a-z][a-z0-9_-]{0,30}){0,3}$")]
DigestText = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256, in hex."""
MeasurementText = Annotated[
    str,
    AfterValidator(_measured),
    WithJsonSchema({"type": "string", "pattern": measurement.PATTERN, "description": "What attestation may find."}),
]
Expression = Annotated[str, StringConstraints(min_length=1, max_length=MAX_EXPRESSION)]
TierText = Literal["PLAINTEXT", "RETRIEVAL", "COMPUTATION", "FHE"]


class Strict(BaseModel):
    """No key that is not known, no value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
