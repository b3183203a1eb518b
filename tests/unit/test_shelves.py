"""How long entries live: with the keys that a real issuer gives and takes, through epochs, erasures and policies."""

from __future__ import annotations

import logging
import shutil
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.client import keystore
from bus.client.fate import LOST_MS, Fate, Terms, fate
from bus.client.shelves import TEND_MS
from bus.client.storefile import StoredEpoch
from bus.codes import Code
from bus.errors import Denied, Erased, Refused, RetryLater
from tests.unit import build  # noqa: F401  # lifts hypothesis's deadline
from tests.unit.ledger_build import domain, make_policy
from tests.unit.store_build import GRACE, HORIZON, INTERVAL, NOTES, PLANS, SKEW, Desk, make_desk

TERMS = Terms(HORIZON, GRACE, SKEW)
END = 1_772_445_600_000
WITHOUT_NOTES = make_policy(
    {"notes": domain(produce=["READER"], consume=["READER"]), "plans": domain(produce=["READER"])}, horizon_ms=HORIZON
)


@pytest.fixture(autouse=True)
def _keys_are_read_anew(monkeypatch):
    monkeypatch.setattr(keystore, "REFRESH_S", 0.0)


@pytest.fixture
def desk(tmp_path) -> Desk:
    return make_desk(tmp_path)


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.WARNING, "bus.client")
    return lambda: [each.getMessage() for each in caplog.records if each.getMessage().startswith("store:")]


def entries(desk: Desk) -> list[tuple[str, int, int]]:
    """Domain, epoch, how many entries."""
    with sqlite3.connect(desk.path) as db:
        query = "select domain, number, count(*) from epoch join entry on entry.epoch = epoch.id group by epoch.id"
        return db.execute(query + " order by domain, number").fetchall()


# The decision.
def stored(number: int = 5, lost: int = 0) -> StoredEpoch:
    return StoredEpoch(1, NOTES, number, END, lost)


HALF, PAST = END + HORIZON // 2, END + GRACE + HORIZON + SKEW


@pytest.mark.parametrize(
    ("held", "lost", "now", "found"),
    [
        ({5}, 0, END, Fate.KEEP),
        ({5, 6}, 0, HALF, Fate.KEEP),
        ({5, 6}, 0, HALF + 1, Fate.RESEAL),
        ({5}, 0, HALF + 1, Fate.KEEP),
        ({5, 6}, END, END + LOST_MS, Fate.KEEP),
        ({6}, 0, END, Fate.MISSED),
        ({6}, END, END + LOST_MS - 1, Fate.MISSED),
        ({6}, END, END + LOST_MS, Fate.WIPE),
        ({4}, END, END + LOST_MS, Fate.KEEP),
        (set(), END, PAST, Fate.KEEP),
        (set(), 0, PAST + 1, Fate.WIPE),
        ({6}, 0, PAST + 1, Fate.WIPE),
    ],
)
def test_what_becomes_of_an_epoch(held, lost, now, found):
    assert fate(stored(lost=lost), held, TERMS, now) is found


@given(st.sets(st.integers(1, 10)), st.integers(0, 10), st.integers(0, 3 * HORIZON))
def test_what_has_its_key_is_never_wiped_and_what_is_resealed_goes_to_a_newer_epoch(held, number, after):
    found = fate(stored(number, lost=END), held, TERMS, END + after)
    if number in held:
        assert found in (Fate.KEEP, Fate.RESEAL)
    if found is Fate.RESEAL:
        assert max(held) > number


# With an issuer.
def test_an_entry_outlives_its_epoch_and_the_horizon_while_the_agent_goes_on_leasing(desk):
    store = desk.store()
    store.put("a", {"step": 1})
    for _ in range(4 * HORIZON // INTERVAL):
        desk.pass_by(INTERVAL)
        assert store.get("a") == {"step": 1}
    ((_, number, _),) = entries(desk)
    assert number > 12
    assert 1 not in desk.authority.store.numbers(), "the epoch that it was put in is beyond the horizon"
    assert desk.told == []


def test_an_agent_that_comes_back_within_half_the_horizon_finds_everything(desk):
    store = desk.store()
    for number in range(600):
        store.put(f"n{number}", number, expires_in=7 * 86_400 if number % 2 else None)
    store._shelves.close()
    desk.pass_by(INTERVAL + HORIZON // 2)
    store = desk.store()
    assert len(entries(desk)) == 1
    assert entries(desk)[0][1] > 1, "all sealed anew"
    assert store.items() == sorted((f"n{number}", number) for number in range(600))


def test_an_agent_that_stayed_away_beyond_the_horizon_finds_an_empty_store_and_is_told(desk, logged):
    store = desk.store()
    store.put("a", 1)
    store.put("b", 2)
    store._shelves.close()
    desk.pass_by(INTERVAL + GRACE + HORIZON + SKEW + INTERVAL)
    store = desk.store()
    assert (store.names(), entries(desk)) == ([], [])
    assert logged() == [
        "store: 2 entries of notes, epoch 1, are wiped: its epoch was erased, or is beyond the backlog horizon"
    ]
    ((told),) = desk.told
    assert (type(told), told.epoch, told.domain, told.code) == (Erased, 1, NOTES, Code.ERASED)
    store.put("a", 3)
    assert store.get("a") == 3


def test_an_erased_epoch_takes_its_entries_and_no_others(desk):
    store = desk.store()
    store.put("old", 1)
    desk.pass_by(INTERVAL)
    store.put("new", 2)
    desk.pass_by(INTERVAL)
    ((_, first, _), (_, second, _)) = entries(desk)
    desk.erase(first)
    assert (store.get("old"), store.get("new"), store.names()) == (None, 2, ["new"])
    assert [(each.epoch, each.domain) for each in desk.told] == [(first, NOTES)]
    assert len(entries(desk)) == 2, "its key may be on the way: not wiped at once"
    desk.now += LOST_MS
    assert store.get("new") == 2
    assert entries(desk) == [(NOTES, second, 1)]
    assert len(desk.told) == 1


def test_a_copy_of_the_file_does_not_bring_back_what_was_erased(desk, tmp_path):
    store = desk.store()
    store.put("old", 1)
    store._shelves.close()
    shutil.copy(desk.path, tmp_path / "copy")
    desk.pass_by(2 * INTERVAL)
    desk.erase(1)
    shutil.copy(tmp_path / "copy", desk.path)
    assert desk.store().get("old") is None


def test_a_key_that_was_only_late_costs_nothing(desk):
    store = desk.store()
    store.put("a", 1)
    desk.pass_by(INTERVAL)
    store.put("b", 2)
    path = desk.authority.layout.agent("writer-1") / "keys" / "1"
    away = path.rename(path.with_name("away"))
    desk.now += TEND_MS
    assert (store.get("a"), store.get("b")) == (None, 2)
    away.rename(path)
    desk.now += TEND_MS
    assert store.get("a") == 1
    path.rename(away)
    desk.now += TEND_MS
    assert store.get("a") is None
    assert len(entries(desk)) == 2, "the minute begins anew"


def test_without_any_keys_nothing_is_read_and_nothing_is_wiped(desk):
    store = desk.store()
    store.put("a", 1)
    keys = desk.authority.layout.agent("writer-1") / "keys"
    away = keys.rename(keys.with_name("away"))
    for later in (0, TEND_MS, 2 * TEND_MS, HORIZON):
        desk.now += later
        for call in (lambda: store.get("a"), lambda: store.put("a", 2), store.names, store.clear):
            with pytest.raises(RetryLater):
                call()
    away.rename(keys)
    assert desk.store().get("a") == 1


def test_an_authority_that_is_away_wipes_nothing_and_one_that_refuses_closes_the_store(desk):
    store = desk.store()
    store.put("a", 1)
    desk.pass_by(2 * INTERVAL)
    store.put("b", 1)
    path = desk.authority.layout.agent("writer-1") / "keys" / "1"
    away = path.rename(path.with_name("away"))
    desk.said = RetryLater("away")
    for _ in range(3):
        desk.now += TEND_MS
        assert store.get("b") == 1
    away.rename(path)
    assert (desk.store().get("a"), desk.told) == (1, [])
    desk.said = Refused("revoked", code=Code.CREDENTIAL)
    with pytest.raises(Refused, match="revoked"):
        store.get("a")
    desk.said = None
    assert store.get("a") == 1


def test_an_agent_that_loses_a_domain_loses_what_it_stored_there_at_the_next_call(desk, logged):
    notes, plans = desk.store(), desk.store(domain=PLANS)
    notes.put("a", 1)
    plans.put("a", 2)
    desk.policy = WITHOUT_NOTES
    with pytest.raises(Denied, match="what it stored under its keys is wiped") as denied:
        notes.get("a")
    assert (denied.value.rule, denied.value.code) == ("notes.consume", Code.CONSUME)
    assert entries(desk) == [(PLANS, 1, 1)]
    assert logged() == ["store: 1 entries of notes, epoch 1, are wiped: the policy gives no right there any more"]
    assert plans.get("a") == 2
    desk.policy = desk.__dataclass_fields__["policy"].default
    assert notes.get("a") is None, "a right that is given again brings nothing back"


def test_an_agent_that_leaves_the_policy_loses_everything_when_its_store_closes(desk):
    store = desk.store()
    store.put("a", 1)
    desk.policy = make_policy(agents={"reader-1": ["READER"]}, horizon_ms=HORIZON)
    desk.step()
    store._shelves.close()
    assert entries(desk) == []
    with pytest.raises(Denied):
        desk.store()


def test_a_domain_whose_tier_has_no_keys_yet_is_refused_for_good(desk):
    desk.policy = make_policy({"notes": domain(), "plans": domain(tier="FHE")}, horizon_ms=HORIZON)
    with pytest.raises(Refused) as refused:
        desk.store(domain=PLANS)
    assert refused.value.code == Code.TIER_UNAVAILABLE
    desk.store(domain=NOTES)


def test_a_domain_that_is_not_there_is_denied(desk):
    with pytest.raises(Denied):
        desk.store(domain="nowhere")


def test_wiped_bytes_are_overwritten(desk):
    store = desk.store()
    store.put("a", "x" * 5000)
    with sqlite3.connect(desk.path) as db:
        (body,) = db.execute("select body from entry").fetchone()
    piece = body[2000:2100]
    held = lambda: b"".join(each.read_bytes() for each in desk.path.parent.glob("store.db*"))  # noqa: E731
    assert piece in held()
    desk.policy = WITHOUT_NOTES
    with pytest.raises(Denied):
        store.get("a")
    assert piece not in held()


def test_an_entry_that_does_not_open_stays_behind_and_stops_no_other(desk, logged):
    store = desk.store()
    store.put("a", 1)
    store.put("b", 2)
    with sqlite3.connect(desk.path) as db:
        db.execute("update entry set body = x'00' where id = 1")
    desk.pass_by(INTERVAL + HORIZON // 2)
    store = desk.store()
    assert store.get("b") == 2
    assert next((number, count) for _, number, count in entries(desk)) == (1, 1)
    assert logged() == ["store: an entry of notes, epoch 1, does not open"]


def test_an_entry_under_a_key_that_is_on_its_way_is_waited_for_and_not_called_absent(desk):
    behind = desk.store()
    behind.put("a", 1)
    desk.pass_by(INTERVAL)
    desk.store().put("a", 2)
    keys = desk.authority.layout.agent("writer-1") / "keys"
    ((_, number, _),) = entries(desk)
    late = [each for each in keys.iterdir() if int(each.name) >= number]
    for each in late:
        each.rename(keys / f"late{each.name}")
    with pytest.raises(RetryLater):
        behind.get("a")
    for each in late:
        (keys / f"late{each.name}").rename(each)
    assert desk.store().get("a") == 2
