"""Hops: one decision on one input record (schemas/hop.v1.avsc), and the decision id that names it.

The fields that are the same for all of an agent's records under one decision are one run of bytes at the end
(``encode_tail``), so that a hop is a join of slices; ``decode_hop`` reads it whole, ``HopReader`` where runs repeat.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from bus.codes import Code
from bus.errors import WireError
from bus.wire import codec
from bus.wire.envelope import NO_MESSAGE_ID
from bus.wire.schemas import schema

DECISION_ID_LENGTH: Final = 10
MAX_GAP: Final = 2**32 - 1
NO_DIGEST: Final = bytes(32)
NO_INSTANCE: Final = bytes(16)
MESSAGE_ID_LENGTH: Final = 16
FIXED: Final = 10 + 32 + 32 + 16 + 16 + 8 + 4 + 8 + 8 + 8 + 4 + 4
"""Bytes before the correlation id."""
MAX_TAILS: Final = 4096
MAX_CACHED_TAIL: Final = 4096
"""Bytes; a longer constant run is decoded each time, so that what is remembered is bounded."""


class Verdict(StrEnum):
    """What was decided. RETRY marks an event of a partition (pause, resume, clock, start), never a record's outcome."""

    ALLOW = "ALLOW"
    DENY = "DENY"
    RETRY = "RETRY"


def decision_id(origin_digest: bytes) -> str:
    """The printed decision id: base32 of the first 10 bytes of the origin digest, 16 lower-case characters."""
    return base64.b32encode(origin_digest[:DECISION_ID_LENGTH]).decode().lower()


def parse_decision_id(text: str) -> bytes:
    """The 10 bytes behind a printed decision id. Raises WireError(decode)."""
    try:
        data = base64.b32decode(text.strip().encode("ascii").upper())
    except ValueError as error:
        raise WireError(f"decision id: expected 16 base32 characters, found {text!r}", code=Code.DECODE) from error
    if len(data) != DECISION_ID_LENGTH:
        raise WireError(f"decision id: expected 16 base32 characters, found {text!r}", code=Code.DECODE)
    return data


@dataclass(frozen=True, slots=True)
class HopTail:
    """The fields that a decision fixes for every record it covers."""

    topic: str
    decision: Verdict
    code: Code
    rule: str
    location: str
    snapshot: int
    policy_digest: bytes
    agent: str = ""
    tenant: str = ""
    zone: str = ""
    domain: str = ""
    epoch: int = 0
    kind: str = ""
    tool: str = ""
    target: str = ""
    purpose: str = ""
    labels: tuple[str, ...] = ()
    metadata_keys: tuple[str, ...] = ()
    on_behalf_of: bytes = b""
    delegation: bytes = b""
    guardrails: tuple[tuple[str, str, int], ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    breaker: str = ""
    reopens: bytes = b""


@dataclass(frozen=True, slots=True)
class Hop:
    """A decoded hop. Digests 32 bytes, ids as on the wire, times in ms since 1970, sizes in bytes."""

    origin_digest: bytes
    output_digest: bytes
    message_id: bytes
    instance: bytes
    sequence: int
    partition: int
    offset: int
    append_time: int
    decided_at: int
    gap: int
    size: int
    correlation_id: str
    causation_ids: tuple[bytes, ...]
    tail: HopTail

    @property
    def decision_id(self) -> str:
        """The printed decision id."""
        return decision_id(self.origin_digest)


def encode_tail(tail: HopTail) -> bytes:
    """The constant run of a hop, from ``topic`` to ``reopens``."""
    record = {
        **_EMPTY,
        "topic": tail.topic,
        "decision": tail.decision.value,
        "code": tail.code.value,
        "rule": tail.rule,
        "location": tail.location,
        "snapshot": tail.snapshot,
        "policy_digest": tail.policy_digest,
        "agent": tail.agent,
        "tenant": tail.tenant,
        "zone": tail.zone,
        "domain": tail.domain,
        "epoch": tail.epoch,
        "kind": tail.kind,
        "tool": tail.tool,
        "target": tail.target,
        "purpose": tail.purpose,
        "labels": list(tail.labels),
        "metadata_keys": list(tail.metadata_keys),
        "on_behalf_of": tail.on_behalf_of,
        "delegation": tail.delegation,
        "guardrails": [dict(zip(("guardrail", "type", "count"), each, strict=True)) for each in tail.guardrails],
        "facts": dict(sorted(tail.facts.items())),
        "breaker": tail.breaker,
        "reopens": tail.reopens,
    }
    return codec.encode(schema("hop"), record)[len(_FIXED_ZEROS) :]


def encode_hop(
    *,
    origin_digest: bytes,
    output_digest: bytes,
    message_id: bytes,
    instance_sequence: bytes,
    partition: int,
    offset: int,
    append_time: int,
    decided_at: int,
    gap: int,
    size: int,
    session: bytes,
    causes: bytes,
    tail: bytes,
) -> bytes:
    """A hop from its parts: ``session`` = raw correlation id (at most 63 bytes), ``causes`` = its encoded array."""
    return b"".join(
        (
            origin_digest[:DECISION_ID_LENGTH],
            origin_digest,
            output_digest,
            message_id,
            instance_sequence,
            partition.to_bytes(4, "big"),
            offset.to_bytes(8, "big"),
            append_time.to_bytes(8, "big"),
            decided_at.to_bytes(8, "big"),
            min(gap, MAX_GAP).to_bytes(4, "big"),
            size.to_bytes(4, "big"),
            bytes((len(session) << 1,)),
            session,
            causes,
            tail,
        )
    )


def decode_hop(data: bytes) -> Hop:
    """A hop from its canonical bytes. Raises WireError(decode)."""
    value = codec.decode(schema("hop"), data)

    def number(name: str) -> int:
        return int.from_bytes(value[name], "big")

    if value["decision_id"] != value["origin_digest"][:DECISION_ID_LENGTH]:
        raise WireError("hop: decision id does not begin its origin digest", code=Code.DECODE)
    if list(value["facts"]) != sorted(value["facts"]):
        raise WireError("hop: facts not in order", code=Code.DECODE)
    return Hop(
        origin_digest=value["origin_digest"],
        output_digest=value["output_digest"],
        message_id=value["message_id"],
        instance=value["instance"],
        sequence=number("sequence"),
        partition=number("partition"),
        offset=number("offset"),
        append_time=number("append_time"),
        decided_at=number("decided_at"),
        gap=number("gap"),
        size=number("size"),
        correlation_id=value["correlation_id"],
        causation_ids=tuple(value["causation_ids"]),
        tail=HopTail(
            topic=value["topic"],
            decision=Verdict(value["decision"]),
            code=codec.registered_code(value["code"], "hop"),
            rule=value["rule"],
            location=value["location"],
            snapshot=value["snapshot"],
            policy_digest=value["policy_digest"],
            agent=value["agent"],
            tenant=value["tenant"],
            zone=value["zone"],
            domain=value["domain"],
            epoch=value["epoch"],
            kind=value["kind"],
            tool=value["tool"],
            target=value["target"],
            purpose=value["purpose"],
            labels=tuple(value["labels"]),
            metadata_keys=tuple(value["metadata_keys"]),
            on_behalf_of=value["on_behalf_of"],
            delegation=value["delegation"],
            guardrails=tuple((each["guardrail"], each["type"], each["count"]) for each in value["guardrails"]),
            facts=value["facts"],
            breaker=value["breaker"],
            reopens=value["reopens"],
        ),
    )


class HopReader:
    """Reads hops whose constant runs repeat, each of which is decoded once: ``decode_hop``, sooner.

    Only what ``decode_hop`` accepted is remembered, and whatever does not slice plainly goes to it.
    """

    __slots__ = ("_tails",)

    def __init__(self) -> None:
        self._tails: dict[bytes, HopTail] = {}

    def read(self, data: bytes) -> Hop:
        """A hop from its canonical bytes. Raises WireError(decode)."""
        try:
            session, start = codec.read_prefixed(data, FIXED, len(data))
            correlation_id = session.decode()
            causation_ids, at = _read_causes(data, start)
        except (WireError, UnicodeDecodeError):
            return decode_hop(data)  # which says what is wrong
        tail = self._tails.get(data[at:])
        if tail is None:
            hop = decode_hop(data)
            if len(data) - at <= MAX_CACHED_TAIL:
                if len(self._tails) >= MAX_TAILS:
                    self._tails.clear()
                self._tails[data[at:]] = hop.tail
            return hop
        if data[:DECISION_ID_LENGTH] != data[DECISION_ID_LENGTH : 2 * DECISION_ID_LENGTH]:
            return decode_hop(data)
        sequence, partition, offset, append_time, decided_at, gap, size = _NUMBERS.unpack_from(data, 106)
        return Hop(
            data[10:42],
            data[42:74],
            data[74:90],
            data[90:106],
            sequence,
            partition,
            offset,
            append_time,
            decided_at,
            gap,
            size,
            correlation_id,
            causation_ids,
            tail,
        )


def tail_start(data: bytes) -> int:
    """Where the constant run of a hop that ``decode_hop`` accepts begins."""
    return _read_causes(data, codec.read_prefixed(data, FIXED, len(data))[1])[1]


def _read_causes(data: bytes, at: int) -> tuple[tuple[bytes, ...], int]:
    """Causation ids behind their number, and the place after them: one Avro block, or none. Raises WireError."""
    count, start = codec.read_length(data, at)
    if not count:
        return (), start
    end = start + count * MESSAGE_ID_LENGTH
    if data[end : end + 1] != b"\x00":
        raise WireError("hop: causation ids do not end", code=Code.DECODE)
    return tuple(data[each : each + MESSAGE_ID_LENGTH] for each in range(start, end, MESSAGE_ID_LENGTH)), end + 1


_EMPTY: Final[dict[str, Any]] = {
    "decision_id": bytes(10),
    "origin_digest": NO_DIGEST,
    "output_digest": NO_DIGEST,
    "message_id": NO_MESSAGE_ID,
    "instance": NO_INSTANCE,
    "sequence": bytes(8),
    "partition": bytes(4),
    "offset": bytes(8),
    "append_time": bytes(8),
    "decided_at": bytes(8),
    "gap": bytes(4),
    "size": bytes(4),
    "correlation_id": "",
    "causation_ids": [],
}
_NUMBERS: Final = struct.Struct(">QIQQQII")
_FIXED_ZEROS: Final = bytes(FIXED + 1 + 1)
