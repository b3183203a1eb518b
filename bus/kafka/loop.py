"""The exactly-once loop: poll, hand to the worker, commit in the background, recover by starting over from the broker.

There is one way to recover, from an abort, an unknown result or a rebalance: throw staged state away, fence the old
producer, read the stable committed offsets, restore, seek. The next batch is fetched and enforced while the last one
commits. Where the worker cannot go on (keys, policy), partitions are paused and the loop keeps polling, so that the
group stays as it is; the worker tells pause and resumption in hops.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from bus.codes import Code
from bus.errors import Refused, RetryLater, Unavailable
from bus.kafka.batch import Records, batches
from bus.kafka.config import ACL_ERRORS, FETCH_WAIT_MS, Connection, is_fatal
from bus.kafka.ends import Ends
from bus.kafka.restore import unstable_offsets
from bus.kafka.transaction import Place, Staged, Step, TransactionFailed, Transactor

log = logging.getLogger("bus.kafka")

POLL_BATCH: Final = 2000
COMMITTED_TIMEOUT_S: Final = 15.0
SLICES: Final = 4
RETRY_S: Final = 0.2
IDLE_S: Final = 0.05
"""Between two looks at what else is to be done, while nothing comes."""
FENCED: Final = 3
FENCED_WITHIN_S: Final = 60.0
"""So many times in so long the consumer may end and join anew, before another process is taken to have its name."""
DENIED_S: Final = 15.0
"""How long an input topic may be denied before the process gives up: a policy that removes it is read by then."""


@dataclass(frozen=True, slots=True)
class Committed:
    """Where an input partition stands; ``offset`` is None where nothing was ever committed.

    What is not ``stable`` may be behind: only windows that reach as far prove it.
    """

    offset: int | None
    metadata: str
    stable: bool = True


class Worker(Protocol):
    """What the loop drives. RetryLater from ``idle``, ``handle`` or ``stage`` pauses until ``idle`` passes again."""

    def restore(self, committed: dict[Place, Committed]) -> dict[Place, int]:
        """Take these partitions; returns the offset at which each starts. Raises RetryLater."""
        ...

    def drop(self, places: Iterable[Place]) -> None:
        """Forget these partitions."""
        ...

    def handle(self, place: Place, records: Records) -> None:
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

    def pending(self) -> bool:
        """Whether ``stage`` has something to write though nothing was handled."""
        ...

    def idle(self) -> None:
        """Called between batches while nothing is staged, and until it passes while paused."""
        ...

    def topics(self) -> list[str]:
        """Input topics, sorted; asked after ``idle``."""
        ...

    def paused(self, why: str) -> None:
        """Partitions stand still from now on."""
        ...

    def resumed(self) -> None:
        """Partitions go on."""
        ...


class Signs(Protocol):
    """Told how the loop fares."""

    def beat(self) -> None:
        """It turned."""
        ...

    def ready(self) -> None:
        """Its partitions are restored and it goes on."""
        ...

    def waiting(self, why: str) -> None:
        """It handles nothing, because of ``why``."""
        ...


class Loop:
    """One consumer of a group and its transactor."""

    def __init__(
        self,
        connection: Connection,
        group: str,
        instance: str,
        worker: Worker,
        *,
        transaction_ms: int,
        transaction_bytes: int,
        max_clock_skew_ms: int,
        signs: Signs,
        step: Step = lambda _: None,
        poll_batch: int = POLL_BATCH,
    ) -> None:
        self._connection = connection
        self._group = group
        self._instance = instance
        self._worker = worker
        # A poll waits for a full batch or its time: in slices, what came goes on as soon as the last commit is done.
        self._slice_s = transaction_ms / 1000 / SLICES
        self._limit = transaction_bytes
        self._poll_batch = poll_batch
        self._skew_ms = max_clock_skew_ms
        self._step = step
        self._signs = signs
        self._ends = Ends()
        self._positions: dict[Place, int] = {}
        self._topics: list[str] = []
        self._assigned: set[Place] = set()
        self._staged: Staged | None = None
        self._bytes = 0
        self._fence = False  # the producer may have left a transaction open
        self._stale = False  # partitions must be restored before anything of them is handled
        self._paused = False
        self._denied: dict[str, float] = {}
        self._fatal: KafkaError | None = None
        self._ended: deque[float] = deque(maxlen=FENCED)  # when consumers ended, as time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Until ``stop`` is set: then the last batch is committed and the group left."""
        self._transactor = Transactor(self._connection, self._instance, self._step, self._skew_ms)
        self._consumer = self._join()
        try:
            self._subscribe()
            while not stop.is_set():
                try:
                    self._turn()
                except (TransactionFailed, Unavailable, KafkaException) as error:
                    log.warning("starting over from the committed offsets: %s", error)
                    self._void(fence=True)
                except RetryLater as error:
                    self._pause(error)
            self._finish()
        finally:
            self._consumer.close()
            self._transactor.close()

    def _join(self) -> Consumer:
        return Consumer({**consumer_config(self._connection, self._group, self._instance), **self._ends.config})

    def _subscribe(self) -> None:
        wanted = self._worker.topics()
        if wanted != self._topics:
            self._topics = wanted
            self._denied = {topic: since for topic, since in self._denied.items() if topic in wanted}
            self._consumer.subscribe(
                wanted, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )

    def lag(self) -> dict[Place, int]:
        """Records of each assigned partition that are not durably enforced yet, as far as is known. From any thread."""
        return self._ends.lag(dict(self._positions))

    def _turn(self) -> None:
        self._signs.beat()
        self._check()
        if self._stale or self._fence or self._paused:
            self._stand()
            return
        messages = self._poll()
        if self._stale:  # revoked, lost or assigned anew in this poll, and not restored
            for message in messages:
                if (error := message.error()) is not None:
                    self._note_fatal(error)
            return
        if not self._bytes:
            self._worker.idle()
            self._subscribe()
        for batch in batches(messages, self._limit, self._on_message_error):
            if self._bytes >= self._limit:
                self._hand_over()
                self._signs.beat()  # a poll may bring a hundred MiB: each transaction counts as a turn
            for place, records in batch.records.items():
                if place in self._assigned:
                    self._worker.handle(place, records)
            self._bytes += batch.size
        full = self._bytes >= self._limit
        if full or (self._bytes and (self._transactor.idle or not messages)):
            self._hand_over()
        elif self._transactor.idle:
            self._settle()
            if self._worker.pending():
                self._hand_over()

    def _poll(self) -> list[Message]:
        """What came. Where nothing is to be committed the first message ends the wait; else it lasts a slice, whatever
        comes: what is there then goes into one transaction."""
        if not self._assigned:
            return self._consumer.consume(self._poll_batch, RETRY_S)
        if self._bytes or not self._transactor.idle:
            return self._consumer.consume(self._poll_batch, self._slice_s)
        first = self._consumer.consume(1, IDLE_S)
        return first + self._consumer.consume(self._poll_batch - 1, 0) if first else first

    def _stand(self) -> None:
        """One turn in which nothing is handled: keep polling, try to be able to go on."""
        for message in self._consumer.consume(POLL_BATCH, RETRY_S):
            if (error := message.error()) is not None:
                self._note_fatal(error)  # other errors mend, or come again when partitions are read
            else:
                self._stale = True  # assigned within this poll: what it gave out is thrown away, and read again
        self._fence_off()
        self._transactor.confirm_clock()
        if self._paused:
            self._worker.idle()
        self._subscribe()
        self._recover()
        if self._paused:
            self._paused = False
            self._consumer.resume([TopicPartition(*place) for place in self._assigned])
            log.info("going on")
            self._signs.ready()
            self._worker.resumed()
            self._hand_over()

    def _recover(self) -> None:
        """Fence, then restore and seek. Raises RetryLater or KafkaException where that cannot be done yet."""
        self._fence_off()
        if self._stale:
            starts = self._restore(list(self._assigned))
            places = [TopicPartition(topic, number, offset) for (topic, number), offset in starts.items()]
            self._consumer.resume(places)
            for each in places:
                self._consumer.seek(each)
            self._stale = False
            self._positions = dict(starts)
        if not self._paused:
            self._signs.ready()

    def _fence_off(self) -> None:
        if self._fence:
            self._transactor.renew()
            self._fence = False

    def _void(self, *, fence: bool) -> None:
        """Throw staged state away; partitions are restored before anything else is handled."""
        self._staged, self._bytes = None, 0
        self._worker.reset()
        self._fence = self._fence or fence
        self._stale = True
        self._signs.waiting("partitions are restored from the broker")

    def _pause(self, error: RetryLater) -> None:
        if self._paused:
            return
        log.warning("paused: %s", error)
        try:
            self._settle()
            self._void(fence=False)
        except TransactionFailed:
            self._void(fence=True)
        self._paused = True
        self._signs.waiting(f"paused: {error}")
        self._worker.paused(str(error))
        try:
            self._recover()
            self._transactor.confirm_clock()
            self._hand_over()
        except (TransactionFailed, RetryLater, KafkaException) as again:
            log.warning("the pause is told when it ends: %s", again)
            self._void(fence=True)
        self._consumer.pause([TopicPartition(*place) for place in self._assigned])

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
        try:
            self._transactor.wait()
        except TransactionFailed:
            self._staged = None
            raise
        if self._staged is not None:
            self._positions |= {place: offset for place, (offset, _) in self._staged.offsets.items()}
            self._worker.committed(self._staged)
            self._staged = None

    def _finish(self) -> None:
        try:
            if self._bytes:
                self._hand_over()
            self._settle()
        except (TransactionFailed, RetryLater) as error:
            log.warning("the last batch was not committed: %s", error)

    def _restore(self, places: list[Place]) -> dict[Place, int]:
        if not places:
            return {}
        asked = [TopicPartition(topic, number) for topic, number in places]
        stable = True
        try:
            told = self._consumer.committed(asked, COMMITTED_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError._TIMED_OUT:
                raise Unavailable(f"committed offsets cannot be read: {error.args[0]}") from error
            # A coordinator whose broker was killed has been seen to call offsets unstable for ever, with no transaction
            # open in its log. The windows, read to the end of their log, say whether one is, and where it ended.
            log.warning("committed offsets are not told as stable: going by the windows")
            told, stable = unstable_offsets(self._connection, self._group, asked), False
        for each in told:
            if each.error is not None:
                raise Unavailable(f"committed offset of {each.topic}/{each.partition}: {each.error}")
            if not stable and each.offset < 0:
                raise Unavailable(f"{each.topic}/{each.partition}: no offset is told, stable or not")
        committed = {
            (each.topic, each.partition): Committed(
                each.offset if each.offset >= 0 else None, each.metadata or "", stable=stable
            )
            for each in told
        }
        return self._worker.restore(committed)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        places = [(each.topic, each.partition) for each in partitions]
        self._assigned = set(places)
        log.info("assigned %d partitions", len(places))
        try:
            self._fence_off()
            starts = self._restore(places)
            consumer.assign([TopicPartition(topic, number, offset) for (topic, number), offset in starts.items()])
        except RetryLater as error:
            log.warning("assignment cannot be restored yet: %s", error)
            self._stale = True
            consumer.assign([TopicPartition(topic, number, 0) for topic, number in places])
            consumer.pause(partitions)
            return
        self._stale = False
        self._positions = dict(starts)
        if self._paused:
            consumer.pause(partitions)
        else:
            self._signs.ready()

    def _on_revoke(self, consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        # Finish before returning: another enforcer may own these partitions a moment later. Where that fails, the next
        # owner waits for a stable offset, so that the open transaction cannot part its offsets from its outputs.
        try:
            if self._bytes:
                self._hand_over()
            self._settle()
        except (TransactionFailed, RetryLater) as error:
            log.warning("revoked with an open transaction: %s", error)
            self._void(fence=True)
        self._leave(consumer)

    def _on_lost(self, consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        log.warning("partitions lost")
        self._void(fence=True)
        self._leave(consumer)

    def _leave(self, consumer: Consumer) -> None:
        self._worker.drop(self._assigned)
        self._assigned = set()
        self._positions = {}
        self._signs.waiting("no partitions are assigned")
        consumer.unassign()

    def _note_fatal(self, error: KafkaError) -> None:
        self._connection.check()
        if is_fatal(error):
            self._fatal = error

    def _check(self) -> None:
        self._connection.check()
        if self._fatal is not None:
            self._join_anew(self._fatal)
        for topic, since in self._denied.items():
            if time.monotonic() - since > DENIED_S:
                denied = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
                raise self._connection.typed(denied, "read", topic)

    def _join_anew(self, error: KafkaError) -> None:
        """The consumer ended and gives nothing out any more: another one in its place.

        A static member whose session timed out, as when its coordinator's broker is killed, joins anew within
        librdkafka and is fenced by that (librdkafka 3437). Only where it comes again and again is it another process.
        """
        now = time.monotonic()
        self._ended.append(now)
        if len(self._ended) == FENCED and now - self._ended[0] < FENCED_WITHIN_S:
            raise Refused(
                f"{self._instance}: its consumer ended {FENCED} times in {FENCED_WITHIN_S:.0f} s: {error.str()}",
                code=Code.STACK,
                hint="does another process run under this instance name?",
            )
        log.warning("joining the group anew: %s", error.str())
        self._void(fence=True)
        self._leave(self._consumer)
        self._consumer.close()
        self._fatal, self._topics = None, []
        self._consumer = self._join()
        self._subscribe()

    def _on_message_error(self, message: Message) -> None:
        error = message.error()
        if error is None:
            return
        self._note_fatal(error)
        code = error.code()
        if code in ACL_ERRORS:
            # Its domain may have left the policy: the snapshot that says so comes after the revocation.
            self._denied.setdefault(message.topic() or "", time.monotonic())
            return
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
        fetch_wait_max_ms=FETCH_WAIT_MS,
        fetch_message_max_bytes=4 * 1024 * 1024,
        metadata_recovery_strategy="none",
    )
