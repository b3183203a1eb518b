"""The enforcer's smaller records: dead letters, windows, notices and their verdicts.

Each has a typed form, an ``encode`` and a ``parse`` that refuses anything but canonical bytes. Sealing and signing are
``bus.crypto``'s; bytes that those cover are in ``bus.wire.preimage``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bus.codes import Code
from bus.errors import WireError
from bus.wire import codec, hop
from bus.wire.schemas import schema

SUITE: Final = (1).to_bytes(2, "big")
SIGNATURE_LENGTH: Final = 64
MAX_WINDOW_ENTRIES: Final = 4000
MAX_LIMIT_ENTRIES: Final = 400
"""Entries of one window record: 4,000 x 171 bytes stays under the broker's 1 MiB."""
MAX_BITMAP: Final = 128
MAX_FAILURES: Final = 8 * 64
"""Bytes of the times of refusals of one limit."""
MAX_WINDOW: Final = 1_000_000


def _u(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _suite(name: str, value: dict[str, bytes]) -> None:
    if value["suite"] != SUITE:
        raise WireError(f"{name}: expected suite 1, found {_u(value['suite'])}", code=Code.VERSION)


@dataclass(frozen=True, slots=True)
class DeadBody:
    """The sealed body of a dead letter: which root opens it, and the ciphertext."""

    epoch: int
    instance: bytes
    sequence: int
    body: bytes


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A refused record. Position is that of the input; time in ms since 1970."""

    offset: int
    append_time: int
    origin_digest: bytes
    code: Code
    sealed: DeadBody | None = None

    def encode(self) -> bytes:
        """The record's value."""
        sealed = None
        if self.sealed is not None:
            sealed = {
                "epoch": self.sealed.epoch.to_bytes(8, "big"),
                "instance": self.sealed.instance,
                "sequence": self.sealed.sequence.to_bytes(8, "big"),
                "body": self.sealed.body,
            }
        kind = schema("dead_letter")
        return kind.head + codec.encode(
            kind,
            {
                "suite": SUITE,
                "offset": self.offset.to_bytes(8, "big"),
                "append_time": self.append_time.to_bytes(8, "big"),
                "origin_digest": self.origin_digest,
                "code": self.code.value,
                "sealed": sealed,
            },
        )


def parse_dead_letter(data: bytes) -> DeadLetter:
    """A dead letter from its value. Raises WireError."""
    value = codec.decode_marked(schema("dead_letter"), data)
    _suite("dead letter", value)
    sealed = value["sealed"]
    return DeadLetter(
        offset=_u(value["offset"]),
        append_time=_u(value["append_time"]),
        origin_digest=value["origin_digest"],
        code=codec.registered_code(value["code"], "dead letter"),
        sealed=sealed and DeadBody(_u(sealed["epoch"]), sealed["instance"], _u(sealed["sequence"]), sealed["body"]),
    )


@dataclass(frozen=True, slots=True)
class WindowEntry:
    """The window of one instance: bit i of ``bitmap`` says that sequence ``highest - i`` was seen."""

    key_id: bytes
    instance: bytes
    highest: int
    bitmap: int


@dataclass(frozen=True, slots=True)
class LimitEntry:
    """A rate's bucket or a circuit breaker by its name; ``tokens`` in millionths, times in ms since 1970."""

    name: str
    tokens: int
    at: int
    failures: tuple[int, ...] = ()
    opened: int = 0


@dataclass(frozen=True, slots=True)
class Window:
    """Windows of one input partition up to (not including) input offset ``upto``; ``signed`` is what is signed."""

    enforcer_key_id: bytes
    upto: int
    highest_time: int
    part: int
    parts: int
    snapshot: bool
    entries: tuple[WindowEntry, ...]
    limits: tuple[LimitEntry, ...] = ()
    signed: bytes = b""
    signature: bytes = b""

    def encode_unsigned(self) -> bytes:
        """The value without its signature, which follows it."""
        kind = schema("window")
        data = codec.encode(
            kind,
            {
                "suite": SUITE,
                "enforcer_key_id": self.enforcer_key_id,
                "upto": self.upto.to_bytes(8, "big"),
                "highest_time": self.highest_time.to_bytes(8, "big"),
                "part": self.part.to_bytes(4, "big"),
                "parts": self.parts.to_bytes(4, "big"),
                "kind": "SNAPSHOT" if self.snapshot else "DELTA",
                "entries": [
                    {
                        "key_id": each.key_id,
                        "instance": each.instance,
                        "highest": each.highest.to_bytes(8, "big"),
                        "bitmap": each.bitmap.to_bytes((each.bitmap.bit_length() + 7) // 8, "big"),
                    }
                    for each in self.entries
                ],
                "limits": [
                    {
                        "name": each.name,
                        "tokens": each.tokens.to_bytes(8, "big"),
                        "at": each.at.to_bytes(8, "big"),
                        "failures": b"".join(time.to_bytes(8, "big") for time in each.failures),
                        "opened": each.opened.to_bytes(8, "big"),
                    }
                    for each in self.limits
                ],
                "signature": bytes(SIGNATURE_LENGTH),
            },
        )
        return kind.head + data[:-SIGNATURE_LENGTH]


def parse_window(data: bytes) -> Window:
    """A framed, unverified window record. Raises WireError."""
    if len(data) > MAX_WINDOW:
        raise WireError(f"window: expected at most {MAX_WINDOW} bytes, found {len(data)}")
    value = codec.decode_marked(schema("window"), data)
    _suite("window", value)
    if any(len(each["bitmap"]) > MAX_BITMAP or each["bitmap"][:1] == b"\0" for each in value["entries"]):
        raise WireError("window: a bitmap is too long or begins with a zero", code=Code.DECODE)
    if any(len(each["failures"]) % 8 or len(each["failures"]) > MAX_FAILURES for each in value["limits"]):
        raise WireError("window: times of refusals are cut or too many", code=Code.DECODE)
    return Window(
        enforcer_key_id=value["enforcer_key_id"],
        upto=_u(value["upto"]),
        highest_time=_u(value["highest_time"]),
        part=_u(value["part"]),
        parts=_u(value["parts"]),
        snapshot=value["kind"] == "SNAPSHOT",
        entries=tuple(
            WindowEntry(each["key_id"], each["instance"], _u(each["highest"]), _u(each["bitmap"]))
            for each in value["entries"]
        ),
        limits=tuple(
            LimitEntry(
                each["name"],
                _u(each["tokens"]),
                _u(each["at"]),
                tuple(_u(each["failures"][at : at + 8]) for at in range(0, len(each["failures"]), 8)),
                _u(each["opened"]),
            )
            for each in value["limits"]
        ),
        signed=data[:-SIGNATURE_LENGTH],
        signature=value["signature"],
    )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a notice tells the source of a record."""

    instance: bytes
    partition: int
    sequence: int
    message_id: bytes
    decided_at: int
    decision_id: bytes
    decision: hop.Verdict
    code: Code
    rule: str
    hint: str = ""
    obligations: tuple[str, ...] = ()

    def encode(self) -> bytes:
        """The plaintext of a notice's body."""
        return codec.encode(
            schema("verdict"),
            {
                "instance": self.instance,
                "partition": self.partition.to_bytes(4, "big"),
                "sequence": self.sequence.to_bytes(8, "big"),
                "message_id": self.message_id,
                "decided_at": self.decided_at.to_bytes(8, "big"),
                "decision_id": self.decision_id,
                "decision": self.decision.value,
                "code": self.code.value,
                "rule": self.rule,
                "hint": self.hint,
                "obligations": list(self.obligations),
            },
        )


def parse_verdict(data: bytes) -> Verdict:
    """A verdict from the plaintext of a notice. Raises WireError."""
    value = codec.decode(schema("verdict"), data)
    return Verdict(
        instance=value["instance"],
        partition=_u(value["partition"]),
        sequence=_u(value["sequence"]),
        message_id=value["message_id"],
        decided_at=_u(value["decided_at"]),
        decision_id=value["decision_id"],
        decision=hop.Verdict(value["decision"]),
        code=codec.registered_code(value["code"], "verdict"),
        rule=value["rule"],
        hint=value["hint"],
        obligations=tuple(value["obligations"]),
    )


def notice_header(key_id: bytes, instance: bytes, sequence: int) -> bytes:
    """Every byte of a notice before its body's length."""
    return schema("notice").head + SUITE + key_id + instance + sequence.to_bytes(8, "big")


@dataclass(frozen=True, slots=True)
class Notice:
    """A framed notice, unopened."""

    key_id: bytes
    instance: bytes
    sequence: int
    header: bytes
    body: bytes


def parse_notice(data: bytes) -> Notice:
    """A notice from its value. Raises WireError."""
    value = codec.decode_marked(schema("notice"), data)
    _suite("notice", value)
    return Notice(value["key_id"], value["instance"], _u(value["sequence"]), data[:52], value["body"])
