"""A real quote: tpm2-tools and swtpm on one side, the verifier in Python on the other."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from bus.attestation.confirmation import to_der
from bus.attestation.evidence import Question, pack, unpack
from bus.attestation.tpm import MAX_CHAIN, MAX_PUBLIC, MAX_QUOTE, TpmVerifier
from bus.attester.tpm import TpmAttester
from bus.client.authority import AuthorityClient, enrol_attested
from bus.codes import Code
from bus.crypto.keys import Secret
from bus.errors import Refused, Unverified
from bus.wire.measurement import EvidenceKind, Measurement
from bus.wire.names import AgentId
from tests.integration import swtpm
from tests.unit.ledger_build import domain, make_policy
from tests.unit.test_authority import WRITER, Site

pytestmark = pytest.mark.skipif(bool(swtpm.missing()), reason=swtpm.missing())

KEY = to_der(Ed25519PrivateKey.generate().public_key())
CODE = Measurement(EvidenceKind.SOFTWARE, 0, hashlib.sha256(b"agent").digest())
GOLDEN = Measurement(EvidenceKind.TPM, 14, hashlib.sha256(bytes(32) + CODE.digest).digest())
ACCEPTED = frozenset({GOLDEN})
LIMITS = (MAX_CHAIN, MAX_PUBLIC, 32, MAX_QUOTE, MAX_QUOTE, 128)


def now():
    return datetime.now(UTC)


def question(agent: str = "ana") -> Question:
    return Question(secrets.token_bytes(32), AgentId(agent))


def refused(step, call):
    with pytest.raises(Unverified) as error:
        call()
    assert error.value.step == step


def no_signature(message: bytes) -> bytes:
    pytest.fail(f"the agent's key is not used: {message!r}")


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    with swtpm.software_tpm(tmp_path_factory.mktemp("tpm")) as tpm:
        attester = TpmAttester(tpm.folder, tpm.tcti, tpm.intermediate)
        attester.extend(CODE)
        yield tpm, attester, TpmVerifier({"maker": tpm.root}, Secret.random("verifier"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    with swtpm.software_tpm(tmp_path_factory.mktemp("other")) as tpm:
        yield tpm


@pytest.fixture(scope="module")
def answered(machine):
    _, attester, verifier = machine
    asked = question()
    challenge = verifier.challenge(attester.offer(), asked, now())
    return asked, attester.answer(challenge, asked, KEY, no_signature)


def test_a_machine_enrols_at_the_authority_and_leases_keys_on_its_quote(machine, other, tmp_path):
    tpm, attester, _ = machine
    (tmp_path / "roots" / "tpm").mkdir(parents=True)
    (tmp_path / "roots" / "tpm" / "maker.pem").write_bytes(tpm.root.public_bytes(Encoding.PEM))
    site = Site(tmp_path)
    domains = {"notes": domain(attested=True), "plans": domain()}
    site.service.step(make_policy(domains, measurements={WRITER: [str(GOLDEN)]}))
    stranger = TpmAttester(other.folder, other.tcti, other.intermediate)
    with site.server:
        with pytest.raises(Refused, match="no root that is trusted") as error:
            enrol_attested(site.folder(WRITER), site.enrolment, site.ca_file, WRITER, stranger)
        assert error.value.code is Code.ATTESTATION
        enrol_attested(site.folder(WRITER), site.enrolment, site.ca_file, WRITER, attester)
        client = AuthorityClient(site.folder(WRITER), site.address, site.ca_file, attester)
        client.lease()
        assert client.attest_if_due(site.now)
        client.lease()
        assert site.bundles(WRITER) == {1: {"notes", "plans"}}
    assert site.told("event", "kind") == [("enrolled", "tpm"), ("leased", None), ("attested", "tpm"), ("leased", None)]


def test_a_quote_proves_the_measurement_for_this_question_agent_and_key(machine, answered):
    asked, evidence = answered
    found = machine[2].appraise(evidence, asked, ACCEPTED, now())
    assert (found.measurement, found.confirmation, found.question) == (GOLDEN, KEY, asked)
    assert found.facts["root"] == "maker"
    assert {"clock_ms", "resets", "restarts", "clock_safe", "firmware"} <= found.facts.keys()
    assert not {"secret", "credential"} & {each.name for each in machine[0].folder.iterdir()}


def test_a_replay_and_another_agent_key_or_verifier_are_refused(machine, answered):
    tpm, _, verifier = machine
    asked, evidence = answered
    parts = unpack(EvidenceKind.TPM, evidence, LIMITS)
    replayed = Question(secrets.token_bytes(32), asked.agent)
    # Both the challenge and the quote answer one nonce; each is looked at with the other in order.
    refused("activation", lambda: verifier.appraise(evidence, replayed, ACCEPTED, now()))
    refused("activation", lambda: verifier.appraise(evidence, Question(asked.nonce, AgentId("eve")), ACCEPTED, now()))
    other_key = to_der(Ed25519PrivateKey.generate().public_key())
    swapped = pack(EvidenceKind.TPM, *parts[:5], other_key)
    refused("binding", lambda: verifier.appraise(swapped, asked, ACCEPTED, now()))
    elsewhere = TpmVerifier({"maker": tpm.root}, Secret.random("another"))
    refused("activation", lambda: elsewhere.appraise(evidence, asked, ACCEPTED, now()))


def test_a_quote_of_before_under_a_fresh_challenge_is_refused(machine, answered):
    _, attester, verifier = machine
    old, asked = unpack(EvidenceKind.TPM, answered[1], LIMITS), question()
    fresh = unpack(
        EvidenceKind.TPM,
        attester.answer(verifier.challenge(attester.offer(), asked, now()), asked, KEY, no_signature),
        LIMITS,
    )
    mixed = pack(EvidenceKind.TPM, *fresh[:3], *old[3:])
    refused("signature", lambda: verifier.appraise(mixed, asked, ACCEPTED, now()))  # the key is made anew each time


def test_another_nonce_in_the_quote_is_refused(machine):
    _, attester, verifier = machine
    asked = question()
    challenge = verifier.challenge(attester.offer(), asked, now())
    evidence = attester.answer(challenge, Question(secrets.token_bytes(32), asked.agent), KEY, no_signature)
    refused("binding", lambda: verifier.appraise(evidence, asked, ACCEPTED, now()))


@pytest.mark.parametrize(
    "accepted",
    [
        frozenset(),
        frozenset({Measurement(EvidenceKind.TPM, 14, bytes(32))}),
        frozenset({Measurement(EvidenceKind.TPM, 13, GOLDEN.digest)}),
        frozenset({CODE, Measurement(EvidenceKind.SOFTWARE, 0, GOLDEN.digest)}),
    ],
)
def test_another_value_or_register_is_refused(machine, answered, accepted):
    asked, evidence = answered
    refused("measurement", lambda: machine[2].appraise(evidence, asked, accepted, now()))


def test_a_register_that_nobody_extended_proves_nothing(machine):
    tpm, _, verifier = machine
    attester, asked = TpmAttester(tpm.folder, tpm.tcti, tpm.intermediate, pcr=13), question()
    evidence = attester.answer(verifier.challenge(attester.offer(), asked, now()), asked, KEY, no_signature)
    zeros = Measurement(EvidenceKind.TPM, 13, bytes(32))
    for accepted in (ACCEPTED, frozenset({zeros})):
        refused("measurement", lambda accepted=accepted: verifier.appraise(evidence, asked, accepted, now()))


def test_a_foreign_ek_is_refused(machine, other):
    verifier = machine[2]
    stranger = TpmAttester(other.folder, other.tcti, other.intermediate)
    refused("chain", lambda: verifier.challenge(stranger.offer(), question(), now()))
    refused("validity", lambda: verifier.challenge(machine[1].offer(), question(), now() - timedelta(days=365)))


def test_a_tpm_cannot_open_a_challenge_for_another_ones_key_or_ek(machine, other):
    _, attester, verifier = machine
    asked = question()
    chain, _ = unpack(EvidenceKind.TPM, attester.offer(), LIMITS[:2])
    stranger = TpmAttester(other.folder, other.tcti, other.intermediate)
    _, foreign = unpack(EvidenceKind.TPM, stranger.offer(), LIMITS[:2])
    # The certified EK with an AK that lives elsewhere: neither TPM opens what is made for it.
    challenge = verifier.challenge(pack(EvidenceKind.TPM, chain, foreign), asked, now())
    for each in (attester, stranger):
        with pytest.raises(Refused, match="tpm2_activatecredential"):
            each.answer(challenge, asked, KEY, no_signature)


UNUSED_BITS = bytes.fromhex("0382018100")
"""A certificate's RSA signature as a BIT STRING: whether its last bit counts is the parser's business where it is 0."""


def test_every_byte_of_the_evidence_counts(machine, answered):
    asked, evidence = answered
    for place in range(len(evidence)):
        if evidence[place - 4 : place + 1] == UNUSED_BITS:
            continue
        changed = evidence[:place] + bytes([evidence[place] ^ 1]) + evidence[place + 1 :]
        with pytest.raises(Refused):
            machine[2].appraise(changed, asked, ACCEPTED, now())
