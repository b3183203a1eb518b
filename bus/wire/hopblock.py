"""Framing of a hop block: the hops of one transaction over an interval of one partition, sealed and signed.

The interval [from, to) is of input offsets. At most 512 KiB. The body is opened with a key of root(audit, day); see
schemas/hop_block.v1.avsc.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bus.codes import Code
from bus.errors import WireError
from bus.wire import codec
from bus.wire.schemas import schema

SUITE: Final = (1).to_bytes(2, "big")
MARK: Final = schema("hop_block").head
MAX_BODY: Final = 512 * 1024 - 512
MAX_VALUE: Final = 512 * 1024
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class HopBlock:
    """A framed, unverified hop block. ``header`` is every byte before the body, ``signed`` all before the signature."""

    day: int
    enforcer_key_id: bytes
    instance: bytes
    sequence: int
    partition: int
    start: int
    end: int
    count: int
    topic: str
    header: bytes
    body: bytes
    signed: bytes
    signature: bytes


def header(
    *,
    day: int,
    enforcer_key_id: bytes,
    instance: bytes,
    sequence: int,
    partition: int,
    start: int,
    end: int,
    count: int,
    topic: str,
) -> bytes:
    """Every byte before the body's length; ``start`` and ``end`` are the interval [from, to) of input offsets."""
    return b"".join(
        (
            MARK,
            SUITE,
            day.to_bytes(4, "big"),
            enforcer_key_id,
            instance,
            sequence.to_bytes(8, "big"),
            partition.to_bytes(4, "big"),
            start.to_bytes(8, "big"),
            end.to_bytes(8, "big"),
            count.to_bytes(4, "big"),
            codec.text(topic),
        )
    )


def parse(value: bytes) -> HopBlock:
    """Slice ``value``. Raises WireError: bounds or version."""
    codec.check_marker(schema("hop_block"), value)
    if len(value) > MAX_VALUE or len(value) < 150:
        raise WireError(f"hop block: expected 150 to {MAX_VALUE} bytes, found {len(value)}")
    if value[10:12] != SUITE:
        raise WireError(f"hop block: expected suite 1, found {value[10:12].hex()}", code=Code.VERSION)
    topic_bytes, at = codec.read_prefixed(value, 80, 249)
    try:
        topic = topic_bytes.decode()
    except UnicodeDecodeError:
        raise WireError("hop block: its topic is not UTF-8") from None
    body, end = codec.read_prefixed(value, at, MAX_VALUE)
    if len(value) != end + 64:
        raise WireError("hop block: expected a signature of 64 bytes at the end")
    return HopBlock(
        day=int.from_bytes(value[12:16], "big"),
        enforcer_key_id=value[16:32],
        instance=value[32:48],
        sequence=int.from_bytes(value[48:56], "big"),
        partition=int.from_bytes(value[56:60], "big"),
        start=int.from_bytes(value[60:68], "big"),
        end=int.from_bytes(value[68:76], "big"),
        count=int.from_bytes(value[76:80], "big"),
        topic=topic,
        header=value[:at],
        body=body,
        signed=value[:end],
        signature=value[end:],
    )


def join_hops(hops: list[bytes]) -> bytes:
    """Each hop behind its length (uint32)."""
    return b"".join([part for hop in hops for part in (len(hop).to_bytes(4, "big"), hop)])


def split_hops(body: bytes, count: int) -> list[bytes]:
    """The ``count`` hops of an opened body. Raises WireError(decode) where count or lengths are wrong."""
    hops = []
    at = 0
    while at < len(body):
        end = at + 4 + int.from_bytes(body[at : at + 4], "big")
        if end > len(body) or end == at + 4:
            raise WireError("hop block: a hop's length is over the body", code=Code.DECODE)
        hops.append(body[at + 4 : end])
        at = end
    if len(hops) != count:
        raise WireError(f"hop block: expected {count} hops, found {len(hops)}", code=Code.DECODE)
    return hops
