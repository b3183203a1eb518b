"""The exactly-once loop: poll, hand to the worker, commit in the background, recover by starting over from the broker.

There is one way to recover, from an abort, an unknown result or a rebalance: throw staged state away, read the stable
committed offsets, restore, seek. The next batch is fetched and enforced while the last one commits.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from bus.codes import Code
from bus.errors import Refused, RetryLater
from bus.kafka.config import ACL_ERRORS, Connection
from bus.kafka.transaction import Place, Staged, Step, TransactionFailed, Transactor

log = logging.getLogger("bus.kafka")

POLL_BATCH: Final = 2000
COMMITTED_TIMEOUT_S: Final = 15.0
RECOVERY_DEADLINE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Committed:
    """Where an input partition stands; ``offset`` is None where nothing was ever committed."""

    offset: int | None
    metadata: str


class Worker(Protocol):
    """What the loop drives. Raises RetryLater from any method to have the loop pause and start over."""

    def restore(self, committed: dict[Place, Committed]) -> dict[Place, int]:
        """Take these partitions; returns the offset at which each starts."""
        ...

    def drop(self, places: Iterable[Place]) -> None:
        """Forget these partitions."""
        ...

    def handle(self, place: Place, messages: list[Message]) -> None:
        """Enforce consecutive records of one partition."""
        ...

    def stage(self) -> Staged | None:
        """Everything handled since the last call as one transaction, or None."""
        ...

    def committed(self, staged: Staged) -> None:
        """``staged`` is durable."""
        ...

    def reset(self) -> None:
        """Staged state is void: no key or counter of it may live on."""
        ...

    def idle(self) -> None:
        """Called between batches, at least every poll."""
        ...


class Loop:
    """One consumer of a group and its transactor."""

    def __init__(
        self,
        connection: Connection,
        topics: list[str],
        group: str,
        instance: str,
        worker: Worker,
        *,
        transaction_ms: int,
        transaction_bytes: int,
        step: Step = lambda _: None,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._group = group
        self._instance = instance
        self._worker = worker
        self._linger_s = transaction_ms / 1000
        self._limit = transaction_bytes
        self._step = step
        self._ready = ready
        self._assigned: set[Place] = set()
        self._staged: Staged | None = None
        self._bytes = 0
        self._since = 0.0
        self._recover = False

    def run(self, stop: threading.Event) -> None:
        """Until ``stop`` is set: then the last batch is committed and the group left."""
        self._transactor = Transactor(self._connection, self._instance, self._step)
        self._consumer = Consumer(consumer_config(self._connection, self._group, self._instance))
        try:
            self._consumer.subscribe(
                self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not stop.is_set():
                try:
                    self._turn()
                except (TransactionFailed, RetryLater) as error:
                    log.warning("starting over from the committed offsets: %s", error)
                    self._start_over()
            self._finish()
        finally:
            self._consumer.close()
            self._transactor.close()

    def _turn(self) -> None:
        messages = self._consumer.consume(POLL_BATCH, self._linger_s if self._assigned else 0.2)
        self._worker.idle()
        if self._recover:
            self._recover = False
            raise RetryLater("the assignment could not be restored", code=Code.RETRY)
        for place, run in _runs(messages, self._on_message_error):
            if place in self._assigned:
                if not self._bytes:
                    self._since = time.monotonic()
                self._worker.handle(place, run)
                self._bytes += sum(len(each.value() or b"") for each in run) + 64 * len(run)
        full = self._bytes >= self._limit
        if full or (self._bytes and (self._transactor.idle or not messages)):
            self._hand_over()
        elif self._transactor.idle:
            self._settle()

    def _hand_over(self) -> None:
        """Wait for the transaction under way, then submit what is staged."""
        self._settle()
        staged = self._worker.stage()
        self._bytes = 0
        if staged is not None:
            staged.group = self._consumer.consumer_group_metadata()
            self._staged = staged
            self._transactor.submit(staged)

    def _settle(self) -> None:
        """Until no transaction is under way; raises TransactionFailed."""
        self._transactor.wait()
        if self._staged is not None:
            self._worker.committed(self._staged)
            self._staged = None

    def _finish(self) -> None:
        try:
            if self._bytes:
                self._hand_over()
            self._settle()
        except (TransactionFailed, RetryLater) as error:
            log.warning("the last batch was not committed: %s", error)

    def _start_over(self) -> None:
        """Discard the producer and every staged thing; read the committed offsets again and seek."""
        deadline = time.monotonic() + RECOVERY_DEADLINE_S
        while True:
            self._staged, self._bytes = None, 0
            self._worker.reset()
            try:
                self._transactor.renew()
                places = list(self._assigned)
                if places:
                    starts = self._restore(places)
                    for (topic, number), offset in starts.items():
                        self._consumer.seek(TopicPartition(topic, number, offset))
            except (RetryLater, KafkaException) as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("cannot start over yet: %s", error)
                time.sleep(0.2)
            else:
                return

    def _restore(self, places: list[Place]) -> dict[Place, int]:
        asked = [TopicPartition(topic, number) for topic, number in places]
        try:
            told = self._consumer.committed(asked, COMMITTED_TIMEOUT_S)
        except KafkaException as error:
            raise RetryLater(f"committed offsets cannot be read: {error.args[0]}", code=Code.RETRY) from error
        committed = {
            (each.topic, each.partition): Committed(each.offset if each.offset >= 0 else None, each.metadata or "")
            for each in told
        }
        return self._worker.restore(committed)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places = [(each.topic, each.partition) for each in partitions]
        try:
            starts = self._restore(places)
            consumer.assign([TopicPartition(topic, number, offset) for (topic, number), offset in starts.items()])
        except RetryLater as error:
            log.warning("assignment cannot be restored yet: %s", error)
            consumer.assign([TopicPartition(topic, number, 0) for topic, number in places])
            self._recover = True  # nothing of these partitions is handled before they are restored
        self._assigned = set(places)
        log.info("assigned %d partitions", len(places))
        self._ready()

    def _on_revoke(self, consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        # Finish before returning: another enforcer may own these partitions a moment later.
        try:
            if self._bytes:
                self._hand_over()
            self._settle()
        except (TransactionFailed, RetryLater) as error:
            log.warning("revoked with an open transaction: %s", error)
            self._staged, self._bytes = None, 0
            self._worker.reset()
            self._transactor.renew()
        self._worker.drop(self._assigned)
        self._assigned = set()
        consumer.unassign()

    def _on_lost(self, consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        log.warning("partitions lost")
        self._staged, self._bytes = None, 0
        self._worker.reset()
        self._worker.drop(self._assigned)
        self._assigned = set()
        consumer.unassign()
        self._transactor.renew()

    def _on_message_error(self, error: KafkaError) -> None:
        self._connection.check()
        code = error.code()
        if code in ACL_ERRORS:
            raise self._connection.typed(error, "read", ", ".join(self._topics))
        if code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise Refused(
                f"input before the committed offset is gone: {error.str()}",
                code=Code.RETRY,
                hint="records were deleted unread; an operator must decide where to go on",
            )
        log.debug("%s", error)


def consumer_config(connection: Connection, group: str, instance: str) -> dict[str, Any]:
    """Settings of the loop's consumer; the bare relay of `bus bench` uses the same."""
    return connection.config(
        group_id=group,
        group_instance_id=instance,
        group_protocol="classic",
        partition_assignment_strategy="roundrobin",
        session_timeout_ms=8000,
        enable_auto_commit=False,
        auto_offset_reset="error",
        isolation_level="read_committed",
        queued_min_messages=100_000,
        queued_max_messages_kbytes=128 * 1024,
        fetch_wait_max_ms=20,
        fetch_message_max_bytes=4 * 1024 * 1024,
        metadata_recovery_strategy="none",
    )


def _runs(messages: list[Message], on_error: Callable[[KafkaError], None]) -> Iterable[tuple[Place, list[Message]]]:
    """Messages grouped by partition, each group in order."""
    groups: dict[Place, list[Message]] = {}
    for message in messages:
        error = message.error()
        if error is not None:
            on_error(error)
            continue
        groups.setdefault((message.topic() or "", message.partition() or 0), []).append(message)
    return groups.items()
