"""Shell of the audit consumer: bus.audit to the ledger, one database transaction a batch, checkpoints in another.

Between two batches the ``Keeper`` has its turn: it fetches records that are to be kept with hops that are recorded.

The position is the ledger's, stored with the entries, so that a crash between Kafka and database cannot part them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from confluent_kafka import Consumer, KafkaError, Message
from prometheus_client import CollectorRegistry

from bus.admin.desired import AUDITOR
from bus.authority.local import load_signer, open_roots
from bus.authority.trust import read_trust
from bus.codes import Code
from bus.crypto.signing import KnownTrust, Trust
from bus.errors import BusError, Refused, RetryLater
from bus.files import Layout
from bus.kafka.config import ACL_ERRORS, FETCH_WAIT_MS, connect
from bus.kafka.ends import Ends
from bus.kafka.feed import Feed
from bus.kafka.transaction import Place
from bus.ledger.leaf import DayKeys, days_keys
from bus.ledger.opened import open_ledger
from bus.ledger.payloads import Wanted
from bus.ledger.store import Append, Entry, Interval, Overtaken
from bus.settings import Settings
from bus.signals import stop_on_signal
from bus.wire import hopblock
from bus.wire.names import AUDIT, POLICY, domain_of
from consumers.audit.keeper import Keeper
from consumers.audit.laws import Laws
from consumers.audit.metrics import AuditMetrics
from consumers.audit.partitions import SHARED_CONFIG, Partitions
from consumers.audit.recorder import Recorder
from consumers.audit.wanting import Wanting
from consumers.audit.witnessed import Witnessing
from consumers.endpoint import Endpoint, Vitals
from consumers.enforcer.app import configure_logging
from consumers.tuning import tune_process

log = logging.getLogger("bus.audit")
BATCH = 500
MAX_BATCH_BYTES = 8 * 1024 * 1024
"""Of hop blocks in one database transaction, some 20,000 hops: bounds memory and the time between signs of life."""


class Auditor:
    """One audit process. ``step`` is called at named points, for fault tests; ``observe`` is told of hops recorded."""

    def __init__(
        self,
        settings: Settings,
        step: Callable[[str], None] = lambda _: None,
        observe: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._step = step
        self._observe = observe
        self._layout = Layout(settings.state)
        self._connection = connect(settings, AUDITOR)
        self._ledger = open_ledger(settings, read_only=False)
        self._shared = bool(settings.ledger_database)
        self._signer = load_signer(self._layout.signer("ledger"))
        trust = read_trust(self._layout.trust)
        self._trust = KnownTrust(lambda: read_trust(self._layout.trust).trust())
        self._roots = open_roots(settings, self._layout, trust)
        self._days = days_keys(self._roots.audit_root)
        self._ends = Ends()
        self._laws = Laws(self._policies, trust)
        self._wanting = Wanting(self._laws)
        self._wanted: list[Wanted] = []
        self._recorder = Recorder(self._day, compiled=settings.compiled, look=self._look)

    def run(self, stop: threading.Event) -> None:
        """Record until ``stop``."""
        config = self._connection.config(
            group_id=AUDITOR,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="error",
            fetch_wait_max_ms=FETCH_WAIT_MS,
            **(SHARED_CONFIG if self._shared else {}),
        )
        consumer = Consumer({**config, **self._ends.config})
        self._partitions = Partitions(consumer, self._ledger, self._signer, shared=self._shared)
        name = self._settings.instance if self._shared and self._settings.instance else "audit"
        registry = CollectorRegistry()
        self._metrics = AuditMetrics(registry, self._lag)
        vitals = Vitals(self._layout.run / f"{name}.ready")
        keeper = Keeper(self._connection, self._ledger, self._laws.now, self._metrics.settled)
        witnessing = Witnessing(
            lambda: open_ledger(self._settings, read_only=False), self._signer.public_key, self._settings.witnesses
        )
        endpoint = Endpoint(name, self._settings.http, self._layout.run, vitals, registry)
        with witnessing, vitals, endpoint:
            try:
                self._follow(consumer, keeper, vitals, stop)
            finally:
                consumer.close()
                keeper.close()
                self._ledger.close()

    def _follow(self, consumer: Consumer, keeper: Keeper, vitals: Vitals, stop: threading.Event) -> None:
        vitals.ready()
        more = False
        while not stop.is_set():
            vitals.beat()
            try:
                if self._partitions.settle():
                    vitals.ready()
                messages = consumer.consume(BATCH, 0 if more else 0.1)
                self._connection.check()
                for batch in _batches(self._received(messages)):
                    vitals.beat()
                    self._record(batch)
                # Of recorders that share a ledger, one fetches.
                more = 0 in self._partitions.positions and keeper.keep()
            except RetryLater as error:  # a full or locked disk, or a server that is away, may mend
                log.warning("waiting: %s", error)
                vitals.waiting(str(error))
                self._metrics.waited()
                stop.wait(0.2)
                self._partitions.again()
            except Overtaken as error:
                if not self._shared:
                    raise
                log.warning("another recorder has this partition: %s", error)
                self._partitions.again()

    def _lag(self) -> dict[int, int]:
        """Audit records by partition that are not recorded yet, as far as is known. From any thread."""
        held = list(self._partitions.positions.items())
        positions: dict[Place, int] = {(AUDIT, number): position for number, position in held}
        return {number: behind for (_, number), behind in self._ends.lag(positions).items()}

    def _received(self, messages: list[Message]) -> list[Message]:
        """The messages that are records."""
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(message)
            elif error.code() in ACL_ERRORS:
                raise self._connection.typed(error, "read", AUDIT)
            elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                raise Refused(f"{AUDIT}: hops were deleted before they were recorded: {error.str()}", code=Code.LEDGER)
            else:
                log.debug("%s: %s", AUDIT, error)
        return records

    def _record(self, messages: list[Message]) -> None:
        """Record a batch, all partitions in one database transaction, and then sign it in another."""
        groups: dict[int, list[Message]] = {}
        for message in messages:
            if message.partition() in self._partitions.positions:  # of what a rebalance took meanwhile, nothing
                groups.setdefault(message.partition() or 0, []).append(message)
        appends: list[Append] = []
        for partition, run in groups.items():
            entries: list[Entry] = []
            intervals: list[Interval] = []
            self._wanted = []
            for message in run:
                value = message.value() or b""
                made = self._recorder.record(value, partition, message.offset() or 0, self._trusted(value))
                entries += made[0]
                intervals += made[1]
            expected, following = self._partitions.positions[partition], (run[-1].offset() or 0) + 1
            appends.append(Append(partition, expected, following, entries, intervals, self._wanted))
        began = time.monotonic()
        self._step("opened")
        sizes = self._ledger.append_all(appends)
        for each in appends:
            self._partitions.positions[each.partition] = each.following
        self._step("appended")
        self._ledger.sign_all([each.partition for each in appends], self._signer)
        self._step("signed")
        for each, leaves in zip(appends, sizes, strict=True):
            self._metrics.recorded(each.partition, each.entries, leaves, time.monotonic() - began)
            self._observe(len(each.entries))

    def _look(self, block: hopblock.HopBlock, opened: bytes, met: set[int]) -> None:
        self._wanted += self._wanting.of(block, opened, met)

    def _policies(self) -> list[bytes]:
        """Every value of bus.policy."""
        feed = Feed(self._connection, POLICY)
        try:
            return feed.catch_up()
        finally:
            feed.close()

    def _trusted(self, value: bytes) -> Trust:
        """The trust store, read again when it has no certificate of the block's enforcer for its domain."""
        try:
            block = hopblock.parse(value)
        except BusError:
            return self._trust.held
        return self._trust.of(block.enforcer_key_id, domain_of(block.topic))

    def _day(self, day: int) -> DayKeys:
        try:
            return self._days(day)
        except FileNotFoundError:
            raise RetryLater(f"root(audit, {day}) is not there", code=Code.RETRY) from None


def _batches(messages: Iterable[Message]) -> Iterator[list[Message]]:
    """``messages`` in their order, in runs of about MAX_BATCH_BYTES."""
    batch: list[Message] = []
    size = 0
    for message in messages:
        batch.append(message)
        size += len(message.value() or b"")
        if size >= MAX_BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def run(settings: Settings) -> None:
    """Record until SIGTERM or SIGINT."""
    configure_logging()
    tune_process()
    stop = stop_on_signal()
    while not stop.is_set():
        try:
            auditor = Auditor(settings)
        except RetryLater as error:  # a database that is away when the service starts
            log.warning("waiting: %s", error)
            stop.wait(1)
            continue
        auditor.run(stop)
        return
