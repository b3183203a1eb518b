"""Shell of the watcher: reads the ledger and bus.issue forward, judges by alerts.yaml, and hands on what it reads.

Where it stands is a file, written after every sink took what was read: nothing is left out, and after a crash or a sink
that was away some of it comes again, with the same ids. Rules remember in memory; at a start they are shown again what
was read last, without a word.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from bus.admin.desired import AUDITOR
from bus.authority.local import open_roots
from bus.authority.trust import read_trust
from bus.crypto.issued import open_issued
from bus.errors import BusError, RetryLater, SettingsError
from bus.files import Layout, make_folder, write_file
from bus.kafka.config import connect
from bus.kafka.feed import Feed
from bus.ledger.alerts import Alert, Alerts
from bus.ledger.leaf import DayKeys, day_keys
from bus.ledger.opened import open_ledger
from bus.ledger.query import LedgerQuery
from bus.ledger.siem import trace_id
from bus.policy.alertfile import read_alerts
from bus.settings import Settings
from bus.signals import stop_on_signal
from bus.wire.hop import Hop, Verdict
from bus.wire.names import ISSUE
from consumers.endpoint import Endpoint, Vitals
from consumers.enforcer.app import configure_logging
from consumers.watch.sinks import Taking, Telling, takers, tellers

log = logging.getLogger("bus.watch")
BATCH: Final = 2000
EVERY_S: Final = 0.5
REPLAYED: Final = 200_000
"""Hops of each partition that rules are shown again at a start."""
MAX_EVENTS: Final = 1000
SECONDS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 60)


@dataclass(frozen=True, slots=True)
class _Batch:
    """What was read and judged, and where the next begins once every sink has taken it."""

    hops: Sequence[Hop]
    events: Sequence[dict[str, Any]]
    alerts: Sequence[Alert]
    position: Mapping[str, int]
    behind: int
    """Hops that are left."""


def _tell(tell: Telling, batch: _Batch) -> None:
    if batch.alerts:
        tell(batch.alerts)


def _take(taking: Taking, batch: _Batch) -> None:
    taking.take(batch.hops, batch.events)


class Watcher:
    """One process; two of one state folder would tell everything twice."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._layout = Layout(settings.state)
        self._file = read_alerts(settings.policies)
        self._connection = connect(settings, AUDITOR)
        self._trust = read_trust(self._layout.trust)
        self._roots = open_roots(settings, self._layout, self._trust)
        self._days: dict[int, DayKeys] = {}
        self._alerts = Alerts(self._file.alerts)
        self._sinks: list[Callable[[_Batch], None]] = [
            *(partial(_tell, each) for each in tellers(self._file.send, self._connection)),
            *(partial(_take, each) for each in takers(self._file.stream)),
        ]
        self._place = self._layout.state / "watch" / "position.json"
        self._position = self._read_position()
        self._known = False
        self._batch: _Batch | None = None
        self._left: list[Callable[[_Batch], None]] = []
        """Sinks that have not taken it yet."""

    def run(self, stop: threading.Event) -> None:
        """Watch until ``stop``."""
        registry = CollectorRegistry()
        self._told = Counter("sealbus_alerts", "Alerts.", ["rule", "severity"], registry=registry)
        self._watched = Counter("sealbus_watched", "Hops that were watched.", registry=registry)
        self._decided = Histogram(
            "sealbus_decision_seconds",
            "From the broker's time of a record to its decision.",
            ["domain"],
            buckets=SECONDS,
            registry=registry,
        )
        self._behind = Gauge("sealbus_watch_lag_hops", "Hops of the ledger not watched yet.", registry=registry)
        vitals = Vitals(self._layout.run / "watch.ready")
        feed = Feed(self._connection, ISSUE, start=self._position.get(ISSUE, 0))
        with vitals, Endpoint("watch", self._settings.http, self._layout.run, vitals, registry):
            try:
                while not stop.is_set():
                    vitals.beat()
                    more = False
                    try:
                        more = self._round(feed)
                        vitals.ready()
                    except (RetryLater, OSError) as error:  # a sink, the ledger, a day's keys
                        log.warning("waiting: %s", error)
                        vitals.waiting(str(error))
                    if not more:
                        stop.wait(EVERY_S)
            finally:
                feed.close()

    def _round(self, feed: Feed) -> bool:
        """Read some, judge, hand on, and note where that ends. Returns whether there is more."""
        if self._batch is None:
            self._batch = self._read(feed)
            self._left = [*self._sinks]
        batch = self._batch
        # A sink that is away keeps the batch here, and no other sink is given it again.
        while self._left:
            self._left[0](batch)
            self._left.pop(0)
        if batch.position != self._position:
            make_folder(self._place.parent)
            write_file(self._place, json.dumps(batch.position).encode())
            self._position = dict(batch.position)
        self._batch = None
        for alert in batch.alerts:
            self._told.labels(alert.rule, alert.severity).inc()
        self._watched.inc(len(batch.hops))
        for hop in batch.hops:
            if hop.tail.decision is not Verdict.RETRY:
                told = {"trace_id": f"{trace_id(hop):032x}", "message_id": hop.message_id.hex()}
                seconds = max(hop.decided_at - hop.append_time, 0) / 1000
                self._decided.labels(hop.tail.domain).observe(seconds, exemplar=told)
        self._behind.set(batch.behind)
        return batch.behind > 0

    def _read(self, feed: Feed) -> _Batch:
        """The next hops and events, judged in the order of their decisions."""
        position = dict(self._position)
        hops: list[Hop] = []
        ledger = open_ledger(self._settings)
        try:
            query, sizes = LedgerQuery(ledger, self._day), ledger.sizes()
            begin = {each: position.get(str(each), 0) for each in sizes}
            if not self._known:
                for hop in self._window(query, {each: (at - REPLAYED, at) for each, at in begin.items()}):
                    self._alerts.hop(hop)
                self._known = True
            ahead = {each: (at, max(at, min(sizes[each], at + BATCH))) for each, at in begin.items()}
            hops = self._window(query, ahead)
        finally:
            ledger.close()
        position |= {str(each): below for each, (_, below) in ahead.items()}
        events = list(self._events(feed))
        if feed.position >= 0:
            position[ISSUE] = feed.position
        alerts = [alert for hop in hops for alert in self._alerts.hop(hop)]
        alerts += [alert for event in events for alert in self._alerts.issued(event)]
        behind = sum(max(size - ahead[each][1], 0) for each, size in sizes.items())
        return _Batch(hops, events, alerts, position, behind)

    def _window(self, query: LedgerQuery, places: Mapping[int, tuple[int, int]]) -> list[Hop]:
        """Hops of each partition from the first leaf, below the second."""
        found = [
            each.hop
            for partition, (first, below) in places.items()
            for each in query.forwards(partition, max(first, 0), below)
        ]
        return sorted(found, key=lambda hop: hop.decided_at)

    def _events(self, feed: Feed) -> Iterator[dict[str, Any]]:
        """What bus.issue says next. What its signer did not sign is told in the log, and is no event."""
        for _ in range(MAX_EVENTS):
            value = feed.poll(0)
            if value is None:
                return
            try:
                yield open_issued(value, self._trust.anchor, self._settings.deployment_id)
            except BusError as error:
                log.error("%s: %s", ISSUE, error)  # noqa: TRY400  # the reason is the message

    def _day(self, day: int) -> DayKeys:
        found = self._days.get(day)
        if found is None:
            found = self._days[day] = day_keys(day, self._roots.audit_root(day))
        return found

    def _read_position(self) -> dict[str, int]:
        try:
            told = json.loads(self._place.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError:
            hint = "remove it to be told everything again"
            raise SettingsError(f"{self._place}: not a position", hint=hint) from None
        return {str(key): int(value) for key, value in told.items()}


def run(settings: Settings) -> None:
    """Watch until SIGTERM or SIGINT."""
    configure_logging()
    Watcher(settings).run(stop_on_signal())
