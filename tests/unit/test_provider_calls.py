"""Provider calls: one per epoch, domain and process, one per audit day and process. What an outage costs: waiting."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from bus.authority.custody import Custodian
from bus.authority.documents import Folder
from bus.authority.issuer import Issuer
from bus.authority.local import load_signer
from bus.authority.providers.base import away
from bus.authority.roots import RootStore
from bus.errors import RetryLater
from bus.ledger.leaf import days_keys
from consumers.audit.app import Auditor
from consumers.enforcer import watch
from consumers.enforcer.watch import Watcher
from tests.unit.ledger_build import DEPLOYMENT, NOON, make_authority, make_policy

DAY_MS = 86_400_000
INTERVAL_MS = 600_000
OUTAGE_MS = 180_000


class Counting:
    """The `file` provider, counting by context; away while told so."""

    def __init__(self, authority):
        self._real = Custodian(authority.settings, authority.layout)
        self.wraps, self.unwraps, self.away = Counter(), Counter(), False

    def wrap(self, key, context):
        self.wraps[context] += 1
        if self.away:
            raise away("file", TimeoutError())
        return self._real.wrap(key, context)

    def unwrap(self, wrapped, context, name):
        self.unwraps[context] += 1
        if self.away:
            raise away("file", TimeoutError())
        return self._real.unwrap(wrapped, context, name)


class NoFeed:
    """A policy topic on which nothing comes."""

    def poll(self, _timeout):
        return None


class Site:
    """An issuer, an enforcer's watcher and an auditor: a provider and a store for each, as in processes."""

    def __init__(self, folder, monkeypatch):
        self.authority = authority = make_authority(folder)
        self.now = NOON
        monkeypatch.setattr(watch, "now_ms", lambda: self.now)
        self.providers = {name: Counting(authority) for name in ("issuer", "watcher", "auditor")}
        layout, trust = authority.layout, authority.trust
        stores = {
            name: RootStore(
                Folder(layout.roots),
                Folder(layout.audit_roots),
                authority.store.tombstones,
                provider,
                DEPLOYMENT,
                trust.anchor,
            )
            for name, provider in self.providers.items()
        }
        signer = load_signer(layout.signer("issuer"))
        self.issuer = Issuer(layout, stores["issuer"], signer, authority.settings, {})
        self.watcher = Watcher(NoFeed(), NoFeed(), stores["watcher"], trust, dataclasses.replace)
        self.auditor = object.__new__(Auditor)
        self.auditor._days = days_keys(stores["auditor"].audit_root)
        self.seen = set()

    def turn(self, later_ms):
        """One turn of each, ``later_ms`` after the last; the watcher's failure."""
        self.now += later_ms
        try:
            self.issuer.step(make_policy(interval_ms=INTERVAL_MS), self.now)
        except RetryLater:
            self.issuer_waits = True
        else:
            self.issuer_waits = False
        made = self.watcher._round()
        self.seen |= {(each.epoch.epoch, each.epoch.domain) for each in made.epochs}
        try:
            self.auditor._day(self.now // DAY_MS)
        except RetryLater:
            self.auditor_waits = True
        else:
            self.auditor_waits = False
        return made.failure

    def away(self, now):
        for each in self.providers.values():
            each.away = now


@pytest.fixture
def site(tmp_path, monkeypatch):
    return Site(tmp_path, monkeypatch)


def test_a_provider_is_called_once_per_epoch_domain_and_process(site):
    for _ in range(400):  # 33 hours
        assert site.turn(INTERVAL_MS // 2) is None
    issuer, watcher, auditor = (site.providers[each] for each in ("issuer", "watcher", "auditor"))
    assert len(site.seen) > 2 * 190
    assert issuer.wraps.total() == len(site.seen) + 3  # and the days: two that were reached, one to come
    assert set(issuer.wraps.values()) == set(watcher.unwraps.values()) == set(auditor.unwraps.values()) == {1}
    assert not issuer.unwraps
    assert set(watcher.unwraps) == set(issuer.wraps)
    assert len(auditor.unwraps) == 2
    assert not watcher.wraps
    assert not auditor.wraps


def test_a_restarted_issuer_unwraps_each_root_once(site):
    for _ in range(10):
        site.turn(INTERVAL_MS // 2)
    made = set(site.providers["issuer"].wraps)
    again = Site.__new__(Site)
    again.__dict__ |= site.__dict__
    provider = Counting(site.authority)
    layout = site.authority.layout
    store = RootStore(
        Folder(layout.roots),
        Folder(layout.audit_roots),
        site.authority.store.tombstones,
        provider,
        DEPLOYMENT,
        site.authority.trust.anchor,
    )
    again.issuer = Issuer(layout, store, load_signer(layout.signer("issuer")), site.authority.settings, {})
    for _ in range(3):
        again.issuer.step(make_policy(interval_ms=INTERVAL_MS), site.now)
    assert set(provider.unwraps) == made
    assert set(provider.unwraps.values()) == {1}
    assert not provider.wraps


@pytest.mark.parametrize("begins_ms", [0, INTERVAL_MS - OUTAGE_MS - 90_000, INTERVAL_MS - 60_000])
def test_an_outage_of_three_minutes_makes_everyone_wait_and_loses_nothing(site, begins_ms):
    """Also across the moment at which the next epoch is due: the issuer makes it late, the watcher says so."""
    site.turn(0)
    site.turn(begins_ms)
    held = set(site.seen)
    site.away(True)
    for _ in range(OUTAGE_MS // 1000):
        site.turn(1000)
    assert site.seen == held, "an unwrapped root without a provider"
    site.away(False)
    assert site.turn(1000) is None
    assert not site.issuer_waits
    assert not site.auditor_waits
    stored = site.authority.store.numbers()
    assert {number for number, _ in site.seen} == set(stored)
    for number in stored:
        assert {each.epoch.domain for each in site.authority.store.load(number)} == {"notes", "plans"}
    covers = [each.epoch for number in stored for each in site.authority.store.load(number)]
    assert any(each.not_before <= site.now < each.not_after for each in covers)


def test_a_watcher_that_lacks_a_root_says_so_all_the_time_that_the_provider_is_away(site):
    """While it says so, a record under a key that is not known waits; it is not refused as `unknown-key`."""
    assert site.turn(0) is None
    lead = site.authority.settings.lead_ms
    site.providers["watcher"].away = True
    failures = [site.turn(1000) for _ in range(3)]
    assert failures == [None] * 3  # nothing new: nothing is asked
    site.turn(INTERVAL_MS - lead)  # the issuer makes the next epoch
    failures = [site.turn(1000) for _ in range(OUTAGE_MS // 1000)]
    assert all(isinstance(each, RetryLater) for each in failures)
    site.providers["watcher"].away = False
    assert site.turn(1000) is None
    assert {number for number, _ in site.seen} == set(site.authority.store.numbers())
