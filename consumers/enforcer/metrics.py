"""Metrics of an enforcer. Counters rise when a transaction is durable; gauges are asked when they are scraped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from bus.authority.local import now_ms
from bus.codes import Code
from bus.kafka.transaction import Staged

if TYPE_CHECKING:
    from bus.kafka.loop import Loop
    from consumers.enforcer.context import EnforcerContext
    from consumers.enforcer.worker import EnforcerWorker

FORGED: Final = (Code.MAC, Code.REPLAY, Code.UNVERIFIED, Code.UNKNOWN_KEY)
"""Codes of records that somebody forged; docker/observe/alerts.yml asks how they increase."""
COMMIT_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class EnforcerMetrics(Collector):
    """``observe`` is told of each durable transaction."""

    def __init__(self, registry: CollectorRegistry, context: EnforcerContext) -> None:
        self._context = context
        self._worker: EnforcerWorker | None = None
        self._loop: Loop | None = None
        registry.register(self)  # before the counters: it makes series of theirs when it is asked
        self._records = Counter(
            "sealbus_records",
            "Records by outcome.",
            ["domain", "decision", "code"],
            registry=registry,
        )
        self._limited = Counter(
            "sealbus_limited",
            "Records that a rate or a circuit breaker refused.",
            ["domain", "rule", "code"],
            registry=registry,
        )
        self._breakers = Counter(
            "sealbus_breaker_changes",
            "Circuit breakers that opened or closed.",
            ["domain", "rule", "to"],
            registry=registry,
        )
        self._bytes = Counter("sealbus_record_bytes", "Bytes of the records' values.", ["domain"], registry=registry)
        self._commits = Histogram(
            "sealbus_commit_seconds", "From the first record to the commit.", buckets=COMMIT_BUCKETS, registry=registry
        )

    def attach(self, worker: EnforcerWorker, loop: Loop) -> None:
        """Ask these for the gauges."""
        self._worker, self._loop = worker, loop

    def observe(self, staged: Staged) -> None:
        """Count what ``staged`` decided."""
        self._commits.observe(staged.seconds)
        for (domain, code), count in staged.outcomes.items():
            self._records.labels(domain, "DENY" if code else "ALLOW", code).inc(count)
        for limited, count in staged.limited.items():
            self._limited.labels(*limited).inc(count)
        for change, count in staged.breakers.items():
            self._breakers.labels(*change).inc(count)
        for domain, size in staged.sizes.items():
            self._bytes.labels(domain).inc(size)

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing beforehand: what there is depends on the assignment."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges, and at 0 what is worth an alarm: no increase is seen in a series that begins at 1."""
        for domain in self._context.policy.domains:
            for code in FORGED:
                self._records.labels(domain, "DENY", code)
        now = now_ms()
        place = ["topic", "partition"]
        lag = GaugeMetricFamily("sealbus_lag_records", "Records that are not enforced yet.", labels=place)
        if self._loop is not None:
            for (topic, partition), behind in self._loop.lag().items():
                lag.add_metric([topic, str(partition)], behind)
        yield lag
        windows = GaugeMetricFamily("sealbus_windows", "Replay windows held.", labels=place)
        breakers = GaugeMetricFamily(
            "sealbus_breakers_open", "Circuit breakers that let nothing through now.", labels=["domain", "rule"]
        )
        if self._worker is not None:
            for (topic, partition), held in self._worker.windows().items():
                windows.add_metric([topic, str(partition)], held)
            for rule, opened in self._worker.breakers().items():
                breakers.add_metric(rule, opened)
        yield from (windows, breakers)
        yield from self._keys(now)
        policy = GaugeMetricFamily("sealbus_policy_number", "Number of the policy snapshot in force.")
        policy.add_metric([], self._context.snapshot_number)
        yield policy

    def _keys(self, now: int) -> Iterator[GaugeMetricFamily]:
        age = GaugeMetricFamily(
            "sealbus_key_age_seconds", "Time since the newest epoch began whose keys are held.", labels=["domain"]
        )
        held = GaugeMetricFamily("sealbus_epochs", "Epochs whose keys are held.", labels=["domain"])
        read = GaugeMetricFamily("sealbus_keys_read_seconds", "Time since keys and policy were last read whole.")
        begun: dict[str, list[int]] = {}
        for each in self._context.keyring.epochs():
            begun.setdefault(each.domain, []).append(each.begins)
        for domain, begins in begun.items():
            held.add_metric([domain], len(begins))
            past = [each for each in begins if each <= now]
            if past:
                age.add_metric([domain], (now - max(past)) / 1000)
        read.add_metric([], max(now - self._context.refreshed_ms, 0) / 1000)
        yield from (age, held, read)
