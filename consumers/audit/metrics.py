"""Metrics of the audit consumer. Counters rise when hops are durable; the lag is asked for when it is scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from bus.ledger.leaf import UNVERIFIED_INDEX
from bus.ledger.store import Entry

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class AuditMetrics(Collector):
    """``lag`` gives audit records by partition that are not in the ledger yet, as far as is known."""

    def __init__(self, registry: CollectorRegistry, lag: Callable[[], dict[int, int]]) -> None:
        self._lag = lag
        self._hops = Counter("sealbus_hops", "Hops, by whether their block verified.", ["verified"], registry=registry)
        self._waits = Counter("sealbus_ledger_waits", "Batches that waited for disk or keys.", registry=registry)
        self._append = Histogram(
            "sealbus_ledger_append_seconds", "A batch's append and checkpoint.", buckets=SECONDS, registry=registry
        )
        self._size = Gauge("sealbus_ledger_leaves", "Leaves of the tree.", ["partition"], registry=registry)
        self._payloads = Counter(
            "sealbus_payloads",
            "Records to keep with their hops, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        self._wanted = Gauge(
            "sealbus_payloads_wanted", "Records that are to be kept and are not yet.", registry=registry
        )
        for counter, values in ((self._hops, ("yes", "no")), (self._payloads, ("kept", "lost"))):
            for each in values:
                counter.labels(each)  # at 0 from the start: Prometheus sees no increase in a series that begins at 1
        registry.register(self)

    def recorded(self, partition: int, entries: Sequence[Entry], leaves: int, seconds: float) -> None:
        """A batch is durable and signed; the tree of ``partition`` has ``leaves``."""
        wrong = sum(each.index == UNVERIFIED_INDEX for each in entries)
        self._hops.labels("yes").inc(len(entries) - wrong)
        self._hops.labels("no").inc(wrong)
        self._append.observe(seconds)
        self._size.labels(str(partition)).set(leaves)

    def waited(self) -> None:
        """A batch could not be recorded now."""
        self._waits.inc()

    def settled(self, kept: int, lost: int, wanted: int) -> None:
        """So many records are kept, lost, and still wanted."""
        self._payloads.labels("kept").inc(kept)
        self._payloads.labels("lost").inc(lost)
        self._wanted.set(wanted)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing beforehand."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The lag."""
        lag = GaugeMetricFamily("sealbus_audit_lag_records", "Audit records not recorded yet.", labels=["partition"])
        for partition, behind in self._lag().items():
            lag.add_metric([str(partition)], behind)
        yield lag
