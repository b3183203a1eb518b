"""Attestation at the authority, over real gRPC and TLS: who gets keys and who enrols by it, and each attack."""

from __future__ import annotations

import hashlib
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from bus.attestation.confirmation import to_der
from bus.attestation.evidence import Question
from bus.attester.software import SoftwareAttester
from bus.authority.ca import certified_key, make_request
from bus.client.authority import AuthorityClient, enrol_attested, read_identity
from bus.client.evidence import answer
from bus.client.keystore import KeyStore
from bus.client.leases import LeaseKeeper
from bus.codes import Code
from bus.errors import AccessRefused, Refused, RetryLater
from bus.policy.model import Policy
from bus.wire.measurement import EvidenceKind, Measurement
from bus.wire.names import AgentId, DomainName
from tests.attestation import made
from tests.unit.ledger_build import DEPLOYMENT, domain, make_policy
from tests.unit.test_authority import NOTES, READER, WRITER, Site

INTERVAL = 600_000
PLANS = DomainName("plans")
CODE, OTHER = (Measurement(EvidenceKind.SOFTWARE, 0, hashlib.sha256(each).digest()) for each in (b"code", b"other"))
PLAIN = {1: frozenset({"plans"})}
WHOLE = {1: frozenset({"notes", "plans"})}


def law(measurements: dict[str, list[str]] | None = None) -> Policy:
    """`notes` requires attestation, `plans` does not; of both agents ``CODE`` is accepted unless told."""
    given = {WRITER: [str(CODE)], READER: [str(CODE)]} if measurements is None else measurements
    domains = {"notes": domain(attested=True), "plans": domain(produce=["READER", "WRITER"])}
    return make_policy(domains, measurements=given)


def accepting(*measured: Measurement) -> Policy:
    return law({WRITER: list(map(str, measured))} if measured else {})


@pytest.fixture
def site(tmp_path):
    built = Site(tmp_path)
    built.service.step(law())
    with built.server:
        yield built


def attesting(site: Site, agent: AgentId = WRITER, measured: Measurement = CODE) -> AuthorityClient:
    """An enrolled agent that measures ``measured``."""
    site.join(agent)
    return AuthorityClient(site.folder(agent), site.address, site.ca_file, SoftwareAttester(measured))


def certificate(site: Site, agent: AgentId = WRITER) -> bytes:
    return read_identity(site.folder(agent)).certificate


def refused(call, match: str) -> None:
    with pytest.raises(Refused, match=match) as error:
        call()
    assert error.value.code is Code.ATTESTATION


def software(site: Site, nonce: bytes, agent: AgentId = WRITER, measured: Measurement = CODE) -> bytes:
    """Evidence with the key of this agent's certificate."""
    return answer(SoftwareAttester(measured), nonce, b"", agent, read_identity(site.folder(agent)).key)


def attest(site: Site, agent: AgentId = WRITER) -> str:
    """A result, past the client."""
    pem = certificate(site, agent)
    nonce, _ = site.service.challenge(pem, b"")
    return site.service.attest(pem, nonce, software(site, nonce, agent))[0]


def withheld(site: Site, token: str, agent: AgentId = WRITER) -> str:
    """Why a lease with ``token`` has no keys of `notes`; it has the others."""
    lease = site.service.lease(certificate(site, agent), {}, token)
    assert (lease.attested, list(lease.withheld)) == (False, ["notes"])
    assert all(b"notes" not in data and b"plans" in data for data in lease.bundles.values())
    return lease.withheld["notes"]


# Keys.
def test_keys_of_a_domain_that_requires_it_come_with_attestation_and_it_is_recorded_first(site):
    client = attesting(site)
    client.lease()
    assert site.bundles(WRITER) == PLAIN
    assert client.withheld == {"notes": "no attestation result is shown"}
    assert client.attest_if_due(site.now)
    client.lease()
    assert (site.bundles(WRITER), client.withheld) == (WHOLE, {})
    assert site.told("event") == [("enrolled",), ("leased",), ("attested",), ("leased",)]
    attested, leased = site.events[2:]
    assert (attested["kind"], attested["measurement"]) == ("software", str(CODE))
    assert attested["not_after"] - attested["at"] in range(INTERVAL - 1000, INTERVAL + 1)
    assert (leased["eat"], "eat" in site.events[1]) == (attested["eat"], False)
    assert not client.attest_if_due(site.now), "it lasts"


def test_an_agent_that_attests_nothing_has_its_other_keys(site):
    client = site.join(WRITER)
    client.lease()
    assert (site.bundles(WRITER), list(client.withheld)) == (PLAIN, ["notes"])
    assert not client.attest_if_due(site.now)
    assert site.told("event") == [("enrolled",), ("leased",)]


def test_a_domain_that_requires_nothing_is_not_asked_about(site):
    site.service.step(make_policy())
    client = attesting(site)
    client.lease()
    assert (client.withheld, client.attest_if_due(site.now)) == ({}, False)
    assert site.bundles(WRITER)[2] == WHOLE[1]


def test_a_result_is_renewed_when_a_third_is_left_and_by_each_new_certificate(site):
    client = attesting(site)
    client.lease()
    client.attest_if_due(site.now)
    client.lease()
    assert site.now + INTERVAL // 2 < client.attest_at <= site.now + 2 * INTERVAL // 3
    assert not client.attest_if_due(site.now + INTERVAL // 2)
    assert client.attest_if_due(site.now + 2 * INTERVAL // 3)
    client.lease()
    client.renew()
    assert client.attest_if_due(site.now), "the last one was for the key that was replaced"
    client.lease()
    assert (site.bundles(WRITER), client.withheld) == (WHOLE, {})


def test_a_result_that_could_not_be_recorded_is_not_given(site):
    client = attesting(site)
    client.lease()
    site.away = True
    with pytest.raises(RetryLater, match="the broker is away"):
        client.attest_if_due(site.now)
    assert site.attesting.kept.find(WRITER) is None


def test_a_measurement_that_is_withdrawn_ends_the_keys_with_the_next_lease_and_starts_an_epoch(site):
    client = attesting(site)
    client.lease()
    client.attest_if_due(site.now)
    client.lease()
    site.service.step(accepting(OTHER))
    client.lease()
    assert client.withheld == {"notes": f"{CODE} is not accepted any more"}
    assert site.bundles(WRITER) == PLAIN, "of the new epoch 2, which is of `notes` alone, it has nothing"
    refused(lambda: client.attest_if_due(site.now), "not accepted for this agent")
    assert site.told("event")[-1] == ("refused",)
    client = AuthorityClient(site.folder(WRITER), site.address, site.ca_file, SoftwareAttester(OTHER))
    client.lease()
    client.attest_if_due(site.now)
    client.lease()
    assert site.bundles(WRITER) == WHOLE | {2: frozenset({"notes"})}
    site.service.step(accepting())
    client.lease()
    assert client.withheld == {"notes": "no measurement of it is accepted"}


# The keeper, a round at a time.
def test_the_keeper_attests_by_itself_and_sending_says_why_there_are_no_keys(site):
    client = attesting(site)
    keeper = LeaseKeeper(client, WRITER)
    store = KeyStore(
        site.folder(WRITER) / "keys", WRITER, site.made.trust.anchor, DEPLOYMENT, keeper.wake, keeper.withheld
    )
    keeper._round()
    assert (site.bundles(WRITER), keeper.withheld("notes"), keeper.unattested) == (WHOLE, None, None)
    assert store.sending(NOTES, site.now).own is not None
    site.service.step(accepting(OTHER))
    keeper._round()
    with pytest.raises(
        AccessRefused, match=r"no keys of notes, which requires attestation: .* is not accepted"
    ) as error:
        store.check(NOTES)
    store.check(PLANS)
    assert (error.value.code, error.value.resource, store.sending(PLANS, site.now).own is None) == (
        *(Code.ATTESTATION, "notes"),
        False,
    )
    before = len(site.events)
    keeper._round()
    assert len(site.events) == before, "what was refused is not tried again at once"
    site.service.step(law())
    keeper._round()
    assert (keeper.withheld("notes"), keeper.unattested, keeper.failure) == (None, None, None)


def test_a_keeper_without_an_attester_and_one_whose_device_is_away_have_the_other_keys(site):
    plain = LeaseKeeper(site.join(WRITER), WRITER)
    plain._round()
    assert "no attestation result is shown" in str(plain.withheld("notes"))
    assert (site.bundles(WRITER), plain.withheld("plans"), plain.failure) == (PLAIN, None, None)

    class Away(SoftwareAttester):
        def offer(self) -> bytes:
            raise OSError(2, "no such device")

    site.join(READER)
    away = LeaseKeeper(AuthorityClient(site.folder(READER), site.address, site.ca_file, Away(CODE)), READER)
    away._round()
    assert "no such device" in str(away.withheld("notes"))
    assert site.bundles(READER) == PLAIN


# Attacks over the agent's own connection.
def test_evidence_is_taken_once(site):
    attesting(site)
    pem = certificate(site)
    nonce, _ = site.service.challenge(pem, b"")
    evidence = software(site, nonce)
    site.service.attest(pem, nonce, evidence)
    refused(lambda: site.service.attest(pem, nonce, evidence), "answered before")
    assert site.told("event", "agent")[-1] == ("refused", WRITER)
    replica = site.replica()
    replica.step(law())
    refused(lambda: replica.attest(pem, nonce, evidence), "answered before")


def test_a_nonce_of_somebody_else_or_of_nobody_is_refused(site):
    attesting(site)
    attesting(site, READER)
    pem = certificate(site)
    for nonce in (bytes(32), b"", site.service.challenge(certificate(site, READER), b"")[0]):
        refused(lambda nonce=nonce: site.service.attest(pem, nonce, software(site, nonce)), "nonce")
    late, _ = site.service.challenge(pem, b"")
    site.now += 60_000
    refused(lambda: site.service.attest(pem, late, software(site, late)), "past its end")


def test_evidence_for_another_agents_key_is_refused(site):
    attesting(site)
    attesting(site, READER)
    pem = certificate(site)
    for who in (WRITER, READER):  # the reader's key under the writer's name, and under its own
        nonce, _ = site.service.challenge(pem, b"")
        evidence = answer(SoftwareAttester(CODE), nonce, b"", who, read_identity(site.folder(READER)).key)
        refused(lambda n=nonce, e=evidence: site.service.attest(pem, n, e), "another key|does not hold")


def test_a_result_that_ended_or_is_another_agents_leases_nothing(site):
    attesting(site)
    attesting(site, READER)
    token = attest(site)
    assert site.service.lease(certificate(site), {}, token).withheld == {}
    assert "did not attest so under this certificate" in withheld(site, token, READER)
    assert "signature does not hold" in withheld(site, ".".join([*token.split(".")[:2], attest(site).split(".")[2]]))
    assert "no attestation result is shown" in withheld(site, "")
    site.now += INTERVAL
    assert "past its end" in withheld(site, token)


def test_a_revoked_agent_is_not_asked(site):
    attesting(site)
    pem = certificate(site)
    nonce, _ = site.service.challenge(pem, b"")
    site.register.revoke(WRITER, "it left")
    for call in (lambda: site.service.challenge(pem, b""), lambda: site.service.attest(pem, nonce, b"")):
        with pytest.raises(Refused, match="revoked: it left"):
            call()


# Hardware, with the clock of its certificates; enrolment by it is over gRPC, as it shows no certificate.
ROOT, CHIP = made.Authority("maker"), made.Chip()
MADE_AT = int(made.NOW.timestamp() * 1000)


class TpmInPython:
    """An attester with a TPM of ``root``; ``how`` is what its quote says otherwise."""

    def __init__(self, root: made.Authority = ROOT, **how) -> None:
        self.tpm = made.Tpm(root)
        self.how = how

    def offer(self) -> bytes:
        return self.tpm.offer()

    def answer(self, challenge, question, confirmation, sign) -> bytes:  # noqa: ARG002
        return self.tpm.evidence(self.tpm.activate(challenge), question, confirmation, **self.how)


TPM = TpmInPython()


@pytest.fixture
def machines(tmp_path):
    for kind, root in (("tpm", ROOT), ("snp", CHIP.root)):
        (tmp_path / "roots" / kind).mkdir(parents=True)
        (tmp_path / "roots" / kind / "maker.pem").write_bytes(root.certificate.public_bytes(Encoding.PEM))
    built = Site(tmp_path, now=MADE_AT)
    built.service.step(accepting(made.GOLDEN, made.LAUNCHED, CODE))
    with built.server:
        yield built


def enrol_by(site: Site, attester, name: str = "a", agent: AgentId = WRITER) -> None:
    enrol_attested(site.home / name, site.enrolment, site.ca_file, agent, attester)


def test_a_machine_that_the_policy_accepts_enrols_without_a_token(machines):
    enrol_by(machines, TPM)
    held = read_identity(machines.home / "a")
    assert (held.agent, held.counter) == (WRITER, 1)
    (enrolled,) = machines.events
    assert (enrolled["event"], enrolled["kind"], enrolled["measurement"]) == ("enrolled", "tpm", str(made.GOLDEN))
    nonce, challenge = machines.service.challenge(held.certificate, TPM.offer())
    evidence = answer(TPM, nonce, challenge, WRITER, held.key)
    token, _ = machines.service.attest(held.certificate, nonce, evidence)
    assert machines.service.lease(held.certificate, {}, token).attested


def test_what_does_not_identify_a_machine_enrols_nobody(machines):
    machines.service.step(accepting(CODE))
    refused(lambda: enrol_by(machines, SoftwareAttester(CODE)), "software evidence is of wiring only")
    machines.service.step(accepting(made.GOLDEN, CODE))
    refused(lambda: enrol_by(machines, SoftwareAttester(CODE)), "not accepted for this agent")
    refused(lambda: enrol_by(machines, TPM, agent=READER), "may not enrol by attestation")
    refused(lambda: enrol_by(machines, TPM, agent=AgentId("nobody-1")), "may not enrol by attestation")
    assert machines.events == []
    assert machines.register.list() == []


def test_a_wrong_pcr_and_a_foreign_ek_enrol_nobody(machines):
    refused(lambda: enrol_by(machines, TpmInPython(value=bytes(32))), "no value that is accepted")
    refused(lambda: enrol_by(machines, TpmInPython(made.Authority("maker"))), "no root that is trusted")
    assert machines.register.list() == []
    enrol_by(machines, TPM)


def test_an_agent_has_one_machine_while_its_certificate_lasts_and_no_way_round_a_revocation(machines):
    enrol_by(machines, TPM)
    with pytest.raises(Refused, match="another device attests"):
        enrol_by(machines, TpmInPython(), "thief")
    enrol_by(machines, TPM)
    assert read_identity(machines.home / "a").counter == 2
    machines.register.revoke(WRITER, "it left")
    with pytest.raises(Refused, match="only a token lets it in again"):
        enrol_by(machines, TPM, "again")


def test_enrolment_evidence_is_bound_to_the_request_and_taken_once(machines):
    service = machines.service
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    request, elsewhere = make_request(key), make_request(other)
    nonce, challenge = service.enrol_challenge(WRITER, request, TPM.offer())
    evidence = TPM.answer(challenge, Question(nonce, WRITER), to_der(key.public_key()), None)
    refused(lambda: service.enrol_attested(WRITER, elsewhere, nonce, evidence), "not asked of this agent and key")
    assert certified_key(service.enrol_attested(WRITER, request, nonce, evidence).certificate.pem) == to_der(
        key.public_key()
    )
    refused(lambda: service.enrol_attested(WRITER, request, nonce, evidence), "answered before")


@pytest.mark.parametrize(("policy", "why"), [(3 << 16, ""), (3 << 16 | 1 << 19, "may be debugged")])
def test_evidence_of_a_guest_that_may_be_debugged_is_refused(machines, policy, why):
    site = machines
    site.join(WRITER)
    pem = certificate(site)
    nonce, _ = site.service.challenge(pem, b"")
    fields = {0x08: struct.pack("<Q", policy)}
    evidence = CHIP.evidence(Question(nonce, WRITER), certified_key(pem), fields)
    if why:
        refused(lambda: site.service.attest(pem, nonce, evidence), why)
        assert withheld(site, "")
    else:
        token, _ = site.service.attest(pem, nonce, evidence)
        assert site.service.lease(pem, {}, token).attested
