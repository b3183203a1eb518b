"""COMPUTATION by ``mpc``: sums over additive shares in Z_2^64, of which any but all tell nothing.

A source encodes its rows as one vector (count; sum, sum of squares and bins of each field; counts of each group), which
is all that ever leaves it, and splits it: all parties but the last get a seed, from which AES-256-CTR makes their
share, the last one gets what is left. Each party adds up its own; the totals are the sum of what they release. Numbers
are scaled to [-1, 1] of their field's range and rounded to 2^-20 of it, so that sums over ``MAX_ROWS`` rows cannot
leave the ring. Parties are taken to be curious and not to change values: a wrong set of batches is found, a wrong
value of a right set is not.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from bus.codes import Code
from bus.errors import Refused, SettingsError, Unverified
from bus.policy.sharing import SharedField, SharingRule

SCALE_BITS: Final = 20
MAX_ROWS: Final = 1 << 22
"""Rows of one batch, and of one release: squares of 40 bits each stay within 62."""
SEED: Final = 32


def _numpy() -> Any:
    try:
        return importlib.import_module("numpy")
    except ModuleNotFoundError:
        hint = "pip install 'sealbus[mpc]'"
        raise SettingsError("tier COMPUTATION by mpc: numpy is not installed", hint=hint) from None


def _refuse(message: str, hint: str = "") -> Refused:
    return Refused(f"mpc: {message}", code=Code.SCHEMA, hint=hint)


@dataclass(frozen=True, slots=True)
class Summary:
    """What is known of one field: ``counts`` of ``len(edges) - 1`` bins."""

    sum: float
    mean: float
    variance: float
    edges: tuple[float, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Totals:
    """What parties released together."""

    rows: int
    fields: Mapping[str, Summary]
    groups: Mapping[str, Mapping[str, int]]


def encode_rows(rule: SharingRule, columns: Mapping[str, Any]) -> tuple[int, list[int]]:
    """Rows, and the vector of their columns (one row where a column is no sequence).

    Raises Refused (schema) for other columns, columns of different length, NaN, infinities, values outside of their
    field's range, values that are in no group.
    """
    if sorted(columns) != sorted(rule.columns):
        raise _refuse(f"expected columns {', '.join(rule.columns)}, found {', '.join(map(str, columns)) or 'none'}")
    told = {name: _listed(each) for name, each in columns.items()}
    sizes = {len(each) for each in told.values()}
    if len(sizes) != 1 or not 1 <= max(sizes) <= MAX_ROWS:
        raise _refuse(f"expected columns of one length, 1 to {MAX_ROWS}, found {sorted(sizes)}")
    (rows,) = sizes
    vector = [rows]
    for field in rule.fields:
        vector += _field(field, told[field.name])
    for name, values in rule.groups.items():
        counts = dict.fromkeys(values, 0)
        for each in told[name]:
            if not isinstance(each, str) or each not in counts:
                raise _refuse(f"{name}: expected one of {', '.join(values)}")
            counts[each] += 1
        vector += counts.values()
    return rows, vector


def _listed(column: Any) -> Sequence[Any]:
    """The values of a column; one value is a column of itself."""
    held = column.tolist() if hasattr(column, "tolist") else column
    return held if isinstance(held, Sequence) and not isinstance(held, str | bytes) else [held]


def _field(field: SharedField, values: Sequence[float]) -> list[int]:
    np = _numpy()
    if not all(isinstance(each, int | float) and not isinstance(each, bool) for each in values):
        raise _refuse(f"{field.name}: expected finite numbers")
    try:
        data = np.asarray(values, dtype=np.float64)
    except OverflowError:
        raise _refuse(f"{field.name}: expected values within {field.low:g} and {field.high:g}") from None
    if not np.isfinite(data).all():
        raise _refuse(f"{field.name}: expected finite numbers")
    if data.min() < field.low or data.max() > field.high:
        raise _refuse(
            f"{field.name}: expected values within {field.low:g} and {field.high:g}", "min and max in mesh.yaml"
        )
    width = field.high - field.low
    scaled = np.rint((data - field.low) / width * (1 << SCALE_BITS + 1)).astype(np.int64) - (1 << SCALE_BITS)
    bins = np.minimum((data - field.low) / width * field.bins, field.bins - 1).astype(np.int64)
    return [int(scaled.sum()), int((scaled * scaled).sum()), *np.bincount(bins, minlength=field.bins).tolist()]


def split(vector: Sequence[int], parties: int) -> list[bytes]:
    """A share for each party; the vector is their sum in Z_2^64."""
    np = _numpy()
    left = np.asarray(vector, dtype=np.int64).astype(np.uint64)
    seeds = [os.urandom(SEED) for _ in range(parties - 1)]
    for seed in seeds:
        left = left - _expanded(np, seed, len(vector))
    return [*(b"S" + seed for seed in seeds), b"V" + left.astype("<u8").tobytes()]


def vector_of(share: bytes, width: int) -> bytes:
    """The vector (``width`` numbers of 8 bytes, little endian) that a share stands for. Raises Unverified (share)."""
    kind, rest = share[:1], share[1:]
    if kind == b"S" and len(rest) == SEED:
        return bytes(_expanded(_numpy(), rest, width).astype("<u8").tobytes())
    if kind != b"V" or len(rest) != 8 * width:
        raise Unverified(f"share: expected {width} numbers, found {len(share)} bytes", step="share", code=Code.SCHEMA)
    return rest


def _expanded(np: Any, seed: bytes, width: int) -> Any:
    stream = Cipher(algorithms.AES256(seed), modes.CTR(bytes(16))).encryptor().update(bytes(8 * width))
    return np.frombuffer(stream, dtype="<u8").astype(np.uint64)


def add(vectors: Iterable[bytes], width: int) -> bytes:
    """The sum of vectors, in Z_2^64."""
    np = _numpy()
    total = np.zeros(width, dtype=np.uint64)
    for each in vectors:
        total = total + np.frombuffer(each, dtype="<u8")
    return bytes(total.astype("<u8").tobytes())


def totals(rule: SharingRule, released: Sequence[bytes], rows: int) -> Totals:
    """What the parties' sums come to. Raises Unverified (parties) where they do not come to ``rows`` rows: some party
    added up another set than it said."""
    np = _numpy()
    found = np.frombuffer(add(released, rule.width), dtype="<u8").astype(np.int64).tolist()
    count = found[0]
    if count != rows:
        message = f"mpc: expected sums over {rows} rows, found others: a party did not add up what it said"
        raise Unverified(message, step="parties", code=Code.PARTIES)
    at, fields, groups = 1, {}, {}
    for field in rule.fields:
        fields[field.name] = _summary(field, count, found[at : at + 2 + field.bins])
        at += 2 + field.bins
    for name, values in rule.groups.items():
        groups[name] = dict(zip(values, found[at : at + len(values)], strict=True))
        at += len(values)
    if any(sum(each.counts) != count for each in fields.values()) or any(
        sum(each.values()) != count for each in groups.values()
    ):
        raise Unverified("mpc: counts do not add up to the rows", step="parties", code=Code.PARTIES)
    return Totals(count, fields, groups)


def _summary(field: SharedField, rows: int, numbers: Sequence[int]) -> Summary:
    """Of a sum and a sum of squares over values in [-2^20, 2^20]."""
    half = (field.high - field.low) / 2
    mean, square = numbers[0] / rows / (1 << SCALE_BITS), numbers[1] / rows / (1 << 2 * SCALE_BITS)
    middle = field.low + half + mean * half
    edges = tuple(field.low + 2 * half * place / field.bins for place in range(field.bins + 1))
    variance = max(square - mean * mean, 0.0) * half * half
    return Summary(middle * rows, middle, variance, edges, tuple(numbers[2:]))
