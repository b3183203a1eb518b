"""Faults of key epochs per domain: issuer, keyring, an agent's key store."""

from __future__ import annotations

import threading

import pytest

from bus.authority.issuer import Issuer
from bus.authority.roots import StoredEpoch
from bus.client import keystore
from bus.client.keystore import KeyStore
from bus.crypto.keyring import Keyring
from bus.crypto.signing import Signer
from bus.errors import RetryLater
from bus.policy.model import Policy
from bus.policy.rekeying import opening_digest
from bus.wire.names import AgentId, DomainName
from consumers.enforcer.context import EnforcerContext
from consumers.enforcer.watch import Watcher
from tests.unit.ledger_build import DEPLOYMENT, NOON, domain, make_authority, make_policy

INTERVAL, LEAD, GRACE, SKEW = 600_000, 120_000, 120_000, 30_000
NOTES, PLANS = DomainName("notes"), DomainName("plans")
DOMAINS = {"notes": domain(), "plans": domain(produce=["READER"])}


def law(*agents: str, domains: dict | None = None, horizon_ms: int = 3_600_000) -> Policy:
    roles = {name: [name.split("-")[0].upper()] for name in agents}
    return make_policy(DOMAINS if domains is None else domains, roles, horizon_ms=horizon_ms)


BOTH, GONE = ("writer-1", "reader-1", "reader-2"), ("writer-1", "reader-1")


@pytest.fixture
def authority(tmp_path):
    return make_authority(tmp_path)


def held(authority, name=NOTES):
    return [s for n in authority.store.numbers() for s in authority.store.load(n) if s.epoch.domain == name]


def ring(authority) -> Keyring:
    made = Keyring(lead_ms=LEAD, grace_ms=GRACE)
    for each in held(authority):
        made.add(each.epoch, each.root, [AgentId("writer-1")], each.openers)
    return made


def crash_between(authority, monkeypatch, policy, now):
    """The issuer dies after the first of the two epochs that take the place of the open and the coming one."""
    create, made = Issuer._create, []

    def once(self, *args):
        if made:
            raise RuntimeError("killed")
        made.append(args)
        create(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Issuer, "_create", once)
        with pytest.raises(RuntimeError, match="killed"):
            authority.issuer.step(policy, now)
    authority.restart()


@pytest.mark.parametrize("horizon_ms", [3_600_000, 60_000])
def test_a_crash_between_two_new_epochs_leaves_no_coming_epoch_to_who_left(authority, monkeypatch, horizon_ms):
    only = {"notes": domain()}
    before, after = law(*BOTH, domains=only, horizon_ms=horizon_ms), law(*GONE, domains=only, horizon_ms=horizon_ms)
    now = authority.issuer.step(before, NOON) + 1
    authority.issuer.step(before, now)  # the coming epoch is there
    leavers = {each.epoch.epoch for each in held(authority)}
    assert len(leavers) == 2
    crash_between(authority, monkeypatch, after, now + 1)
    due = now + 2
    until = max(each.epoch.not_after for each in held(authority))
    while due < until:
        due = max(authority.issuer.step(after, due), due + 1000)
        keyring = ring(authority)
        keyring.retire(due - horizon_ms)
        sealing = keyring.sealing(NOTES, due)
        assert sealing is not None
        assert sealing.epoch not in leavers, f"sealed for who left, {due - now} ms after"
        assert sealing.closes >= due, f"{due - now} ms after, records are sealed under an epoch that has closed"


def test_a_crash_between_two_new_epochs_is_mended_before_the_first_ends(authority, monkeypatch):
    only = {"notes": domain()}
    before, after = law(*BOTH, domains=only), law(*GONE, domains=only)
    now = authority.issuer.step(before, NOON) + 1
    authority.issuer.step(before, now)
    crash_between(authority, monkeypatch, after, now + 1)
    due = authority.issuer.step(after, now + 2)
    coming = [each for each in held(authority) if each.epoch.not_before > now + 2]
    assert {each.openers for each in coming} != {opening_digest(before, NOTES)}, "the coming epoch is who left's alone"
    assert due > now + 2, "due in the past: a step every 20 ms until the open epoch ends"


def test_no_epoch_of_a_change_of_readers_lives_longer_than_the_interval_after_a_clock_step(authority):
    before, after = law(*BOTH), law(*GONE)
    authority.issuer.step(before, NOON)
    authority.issuer.step(before, NOON + 24 * 3_600_000)  # the machine's clock jumps a day ahead, and back
    authority.issuer.step(after, NOON + 1000)
    longest = max(each.epoch.not_after - each.epoch.not_before for each in held(authority))
    assert longest <= INTERVAL + SKEW, f"a key of {longest / 3_600_000:.1f} h"


def test_a_new_domain_gets_no_long_epoch_after_a_clock_step(authority):
    authority.issuer.step(law(*BOTH, domains={"notes": domain()}), NOON)
    authority.issuer.step(law(*BOTH, domains={"notes": domain()}), NOON + 24 * 3_600_000)
    authority.issuer.step(law(*BOTH), NOON + 1000)
    longest = max(each.epoch.not_after - each.epoch.not_before for each in held(authority, PLANS))
    assert longest <= INTERVAL + SKEW, f"a key of {longest / 3_600_000:.1f} h"


def test_a_clock_step_leaves_no_time_without_an_epoch(authority):
    policy = law(*BOTH)
    authority.issuer.step(policy, NOON)
    authority.issuer.step(policy, NOON + 1_800_000)
    now = NOON + 1000
    while now < NOON + 1_500_000:
        now = min(max(authority.issuer.step(policy, now), now + 1000), now + 60_000)
        assert any(each.epoch.not_before <= now <= each.epoch.not_after for each in held(authority)), now - NOON


def test_keys_after_a_change_of_readers_live_no_longer_than_max_token_age(authority):
    before = law(*BOTH)
    authority.issuer.step(before, NOON)
    short = {**DOMAINS, "notes": {**domain(), "max_token_age_ms": 60_000}}
    after = law(*GONE, domains=short)
    assert after.interval_ms(NOTES) == 60_000
    authority.issuer.step(after, NOON + 1000)
    fresh = [each for each in held(authority) if each.openers == opening_digest(after, NOTES)]
    assert fresh
    longest = max(each.epoch.not_after - each.epoch.not_before for each in fresh)
    assert longest <= 60_000 + SKEW, f"max_token_age_ms 60000, a new key of {longest} ms"


def test_who_left_holds_no_key_of_what_is_sealed_although_the_issuers_clock_is_ahead(authority):
    before, after = law(*BOTH), law(*GONE)
    authority.issuer.step(before, NOON)
    leavers = {each.epoch.epoch for each in held(authority)}
    authority.issuer.step(after, NOON + 300_000)  # four minutes ahead of the enforcer and the broker
    authority.issuer.step(after, NOON + 61_000)  # and set right
    sealing = ring(authority).sealing(NOTES, NOON + 61_000)
    assert sealing is not None
    assert sealing.epoch not in leavers


@pytest.fixture
def _brief(monkeypatch):
    monkeypatch.setattr(keystore, "WAIT_S", 1.0)
    monkeypatch.setattr(keystore, "REFRESH_S", 0.0)


def store_of(authority, agent: str) -> KeyStore:
    return KeyStore(authority.layout.agent(agent) / "keys", AgentId(agent), authority.trust.anchor, DEPLOYMENT)


@pytest.mark.usefixtures("_brief")
def test_a_reader_waits_for_keys_of_a_domain_that_it_was_just_granted(authority):
    """It holds newer epochs already (of plans, which re-keyed before): these say nothing of notes."""
    without = {"notes": domain(consume=["WRITER"]), "plans": domain(produce=["READER"])}
    authority.issuer.step(law(*GONE, domains=without), NOON)
    number = held(authority)[-1].epoch.epoch
    authority.issuer.step(law(*GONE, "reader-3", domains=without), NOON + 1000)  # plans re-keys, and not notes
    reader = store_of(authority, "reader-1")
    reader.refresh(force=True)
    assert reader.newest() > number
    granted = law(*GONE, "reader-3")
    late = threading.Timer(0.1, authority.issuer.step, (granted, NOON + 2000))
    late.start()
    found = reader.reading(NOTES, number)  # sealed to READER by an enforcer that saw the policy first
    late.join()
    assert store_of(authority, "reader-1").reading(NOTES, number), "the issuer has given it"
    assert found is not None, "refused as erased, for good, a moment before the key was there"


def test_an_epoch_that_has_not_come_to_a_reader_yet_is_not_erased(authority, monkeypatch):
    """The issuer dies (or has thousands of files to write) between the root and a reader's bundle."""
    monkeypatch.setattr(keystore, "WAIT_S", 0.05)
    authority.issuer.step(law(*BOTH), NOON)
    with monkeypatch.context() as patch:

        def dies(*_args, **_keys):
            raise RuntimeError("killed")

        patch.setattr(Issuer, "_write_bundles", dies)
        with pytest.raises(RuntimeError, match="killed"):
            authority.issuer.step(law(*GONE), NOON + 1000)
    sealing = ring(authority).sealing(NOTES, NOON + 1001)
    reader = store_of(authority, "reader-1")
    reader.refresh(force=True)
    assert sealing is not None
    assert sealing.epoch > reader.newest(), "the enforcer seals under it already"
    with pytest.raises(RetryLater, match="are not there yet"):
        reader.reading(NOTES, sealing.epoch)


def test_a_new_root_that_cannot_be_read_does_not_make_the_enforcer_seal_for_who_left(authority):
    """Watcher takes a Refused root for lost, for good; ``sealing`` then falls back to the epoch that was replaced."""
    before, after = law(*BOTH), law(*GONE)
    authority.issuer.step(before, NOON)
    leavers = {each.epoch.epoch for each in held(authority)}
    authority.issuer.step(after, NOON + 1000)
    newest = held(authority)[-1].epoch
    (authority.layout.roots / str(newest.epoch) / f"{newest.zone}.{newest.domain}").write_bytes(b"{}")
    watcher = Watcher(None, None, authority.store, authority.trust, None)  # type: ignore[arg-type]
    read: list[StoredEpoch] = []
    watcher._read_epochs(read)
    keyring = Keyring(lead_ms=LEAD, grace_ms=GRACE)
    for each in read:
        keyring.add(each.epoch, each.root, [AgentId("writer-1")], each.openers)
    context = EnforcerContext(DEPLOYMENT, keyring, Signer.generate(), after, 2)
    context.now_ms = NOON + 2000
    assert leavers
    with pytest.raises(RetryLater, match="for the readers of this policy is not there yet"):
        context.sealing(NOTES)
    context.set_policy(before, 1)
    assert context.sealing(NOTES).epoch in leavers, "under the policy that it was made for it seals"


def test_epochs_of_a_second_do_not_make_a_step_longer_than_an_epoch(authority, monkeypatch):
    """Every step makes every bundle of every open epoch again: counted, not timed."""
    from bus.authority import issuer as module

    made = []
    make = module.make_bundle

    def counting(agent, policy, epochs, **told):
        made.append(agent)
        return make(agent, policy, epochs, **told)

    monkeypatch.setattr(module, "make_bundle", counting)
    short = law(*GONE, domains={"notes": {**domain(), "max_token_age_ms": 1000}, "plans": domain()})
    authority.issuer.step(short, NOON)
    made.clear()
    authority.issuer.step(short, NOON + 1000)
    assert len(made) <= 4 * len(GONE), f"{len(made)} bundles for {len(GONE)} agents, one new epoch"
