"""Publish: seal to the enforcer, choose the partition, produce; resend the same bytes; back-pressure.

A sequence is consumed when sealing starts. Sealed bytes are kept until the broker has them: a resend repeats them, in
order, and never seals anew. Past its deadline a record is reported `unknown`, because nobody can say.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer

from bus.client.keystore import KeyStore
from bus.codes import Code
from bus.crypto.seal import Sealer
from bus.errors import BusError, Refused, RetryLater, TooLarge
from bus.kafka.config import Connection, is_fatal
from bus.wire import sealed
from bus.wire.names import AgentId, DomainName, domain_topics

log = logging.getLogger("bus.client")

MAX_OUTSTANDING: Final = 1000
"""Sealed and not acknowledged per partition: less than the enforcer's window of 1,024, so a resend still fits."""
ROOM: Final = MAX_OUTSTANDING // 2
"""A full lane takes records again when it has so few: each wake-up of a waiting thread is worth many records."""
HOPELESS: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.POLICY_VIOLATION})
"""Answers that the same bytes get again."""
SWEEP_S: Final = 1.0
"""Past a record's deadline before it is given up here: librdkafka has the same deadline and tells more."""
FLUSH_S: Final = 5.0
Key = tuple[bytes, int, int]
"""instance, partition, sequence: what a notice names."""


def partition_of(partition_key: str, partitions: int) -> int:
    """The partition that the publisher chooses: CRC-32 of the partition key over the policy's partitions."""
    return zlib.crc32(partition_key.encode()) % partitions


@dataclass(slots=True)
class Outgoing:
    """A sealed record on its way. ``done`` is called once, with None when the broker has stored it."""

    topic: str
    partition: int
    key: Key
    value: bytes
    deadline: float
    done: Callable[[BusError | None], None]
    lane: Lane


Lane = OrderedDict[Key, Outgoing]
"""What waits for the broker's answer on one partition, oldest first."""


class Publisher:
    """Seals and sends for one agent. Thread-safe."""

    def __init__(
        self,
        connection: Connection,
        keys: KeyStore,
        agent: AgentId,
        deployment: bytes,
        deadline_ms: int,
        *,
        compiled: bool = True,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._agent = agent
        self._compiled = compiled
        self._deployment = deployment
        self._deadline_s = deadline_ms / 1000
        self._sealers: dict[DomainName, tuple[int, Sealer]] = {}
        self._pending: dict[tuple[str, int], Lane] = {}
        self._changed = threading.Condition()
        self._waiters = 0
        self._closing = False
        self._fatal = False
        self._producer = self._fresh()
        self._thread = threading.Thread(target=self._run, name=f"{agent} publisher", daemon=True)
        self._thread.start()

    def _fresh(self) -> Producer:
        self._stamp, self._word = self._connection.stamp(), self._connection.word()
        return Producer(
            self._connection.config(
                acks="all",
                # Not idempotent: a producer id is a number that whoever may write to the topic can write under, and a
                # broker answers "stored" for a sequence that someone else took. The enforcer refuses duplicates itself;
                # one request at a time keeps the order of resends.
                enable_idempotence=False,
                max_in_flight=1,
                linger_ms=2,
                batch_size=1 << 20,
                message_timeout_ms=max(int(self._deadline_s * 1000), 100),
                queue_buffering_max_messages=200_000,
                queue_buffering_max_kbytes=256 * 1024,
                retry_backoff_ms=50,
            )
        )

    def send(
        self,
        domain: DomainName,
        partition: int,
        plaintext: bytes,
        done: Callable[[BusError | None], None],
    ) -> Key:
        """Seal and produce. Blocks while 1,000 records of the partition are not acknowledged.

        Raises TooLarge, RetryLater (no key now, queue full past the deadline) or what the broker refused.
        """
        topic = domain_topics(domain).inbound
        size = len(plaintext) + sealed.MIN_LENGTH + 4
        if size > sealed.MAX_LENGTH:
            limit = sealed.MAX_LENGTH - sealed.MIN_LENGTH - 4
            raise TooLarge(f"envelope: expected at most {limit} bytes, found {len(plaintext)}", limit=limit)
        waited = time.monotonic() + self._deadline_s
        with self._changed:
            lane = self._pending.get((topic, partition))
            if lane is None:
                lane = self._pending[topic, partition] = OrderedDict()
            while self._full(lane):
                self._check()
                if not self._wait(min(0.1, waited - time.monotonic())) and time.monotonic() > waited:
                    raise RetryLater(f"{topic}/{partition}: {MAX_OUTSTANDING} records wait for the broker", after=1)
            self._check()
            sealer = self._sealer(domain, topic)
            sequence, value = sealer.seal(partition, plaintext)
            key = (sealer.instance, partition, sequence)
            outgoing = Outgoing(topic, partition, key, value, time.monotonic() + self._deadline_s, done, lane)
            lane[key] = outgoing
            self._produce(outgoing)
        return key

    def _full(self, lane: Lane) -> bool:
        """Whether one more would leave the enforcer's window, or stand too far from the oldest in it."""
        while True:
            if len(lane) >= MAX_OUTSTANDING:
                return True
            try:
                (oldest, _, lowest), (newest, _, highest) = next(iter(lane)), next(reversed(lane))
            except StopIteration:
                return False
            except RuntimeError:  # the poll thread took one out meanwhile
                continue
            return newest == oldest and highest + 1 - lowest >= MAX_OUTSTANDING

    def _wait(self, timeout: float) -> bool:
        """Until a record has an outcome, at most ``timeout`` s; whether one has. Needs the lock, and gives it up."""
        self._waiters += 1
        try:
            return self._changed.wait(timeout)
        finally:
            self._waiters -= 1

    def _check(self) -> None:
        self._connection.check()
        if self._closing:
            raise Refused("the publisher is closed", code=Code.CLOSED)

    def _sealer(self, domain: DomainName, topic: str) -> Sealer:
        now = time.time_ns() // 1_000_000
        self._keys.check(domain)
        held = self._sealers.get(domain)
        if held is not None and now <= held[0]:
            return held[1]
        bundle = self._keys.sending(domain, now)
        if bundle.own is None:
            raise RetryLater(f"{self._agent}: no key to send to {domain} now", after=1)
        if held is not None and held[1].keys.key_id == bundle.own.key_id:
            if now > bundle.epoch.not_after + self._deadline_s * 1000:
                raise RetryLater(
                    f"{self._agent}: the keys of {domain} have ended", hint="does the issuer run?", after=1
                )
            return held[1]  # the next epoch is not there yet; this one lives on within its grace
        sealer = Sealer(bundle.own, self._deployment, topic, compiled=self._compiled)
        self._sealers[domain] = (bundle.epoch.not_after, sealer)
        return sealer

    def _produce(self, outgoing: Outgoing) -> None:
        delivered = functools.partial(self._delivered, outgoing)
        while True:
            try:
                self._producer.produce(outgoing.topic, outgoing.value, None, outgoing.partition, delivered)
            except BufferError:
                if threading.current_thread() is self._thread:
                    self._producer.poll(0.01)
                else:
                    self._wait(0.01)  # the poll thread drains; it needs the lock
            except KafkaException as error:
                if is_fatal(error.args[0]):
                    self._fatal = True  # it stays in its lane: the next producer gets it
                    return
                self._finish(outgoing, self._connection.typed(error.args[0], "write", outgoing.topic))
                return
            else:
                return

    def _delivered(self, outgoing: Outgoing, error: KafkaError | None, _message: Any) -> None:
        if error is None:
            # Without the lock, as `pop` is one step: a publishing thread would otherwise stand still for every answer.
            lane = outgoing.lane
            if lane.pop(outgoing.key, None) is not None:
                if self._waiters and len(lane) <= ROOM:
                    with self._changed:
                        self._changed.notify_all()
                outgoing.done(None)
            return
        with self._changed:
            typed = self._connection.typed(error, "write", outgoing.topic)
            if isinstance(typed, Refused):
                self._finish(outgoing, typed)
            elif time.monotonic() >= outgoing.deadline:
                self._finish(outgoing, _unknown(outgoing, error.str()))
            elif is_fatal(error):
                self._fatal = True
            elif error.code() in HOPELESS:
                self._finish(outgoing, Refused(f"{outgoing.topic}: {error.str()}", code=Code.TOO_LARGE))
            else:
                log.warning("%s/%d: sent again: %s", outgoing.topic, outgoing.partition, error)
                self._produce(outgoing)

    def _finish(self, outgoing: Outgoing, error: BusError | None) -> None:
        """Tell the outcome, once: a late answer of the broker changes nothing."""
        if outgoing.lane.pop(outgoing.key, None) is not None:
            self._changed.notify_all()
            outgoing.done(error)

    def _waiting(self) -> list[Outgoing]:
        """Poll thread only: nothing but an answer takes a record out of its lane."""
        return [each for lane in list(self._pending.values()) for each in lane.values()]

    def _run(self) -> None:
        while not self._closing or any(self._pending.values()):
            try:
                self._producer.poll(0.05)
            except KafkaException as error:  # librdkafka raises a fatal error here
                log.warning("producer: %s", error)
                self._fatal = True
            self._word = self._connection.follow(self._producer, self._word)
            with self._changed:
                if self._connection.failure is not None:
                    for outgoing in self._waiting():
                        self._finish(outgoing, self._connection.failure)
                if self._fatal:
                    self._renew()
                elif self._connection.newer(self._stamp):
                    self._replace()
                self._sweep(time.monotonic() - SWEEP_S)

    def _renew(self) -> None:
        """After a fatal error the producer answers nothing any more: a new one gets every waiting record, in order."""
        log.warning("producer renewed: %d records are sent again", len(self._waiting()))
        self._fatal = False
        self._take_over(self._fresh())

    def _replace(self) -> None:
        """A newer client certificate is there, and the next producer shows it. What is under way is answered first."""
        fresh = self._fresh()
        self._producer.flush(FLUSH_S)
        self._take_over(fresh)

    def _take_over(self, producer: Producer) -> None:
        """From now on ``producer`` sends, and first what waits, in order."""
        self._producer = producer
        for outgoing in self._waiting():
            self._produce(outgoing)

    def _sweep(self, before: float) -> None:
        """Records whose deadline is over and that librdkafka has not answered for."""
        for lane in self._pending.values():
            while lane and (oldest := next(iter(lane.values()))).deadline < before:
                self._finish(oldest, _unknown(oldest, "no answer in time"))

    def flush(self, timeout: float) -> bool:
        """Until everything sent is acknowledged or refused; False when ``timeout`` s pass first."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while any(self._pending.values()):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._wait(min(left, 0.1))
        return True

    def close(self, timeout: float) -> bool:
        """Flush and end; returns whether everything was acknowledged or refused."""
        done = self.flush(timeout)
        self._closing = True
        if not done:
            with self._changed:
                for outgoing in self._waiting():
                    self._finish(outgoing, _unknown(outgoing, "closed before it answered"))
        if threading.current_thread() is not self._thread:
            self._thread.join(5)
        return done


def _unknown(outgoing: Outgoing, why: str) -> RetryLater:
    return RetryLater(
        f"{outgoing.topic}: unknown whether the broker has it: {why}",
        code=Code.UNKNOWN,
        hint="its keys' time is over; publish it as a new message if it may come twice",
    )
