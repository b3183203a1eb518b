"""One Kafka transaction at a time: produce, send offsets, commit, in a thread of its own.

The discipline (docs/architecture.md, section 1): group metadata is captured with the batch by the polling thread; after
any timeout or unknown result the producer is discarded; after a transaction that was merely slow it is discarded too,
because librdkafka's EndTxn that the network held back would commit half of the next one. A thread whose step never
returns is left behind; a watchdog ends the process where not even a new producer can be made.
"""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from bus.codes import Code
from bus.errors import RetryLater
from bus.kafka.clock import ClockCheck
from bus.kafka.config import Connection

log = logging.getLogger("bus.kafka")

TRANSACTION_TIMEOUT_MS: Final = 10_000
SLOW_S: Final = 1.5
STEP_DEADLINE_S: Final = 45.0
FENCED_S: Final = 5.0
"""How long a step may take to notice that its producer was fenced."""
Place = tuple[str, int]
Step = Callable[[str], None]


@dataclass(slots=True)
class Staged:
    """One transaction: values per output partition, and per input partition its next offset and metadata.

    ``windows`` are values whose first offset, once delivered, becomes the metadata of their input partition.
    """

    writes: list[tuple[Place, list[bytes]]] = field(default_factory=list)
    offsets: dict[Place, tuple[int, str]] = field(default_factory=dict)
    snapshots: dict[Place, tuple[Place, list[bytes]]] = field(default_factory=dict)
    group: Any = None
    records: int = 0
    snapshot_offsets: dict[Place, int] = field(default_factory=dict)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Records by domain and code; the code of an ALLOW is empty."""
    limited: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Of those, what rates and breakers refused, by domain, rule and code."""
    breakers: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """How often breakers changed, by domain, rule and what they became."""
    sizes: Counter[str] = field(default_factory=Counter)
    """Bytes of input by domain."""
    seconds: float = 0.0
    """How long the transaction took, once it is committed."""


class TransactionFailed(Exception):  # an outcome, not a fault
    """The transaction did not commit, or nobody knows."""


class ClockOff(TransactionFailed):
    """The transaction was aborted: this machine's clock is not the broker's."""


def producer_config(connection: Connection, transactional_id: str) -> dict[str, Any]:
    """Settings of the transactional producer; the bare relay of `bus bench` uses the same."""
    return connection.config(
        transactional_id=transactional_id,
        transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
        acks="all",
        linger_ms=1,
        batch_size=1 << 20,
        queue_buffering_max_messages=1_000_000,
        queue_buffering_max_kbytes=256 * 1024,
        retry_backoff_ms=10,
        # With one broker a lost connection could make send_offsets hang past its timeout (librdkafka 5456, 5511).
        metadata_recovery_strategy="none",
    )


class Transactor:
    """Owns the producer and its thread. ``submit`` hands over one transaction; ``result`` tells how it ended."""

    def __init__(
        self, connection: Connection, transactional_id: str, step: Step = lambda _: None, max_clock_skew_ms: int = 0
    ) -> None:
        self._connection = connection
        self._id = transactional_id
        self._step = step
        self._clock = ClockCheck(max_clock_skew_ms)
        self._probe: Place | None = None
        self._failure: BaseException | None = None
        self._fresh_began = 0.0
        self._producer = self._fresh()
        self._start()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def _start(self) -> None:
        self._work: queue.SimpleQueue[tuple[Producer, Staged] | None] = queue.SimpleQueue()
        self._done = threading.Event()
        self._done.set()
        self._thread = threading.Thread(target=self._run, args=(self._work, self._done), name="transactor", daemon=True)
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Whether no transaction is under way."""
        return self._done.is_set()

    def submit(self, staged: Staged) -> None:
        """Start a transaction; the last one must have ended."""
        self._done.clear()
        self._work.put((self._producer, staged))

    def wait(self, timeout: float = STEP_DEADLINE_S) -> None:
        """Until no transaction is under way; raises TransactionFailed when the last one failed."""
        if not self._done.wait(timeout):
            raise TransactionFailed("a transaction exceeded its deadline")
        self.check()

    def check(self) -> None:
        """Raise TransactionFailed when the last transaction failed."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise TransactionFailed(str(failure)) from failure

    def renew(self) -> None:
        """Discard the producer and fence whatever it left open. Blocks until the new one is initialised.

        A thread that is still in a step is left behind with its producer, whose transactional id is fenced by then.
        """
        self._producer = self._fresh()
        if not self._done.wait(FENCED_S):
            log.error("a step of a fenced transaction does not return: its thread is left behind")
            self._start()
        self._failure = None

    def confirm_clock(self) -> None:
        """Where the last transaction was aborted for the clock: look again. Raises RetryLater while it is off.

        The record that is sent to see the broker's time is aborted, too: nobody reads it.
        """
        if self._probe is None:
            return
        producer, (topic, partition) = self._producer, self._probe
        appended: list[int] = []
        began = self._clock.wall()
        producer.begin_transaction()

        def delivered(error: KafkaError | None, message: Any) -> None:
            if error is None:  # else its time is this machine's own
                appended.append(message.timestamp()[1])

        producer.produce(topic, b"", partition=partition, on_delivery=delivered)
        producer.flush(10)
        ended = self._clock.wall()
        producer.abort_transaction(10)
        off = self._clock.judge(began, appended, ended)
        if off or not appended:
            raise RetryLater(_clock_text(off, self._clock.limit_ms), code=Code.RETRY, hint="set this machine's clock")
        self._probe = None

    def close(self) -> None:
        """End the thread after the transaction under way."""
        self._done.wait(STEP_DEADLINE_S)
        self._work.put(None)
        self._thread.join(STEP_DEADLINE_S)

    def _fresh(self) -> Producer:
        self._fresh_began = began = time.monotonic()
        producer = Producer(producer_config(self._connection, self._id))
        while True:
            try:
                producer.init_transactions(10)
            except KafkaException as error:
                told = error.args[0]
                self._connection.check()
                if not told.retriable() or time.monotonic() - began > STEP_DEADLINE_S - 10:
                    self._fresh_began = 0.0
                    raise self._connection.typed(told, "write", self._id) from error
            else:
                self._fresh_began = 0.0
                return producer

    def _run(self, work: queue.SimpleQueue[tuple[Producer, Staged] | None], done: threading.Event) -> None:
        while (given := work.get()) is not None:
            producer, staged = given
            began = time.monotonic()
            try:
                self._commit(producer, staged)
                staged.seconds = time.monotonic() - began
                if staged.seconds > SLOW_S and done is self._done:
                    log.warning("transaction took %.1f s: producer renewed", staged.seconds)
                    self._producer = self._fresh()
            except BaseException as error:  # told to the owner, who recovers
                if done is self._done:
                    self._failure = error
            done.set()
            if done is not self._done:
                return  # left behind: another thread is in its place

    def _commit(self, producer: Producer, staged: Staged) -> None:
        errors: list[KafkaError] = []
        appended: list[int] = []

        def delivered(error: KafkaError | None, message: Any) -> None:
            if error is not None:
                errors.append(error)
            else:
                appended.append(message.timestamp()[1])

        checked, began = self._clock.due(), self._clock.wall()
        producer.begin_transaction()
        for (topic, partition), values in staged.writes:
            self._produce(producer, topic, partition, values, delivered)
        offsets = dict(staged.offsets)
        for source, ((topic, partition), values) in staged.snapshots.items():
            first: list[int] = []

            def placed(error: KafkaError | None, message: Any, first: list[int] = first) -> None:
                delivered(error, message)
                if error is None:
                    first.append(message.offset())

            for value in values:
                producer.produce(topic, value, partition=partition, on_delivery=placed)
            producer.flush(10)
            if len(first) != len(values):
                raise TransactionFailed(f"a window snapshot was not delivered: {errors[:1]}")
            offsets[source] = (offsets[source][0], f"w1:{min(first)}")
            staged.snapshot_offsets[source] = min(first)
        self._step("produced")
        if checked:
            producer.flush(10)
            if not errors and (off := self._clock.judge(began, appended, self._clock.wall())):
                producer.abort_transaction(10)
                self._probe = next(place for place, values in staged.writes if values)
                raise ClockOff(_clock_text(off, self._clock.limit_ms))
        positions = [
            TopicPartition(topic, partition, offset, metadata)
            for (topic, partition), (offset, metadata) in offsets.items()
        ]
        producer.send_offsets_to_transaction(positions, staged.group, 10)
        self._step("offsets-sent")
        producer.commit_transaction(10)
        if errors:
            raise TransactionFailed(f"a record was not delivered: {errors[0]}")
        self._step("committed")

    def _produce(
        self, producer: Producer, topic: str, partition: int, values: list[bytes], delivered: Callable[..., None]
    ) -> None:
        batch: list[dict[str, Any]] = [{"value": value} for value in values]
        deadline = time.monotonic() + 10
        while batch:
            producer.produce_batch(topic, batch, partition, on_delivery=delivered)
            failed = [each for each in batch if "_error" in each]
            for each in failed:
                if each["_error"].code() != KafkaError._QUEUE_FULL:
                    raise TransactionFailed(f"{topic}: {each['_error'].str()}")
            batch = [{"value": each["value"]} for each in failed]
            if batch:  # the queue is full: let it drain
                if time.monotonic() > deadline:
                    raise TransactionFailed(f"{topic}: the producer's queue stayed full")
                producer.poll(0.05)

    def _watch(self) -> None:
        while True:
            time.sleep(1)
            began = self._fresh_began
            if began and time.monotonic() - began > STEP_DEADLINE_S + 1:
                log.critical("no producer could be made in %.0f s: ending the process", STEP_DEADLINE_S)
                os._exit(70)


def _clock_text(off_ms: int, limit_ms: int) -> str:
    return f"this machine's clock is {off_ms} ms from the broker's, expected at most {limit_ms}"
