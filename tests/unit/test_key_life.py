"""No lead, interval, grace and skew that load let a sending key live longer than 15 minutes and the skew.

A real issuer is driven with whatever settings load, through rotations and changes of who may open a domain; a key lives
from when it can be had and is accepted, to when no enforcer accepts it any more.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bus.authority.roots import StoredEpoch
from bus.crypto.keyring import Keyring
from bus.errors import SettingsError
from bus.guardrails.scanner import default_scanner
from bus.settings import MAX_TOKEN_AGE_MS, Settings
from consumers.enforcer.app import check_law
from tests.unit import build  # noqa: F401  # lifts hypothesis's deadline
from tests.unit.ledger_build import NOON, domain, make_authority, make_policy

MINUTE = 60_000
TIMES = st.tuples(
    st.integers(0, 20 * MINUTE), st.integers(1000, 15 * MINUTE), st.integers(0, 20 * MINUTE), st.integers(0, 5 * MINUTE)
)
FITTING = st.tuples(
    st.integers(0, 5 * MINUTE), st.integers(MINUTE, 8 * MINUTE), st.integers(100, 4 * MINUTE), st.integers(0, MINUTE)
)
READERS = (["READER"], ["READER", "WRITER"])


def loads(lead: int, interval: int, grace: int, skew: int) -> Settings | None:
    settings = replace(Settings(), lead_ms=lead, grace_ms=grace, max_clock_skew_ms=skew)
    try:
        settings.checked().check_interval(interval)
    except SettingsError:
        return None
    return settings


@dataclass(frozen=True)
class Life:
    """When a sending key could first be had, and between which append times it is accepted."""

    had: int
    opens: int
    closes: int

    @property
    def ms(self) -> int:
        return self.closes - max(self.had, self.opens)


def lives(settings: Settings, interval: int, moments: list[int], changes: frozenset[int]) -> list[Life]:
    """The lives of all keys that the issuer makes; at some of ``moments`` (ms after the last) the readers change."""
    policies = [make_policy({"notes": domain(consume=each)}, interval_ms=interval) for each in READERS]
    had: dict[int, tuple[int, StoredEpoch]] = {}
    with tempfile.TemporaryDirectory() as folder:
        times = {"lead_ms": settings.lead_ms, "grace_ms": settings.grace_ms}
        made = make_authority(Path(folder), **times, max_clock_skew_ms=settings.max_clock_skew_ms)
        now = due = NOON
        law = 0

        def step(at: int) -> int:
            following = made.issuer.step(policies[law], at)
            for epoch in set(made.store.numbers()) - set(had):
                had[epoch] = (at, made.store.load(epoch)[0])
            return max(following, at + 1)

        for number, pause in enumerate(moments):
            now += pause
            while due < now:  # as the issuer's process does: it comes back when something is due
                due = step(due)
            law ^= number in changes
            due = step(now)
    ring = Keyring(lead_ms=settings.lead_ms, grace_ms=settings.grace_ms)
    held = [(at, ring.add(each.epoch, each.root, policies[0].agents, each.openers)) for at, each in had.values()]
    return [Life(at, each.opens, each.closes) for at, each in held]


@given(TIMES)
def test_what_loads_is_at_most_15_minutes_together_and_what_is_more_does_not_load(times):
    lead, interval, grace, skew = times
    fits = lead + interval + grace <= MAX_TOKEN_AGE_MS and grace >= 2 * skew + 100 and lead + skew > 0
    assert (loads(*times) is not None) == fits


@given(FITTING, st.lists(st.integers(0, 6 * MINUTE), min_size=1, max_size=12), st.frozensets(st.integers(1, 11)))
def test_no_key_lives_longer_than_15_minutes_and_the_skew(times, moments, changes):
    settings = loads(*times)
    assume(settings is not None)
    found = lives(settings, times[1], moments, changes)
    assert found
    assert max(each.ms for each in found) <= MAX_TOKEN_AGE_MS + settings.max_clock_skew_ms


def test_the_bound_is_nearly_reached_and_a_longer_interval_breaks_it():
    """What is measured is not far from the bound, so that a key that lived longer would be seen."""
    settings = replace(Settings(), lead_ms=120_000, grace_ms=180_000, max_clock_skew_ms=30_000)
    settings.checked().check_interval(600_000)
    pauses = [0, *[MINUTE] * 25]
    longest = max(each.ms for each in lives(settings, 600_000, pauses, frozenset()))
    assert MAX_TOKEN_AGE_MS <= longest <= MAX_TOKEN_AGE_MS + 30_000
    with pytest.raises(SettingsError):
        settings.check_interval(660_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Settings, "check_interval", lambda *_: None)
        longer = max(each.ms for each in lives(settings, 660_000, pauses, frozenset()))
    assert longer > MAX_TOKEN_AGE_MS + 30_000


def test_an_enforcer_with_a_longer_grace_than_the_issuer_decides_nothing():
    policy = make_policy()
    check_law(policy, default_scanner, Settings())
    with pytest.raises(SettingsError, match="expected at most 900000, found 920000"):
        check_law(policy, default_scanner, replace(Settings(), grace_ms=200_000))
