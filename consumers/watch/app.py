"""Shell of the watcher: reads the ledger and bus.issue forward, judges by alerts.yaml, and hands on what it reads.

What is read goes to every sink in order; one that is away has it kept in memory for later, and keeps no other from
going on, but for MAX_QUEUED batches. Where all of them stand, with what rules remember then, is a file: nothing is left
out, and after a crash some of it comes again, alerts with the same ids.
"""

from __future__ import annotations

import heapq
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from bus.admin.desired import AUDITOR
from bus.authority.local import open_roots
from bus.authority.trust import read_trust
from bus.codes import Code
from bus.crypto.issued import open_issued
from bus.errors import BusError, Refused, RetryLater, SettingsError, Unverified, WireError
from bus.files import Layout, make_folder, write_file
from bus.kafka.config import connect
from bus.kafka.feed import Feed
from bus.ledger.alerts import Alerts
from bus.ledger.database import Row
from bus.ledger.leaf import UNVERIFIED_INDEX, days_keys
from bus.ledger.opened import open_ledger
from bus.ledger.query import LedgerQuery
from bus.ledger.siem import trace_id
from bus.ledger.store import Ledger
from bus.policy.alertfile import read_alerts
from bus.settings import Settings
from bus.signals import stop_on_signal
from bus.wire.hop import Hop, Verdict
from bus.wire.names import ISSUE
from consumers.endpoint import Endpoint, Vitals
from consumers.enforcer.app import configure_logging
from consumers.watch.sinks import Batch, Sink, sinks

log = logging.getLogger("bus.watch")
BATCH: Final = 4000
"""Hops that are handed on at once."""
MAX_QUEUED: Final = 50
EVERY_S: Final = 0.5
PAUSE_S: Final = 5.0
"""How long a sink that was away is left alone."""
MAX_EVENTS: Final = 1000
SECONDS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60)


class Watcher:
    """One process; two of one state folder would tell everything twice."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._layout = Layout(settings.state)
        self._file = read_alerts(settings.policies)
        self._connection = connect(settings, AUDITOR)
        self._trust = read_trust(self._layout.trust)
        self._day = days_keys(open_roots(settings, self._layout, self._trust).audit_root)
        self._alerts = Alerts(self._file.alerts)
        self._leaves: dict[str, tuple[int, str]] = {}
        """By partition: how many leaves were read, and the hash of the last."""
        self._events: list[dict[str, Any]] = []
        """That were read and are in no batch yet."""
        self._batches: deque[Batch] = deque()
        """That some sink has not taken; the first is number ``_first``."""
        self._first = 0
        self._taken: dict[str, int] = {}
        """By sink: how many batches it took."""
        self._away: dict[str, float] = {}
        self._place = self._layout.state / "watch" / "state.json"
        self._issued = self._restored()

    def run(self, stop: threading.Event) -> None:
        """Watch until ``stop``."""
        registry = CollectorRegistry()
        self._told = Counter("sealbus_alerts", "Alerts.", ["rule", "severity"], registry=registry)
        for rule in self._file.alerts:
            self._told.labels(rule.name, rule.severity)  # at 0: no increase is seen in a series that begins at 1
        self._watched = Counter("sealbus_watched", "Hops that were watched.", registry=registry)
        self._closed = Counter("sealbus_unwatched", "Hops that do not open any more.", registry=registry)
        self._behind = Gauge("sealbus_watch_lag_hops", "Hops of the ledger not watched yet.", registry=registry)
        self._decided = Histogram(
            "sealbus_decision_seconds",
            "From the broker's time of a record to its decision.",
            ["domain"],
            buckets=SECONDS,
            registry=registry,
        )
        vitals = Vitals(self._layout.run / "watch.ready")
        made = sinks(self._file.send, self._file.stream, self._connection, vitals.beat)
        self._taken = {each.name: 0 for each in made}
        feed = Feed(self._connection, ISSUE, start=self._issued)
        with vitals, Endpoint("watch", self._settings.http, self._layout.run, vitals, registry):
            try:
                while not stop.is_set():
                    vitals.beat()
                    more, waits = self._round(feed, made)
                    if waits:
                        vitals.waiting(waits)
                    else:
                        vitals.ready()
                    if not more:
                        stop.wait(EVERY_S)
            finally:
                feed.close()

    def _round(self, feed: Feed, made: Sequence[Sink]) -> tuple[bool, str]:
        """Read and judge some, and hand on what waits. Returns whether there is more, and why something waits."""
        waits, more = "", False
        if len(self._batches) < MAX_QUEUED:
            try:
                more = self._read(feed)
            except (BusError, OSError) as error:  # the ledger, its server, keys, the broker
                waits = str(error)
                log.warning("waiting: %s", error)
        for sink in made:
            waits = self._hand_on(sink) or waits
        self._forget()
        return more, waits

    def _hand_on(self, sink: Sink) -> str:
        """Give ``sink`` what waits for it. Returns why it waits, or nothing."""
        if time.monotonic() >= self._away.get(sink.name, 0):
            try:
                while (number := self._taken[sink.name] - self._first) < len(self._batches):
                    sink.take(self._batches[number])
                    self._taken[sink.name] += 1
                self._away.pop(sink.name, None)
            except RetryLater as error:
                self._away[sink.name] = time.monotonic() + PAUSE_S
                log.warning("waiting: %s", error)
        return f"{sink.name} is away" if sink.name in self._away else ""

    def _forget(self) -> None:
        """Batches that every sink took; where the last of them ends is written down."""
        done = None
        while self._first < min(self._taken.values()):
            done = self._batches.popleft()
            self._first += 1
            for alert in done.alerts:
                self._told.labels(alert.rule, alert.severity).inc()
            self._watched.inc(len(done.hops))
            for hop in done.hops:
                if hop.tail.decision is not Verdict.RETRY:
                    told = {"trace_id": f"{trace_id(hop):032x}", "message_id": hop.message_id.hex()}
                    seconds = max(hop.decided_at - hop.append_time, 0) / 1000
                    self._decided.labels(hop.tail.domain).observe(seconds, exemplar=told)
        if done is not None:
            make_folder(self._place.parent)
            write_file(self._place, done.state)

    def _read(self, feed: Feed) -> bool:
        """One batch of the next hops, in the order of their decisions, and events. Returns whether there is more."""
        ledger = open_ledger(self._settings)
        try:
            sizes = ledger.sizes()
            self._same(ledger, sizes)
            query = LedgerQuery(ledger, self._day)
            streams = [
                self._stream(ledger, query, partition, self._leaves.get(str(partition), (0, ""))[0], size)
                for partition, size in sizes.items()
            ]
            hops: list[Hop] = []
            read: dict[int, int] = {}
            for _, partition, leaf, hop in islice(heapq.merge(*streams), BATCH):
                read[partition] = leaf + 1
                if hop is not None:
                    hops.append(hop)
            for partition, count in read.items():
                self._leaves[str(partition)] = count, ledger.tree(partition).leaf(count - 1).hex()
        finally:
            ledger.close()
        behind = sum(sizes.values()) - sum(count for count, _ in self._leaves.values())
        self._behind.set(behind + sum(len(each.hops) for each in self._batches))
        self._follow(feed)
        if read or self._events:
            alerts = [alert for hop in hops for alert in self._alerts.hop(hop)]
            alerts += [alert for event in self._events for alert in self._alerts.issued(event)]
            state = {"leaves": self._leaves, "issued": self._issued, "rules": self._alerts.state()}
            # As bytes at once: rules go on remembering in the same lists.
            self._batches.append(Batch(hops, self._events, alerts, json.dumps(state).encode()))
            self._events = []
        return behind > 0

    def _same(self, ledger: Ledger, sizes: Mapping[int, int]) -> None:
        """Raises Refused (ledger) where this is not the log that was read before."""
        for number, (count, last) in self._leaves.items():
            if sizes.get(int(number), 0) < count or ledger.tree(int(number)).leaf(count - 1).hex() != last:
                raise Refused(
                    f"partition {number}: not the log of which {count} leaves were watched: an older copy, or another",
                    code=Code.LEDGER,
                    hint=f"remove {self._place} to be told everything again",
                )

    def _stream(
        self, ledger: Ledger, query: LedgerQuery, partition: int, first: int, size: int
    ) -> Iterator[tuple[int, int, int, Hop | None]]:
        """(time of decision, partition, leaf, hop) from leaf ``first``; no hop where it does not open."""
        at = 0
        for row in ledger.entries(partition, first):
            if row[0] >= size:
                return
            hop = self._opened(query, partition, row)
            at = hop.decided_at if hop is not None else at
            yield at, partition, row[0], hop

    def _opened(self, query: LedgerQuery, partition: int, row: Row) -> Hop | None:
        """None for a block that did not verify, for a day whose keys are gone, and for what was changed: told, not read
        for ever."""
        if row[3] == UNVERIFIED_INDEX:
            return None
        try:
            return query.open_row(partition, row)
        except (FileNotFoundError, Unverified, WireError) as error:
            self._closed.inc()
            log.error("partition %d: leaf %d does not open: %s", partition, row[0], error)  # noqa: TRY400
            return None

    def _follow(self, feed: Feed) -> None:
        """What bus.issue says next, into ``_events``: nothing that was read is lost where the broker goes away."""
        for _ in range(MAX_EVENTS):
            value = feed.poll(0)
            if value is None:
                return
            self._issued = feed.position
            try:
                event = open_issued(value, self._trust.anchor, self._settings.deployment_id)
            except BusError as error:
                log.error("%s: %s", ISSUE, error)  # noqa: TRY400  # the reason is the message
                continue
            told = {"agent": "", **event}
            if isinstance(told.get("event"), str) and isinstance(told["agent"], str) and _is_time(told.get("at")):
                self._events.append(told)
            else:
                log.error("%s: an event of another form: %s", ISSUE, sorted(event))

    def _restored(self) -> int:
        """Where bus.issue is read on; the rest of what was written down is taken over."""
        try:
            state = json.loads(self._place.read_bytes())
            self._leaves = {
                str(int(number)): (int(count), str(last)) for number, (count, last) in state["leaves"].items()
            }
            self._alerts.restore(state["rules"])
            return int(state["issued"])
        except FileNotFoundError:
            return 0
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            hint = "remove it to be told everything again"
            raise SettingsError(f"{self._place}: not what the watcher writes", hint=hint) from None


def _is_time(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << 47


def run(settings: Settings) -> None:
    """Watch until SIGTERM or SIGINT."""
    configure_logging()
    Watcher(settings).run(stop_on_signal())
