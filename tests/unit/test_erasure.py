"""Erasing epochs at the authority: which may be, what agents keep, how far it has come, and the command."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from bus.admin import erasing as carrying
from bus.authority import erasure
from bus.authority.bundle import read_bundle
from bus.authority.erasure import LEASE_CACHE_MS, State, acknowledgements, choose, judge, make_tombstone
from bus.authority.local import load_signer, open_roots
from bus.authority.tombstones import Buried
from bus.cli import erasing
from bus.client import keystore
from bus.client.keystore import KeyStore
from bus.codes import Code
from bus.crypto.keys import agent_keys
from bus.crypto.signing import open_object, sign_object
from bus.errors import Refused, Unavailable
from bus.stack.local import write_settings
from bus.wire.hop import HopTail, Verdict
from bus.wire.names import NO_ZONE, AgentId, DomainName
from bus.wire.objects import Epoch, Tombstone
from tests.unit.ledger_build import DEPLOYMENT, NOON, make_authority, make_policy

NOTES, PLANS = DomainName("notes"), DomainName("plans")
INTERVAL, GRACE, SKEW = 600_000, 120_000, 30_000
CLOSED = GRACE + SKEW
LATE = NOON + 3 * INTERVAL
POLICY = make_policy()


def epoch(number: int, domain: str = "notes") -> Epoch:
    """Epoch 1 began at NOON; each follows the last."""
    begin = NOON + (number - 1) * INTERVAL
    return Epoch(DEPLOYMENT, number, begin, begin + INTERVAL, NO_ZONE, domain, bytes(32))


EPOCHS = [*(epoch(number) for number in (1, 2, 3, 4)), *(epoch(number, "plans") for number in (1, 2, 3, 4, 5))]


# Which may be erased.
def chosen(now: int, *, number: int | None = None, before: int | None = None, domain: str = "notes") -> list[int]:
    return [each.epoch for each in choose(EPOCHS, domain, number=number, before=before, now_ms=now, grace_ms=CLOSED)]


def test_an_epoch_is_erased_once_its_grace_is_over_and_not_a_moment_before():
    ends = epoch(2).not_after
    assert chosen(ends + CLOSED + 1, number=2) == [2]
    with pytest.raises(Refused, match="epoch 2 of notes is open: its records are accepted for 1 s more") as refused:
        chosen(ends + CLOSED, number=2)
    assert refused.value.hint


def test_the_newest_epoch_is_not_erased_however_late_it_is():
    with pytest.raises(Refused, match="epoch 4 is the newest of notes: enforcers seal under it"):
        chosen(NOON + 100 * INTERVAL, number=4)
    assert chosen(NOON + 100 * INTERVAL, number=3) == [3]
    assert chosen(NOON + 100 * INTERVAL, number=4, domain="plans") == [4], "that domain has a newer one"


def test_an_epoch_that_is_not_there_is_told():
    with pytest.raises(Refused, match="others has no root of epoch 1"):
        chosen(LATE, number=1, domain="others")


def test_all_that_ended_before_a_time_leave_out_what_is_open_or_newest():
    late = NOON + 100 * INTERVAL
    assert chosen(late, before=late) == [1, 2, 3]
    assert chosen(late, before=epoch(3).not_after) == [1, 2]
    assert chosen(late, before=epoch(3).not_after + 1) == [1, 2, 3]
    assert chosen(epoch(2).not_after + CLOSED, before=late) == [1]
    assert chosen(late, before=NOON) == []


# How far it has come.
def test_it_is_shredding_until_the_last_acknowledgement_and_the_lease_cache_time_are_over():
    stone = Buried(Tombstone(DEPLOYMENT, 1, NOON, NOON, NO_ZONE, "notes", ()), b"", "file:x")
    names = ["bus-enforcer-2", "bus-enforcer-1"]
    waits = judge(stone, names, {"bus-enforcer-1": NOON + 5}, NOON + 10**9)
    assert (waits.state, waits.waiting, waits.effective) == (State.SHREDDING, ("bus-enforcer-2",), None)
    told = {"bus-enforcer-1": NOON + 5, "bus-enforcer-2": NOON + 9}
    ends = NOON + 9 + LEASE_CACHE_MS
    assert judge(stone, names, told, ends - 1).state is State.SHREDDING
    last = judge(stone, names, told, ends)
    assert (last.state, last.waiting, last.effective, last.kek) == (State.ERASED, (), ends, "file:x")


def hop(at: int, enforcer: str = "e-1", epochs: str = "notes/1", **changes) -> SimpleNamespace:
    fields = {"decision": Verdict.RETRY, "code": Code.ERASED, "rule": "erased"}
    tail = HopTail(topic="notes.in", location="", snapshot=1, policy_digest=bytes(32), **{**fields, **changes})
    return SimpleNamespace(decided_at=at, tail=replace(tail, facts={"enforcer": enforcer, "epochs": epochs}))


def test_acknowledgements_are_the_first_of_each_enforcer_and_no_records_refusal():
    told = acknowledgements(
        [
            hop(9), hop(7, epochs="notes/1 plans/2"), hop(8, "e-2"),
            hop(1, decision=Verdict.DENY), hop(1, code=Code.RETRY, rule="pause"),
        ]
    )  # fmt: skip
    assert told == {"notes/1": {"e-1": 7, "e-2": 8}, "plans/2": {"e-1": 7}}


# What agents keep.
@pytest.fixture
def authority(tmp_path):
    """Epochs 1 and 2 of both domains have closed, 3 is open."""
    made = make_authority(tmp_path)
    for at in range(NOON, LATE, INTERVAL // 2):
        made.issuer.step(POLICY, at)
    write_settings(made.settings, made.layout.settings)
    return made


def bury(authority, number: int, domain: str) -> Tombstone:
    """What `bus keys erase` does to the store."""
    signer = load_signer(authority.layout.signer("issuer"))
    (stored,) = (each for each in authority.store.load(number) if each.epoch.domain == domain)
    made = make_tombstone(stored, POLICY.agents, LATE)
    authority.store.tombstones.put(sign_object(signer, made), "file:x")
    authority.store.destroy_erased()
    return made


def domains(authority, number: int, agent: str = "writer-1") -> set[str]:
    path = authority.layout.agent(agent) / "keys" / str(number)
    if not path.exists():
        return set()
    return set(read_bundle(path, AgentId(agent), authority.trust.anchor, DEPLOYMENT))


@pytest.mark.parametrize("restarted", [False, True])
def test_agents_lose_the_keys_of_an_erased_epoch_at_the_next_step_and_no_others(authority, restarted):
    assert domains(authority, 1) == domains(authority, 2) == {"notes", "plans"}
    assert domains(authority, 1, "reader-1") == {"notes", "plans"}
    bury(authority, 1, "notes")
    if restarted:
        authority.restart()
    authority.issuer.step(POLICY, LATE)
    assert domains(authority, 1) == domains(authority, 1, "reader-1") == {"plans"}
    assert domains(authority, 2) == {"notes", "plans"}
    bury(authority, 1, "plans")
    if restarted:
        authority.restart()
    authority.issuer.step(POLICY, LATE + 1)
    assert domains(authority, 1) == domains(authority, 1, "reader-1") == set()
    assert authority.store.numbers()[0] == 2


def test_no_lease_has_a_key_of_an_erased_epoch_from_the_tombstone_on(authority):
    held = authority.issuer.held()
    before = authority.issuer.leases(AgentId("reader-1"), POLICY, held, LATE)
    bury(authority, 1, "notes")
    after = authority.issuer.leases(AgentId("reader-1"), POLICY, held, LATE)  # no step in between
    assert set(json.loads(before[1])["domains"]) == {"notes", "plans"}
    assert set(json.loads(after[1])["domains"]) == {"plans"}
    assert {number: data for number, data in after.items() if number != 1} == {
        number: data for number, data in before.items() if number != 1
    }


def test_a_restored_root_file_gives_no_agent_a_key(authority):
    shutil.copytree(authority.layout.roots / "1", authority.layout.state / "copy")
    bury(authority, 1, "notes")
    bury(authority, 1, "plans")
    authority.issuer.step(POLICY, LATE)
    shutil.copytree(authority.layout.state / "copy", authority.layout.roots / "1")
    for restart in (False, True):
        if restart:
            authority.restart()
        authority.issuer.step(POLICY, LATE + 1)
        assert domains(authority, 1, "reader-1") == set()
        held = authority.issuer.held()
        assert 1 not in authority.issuer.leases(AgentId("reader-1"), POLICY, held, LATE + 1)


def test_the_number_of_an_erased_epoch_is_not_given_again(authority):
    newest = authority.store.numbers()[-1]
    bury(authority, 1, "notes")
    bury(authority, 1, "plans")
    authority.restart()
    authority.issuer.step(POLICY, LATE + INTERVAL)
    assert authority.store.numbers()[-1] > newest


def test_a_reader_that_holds_the_keys_forgets_them_when_they_are_taken_back(authority, monkeypatch):
    monkeypatch.setattr(keystore, "REFRESH_S", 0.0)
    folder = authority.layout.agent("reader-1") / "keys"
    reader = KeyStore(folder, AgentId("reader-1"), authority.trust.anchor, DEPLOYMENT)
    assert reader.reading(NOTES, 1)
    bury(authority, 1, "notes")
    authority.issuer.step(POLICY, LATE)
    assert reader.reading(NOTES, 1) is None, "told as erased, not waited for"
    assert reader.reading(PLANS, 1)
    assert reader.reading(NOTES, 2)


# The command.
@pytest.fixture
def site(run, authority, monkeypatch):
    """`bus keys` over the authority; what it publishes, and the enforcers' acknowledgements."""
    live = SimpleNamespace(policy=POLICY)
    made = SimpleNamespace(published=[], told={}, now=LATE, fails=False)

    def publish(_connection, topic, values):
        if made.fails:
            raise Unavailable("no broker")
        made.published += [(topic, value) for value in values]

    monkeypatch.setattr(carrying, "publish", publish)
    monkeypatch.setattr(erasing, "Stack", lambda _: SimpleNamespace(admin_connection=lambda: None))
    monkeypatch.setattr(erasing, "read_applied", lambda *_: live)
    monkeypatch.setattr(erasing, "now_ms", lambda: made.now)
    monkeypatch.setattr(erasing, "open_query", lambda _: SimpleNamespace(search=lambda _: []))
    monkeypatch.setattr(carrying, "acknowledgements", lambda _: made.told)
    made.keys = lambda *arguments: run("keys", *arguments, BUS_CONFIG=str(authority.layout.settings))
    made.erase = lambda *arguments: made.keys("erase", "--domain", "notes", *arguments)
    return made


def roots(authority) -> dict:
    store = open_roots(authority.settings, authority.layout, authority.trust)
    return {
        (each.epoch.epoch, each.epoch.domain): each.root for number in store.numbers() for each in store.load(number)
    }


def test_erase_buries_publishes_destroys_and_wraps_the_rest_anew(site, authority):
    before = roots(authority)
    (old,) = {each.kek for each in authority.store.kept()}
    told = site.erase("--epoch", "1", "--yes", "--json")
    assert told.code == 0, told.err
    document = told.document()
    assert (document["format"], document["epochs"], document["destroyed"]) == ("bus.erase/1", ["notes/1"], [old])
    assert roots(authority) == {name: root for name, root in before.items() if name != (1, "notes")}
    ((topic, value),) = site.published
    stone = open_object(Tombstone, value, authority.trust.anchor, DEPLOYMENT)
    assert (topic, stone.epoch, stone.domain, stone.erased_at) == ("bus.control", 1, "notes", LATE)
    assert set(stone.key_ids) == {agent_keys(before[1, "notes"], agent).key_id for agent in POLICY.agents}
    assert authority.store.tombstones.read((1, ".notes")).kek == old
    assert [each.name for each in authority.layout.kek.parent.glob("kek*")] == ["kek"]


def test_an_erasure_that_was_cut_off_is_finished_by_the_next_run(site, authority):
    site.fails = True
    cut = site.erase("--epoch", "1", "--yes")
    assert cut.code == 4
    assert (authority.layout.roots / "1" / ".notes").exists()
    assert (1, ".notes") in authority.store.tombstones.places()
    site.fails = False
    site.now = LATE + 1000
    assert site.erase("--epoch", "1", "--yes").code == 0
    assert not (authority.layout.roots / "1" / ".notes").exists()
    ((_, value),) = site.published
    assert open_object(Tombstone, value, authority.trust.anchor, DEPLOYMENT).erased_at == LATE, "the first one"


def test_all_that_ended_before_a_time_go_at_once(site, authority):
    told = site.erase("--before", "2100-01-01T00:00Z", "--yes", "--json")
    assert told.document()["epochs"] == ["notes/1", "notes/2"], told.err
    assert {number for number, domain in roots(authority) if domain == "notes"} == {3}
    assert {number for number, domain in roots(authority) if domain == "plans"} == {1, 2, 3}


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["--epoch", "3", "--yes"], 1, "epoch 3 of notes is open"),
        (["--epoch", "77", "--yes"], 1, "notes has no root of epoch 77"),
        (["--epoch", "1"], 1, "are not erased without being asked"),
        (["--before", "1999-01-01T00:00Z", "--yes"], 1, "no ended epoch"),
        (["--before", "2100-01-01T00:00", "--yes"], 2, "with its offset"),
        (["--before", "soon", "--yes"], 2, "with its offset"),
        (["--yes"], 2, "--epoch or --before"),
        (["--epoch", "1", "--before", "2100-01-01T00:00Z", "--yes"], 2, "--epoch or --before"),
    ],
)
def test_what_is_not_erased_says_why_and_leaves_everything(site, authority, arguments, code, why):
    before = roots(authority)
    told = site.erase(*arguments)
    assert (told.code, why in told.err) == (code, True), told.err
    assert roots(authority) == before
    assert (site.published, authority.store.tombstones.places()) == ([], frozenset())


def test_status_names_who_has_not_acknowledged_and_then_says_erased(site, authority):
    assert site.keys("status", "--json").document()["erasures"] == []
    site.erase("--epoch", "1", "--yes")
    assert "shredding notes/1: waits for bus-enforcer-1" in site.keys("status").out
    (row,) = site.keys("status", "--json").document()["erasures"]
    assert (row["domain"], row["epoch"], row["state"], row["waiting"]) == ("notes", 1, "shredding", ["bus-enforcer-1"])
    site.told = {"notes/1": {"bus-enforcer-1": LATE + 5}}
    assert "shredding notes/1: waits for leases to end" in site.keys("status").out
    site.now = LATE + 5 + LEASE_CACHE_MS
    assert "erased    1 epochs" in site.keys("status").out
    assert site.keys("status", "--json").document()["erasures"][0]["state"] == "erased"


def test_status_says_that_the_ledger_cannot_be_asked(site, authority, monkeypatch):
    site.erase("--epoch", "1", "--yes")

    def away(_settings):
        raise Unavailable("no ledger")

    monkeypatch.setattr(erasing, "open_query", away)
    told = site.keys("status")
    assert told.code == 0
    assert "cannot be asked who has acknowledged: no ledger" in told.out


def test_where_the_wrapping_keys_are_not_ours_the_command_says_what_is_left(site, authority, monkeypatch):
    monkeypatch.setitem(carrying.ADMINISTRATORS, authority.settings.key_provider, "ask the administrator")
    told = site.erase("--epoch", "1", "--yes")
    assert "copies of the roots open until their wrapping key is gone: ask the administrator" in told.out
    assert not (authority.layout.roots / "1" / ".notes").exists()


def test_the_lease_cache_time_covers_the_sdks_poll_and_its_timeout():
    from bus.client.authority import TIMEOUT_S
    from bus.client.leases import POLL_S

    assert erasure.LEASE_CACHE_MS >= 1000 * (TIMEOUT_S + POLL_S)
