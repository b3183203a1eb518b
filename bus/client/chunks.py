"""Payloads of more than one record: cut by the publisher, put together by the subscriber, all or nothing. Pure.

The parts of a message stand in one partition, in their order, among records of others; the first one's message id is
the message's, and names the group. Until the last part is there nothing of it is delivered, and the subscriber's stored
place stays before the first: after a restart the parts are read again, and nothing else of what was acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from bus.client.delivery import Delivery
from bus.codes import Code
from bus.errors import BusError, Refused, TooLarge, Unverified
from bus.wire.envelope import Chunk

MAX_CHUNKS: Final = 1024
MAX_MESSAGE: Final = 60_000_000
"""Bytes of a message in parts."""
MAX_GROUPS: Final = 16
"""Unfinished messages of one source and partition; its oldest is given up for one more."""
MAX_HELD: Final = 128 * 1024 * 1024
"""Bytes of the unfinished messages of one source and partition; its oldest are given up beyond it."""
PATIENCE_MS: Final = 120_000
"""How far the log may go on behind the first part: a publisher sends them one after the other."""


def cut(payload: bytes, limit: int, group: bytes) -> list[tuple[bytes, Chunk | None]]:
    """``payload`` in parts of at most ``limit`` bytes. Raises TooLarge beyond what ``MAX_CHUNKS`` of them hold."""
    if len(payload) <= limit:
        return [(payload, None)]
    count, most = -(-len(payload) // limit), min(limit * MAX_CHUNKS, MAX_MESSAGE)
    if len(payload) > most:
        raise TooLarge(f"payload: expected at most {most} bytes, found {len(payload)}", limit=most)
    return [(payload[number * limit : (number + 1) * limit], Chunk(group, number, count)) for number in range(count)]


@dataclass(slots=True)
class _Group:
    """What is there of one message."""

    head: Delivery
    began_ms: int
    count: int
    parts: list[bytes]
    size: int


class Assembler:
    """Unfinished messages of one partition, by source and group, in the order of their first parts."""

    def __init__(self) -> None:
        self._groups: dict[str, dict[bytes, _Group]] = {}

    def take(self, part: Delivery, append_ms: int, *, again: bool = False) -> Delivery | None:
        """The message that ``part`` ends, or None: a message in one record ends itself.

        ``again``: it is read a second time, for the sake of others. Raises Unverified for a part that does not follow
        those that are held; nothing of its message is held any more.
        """
        chunk = part.chunk
        if chunk is None:
            return part
        groups = self._groups.setdefault(part.source, {})
        held = groups.get(chunk.group)
        if held is None:
            if again and chunk.index:
                return None  # its message ended before the place that was stored
            if chunk.index or part.message_id != chunk.group or not 2 <= chunk.count <= MAX_CHUNKS:
                raise Unverified(f"chunk: expected the first part of a message, found {_of(chunk)}", step="chunk")
            held = groups[chunk.group] = _Group(part, append_ms, chunk.count, [], 0)
        told = (len(held.parts), held.count, _same(held.head))
        if (chunk.index, chunk.count, _same(part)) != told:
            del groups[chunk.group]
            expected = f"{len(held.parts)} of {held.count} of the same message"
            raise Unverified(f"chunk: expected {expected}, found {_of(chunk)}", step="chunk")
        held.parts.append(part.payload)
        held.size += len(part.payload)
        if len(held.parts) < held.count:
            return None
        del groups[chunk.group]
        return replace(held.head, payload=b"".join(held.parts), place=part.place, chunk=None)

    def give_up(self, append_ms: int) -> list[BusError]:
        """Forget messages whose rest did not come in time, or of which a source has too many; what is told of each.

        ``append_ms`` is the time that the log has reached.
        """
        told: list[BusError] = []
        for source, groups in list(self._groups.items()):
            size = sum(each.size for each in groups.values())
            for group, each in list(groups.items()):  # at most MAX_GROUPS and one: it is asked after each record
                late = append_ms - each.began_ms > PATIENCE_MS
                if not (late or size > MAX_HELD or len(groups) > MAX_GROUPS):
                    break
                size -= each.size
                del groups[group]
                message = f"message of {source}: {len(each.parts)} of its {each.count} parts came"
                told.append(Refused(message, code=Code.INCOMPLETE, message_id=str(each.head.id)))
            if not groups:
                del self._groups[source]
        return told

    def floor(self) -> int | None:
        """Offset of the first part of the oldest unfinished message."""
        firsts = (next(iter(groups.values())) for groups in self._groups.values() if groups)
        return min((each.head.place[1] for each in firsts), default=None)


def _same(part: Delivery) -> tuple[object, ...]:
    """What parts of one message have alike. Masked metadata may differ: keys and masks may change between two parts."""
    profile = part.profile
    return profile.domain, profile.kind, profile.target, profile.content_type, profile.protect_at, part.correlation


def _of(chunk: Chunk) -> str:
    return f"{chunk.index} of {chunk.count}"
