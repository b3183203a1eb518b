"""`bus audit payload`: what an operator opens is recorded before it is shown; without the root, `Erased`."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from bus.authority.erasure import make_tombstone
from bus.authority.local import load_signer
from bus.authority.opening import open_record
from bus.cli import payloads
from bus.crypto.issued import open_issued
from bus.crypto.keys import agent_keys
from bus.crypto.seal import Sealer
from bus.crypto.signing import sign_object
from bus.errors import Erased, Unavailable, Unverified
from bus.ledger.payloads import Wanted
from bus.ledger.query import LedgerQuery
from bus.ledger.store import Append, Ledger
from bus.wire.hop import DECISION_ID_LENGTH, decision_id, decode_hop
from bus.wire.names import NO_ZONE
from demo.raw import plaintext
from tests.unit.ledger_build import DEPLOYMENT, INPUT, NOON, keys_of, make_authority, make_block, make_hop, make_policy
from tests.unit.ledger_build import record as record_blocks
from tests.unit.running import runner

PAYLOAD = b'{"text": "only an operator"}'
POLICY = make_policy()


@pytest.fixture
def authority(tmp_path):
    """An authority whose epoch 1 of ``notes`` has begun."""
    made = make_authority(tmp_path)
    made.issuer.step(POLICY, NOON)
    return made


def sealed(authority, payload: bytes = PAYLOAD, content_type: str = "application/json") -> bytes:
    """A record of writer-1, as it is sent."""
    root = authority.store.open(1, f"{NO_ZONE}.notes").root
    sealer = Sealer(agent_keys(root, "writer-1"), DEPLOYMENT, INPUT)
    return sealer.seal(0, plaintext("writer-1", "notes", payload, now=NOON, content_type=content_type))[1]


def hop_of(value: bytes, **tail) -> bytes:
    """The hop of ``value`` at offset 0."""
    digest = hashlib.sha256(value).digest()
    return digest[:DECISION_ID_LENGTH] + digest + make_hop(0, **tail)[42:]


def erase(authority) -> None:
    stored = authority.store.open(1, f"{NO_ZONE}.notes")
    tombstone = make_tombstone(stored, POLICY.agents, NOON)
    authority.store.tombstones.put(sign_object(load_signer(authority.layout.signer("issuer")), tombstone), "file:x")


def test_a_record_opens_with_the_root_of_its_epoch_as_it_was_sent(authority):
    value = sealed(authority)
    envelope = open_record(authority.store, DEPLOYMENT, decode_hop(hop_of(value)), value)
    assert (envelope.payload, envelope.profile.source) == (PAYLOAD, "writer-1")


@pytest.mark.parametrize("change", [{"agent": "reader-1"}, {"domain": "plans"}, {"topic": "plans.in"}])
def test_a_record_opens_as_nothing_else(authority, change):
    value = sealed(authority)
    with pytest.raises(Unverified):
        open_record(authority.store, DEPLOYMENT, decode_hop(hop_of(value, **change)), value)
    with pytest.raises(Unverified):
        open_record(authority.store, DEPLOYMENT, decode_hop(hop_of(value)), value[:-1] + bytes([value[-1] ^ 1]))


@pytest.mark.parametrize("how", ["erased", "retired"])
def test_without_the_root_it_is_erased(authority, how):
    value = sealed(authority)
    if how == "erased":
        erase(authority)
    else:
        shutil.rmtree(authority.layout.roots / "1")
    with pytest.raises(Erased) as refused:
        open_record(authority.store, DEPLOYMENT, decode_hop(hop_of(value)), value)
    assert (refused.value.domain, refused.value.epoch) == ("notes", 1)


class Site:
    """`bus` in a deployment whose ledger keeps one record; ``published`` holds what went to bus.issue."""

    def __init__(self, authority, value: bytes, run, monkeypatch, folder) -> None:
        self.authority = authority
        self.name = decision_id(hashlib.sha256(value).digest())
        self.published: list[tuple[str, bytes]] = []
        self.fails = False
        ledger = Ledger(authority.layout.ledger, DEPLOYMENT)
        record_blocks(ledger, [make_block([hop_of(value)], 0, 1)])
        wanted = Wanted(INPUT, 0, 0, hashlib.sha256(value).digest(), len(value))
        ledger.append_all([Append(2, 0, 1, [], [], [wanted])])
        ledger.keep([(wanted, value)], [])
        ledger.close()
        (folder / "bus.toml").write_text(f'deployment = "{DEPLOYMENT.hex()}"\nstate = "state"\n')
        monkeypatch.setattr(payloads, "open_query", lambda _: LedgerQuery(self.ledger(), keys_of))
        monkeypatch.setattr(payloads.Stack, "admin_connection", lambda _: "admin")
        monkeypatch.setattr(payloads, "publish", self.publish)
        self.run = lambda *more: run("audit", "payload", self.name, *more, BUS_CONFIG=str(folder / "bus.toml"))

    def ledger(self) -> Ledger:
        return Ledger(self.authority.layout.ledger, DEPLOYMENT, read_only=True)

    def publish(self, _connection, topic: str, values: list[bytes]) -> None:
        if self.fails:
            raise Unavailable(f"{topic} could not be written")
        self.published += [(topic, each) for each in values]


@pytest.fixture
def site(authority, tmp_path, monkeypatch, capsys):
    run = runner(tmp_path, monkeypatch, capsys)
    return lambda value: Site(authority, value, run, monkeypatch, tmp_path)


def test_the_opening_is_recorded_with_who_and_what(site, authority):
    made = site(sealed(authority))
    told = made.run("--json").document()
    assert (told["payload"], told["hop"]["decision_id"]) == ({"text": "only an operator"}, made.name)
    ((topic, value),) = made.published
    event = open_issued(value, authority.trust.anchor, DEPLOYMENT)
    assert topic == "bus.issue"
    assert {**event, "at": 0, "by": bool(event["by"])} == {
        "format": "sealbus.issued/1", "event": "opened", "decision": made.name, "agent": "writer-1",
        "domain": "notes", "epoch": 1, "by": True, "at": 0,
    }  # fmt: skip
    assert b"only an operator" not in value
    assert '"only an operator"' in made.run().out


def test_nothing_is_shown_where_the_opening_cannot_be_recorded(site, authority):
    made = site(sealed(authority))
    made.fails = True
    ran = made.run("--json")
    assert (ran.code, ran.out) == (4, "")
    assert "bus.issue could not be written" in ran.err
    assert "only an operator" not in ran.err


def test_an_erased_record_is_told_as_such_and_no_opening_is_recorded(site, authority):
    made = site(sealed(authority))
    erase(authority)
    ran = made.run("--json")
    assert (ran.code, ran.out, made.published) == (1, "", [])
    assert "the keys of notes/1 are gone" in ran.err


def test_what_is_no_json_is_shown_as_hex_whatever_it_says_it_is(site, authority):
    assert site(sealed(authority, b"\xff{")).run("--json").document()["payload"] == "ff7b"


def test_a_decision_that_is_not_in_the_ledger_opens_nothing(site, authority):
    made = site(sealed(authority))
    made.name = "a" * 16
    ran = made.run()
    assert (ran.code, made.published) == (1, [])
    assert "no decision" in ran.err
