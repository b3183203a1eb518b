"""Replicas of the authority in one process: who is second, who is behind, where agents ask, a change of store."""

from __future__ import annotations

import dataclasses
import json

import pytest

import bus.authority.issuer as issuer_module
from bus.attester.software import SoftwareAttester
from bus.authority import rpc
from bus.authority.issuer import Issuer
from bus.authority.local import ensure_roots, load_signer, open_roots
from bus.client.authority import TIMEOUT_S, AuthorityClient
from bus.crypto.signing import Signer
from bus.errors import Refused, RetryLater, StackError, Unavailable
from bus.settings import Issuing
from bus.wire.names import AgentId
from consumers.authority.server import AuthorityServer
from consumers.issuer.app import Turn, only_one
from tests.unit.ledger_build import DAY, NOON, domain, make_authority, make_policy
from tests.unit.test_authority import LOCAL, READER, WRITER, Site
from tests.unit.test_authority_attested import CODE, law

NOBODY = "127.0.0.1:1"
NARROWED = {"notes": domain(consume=["WRITER"]), "plans": domain(produce=["READER"])}


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    made.service.step(make_policy())
    with made.server:
        yield made


# Epochs.
def test_who_comes_second_takes_the_others_roots_and_makes_none(tmp_path, monkeypatch):
    made = make_authority(tmp_path)
    signer = load_signer(made.layout.signer("issuer"))
    first, second = (
        Issuer(made.layout, open_roots(made.settings, made.layout, made.trust), signer, made.settings, {}, files=False)
        for _ in range(2)
    )
    claim, policy = second._store.claim, make_policy()

    def overtaken(new) -> bool:
        first.step(policy, NOON)
        return claim(new)

    monkeypatch.setattr(second._store, "claim", overtaken)
    second.step(policy, NOON + 5)
    assert second.held() == first.held()
    assert list(second.held()) == [1]


def test_a_replica_that_is_behind_makes_and_gives_nothing_new(site):
    other = site.replica()
    other.step(make_policy(), 1)
    before = site.made.store.numbers()
    site.service.step(make_policy(NARROWED), 2)
    assert site.made.store.numbers() != before, "the change of readers made an epoch"
    with pytest.raises(RetryLater, match="another replica follows a newer policy than snapshot 1"):
        other.step(make_policy(), 1)
    assert sorted(other._serving.epochs) == before, "it goes on with what it had"
    other.step(make_policy(NARROWED), 2)
    assert sorted(other._serving.epochs) == site.made.store.numbers()


def test_what_was_made_while_a_policy_was_overtaken_is_not_given_out(site, monkeypatch):
    other = site.replica()
    step = other._issuer.step

    def overtaken(policy, now):
        site.service.step(make_policy(NARROWED), 2)
        return step(policy, now)

    monkeypatch.setattr(other._issuer, "step", overtaken)
    with pytest.raises(RetryLater, match="newer policy"):
        other.step(make_policy(), 1)
    assert other._serving is None


# Leases.
def test_a_bundle_is_made_once_for_a_policy_an_agent_and_an_epoch(site, monkeypatch):
    made = []

    def counted(agent, policy, epochs, **told):
        made.append((agent, policy.digest, told["sending"]))
        return make_bundle(agent, policy, epochs, **told)

    make_bundle = issuer_module.make_bundle
    monkeypatch.setattr(issuer_module, "make_bundle", counted)
    writer, reader = site.join(WRITER), site.join(READER)
    for _ in range(3):
        writer.lease()
        reader.lease()
    site.service.step(make_policy())
    writer.wipe()
    writer.lease()
    policy = make_policy()
    assert made == [(WRITER, policy.digest, True), (READER, policy.digest, True)]
    assert site.bundles(WRITER) == {1: {"notes", "plans"}}
    site.service.step(make_policy(NARROWED), 1)
    reader.lease()
    assert {digest for _, digest, _ in made[2:]} == {make_policy(NARROWED).digest}
    assert set().union(*site.bundles(READER).values()) == {"plans"}


def test_what_closed_is_leased_without_sending_keys_though_it_was_remembered_with_them(site):
    client = site.join(WRITER)
    client.lease()
    keys = site.folder(WRITER) / "keys" / "1"
    assert any("own" in each for each in json.loads(keys.read_bytes())["domains"].values())
    site.now += make_policy().rotation_interval_ms + site.made.settings.grace_ms + 60_000
    client.lease()
    assert not any("own" in each for each in json.loads(keys.read_bytes())["domains"].values())


# Where agents ask.
def test_an_agent_asks_the_next_replica_where_one_does_not_answer(site):
    site.join(WRITER)
    other = site.replica()
    other.step(make_policy())
    with AuthorityServer(other, site.identity, LOCAL, LOCAL) as second:
        addresses = f"{NOBODY}, 127.0.0.1:{second.port},{site.address}"
        client = AuthorityClient(site.folder(WRITER), addresses, site.ca_file)
        client.lease()
        client.renew()
        client.lease()
    client.lease()
    client.close()
    assert site.bundles(WRITER) == {1: {"notes", "plans"}}


def test_an_agent_that_nobody_answers_is_told_so_and_one_that_is_refused_asks_no_other(site):
    site.join(WRITER)
    with pytest.raises(Unavailable):
        AuthorityClient(site.folder(WRITER), f"{NOBODY},{NOBODY}", site.ca_file).lease()
    site.register.revoke(WRITER, "it left")
    with pytest.raises(Refused, match="it left"):
        AuthorityClient(site.folder(WRITER), f"{site.address},{NOBODY}", site.ca_file).lease()


def test_a_connection_that_is_kept_shows_the_certificate_that_is_there_now(site):
    client = site.join(WRITER)
    client.lease()
    kept = client._held
    client.lease()
    assert client._held is kept
    site.join(WRITER)  # a new token was used meanwhile
    client.lease()
    assert client._held is not kept


# Tokens and stores.
def test_one_process_at_a_time_writes_into_agents_folders(tmp_path):
    layout = make_authority(tmp_path).layout
    with Turn(layout) as first, Turn(layout) as second:
        assert [first.mine(), second.mine(), first.mine()] == [True, False, True]
        with pytest.raises(StackError, match="another issuer"):
            only_one(layout)
        first.__exit__()
        assert second.mine()


def test_a_deployment_that_changes_how_it_issues_keeps_its_roots(tmp_path):
    made = make_authority(tmp_path)
    made.issuer.step(make_policy(), NOON)
    before, day = made.store.load(1), made.store.audit_root(DAY)
    served = dataclasses.replace(made.settings, issuing=Issuing.AUTHORITY)
    with pytest.raises(RetryLater, match="the store is away"):
        open_roots(served, made.layout, made.trust).numbers()
    for settings in (served, served, made.settings):
        ensure_roots(settings, made.layout)
        store = open_roots(settings, made.layout, made.trust)
        assert (store.load(1), store.audit_root(DAY)) == (before, day)
    ensure_roots(served, made.layout)
    assert made.store.numbers() == []
    again = Issuer(
        made.layout,
        open_roots(served, made.layout, made.trust),
        Signer.generate(),
        served,
        {},
        files=False,
    )
    again.step(make_policy(), NOON + 1)
    assert list(again.held()) == [1], "nothing was due"
    assert set(again.leases(AgentId("writer-1"), make_policy(), again.held(), NOON + 1)) == {1}


# Attestation: a nonce is good for one answer of all replicas.
def test_evidence_whose_answer_was_lost_is_not_shown_to_the_next_replica(tmp_path, monkeypatch):
    site = Site(tmp_path)
    site.service.step(law())
    other, shown, call = site.replica(), [], rpc.call
    other.step(law())

    def lost(channel, method, request, timeout_s):
        answer = call(channel, method, request, timeout_s)
        if method == rpc.ATTEST:
            shown.append(request.nonce)
            if len(shown) == 1:
                raise Unavailable("the connection broke")
        return answer

    with site.server, AuthorityServer(other, site.identity, LOCAL, LOCAL) as second:
        site.join(WRITER)
        addresses = f"{site.address},127.0.0.1:{second.port}"
        client = AuthorityClient(site.folder(WRITER), addresses, site.ca_file, SoftwareAttester(CODE))
        client.lease()
        assert list(client.withheld) == ["notes"]
        monkeypatch.setattr(rpc, "call", lost)
        with pytest.raises(Unavailable, match="broke"):
            client.attest_if_due(site.now)
        assert client.attest_if_due(site.now)
        client.lease()
        client.close()
    assert len(set(shown)) == len(shown) == 2, "another nonce, at the other replica"
    assert site.bundles(WRITER) == {1: {"notes", "plans"}}


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_replicas_that_hang_share_the_time_that_one_has(site, monkeypatch, replicas):
    clock, waited = [0.0], []

    def hang(channel, method, request, timeout_s):
        clock[0] += timeout_s
        waited.append(timeout_s)
        raise Unavailable("it hangs")

    site.join(WRITER)
    monkeypatch.setattr(rpc, "call", hang)
    monkeypatch.setattr("bus.client.authority.time.monotonic", lambda: clock[0])
    with pytest.raises(Unavailable, match="hangs"):
        AuthorityClient(site.folder(WRITER), ",".join([site.address] * replicas), site.ca_file).lease()
    assert (len(waited), sum(waited)) == (replicas, pytest.approx(TIMEOUT_S))
