"""Subscribe: a background poll that verifies and opens, a bounded queue, and a place that survives restarts.

The place is (offset, index into the bundle): it rides in the committed offset's metadata with the highest sequence per
enforcer instance, and with where to begin again for the parts of a message that had not ended there. A delivery counts
as acknowledged when the next one is asked for (or its handler returned). The handler may run for minutes: polling goes
on with partitions paused.
"""

from __future__ import annotations

import functools
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from bus.client.chunks import Assembler
from bus.client.delivery import Delivery
from bus.client.keystore import KeyStore
from bus.client.opening import Profiles, open_bundle
from bus.client.source import Opened
from bus.client.sourceguard import Fields
from bus.codes import Code
from bus.crypto.signing import KnownTrust, Trust
from bus.errors import BusError, Refused, RetryLater, Unavailable
from bus.kafka.config import ACL_ERRORS, FETCH_WAIT_MS, Connection
from bus.policy.model import DomainPolicy
from bus.wire.names import AgentId, DomainName, domain_topics

log = logging.getLogger("bus.client")

MAX_INFLIGHT: Final = 1000
MAX_WAITING: Final = 64 * 1024 * 1024
"""Bytes of payloads that wait to be handed out; one message may be larger."""
COMMIT_S: Final = 0.2
MAX_INSTANCES: Final = 32
"""Enforcer instances whose highest sequence rides in the metadata: the newest; older ones are beyond the 60 s rule."""


@dataclass(slots=True)
class _Place:
    """Progress on one partition."""

    offset: int
    index: int = 0
    sequences: dict[str, int] = field(default_factory=dict)
    committed: tuple[int, int] = (-1, 0)
    floor: int | None = None
    """Offset of the first part of the oldest message that had not ended there: read again from it after a restart."""

    @property
    def start(self) -> int:
        """Where to begin to read."""
        return self.offset if self.floor is None else min(self.floor, self.offset)

    def metadata(self) -> str:
        newest = dict(list(self.sequences.items())[-MAX_INSTANCES:])
        floor = {} if self.floor is None else {"f": self.floor}
        return json.dumps({"i": self.index, "s": newest, **floor}, separators=(",", ":"))

    def read(self, metadata: str) -> None:
        """Take what ``metadata`` wrote. Raises ValueError, KeyError, TypeError or AttributeError for anything else."""
        document = json.loads(metadata)
        index, sequences, floor = int(document["i"]), dict(document["s"].items()), document.get("f")
        self.sequences = {str(name): int(number) for name, number in sequences.items()}
        self.index, self.floor = index, None if floor is None else max(int(floor), 0)


@dataclass(frozen=True, slots=True)
class _Item:
    """A delivery with the place that follows it; without a delivery it only moves the place."""

    generation: int
    partition: int
    next_offset: int
    next_index: int
    delivery: Delivery | None
    floor: int | None
    """Offset of the first part of the oldest message that has not ended by here."""
    bundle: tuple[str, int] | None = None
    """(enforcer instance, sequence) where this is the bundle's last: acknowledged with it."""


@dataclass(frozen=True, slots=True)
class Observing:
    """Reading beside the agent's group, which joins nothing and stores no place: from these places, by partition, and
    else from the beginning, or with ``new`` what comes from now on.

    A place: the offset, and the highest sequence of each enforcer instance before it.
    """

    places: Mapping[int, tuple[int, Mapping[str, int]]] = field(default_factory=dict)
    new: bool = False


class Subscriber:
    """Deliveries of one domain to one agent (its consumer group is its own id)."""

    def __init__(
        self,
        connection: Connection,
        keys: KeyStore,
        agent: AgentId,
        domain: DomainName,
        trust: Callable[[], Trust],
        law: Callable[[], DomainPolicy | None],
        on_refused: Callable[[BusError], None],
        given: Callable[[Delivery], None],
        fields: Fields,
        max_inflight: int = MAX_INFLIGHT,
        *,
        observe: Observing | None = None,
    ) -> None:
        """``law`` gives the domain as the policy has it now, ``given`` is told each delivery as it is handed out.
        ``observe`` reads beside the agent's group.
        """
        if max_inflight < 1:
            raise Refused(f"max_inflight: expected at least 1, found {max_inflight}", code=Code.SCHEMA)
        self._connection = connection
        self._keys = keys
        self._domain = domain
        self._topic = domain_topics(domain).outbound
        self._trust = KnownTrust(trust)
        self._law = law
        self._on_refused = on_refused
        self._given = given
        self._fields = fields
        self._max_inflight = max_inflight
        self._items: queue.Queue[_Item | BusError | None] = queue.Queue()
        self._places: dict[int, _Place] = {}
        self._seen: dict[int, dict[str, int]] = {}
        self._before: dict[int, dict[str, int]] = {}
        """The highest sequences of what is read again, before the stored place."""
        self._resume: dict[int, tuple[int, int]] = {}
        self._parts: dict[int, Assembler] = {}
        self._lock = threading.Lock()
        self._profiles = Profiles()
        self._opened = Opened(keys, self._trust.held.deployment, domain)
        self._generation = 0
        self._current: _Item | None = None
        self._paused = False
        self._stop = threading.Event()
        self._ended = False
        self._waiting = 0
        self.skipped = 0
        self.assigned = threading.Event()
        self._agent = agent
        self._observe = observe
        self._connect()
        self._thread = threading.Thread(target=self._run, name=f"{agent} {domain}", daemon=True)
        self._thread.start()

    def _connect(self) -> None:
        self._stamp, self._word = self._connection.stamp(), self._connection.word()
        self._consumer = Consumer(
            self._connection.config(
                group_id=self._agent,
                group_protocol="classic",
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                isolation_level="read_committed",
                fetch_wait_max_ms=FETCH_WAIT_MS,
                session_timeout_ms=10_000,
                queued_max_messages_kbytes=32 * 1024,
                enable_partition_eof=self._observe is not None,
            )
        )
        if self._observe is not None:
            self._assign_all(self._observe)
        else:
            self._consumer.subscribe([self._topic], on_assign=self._on_assign, on_revoke=self._on_revoke)

    def _reconnect(self) -> None:
        """A newer client certificate is there: the next consumer shows it. What was not acknowledged comes again."""
        self._consumer.close()  # stores the place, where the group is joined
        if self._observe is not None:
            with self._lock:
                self._generation += 1
        self._paused = False
        self._connect()

    def get(self, timeout: float | None = None) -> Delivery | None:
        """The next delivery, acknowledging the last; None when ``timeout`` s pass or the subscriber is closed.

        Raises what makes reading impossible: AccessRefused, Unavailable.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        self.acknowledge()
        while not self._ended:
            try:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                item = self._items.get(timeout=left)
            except queue.Empty:
                return None
            if item is None or isinstance(item, BusError):
                self._items.put(item)  # the end stays the end, for every reader
                if item is None:
                    return None
                raise item
            if item.delivery is None:
                self._advance(item)
                continue
            with self._lock:
                self._waiting -= len(item.delivery.payload)
            if item.generation == self._generation:
                self._current = item
                self._given(item.delivery)
                return item.delivery
        return None

    def acknowledge(self) -> None:
        """The delivery handed out last is done with."""
        if self._current is not None:
            self._advance(self._current)
            self._current = None

    def _advance(self, item: _Item) -> None:
        with self._lock:
            place = self._places.get(item.partition)
            if place is not None and item.generation == self._generation:
                place.offset, place.index, place.floor = item.next_offset, item.next_index, item.floor
                if item.bundle is not None:
                    place.sequences.pop(item.bundle[0], None)
                    place.sequences[item.bundle[0]] = item.bundle[1]

    def _run(self) -> None:
        last_commit = time.monotonic()
        try:
            while not self._stop.is_set():
                self._throttle()
                message = self._consumer.poll(0.05)
                if message is not None:
                    self._take(message)
                self._connection.check()
                if time.monotonic() - last_commit > COMMIT_S:
                    self._word = self._connection.follow(self._consumer, self._word)
                    if self._connection.newer(self._stamp):
                        self._reconnect()
                    self._commit()
                    last_commit = time.monotonic()
        except BusError as error:
            self._items.put(error)
        except Exception as error:  # reading cannot go on; the reader is told
            log.exception("subscriber of %s ended", self._domain)
            self._items.put(Unavailable(f"subscriber of {self._domain}: {type(error).__name__}", code=Code.INTERNAL))
        finally:
            self._commit()
            self._consumer.close()
            self._items.put(None)

    def _throttle(self) -> None:
        # Every pause throws away what the client has prefetched: go on only when half is taken.
        waiting = self._items.qsize()
        if self._paused:
            full = waiting > self._max_inflight // 2 or self._waiting > MAX_WAITING // 2
        else:
            full = waiting >= self._max_inflight or self._waiting > MAX_WAITING
        if full != self._paused:
            partitions = self._consumer.assignment()
            (self._consumer.pause if full else self._consumer.resume)(partitions)
            self._paused = full

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is not None:
            if error.code() in ACL_ERRORS:
                raise self._connection.typed(error, "read", self._topic)
            if error.code() != KafkaError._PARTITION_EOF:
                log.debug("%s", error)
            elif self._observe is not None:
                self._end(message.partition() or 0, message.offset() or 0)
            return
        partition, offset = message.partition() or 0, message.offset() or 0
        seen, before = self._seen.setdefault(partition, {}), self._before.setdefault(partition, {})
        parts = self._parts.setdefault(partition, Assembler())
        done = self._resume.get(partition, (-1, 0))
        # The bundle in whose middle the last run stopped comes again, and those before it with parts of a message.
        again = (offset, 0) < done
        append_time = message.timestamp()[1]
        for late in parts.give_up(append_time):
            if offset >= done[0]:
                self._refuse(late, partition, offset)
        law = self._law()  # raises where no policy is valid now: nothing is passed over unread
        unwrap = functools.partial(self._opened.payload, required=law is not None and law.at_source)
        try:
            opened = open_bundle(
                message.value() or b"",
                domain=self._domain,
                topic=self._topic,
                partition=partition,
                offset=offset,
                append_time=append_time,
                trust=self._trusted(message.value() or b""),
                tier=law.tier if law is not None else None,
                highest=lambda instance: (before if again else seen).get(instance.hex()[:16], -1),
                reading=lambda epoch: self._keys.reading(self._domain, epoch),
                profiles=self._profiles,
                unwrap=unwrap,
            )
        except RetryLater as wait:  # its keys are under way: the same bundle again, and nothing behind it before
            log.info("%s/%d at %d: %s", self._topic, partition, offset, wait)
            self._consumer.seek(TopicPartition(self._topic, partition, offset))
            return
        except BusError as refusal:
            if offset >= done[0]:
                self._refuse(refusal, partition, offset)
                self._items.put(_Item(self._generation, partition, offset + 1, 0, None, parts.floor()))
            return
        bundle = (opened.instance.hex()[:16], opened.sequence)
        if again:
            before[bundle[0]] = bundle[1]
        for index, why in opened.refusals:
            if (offset, index) >= done:
                self._refuse(why, partition, offset, index)
        fresh = []
        for index, each in opened.deliveries:
            acknowledged = (offset, index) < done
            try:
                whole = parts.take(each, append_time, again=acknowledged)
                if whole is None or acknowledged:
                    continue
                if each.chunk is not None:
                    whole = replace(whole, payload=unwrap(whole.profile, whole.message_id, whole.payload))
                if law is not None and law.sealed_fields:
                    whole = self._fields.opened(law, whole)
                fresh.append((index + 1, whole, parts.floor()))
            except BusError as refusal:
                if not acknowledged:
                    self._refuse(refusal, partition, offset, index)
        if offset < done[0]:
            return
        seen[bundle[0]] = bundle[1]
        self.skipped += opened.skipped
        with self._lock:
            self._waiting += sum(len(whole.payload) for _, whole, _ in fresh)
        for place, whole, floor in fresh[:-1]:
            self._items.put(_Item(self._generation, partition, offset, place, whole, floor))
        last = fresh[-1][1] if fresh else None
        self._items.put(_Item(self._generation, partition, offset + 1, 0, last, parts.floor(), bundle))

    def _end(self, partition: int, offset: int) -> None:
        """All that stood before ``offset`` was taken: the place behind it comes when that was handed out."""
        floor = self._parts[partition].floor() if partition in self._parts else None
        self._items.put(_Item(self._generation, partition, offset, 0, None, floor))

    @property
    def partitions(self) -> list[int]:
        """Those that are read."""
        return sorted(self._places)

    def reached(self, partition: int) -> int:
        """The offset up to which everything was acknowledged that had ended; negative before the first."""
        place = self._places.get(partition)
        return place.offset if place is not None else -1

    def place(self, partition: int) -> tuple[int, dict[str, int]]:
        """Where to begin again for what had not ended as well, for ``Observing``."""
        place = self._places[partition]
        return place.start, dict(list(place.sequences.items())[-MAX_INSTANCES:])

    def _trusted(self, value: bytes) -> Trust:
        """The trust store, read again when the bundle's enforcer is not in it."""
        return self._trust.of(value[53:69], self._domain) if len(value) > 69 else self._trust.held

    def _refuse(self, refusal: BusError, partition: int, offset: int, index: int = 0) -> None:
        log.warning("%s/%d at %d.%d refused: %s: %s", self._topic, partition, offset, index, refusal.code, refusal)
        self._on_refused(refusal)

    def _assign_all(self, observing: Observing) -> None:
        for number in self._connection.partitions(self._consumer, self._topic, 10):
            if number not in self._places:
                begin, sequences = observing.places.get(number, (OFFSET_BEGINNING, {}))
                if observing.new:
                    begin = self._connection.bounds(self._consumer, self._topic, number, 10)[1]
                self._places[number] = _Place(begin, sequences=dict(sequences))
        for number, place in self._places.items():
            self._begin(number, place)
        self._consumer.assign([TopicPartition(self._topic, n, place.start) for n, place in self._places.items()])
        self.assigned.set()

    def _begin(self, partition: int, place: _Place) -> None:
        self._parts[partition] = Assembler()
        self._before[partition] = {}
        self._seen[partition] = dict(place.sequences)
        self._resume[partition] = (place.offset, place.index)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        starts = []
        for told in consumer.committed(partitions, 10):
            place = _Place(told.offset, 0)
            if told.offset >= 0 and told.metadata:
                try:
                    place.read(told.metadata)
                except (ValueError, KeyError, TypeError, AttributeError):
                    log.warning("%s/%d: the stored place is not one of ours: its bundle is read whole", *_of(told))
            with self._lock:
                self._places[told.partition] = place
            place.committed = (place.offset, place.index)
            self._begin(told.partition, place)
            starts.append(TopicPartition(self._topic, told.partition, place.start))
        consumer.assign(starts)
        self.assigned.set()

    def _on_revoke(self, _consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        self._commit()
        with self._lock:
            self._generation += 1
            self._places.clear()
        self._parts.clear()

    def _commit(self) -> None:
        """Store every place that moved. What is not stored yet comes again after a crash."""
        with self._lock:
            moved = [
                (number, place, (place.offset, place.index))
                for number, place in self._places.items()
                if place.offset >= 0 and (place.offset, place.index) != place.committed
            ]
            offsets = [TopicPartition(self._topic, number, at[0], place.metadata()) for number, place, at in moved]
        if not offsets or self._observe is not None:
            return
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            log.warning("place of %s not stored: %s", self._topic, error.args[0])
            return
        for _, place, at in moved:
            place.committed = at

    def stop(self) -> None:
        """Hand out nothing more: ``get`` returns None once the delivery in hand is acknowledged."""
        self._ended = True
        self._items.put(None)

    def close(self) -> None:
        """Store the place, leave the group."""
        self.stop()
        self._stop.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(30)


def _of(told: TopicPartition) -> tuple[str, int]:
    return told.topic, told.partition
