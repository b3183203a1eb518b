"""The agent's key store: the epoch to send under, the keys that open a record; keys taken away are forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from bus.client import keystore
from bus.client.keystore import KeyStore
from bus.codes import Code
from bus.crypto import keys
from bus.errors import AccessRefused, Refused, RetryLater, Unverified, WireError
from bus.wire.names import AgentId, DomainName
from tests.unit.ledger_build import (
    DEPLOYMENT,
    NOON,
    OTHER_DEPLOYMENT,
    STRANGER,
    Authority,
    domain,
    make_authority,
    make_policy,
)

NOTES, PLANS = DomainName("notes"), DomainName("plans")
WRITER, READER = AgentId("writer-1"), AgentId("reader-1")
INTERVAL, GRACE = 120_000, 120_000
DOMAINS = {"notes": domain(), "plans": domain(produce=["READER"], consume=["WRITER"])}
POLICY = make_policy(DOMAINS, interval_ms=INTERVAL)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """What is missing is looked for briefly: the issuer of these tests does not run beside them."""
    monkeypatch.setattr(keystore, "WAIT_S", 0.03)
    monkeypatch.setattr(keystore, "REFRESH_S", 0.0)


@dataclass(slots=True)
class Issued:
    """An authority that made three epochs, none of them closed yet, and the times at which each begins."""

    authority: Authority
    begins: list[int]

    def folder(self, agent: str = WRITER) -> Path:
        return self.authority.layout.agent(agent) / "keys"

    def store(self, agent: AgentId = WRITER) -> KeyStore:
        return KeyStore(self.folder(agent), agent, self.authority.trust.anchor, DEPLOYMENT)


@pytest.fixture
def issued(tmp_path) -> Issued:
    authority = make_authority(tmp_path)
    now = NOON
    while len(authority.store.numbers()) < 3:
        now = authority.issuer.step(POLICY, now) + 1
    begins = [authority.store.load(number)[0].epoch.not_before for number in (1, 2, 3)]
    assert authority.store.numbers() == [1, 2, 3]
    return Issued(authority, begins)


def test_the_newest_epoch_that_has_begun_is_sent_under(issued):
    store = issued.store()
    first, second, third = issued.begins
    for at, number in ((first, 1), (second - 1, 1), (second, 2), (third - 1, 2), (third, 3), (third + INTERVAL, 3)):
        bundle = store.sending(NOTES, at)
        assert bundle.epoch.epoch == number
        root = issued.authority.store.load(number)[0].root
        assert bundle.own == keys.agent_keys(root, WRITER)


def test_an_epoch_lives_on_while_its_successor_is_not_there(issued):
    store = issued.store()
    assert store.sending(NOTES, issued.begins[2] + INTERVAL + 1).epoch.epoch == 3


def test_before_the_first_epoch_begins_there_is_a_time_to_try_again(issued):
    with pytest.raises(RetryLater, match="no key to send to notes now"):
        issued.store().sending(NOTES, issued.begins[0] - 1)


def test_a_reader_that_may_not_write_has_no_key_to_send(issued):
    with pytest.raises(RetryLater):
        issued.store(READER).sending(NOTES, issued.begins[1])
    assert issued.store(READER).sending(PLANS, issued.begins[1]).own is not None


def test_an_agent_without_keys_is_told_what_to_look_at(issued):
    nobody = issued.store(AgentId("nobody-1"))
    with pytest.raises(AccessRefused, match="no keys in") as refused:
        nobody.sending(NOTES, issued.begins[0])
    assert (refused.value.code, refused.value.principal, refused.value.operation, refused.value.resource) == (
        Code.CREDENTIAL,
        "nobody-1",
        "send",
        "notes",
    )
    assert "bus doctor" in refused.value.hint
    with pytest.raises(RetryLater, match="the keys of notes, epoch 1, are not there yet"):
        nobody.reading(NOTES, 1)
    assert nobody.newest() == 0


def test_reading_keys_are_those_of_the_records_epoch(issued):
    store = issued.store(READER)
    for number in (1, 2, 3):
        root = issued.authority.store.load(number)[0].root
        assert store.reading(NOTES, number) == (keys.target_key(root, READER), keys.role_key(root, "READER"))
    assert store.newest() == 3


def test_an_epoch_or_domain_that_is_not_held_has_no_reading_keys(issued):
    store = issued.store(READER)
    assert store.reading(NOTES, 0) is None, "newer ones are there: it is gone"
    for name, number in ((NOTES, 4), (DomainName("others"), 2)):
        with pytest.raises(RetryLater, match=f"the keys of {name}, epoch {number}, are not there yet"):
            store.reading(name, number)
    assert store.reading(PLANS, 1) == ()


def test_a_new_epoch_is_found_without_being_told(issued):
    path = issued.folder() / "3"
    data = path.read_bytes()
    path.unlink()
    store = issued.store()
    assert store.sending(NOTES, issued.begins[2]).epoch.epoch == 2
    path.write_bytes(data)
    path.chmod(0o600)
    assert store.sending(NOTES, issued.begins[2]).epoch.epoch == 3


def test_a_bundle_that_was_replaced_is_read_again(issued):
    store = issued.store()
    assert store.sending(NOTES, issued.begins[0]).own is not None
    closed = issued.begins[1] + GRACE + 1
    issued.authority.issuer.step(POLICY, closed)
    store.refresh(force=True)
    with pytest.raises(RetryLater):
        store.sending(NOTES, issued.begins[0])
    assert store.reading(NOTES, 1) not in (None, ())


def test_keys_that_were_taken_away_are_forgotten(issued):
    store = issued.store()
    notice = store.sending(NOTES, issued.begins[0]).own
    assert notice is not None
    assert store.notice_key(notice.notice_key_id) == notice
    assert store.reading(NOTES, 1) is not None
    (issued.folder() / "1").unlink()
    store.refresh(force=True)
    assert store.reading(NOTES, 1) is None
    assert store.notice_key(notice.notice_key_id) is None
    for number in (2, 3):
        (issued.folder() / str(number)).unlink()
    store.refresh(force=True)
    assert store.newest() == 0
    with pytest.raises(AccessRefused):
        store.sending(NOTES, issued.begins[2])


def test_a_folder_that_was_taken_away_is_forgotten(issued):
    store = issued.store()
    store.sending(NOTES, issued.begins[0])
    issued.folder().rename(issued.folder().with_name("gone"))
    store.refresh(force=True)
    assert store.newest() == 0


def test_only_own_notice_keys_are_known(issued):
    store = issued.store()
    store.refresh(force=True)
    root = issued.authority.store.load(1)[0].root
    assert store.notice_key(keys.agent_keys(root, WRITER).notice_key_id) is not None
    assert store.notice_key(keys.agent_keys(root, READER).notice_key_id) is None
    assert store.notice_key(bytes(16)) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_bundle_that_others_may_read_is_refused(issued, mode):
    (issued.folder() / "2").chmod(mode)
    with pytest.raises(Refused, match=f"expected mode 0600, found {mode:04o}") as refused:
        issued.store().sending(NOTES, issued.begins[1])
    assert refused.value.code is Code.CREDENTIAL


def test_a_bundle_of_another_agent_anchor_or_deployment_is_refused(issued):
    anchor = issued.authority.trust.anchor
    folder = issued.folder()
    refusals = [
        (KeyStore(folder, READER, anchor, DEPLOYMENT), WireError),
        (KeyStore(folder, WRITER, STRANGER.public_key, DEPLOYMENT), Unverified),
        (KeyStore(folder, WRITER, anchor, OTHER_DEPLOYMENT), Unverified),
    ]
    for store, kind in refusals:
        with pytest.raises(kind):
            store.refresh(force=True)


def test_what_is_no_bundle_by_its_name_is_passed_over(issued):
    for name in ("3.77.new", "notes.txt", "-1"):
        (issued.folder() / name).write_bytes(b"half")
    store = issued.store()
    store.refresh(force=True)
    assert store.newest() == 3
