"""What was polled, as columns per partition, cut where a transaction is full. Each message is looked at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Message

from bus.kafka.transaction import Place

OVERHEAD = 64
"""Bytes that a record counts for beside its value."""


@dataclass(slots=True)
class Records:
    """Consecutive records of one partition. ``times`` are the broker's append times in ms since 1970.

    ``foreign`` holds offsets of records that no agent of this bus writes: a Kafka key, headers or no append time.
    """

    values: list[bytes] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    foreign: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Batch:
    """Records by partition; ``size`` in bytes, as it counts for a transaction."""

    records: dict[Place, Records] = field(default_factory=dict)
    size: int = 0


def batches(messages: Iterable[Message], limit: int, on_error: Callable[[Message], None]) -> Iterator[Batch]:
    """``messages`` cut where a transaction of ``limit`` bytes is full: one poll may return all that was prefetched."""
    batch = Batch()
    size = 0
    last: tuple[str | None, int | None] = (None, None)
    for message in messages:
        if message.error() is not None:
            on_error(message)
            continue
        place = message.topic(), message.partition()
        if place != last:
            last = place
            records = batch.records.setdefault((place[0] or "", place[1] or 0), Records())
        value = message.value() or b""
        kind, time = message.timestamp()
        offset = message.offset() or 0
        records.values.append(value)
        records.times.append(time)
        records.offsets.append(offset)
        if kind != TIMESTAMP_LOG_APPEND_TIME or time < 0 or message.key() is not None or message.headers():
            records.foreign.append(offset)
        size += len(value) + OVERHEAD
        if size >= limit:
            batch.size = size
            yield batch
            batch, size, last = Batch(), 0, (None, None)
    batch.size = size
    yield batch
