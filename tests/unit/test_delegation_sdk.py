"""Delegations in an agent's hands: made with its keys, passed on without any, shown, refused early and typed."""

from __future__ import annotations

import time

import pytest

from bus.authority.bundle import make_bundle
from bus.authority.roots import StoredEpoch
from bus.cli.audit import acting, hop_document
from bus.client import keystore
from bus.client.composer import Composer
from bus.client.delegation import Delegating, Delegation, end_of
from bus.client.keystore import KeyStore
from bus.codes import Code
from bus.crypto.seal import Sealer
from bus.crypto.signing import Signer, sign_object
from bus.errors import Denied, Refused, RetryLater, WireError
from bus.policy.replay import context_of, replay
from bus.wire.delegation import MAX_BLOCKS, Block, parse
from bus.wire.envelope import Kind
from bus.wire.hop import Hop
from bus.wire.names import AgentId, DomainName
from consumers.enforcer.pipeline import Accepted
from tests.unit.build import DEPLOYMENT, GRACE, INTERVAL, NOW, enforce
from tests.unit.test_delegations import DESK, LAB, READER, STAFF, A, B, C, Desk, law

CLOSES = NOW - 100_000 + INTERVAL + GRACE


@pytest.fixture(autouse=True)
def at_now(monkeypatch):
    """The agents' clocks stand at NOW, and nobody waits for keys that never come."""
    monkeypatch.setattr(time, "time_ns", lambda: NOW * 1_000_000)
    monkeypatch.setattr(keystore, "WAIT_S", 0.03)


class Agents:
    """Agents of one deployment with their folders, and its enforcer of one domain."""

    def __init__(self, folder, policy=None):
        self.desk = Desk(policy)
        self.policy = self.desk.world.policy
        self.anchor = Signer.generate()
        self.folder = folder
        epochs = []
        for name in (DESK, LAB):
            told, root = self.desk.world.root(name)
            epochs.append(StoredEpoch(told, sign_object(self.anchor, told), root, bytes(32)))
        for agent in self.policy.agents:
            data = make_bundle(agent, self.policy, epochs)
            if data is not None:
                (folder / agent).mkdir()
                (folder / agent / "1").write_bytes(data)
                (folder / agent / "1").chmod(0o600)

    def keys(self, agent):
        return KeyStore(self.folder / agent, AgentId(agent), self.anchor.public_key, DEPLOYMENT)

    def given(self, agent=A, to=B, domains=(DESK,), kinds=(), tools=(), minutes=5.0, under=None):
        """What ``Bus.delegate`` makes."""
        way = Delegating(AgentId(agent), self.policy, self.keys(agent), DEPLOYMENT, GRACE)
        block = Block(AgentId(to), end_of(minutes), frozenset(kinds), frozenset(tools))
        return Delegation([way.passed_on(block, n, under) if under else way.first(block, n) for n in domains])

    def sends(self, agent, delegation, kind=Kind.MESSAGE, tool="", target=""):
        """The enforcer's outcome of what ``agent`` publishes to the desk."""
        token, givers = delegation.shown(agent, DESK, kind, tool) if delegation is not None else (b"", ())
        composer = Composer(AgentId(agent))
        asked = (self.policy, DESK, kind, target, tool, "", (), "", None, "application/json", None)
        route = composer.route(*asked, delegation=token, delegated_by=givers, notify=False)
        made = composer.compose(route, b"{}", session="", causation=(), reply_to="", expires_in=60)
        own = self.keys(agent).sending(DomainName(DESK), NOW).own
        _, value = Sealer(own, DEPLOYMENT, f"{DESK}.in").seal(0, made.plaintexts[0])
        (outcome,) = enforce(self.desk.context, self.desk.place, value)
        return outcome


@pytest.fixture
def agents(tmp_path):
    return Agents(tmp_path)


def refused(rule, call, *given, **more):
    with pytest.raises(Denied) as error:
        call(*given, **more)
    assert error.value.rule == rule
    return error.value


def test_a_delegation_goes_from_hand_to_hand_as_text_and_is_taken(agents):
    first = agents.given(domains=(DESK, LAB), kinds=(Kind.MESSAGE, Kind.MEMORY))
    assert isinstance(agents.sends(B, first), Accepted)
    text = str(agents.given(B, C, kinds=[Kind.MESSAGE], minutes=1, under=Delegation.parse(str(first))))
    second = Delegation.parse(f" {text}\n")
    assert (second.agents, second.domains, second.not_after(DESK)) == ((A, B, C), (DESK,), NOW + 60_000)
    assert isinstance(agents.sends(C, second), Accepted)
    assert refused("delegation.kinds", agents.sends, C, second, Kind.MEMORY).code is Code.DELEGATION
    refused("delegation.audience", agents.sends, B, second)
    refused(f"{DESK}.delegates", agents.sends, B, None)
    refused("delegation.domain", second.shown, C, LAB, Kind.MESSAGE, "")


def test_what_is_denied_early_is_what_the_enforcer_denies_and_it_costs_no_call(agents, monkeypatch):
    token = agents.given(minutes=1)
    monkeypatch.setattr(time, "time_ns", lambda: (NOW + 60_001) * 1_000_000)
    refused("delegation.expired", agents.sends, B, token)


def test_it_ends_with_its_minutes_or_with_the_keys(agents):
    assert agents.given(minutes=5).not_after(DESK) == NOW + 300_000
    long = agents.given(minutes=60)
    assert long.not_after(DESK) == CLOSES
    assert agents.given(B, C, minutes=90, under=long).not_after(DESK) == CLOSES
    for minutes in (0, -1, 60 * 24 + 1, float("nan")):
        with pytest.raises(Refused, match="minutes: expected"):
            agents.given(minutes=minutes)


def test_more_than_was_given_cannot_be_passed_on(agents):
    token = agents.given(kinds=[Kind.MESSAGE], tools=["a.b"])
    refused("delegation.claims-more", agents.given, B, C, kinds=[Kind.MEMORY], under=token)
    refused("delegation.claims-more", agents.given, B, C, tools=["a.b", "a.c"], under=token)
    refused("delegation.domain", agents.given, B, C, domains=[LAB], under=token)
    refused("delegation.audience", agents.given, C, B, under=token)
    refused(f"{DESK}.delegates", agents.given, B, READER, under=token)
    for _ in range(MAX_BLOCKS - 1):
        token = agents.given(B, B, under=token)
    refused("delegation.depth", agents.given, B, C, under=token)


def test_only_who_may_produce_delegates_and_only_to_who_may_act_for_others(agents):
    refused(f"{DESK}.produce", agents.given, B, C)
    refused(f"{DESK}.delegates", agents.given, to=READER)
    refused(f"{DESK}.delegates", agents.given, to="nobody")
    refused("attic.produce", agents.given, domains=["attic"])


def test_without_a_key_to_delegate_with_one_waits(agents):
    held = agents.keys(A).sending(DomainName(DESK), NOW)
    assert held.delegation is not None
    path = agents.folder / A / "1"
    path.write_bytes(path.read_bytes().replace(b'"delegation"', b'"other"'))
    with pytest.raises(RetryLater, match="no key to delegate"):
        agents.given()
    token = agents.given("planner-2")
    for path in (agents.folder / B).iterdir():
        path.unlink()
    with pytest.raises(RetryLater, match="no key to delegate"):
        agents.given(B, C, under=token)


@pytest.mark.parametrize("text", ["", ".", "noise", "a b", "AAAA", "x" * 300_000])
def test_a_text_that_is_no_delegation_is_refused(text):
    with pytest.raises((WireError, Refused)):
        Delegation.parse(text)


def test_chains_of_other_agents_or_two_of_a_domain_do_not_go_together(agents):
    one, other = (str(agents.given(to=to)) for to in (B, C))
    with pytest.raises(Refused, match="one chain"):
        Delegation.parse(f"{one}.{agents.given(to=C, domains=[LAB])}")
    with pytest.raises(Refused, match="twice"):
        Delegation.parse(f"{one}.{other}")
    with pytest.raises(Refused, match="one chain"):
        agents.given(domains=[])


def test_its_repr_tells_the_chain_alone(agents):
    token = agents.given(domains=(DESK, LAB))
    assert repr(token) == f"Delegation({A} > {B}: {DESK}, {LAB})"


# What the ledger keeps of it.
def hop_of(tail):
    return Hop(bytes(32), bytes(32), bytes(16), bytes(16), 0, 0, 0, NOW, NOW, 0, 100, "", (), tail)


def test_a_hop_shows_the_chain_and_a_replay_decides_by_it():
    desk = Desk()
    good, bad = desk.says(B, desk.given()), desk.says(B, desk.given(C))
    assert (acting(good), acting(bad)) == (f"{A} > {B}", B)
    assert hop_document(hop_of(good))["delegation"] == [A, B]
    assert context_of(hop_of(good), law()).delegated_by == (A,)
    assert context_of(hop_of(bad), law()) is None, "what did not hold proves no right"
    told = replay([hop_of(good), hop_of(bad)], law(agents={**STAFF, A: "READER"}), law())
    assert (told.decided, told.unknown) == (1, 1)
    ((flip, count),) = told.flips.items()
    assert (flip.agent, flip.after, flip.rule, count) == (B, "DENY", f"{DESK}.delegates", 1)


def test_a_delegation_proves_one_domain_alone(agents):
    token = agents.given(domains=(DESK, LAB))
    for name in (DESK, LAB):
        chain, _ = parse(token.shown(B, name, Kind.MESSAGE, "")[0])
        assert chain.domain == name
