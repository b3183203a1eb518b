"""Fetches the records that are to be kept with their hops from the input topics; one batch a call, between two others.

Sealed bytes alone, and their SHA-256 must be the hop's. A hop is stored whether its record can be had or not: what
cannot be read now stays wanted in the ledger, and what is gone is named there. A deployment that keeps no records has
no consumer here.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from bus.admin.desired import AUDITOR
from bus.kafka.config import FETCH_WAIT_MS, Connection
from bus.kafka.transaction import Place
from bus.ledger.payloads import Lost, Wanted
from bus.ledger.store import Ledger
from bus.wire.names import domain_of

log = logging.getLogger("bus.audit")
FETCH_S = 2.0
"""How long hops wait at most while records are fetched."""
PAUSE_S = 10.0
"""How long a partition is left alone of which nothing could be read."""
TIMEOUT = 5.0
QUEUED_KIB = 4096
"""What librdkafka reads ahead of a partition; a batch is ``payloads.MAX_TAKEN_BYTES``."""
GONE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)
WITHHELD = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: Lost.REFUSED,
    KafkaError.UNKNOWN_TOPIC_OR_PART: Lost.DELETED,
}
Outcome = tuple[Wanted, bytes | Lost]


class Keeper:
    """``permitted`` says whether the newest policy has a domain's records kept; ``settled`` is told what was kept, what
    was lost, and what is still wanted. Called from one thread."""

    def __init__(
        self,
        connection: Connection,
        ledger: Ledger,
        permitted: Callable[[str], bool],
        settled: Callable[[int, int, int], None] = lambda *_: None,
    ) -> None:
        self._connection = connection
        self._ledger = ledger
        self._permitted = permitted
        self._settled = settled
        self._consumer: Consumer | None = None
        self._away: dict[Place, float] = {}

    def keep(self) -> bool:
        """Fetch and store one batch. Returns whether there is more to do at once."""
        now = time.monotonic()
        self._away = {place: until for place, until in self._away.items() if now < until}
        records = self._ledger.wanted(self._away)
        if not records:
            return False
        outcomes = list(self._fetch(records))
        kept = [(each, told) for each, told in outcomes if not isinstance(told, Lost)]
        lost = [(each, told) for each, told in outcomes if isinstance(told, Lost)]
        for each, why in lost:
            log.error("%s/%d at %d: its record is not kept: %s", each.topic, each.partition, each.offset, why)
        self._ledger.keep(kept, lost)
        self._settled(len(kept), len(lost), self._ledger.waiting())
        # A place that gave nothing cannot be read now: records of others do not wait for it.
        away = {each[:2] for each in records} - {each[:2] for each, _ in outcomes}
        self._away |= dict.fromkeys(away, time.monotonic() + PAUSE_S)
        return bool(outcomes)

    def close(self) -> None:
        """Leave the topics."""
        if self._consumer is not None:
            self._consumer.close()

    def _fetch(self, records: list[Wanted]) -> Iterator[Outcome]:
        """Outcomes of ``records``, as far as they can be had in FETCH_S."""
        queues: dict[Place, deque[Wanted]] = {}
        for each in records:
            queues.setdefault((each.topic, each.partition), deque()).append(each)
        consumer = self._open()
        consumer.assign([TopicPartition(*place, queue[0].offset) for place, queue in queues.items()])
        deadline = time.monotonic() + FETCH_S
        while queues and time.monotonic() < deadline:
            for message in consumer.consume(len(records), 0.1):
                place = (message.topic() or "", message.partition() or 0)
                if (queue := queues.get(place)) is None:
                    continue
                error = message.error()
                if error is None:
                    yield from settle(queue, message.offset() or 0, message.value() or b"")
                    if not queue:
                        del queues[place]
                        consumer.incremental_unassign([TopicPartition(*place)])
                elif error.code() in GONE:
                    del queues[place]
                    yield from _deleted(consumer, queue)
                else:
                    log.debug("%s/%d: %s", *place, error)  # librdkafka mends it
            self._connection.check()
        consumer.unassign()
        yield from self._withheld(consumer, queues.values())

    def _withheld(self, consumer: Consumer, queues: Iterable[deque[Wanted]]) -> Iterator[Outcome]:
        """Those of topics that the newest policy gives no right to any more: librdkafka waits for one in silence."""
        for queue in queues:
            topic = queue[0].topic
            if self._permitted(domain_of(topic)):
                log.warning("%s/%d at %d cannot be read now", topic, queue[0].partition, queue[0].offset)
                continue
            try:
                error = consumer.list_topics(topic, timeout=TIMEOUT).topics[topic].error
            except KafkaException as failure:
                log.warning("%s: whether it can be read is not known: %s", topic, failure)
                continue
            if error is not None and error.code() in WITHHELD:
                yield from ((each, WITHHELD[error.code()]) for each in queue)

    def _open(self) -> Consumer:
        if self._consumer is None:
            config = self._connection.config(
                group_id=AUDITOR,
                enable_auto_commit=False,
                isolation_level="read_committed",
                auto_offset_reset="error",
                fetch_wait_max_ms=FETCH_WAIT_MS,
                queued_max_messages_kbytes=QUEUED_KIB,
            )
            self._consumer = Consumer(config)
        return self._consumer


def settle(queue: deque[Wanted], offset: int, value: bytes) -> Iterator[Outcome]:
    """What the record ``value`` at ``offset`` says of the first of ``queue``, which it takes out. Pure."""
    while queue and queue[0].offset <= offset:
        each = queue.popleft()
        if each.offset < offset:
            yield each, Lost.DELETED
        else:
            yield each, value if hashlib.sha256(value).digest() == each.digest else Lost.CHANGED


def _deleted(consumer: Consumer, queue: deque[Wanted]) -> Iterator[Outcome]:
    """Those that lie before the beginning of the log, or behind its end: it was cut."""
    topic, partition = queue[0].topic, queue[0].partition
    try:
        first, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT, cached=False)
    except KafkaException as error:
        log.warning("%s/%d: its ends cannot be read now: %s", topic, partition, error)
        return
    yield from ((each, Lost.DELETED) for each in queue if not first <= each.offset < end)
