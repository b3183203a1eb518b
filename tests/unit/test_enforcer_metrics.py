"""An enforcer's metrics of rates and breakers: what was refused, what opened and closed, what a hand-over leaves open.

From sealed records through the worker to the text that is scraped; another worker goes on by the windows of the first.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bus.kafka.batch import Records
from bus.kafka.loop import Committed
from bus.kafka.transaction import Staged
from bus.policy.model import BreakerRule, RateRule
from consumers.enforcer import metrics, worker
from consumers.enforcer.metrics import EnforcerMetrics
from consumers.enforcer.worker import EnforcerWorker
from tests.unit.build import MEMORY, NOTES, NOW, WRITER, World, domain_policy, make_policy, plaintext
from tests.unit.inspected import KEY, NO_KEYS

PLACE = ("memory.in", 0)
MINUTE = 60_000
RATE = RateRule("normal", "agent", per_hour=60, burst=4, max_bytes=4096)
BREAKER = BreakerRule("worker", "agent", count=2, within_ms=MINUTE, half_open_ms=2 * MINUTE)
FINE, BAD = {"fine": True}, {"key": KEY}
REFUSED, CHANGES, NOW_OPEN = "sealbus_limited_total", "sealbus_breaker_changes_total", "sealbus_breakers_open"


class Reader:
    """The windows that an enforcer wrote."""

    def __init__(self, values: list[bytes]) -> None:
        self.values = values

    def read(self, starts):
        return dict.fromkeys(starts, self.values)


class Site:
    """An enforcer with its metrics. ``windows`` holds what it wrote there, by transaction."""

    def __init__(self, world: World, windows: list[bytes], position: int) -> None:
        self.windows, self.position = list(windows), position
        self.context = world.context()
        self.registry = CollectorRegistry()
        self.metrics = EnforcerMetrics(self.registry, self.context)
        self.worker = EnforcerWorker(
            self.context, "bus-enforcer-1", world.trust, Reader(windows), lambda _: None, self.metrics.observe
        )
        self.metrics._worker = self.worker
        self.worker.restore({PLACE: Committed(position or None, "w1:0" if position else "")})

    def stage(self, *values: bytes, at: int = NOW) -> Staged:
        offsets = list(range(self.position, self.position + len(values)))
        self.worker.handle(PLACE, Records(list(values), [at] * len(values), offsets))
        staged = self.worker.stage()
        assert staged is not None
        return staged

    def run(self, *values: bytes, at: int = NOW) -> None:
        staged = self.stage(*values, at=at)
        self.position += len(values)
        for target, written in [*staged.writes, *staged.snapshots.values()]:
            self.windows += written if target == ("memory.windows", 0) else []
        self.worker.committed(staged)

    def told(self, name: str) -> dict[tuple[str, ...], float]:
        """Samples of ``name`` by the values of their labels, which are sorted by name."""
        families = text_string_to_metric_families(generate_latest(self.registry).decode())
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return {tuple(value for _, value in sorted(each.labels.items())): each.value for each in samples}


@pytest.fixture
def clock(monkeypatch):
    """Sets this machine's clock, which is the broker's here."""
    now = [NOW]
    for module in (worker, metrics):
        monkeypatch.setattr(module, "now_ms", lambda: now[0])
    return lambda at: now.__setitem__(0, at)


def world(**domain) -> World:
    return World(make_policy(domain_policy(MEMORY, **domain), domain_policy(NOTES)))


def records(made: World, *payloads: object) -> list[bytes]:
    sealer = made.sealer()
    return [sealer.seal(0, plaintext(payload=json.dumps(each).encode()))[1] for each in payloads]


def test_forged_records_are_counted_from_0_in_every_domain(clock):
    """Prometheus sees no increase in a series that begins with what happened."""
    site = Site(world(), [], 0)
    forged = {(code, "DENY", domain) for domain in ("memory", "notes") for code in metrics.FORGED}
    assert site.told("sealbus_records_total") == dict.fromkeys(forged, 0)
    site.run(b"\xff" * 40)
    assert {key for key, count in site.told("sealbus_records_total").items() if count} - forged


def test_what_a_rate_refuses_is_counted_by_its_rule(clock):
    made = world(rate=RATE)
    site = Site(made, [], 0)
    site.run(*records(made, FINE, FINE, FINE, {"text": "x" * 5000}, FINE, FINE, FINE))
    assert site.told(REFUSED) == {("throttled", "memory", "normal"): 2, ("too-large", "memory", "normal.max_bytes"): 1}
    assert site.told(NOW_OPEN) == {}
    assert site.told("sealbus_records_total")["throttled", "DENY", "memory"] == 2


def test_refusals_by_other_rules_are_no_limits(clock):
    made = world(guardrails=(NO_KEYS,))
    site = Site(made, [], 0)
    site.run(*records(made, BAD, FINE))
    assert (site.told(REFUSED), site.told(CHANGES), site.told(NOW_OPEN)) == ({}, {}, {})
    assert site.told("sealbus_records_total")["guardrail", "DENY", "memory"] == 1


def test_a_breaker_is_open_until_it_lets_one_try_and_closes_by_it(clock):
    made = world(guardrails=(NO_KEYS,), breaker=BREAKER)
    values = records(made, FINE, BAD, BAD, FINE, FINE)
    site = Site(made, [], 0)
    assert site.told(NOW_OPEN) == {("memory", "worker"): 0}
    site.run(*values[:1])
    assert (site.told(NOW_OPEN), site.told(CHANGES)) == ({("memory", "worker"): 0}, {})
    site.run(*values[1:4])
    assert site.told(NOW_OPEN) == {("memory", "worker"): 1}
    assert site.told(CHANGES) == {("memory", "worker", "open"): 1}
    assert site.told(REFUSED) == {("breaker-open", "memory", "worker"): 1}
    clock(NOW + 2 * MINUTE)
    assert site.told(NOW_OPEN) == {("memory", "worker"): 0}
    site.run(values[4], at=NOW + 2 * MINUTE)
    assert site.told(CHANGES) == {("memory", "worker", "open"): 1, ("memory", "worker", "closed"): 1}


def test_the_next_enforcer_knows_what_is_open_and_counts_from_nothing(clock):
    made = world(guardrails=(NO_KEYS,), breaker=BREAKER)
    values = records(made, BAD, BAD, FINE, FINE)
    first = Site(made, [], 0)
    first.run(*values[:1])
    first.run(*values[1:2])
    after = Site(made, first.windows, first.position)
    first.worker.drop([PLACE])
    assert (first.told(NOW_OPEN), after.told(NOW_OPEN)) == ({}, {("memory", "worker"): 1})
    assert (after.told(CHANGES), after.told(REFUSED)) == ({}, {})
    after.run(values[2])
    assert after.told(REFUSED) == {("breaker-open", "memory", "worker"): 1}
    clock(NOW + 2 * MINUTE)
    after.run(values[3], at=NOW + 2 * MINUTE)
    assert after.told(CHANGES) == {("memory", "worker", "closed"): 1}


def test_what_was_not_committed_is_not_counted_and_counts_once_when_it_is(clock):
    made = world(guardrails=(NO_KEYS,), breaker=BREAKER)
    values = records(made, FINE, BAD, BAD, FINE)
    site = Site(made, [], 0)
    site.run(values[0])
    site.stage(*values[1:])
    site.worker.reset()
    site.worker._reader.values = site.windows
    site.worker.restore({PLACE: Committed(site.position, "w1:0")})
    assert (site.told(CHANGES), site.told(REFUSED), site.told(NOW_OPEN)) == ({}, {}, {("memory", "worker"): 0})
    site.run(*values[1:])
    assert site.told(CHANGES) == {("memory", "worker", "open"): 1}
    assert site.told(REFUSED) == {("breaker-open", "memory", "worker"): 1}


def test_a_breaker_that_the_policy_no_longer_names_is_not_shown(clock):
    made = world(guardrails=(NO_KEYS,), breaker=BREAKER)
    site = Site(made, [], 0)
    site.run(*records(made, BAD, BAD))
    other = replace(BREAKER, name="other")
    for breaker, told in ((other, {("memory", "other"): 0}), (None, {}), (BREAKER, {("memory", "worker"): 1})):
        site.context.set_policy(make_policy(domain_policy(MEMORY, breaker=breaker)), 2)
        assert site.told(NOW_OPEN) == told


def test_no_agent_is_named(clock):
    made = world(guardrails=(NO_KEYS,), breaker=BREAKER, rate=RATE)
    site = Site(made, [], 0)
    site.run(*records(made, BAD, BAD, FINE, FINE, FINE, FINE, FINE))
    assert len(site.told(REFUSED)) == 2
    assert WRITER not in generate_latest(site.registry).decode()
