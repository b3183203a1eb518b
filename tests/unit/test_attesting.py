"""What the authority asks and what it takes as answered: nonces, once, and results that are in force."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace
from functools import partial

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from bus.attestation import questions
from bus.attestation.confirmation import to_der
from bus.attestation.evidence import Question
from bus.attestation.nitro import NitroVerifier
from bus.attestation.snp import SnpVerifier
from bus.attestation.software import SoftwareVerifier
from bus.attestation.tpm import TpmVerifier
from bus.attester import software
from bus.authority.attested import AHEAD_MS, MAX_RESULTS, Attestations, Attested
from bus.authority.attesting import Attesting, Holder
from bus.authority.database import Sqlite
from bus.authority.register import Register
from bus.authority.verifiers import open_verifiers
from bus.codes import Code
from bus.crypto.keys import Secret
from bus.crypto.signing import Signer
from bus.errors import Expired, Refused, Unverified
from bus.wire.measurement import EvidenceKind, Measurement
from bus.wire.names import AgentId
from tests.attestation import made
from tests.unit.ledger_build import NOON

ME, OTHER = AgentId("writer-1"), AgentId("writer-2")
PRIVATE = ec.generate_private_key(ec.SECP256R1())
KEY = to_der(PRIVATE.public_key())
OTHER_KEY = to_der(ec.generate_private_key(ec.SECP256R1()).public_key())
MASTER = Secret.random("attestation")
CODE = Measurement(EvidenceKind.SOFTWARE, 0, hashlib.sha256(b"code").digest())
ACCEPTED = frozenset({CODE})
HOLDER = Holder(ME, "5e", KEY)
LIFE = 600_000


def sign(message: bytes) -> bytes:
    return PRIVATE.sign(message, ec.ECDSA(hashes.SHA256()))


def evidence(nonce: bytes, agent: AgentId = ME, measured: Measurement = CODE) -> bytes:
    return software.evidence(measured, Question(nonce, agent), KEY, sign)


@pytest.fixture
def attesting(tmp_path) -> Attesting:
    kept = Attestations(Register(Sqlite(tmp_path / "register.db")))
    verifiers = {EvidenceKind.SOFTWARE: SoftwareVerifier()}
    return Attesting(verifiers, MASTER, Signer(bytes(32)), "sealbus:ab", kept)


def attest(attesting: Attesting, now: int = NOON, life: int = LIFE, holder: Holder = HOLDER) -> str:
    nonce, _ = attesting.question(ME, KEY, b"", now)
    found = attesting.appraise(ME, KEY, nonce, evidence(nonce), ACCEPTED, now)
    token, row = attesting.result(found, holder.serial, life, now)
    attesting.kept.put(row)
    return token


def refusal(attesting: Attesting, token: str, holder: Holder, accepted: frozenset[Measurement], now: int) -> str:
    return attesting.refused(token, holder, attesting.kept.of(holder.agent), accepted, now)


def refused(call, match: str) -> None:
    with pytest.raises(Refused, match=match) as error:
        call()
    assert error.value.code is Code.ATTESTATION


# Nonces.
def test_a_nonce_is_of_one_agent_and_one_key_and_ends_after_a_minute():
    asked = questions.ask(MASTER, ME, KEY, NOON)
    assert questions.check(MASTER, asked, KEY, NOON + questions.QUESTION_MS - 1) == NOON + questions.QUESTION_MS
    with pytest.raises(Expired):
        questions.check(MASTER, asked, KEY, NOON + questions.QUESTION_MS)
    wrong = [
        (MASTER, replace(asked, agent=OTHER), KEY),
        (MASTER, asked, OTHER_KEY),
        (Secret.random("another"), asked, KEY),
        (MASTER, Question(secrets.token_bytes(32), ME), KEY),
        (MASTER, Question(asked.nonce[:-1], ME), KEY),
        (MASTER, Question(b"", ME), KEY),
        (MASTER, Question((NOON + 10**9).to_bytes(8, "big") + asked.nonce[8:], ME), KEY),
    ]
    for key, question, confirmation in wrong:
        with pytest.raises(Unverified, match="nonce"):
            questions.check(key, question, confirmation, NOON)


@given(st.integers(0, 32 * 8 - 1))
def test_every_bit_of_a_nonce_counts(bit):
    asked = questions.ask(MASTER, ME, KEY, NOON)
    changed = (int.from_bytes(asked.nonce, "big") ^ 1 << bit).to_bytes(32, "big")
    with pytest.raises(Unverified):
        questions.check(MASTER, Question(changed, ME), KEY, NOON)


def test_a_nonce_is_taken_once_by_all_replicas_and_forgotten_when_it_ended(tmp_path):
    one, two = (Attestations(Register(Sqlite(tmp_path / "register.db"))) for _ in range(2))
    assert one.take(b"n" * 32, NOON + 10, NOON)
    assert not two.take(b"n" * 32, NOON + 10, NOON)
    assert two.take(b"m" * 32, NOON + 10, NOON)
    assert not one.take(b"n" * 32, NOON + 10, NOON + 11 + AHEAD_MS // 2)
    assert not two.take(b"n" * 32, NOON + 10, NOON), "the clock of the other replica is ahead"
    assert one.take(b"n" * 32, NOON + 99, NOON + 11 + AHEAD_MS), "its row is gone: that it ended is checked before"


# Evidence.
def test_evidence_is_appraised_once_for_who_was_asked(attesting):
    nonce, challenge = attesting.question(ME, KEY, b"", NOON)
    assert (len(nonce), challenge) == (32, b"")
    found = attesting.appraise(ME, KEY, nonce, evidence(nonce), ACCEPTED, NOON)
    assert (found.measurement, found.question.agent, found.confirmation) == (CODE, ME, KEY)
    refused(lambda: attesting.appraise(ME, KEY, nonce, evidence(nonce), ACCEPTED, NOON), "answered before")


def test_evidence_that_answers_something_else_is_refused(attesting):
    def ask() -> bytes:
        return attesting.question(ME, KEY, b"", NOON)[0]

    other = Measurement(EvidenceKind.SOFTWARE, 0, hashlib.sha256(b"other").digest())
    appraise = partial(attesting.appraise, accepted=ACCEPTED, now_ms=NOON)
    made_up = secrets.token_bytes(32)
    refused(lambda: appraise(ME, KEY, made_up, evidence(made_up)), "not asked of this agent and key")
    nonce = ask()
    refused(lambda: appraise(OTHER, KEY, nonce, evidence(nonce, OTHER)), "not asked of this agent and key")
    refused(lambda: appraise(ME, OTHER_KEY, nonce, evidence(nonce)), "not asked of this agent and key")
    refused(lambda: appraise(ME, KEY, nonce, evidence(ask())), "signature does not hold")
    refused(lambda: appraise(ME, KEY, nonce, evidence(nonce)), "answered before")
    nonce = ask()
    refused(lambda: appraise(ME, KEY, nonce, evidence(nonce, measured=other)), "not accepted for this agent")
    nonce = ask()
    refused(lambda: appraise(ME, KEY, nonce, b"\x09"), "no kind that is known")
    nonce, _ = attesting.question(ME, OTHER_KEY, b"", NOON)
    refused(lambda: appraise(ME, OTHER_KEY, nonce, evidence(nonce)), "bound to another key than the one that is shown")


def test_a_kind_without_a_verifier_is_refused(attesting, tmp_path):
    production = Attesting({}, MASTER, Signer(bytes(32)), "sealbus:ab", attesting.kept)
    nonce, _ = production.question(ME, KEY, b"", NOON)
    refused(lambda: production.appraise(ME, KEY, nonce, evidence(nonce), ACCEPTED, NOON), "development mode alone")
    refused(lambda: production.question(ME, KEY, b"\x02offer", NOON), "tpm evidence: the authority trusts no root")


# Results.
def test_a_result_is_in_force_for_its_holder_until_it_ends(attesting):
    token = attest(attesting)
    assert refusal(attesting, token, HOLDER, ACCEPTED, NOON + LIFE - 1) == ""
    assert "past its end" in refusal(attesting, token, HOLDER, ACCEPTED, NOON + LIFE)
    assert len(token) < 1500
    short = attest(attesting, life=8_000)
    assert refusal(attesting, short, HOLDER, ACCEPTED, NOON + 7_999) == ""
    assert "past its end" in refusal(attesting, short, HOLDER, ACCEPTED, NOON + 8_000)
    day = attest(attesting, life=86_400_000)
    assert "past its end" in refusal(attesting, day, HOLDER, ACCEPTED, NOON + 600_000), "ten minutes at most"


def test_a_result_of_somebody_else_is_worth_nothing(attesting, tmp_path):
    token = attest(attesting)
    foreign = Attesting({}, MASTER, Signer(bytes([1]) * 32), "sealbus:ab", attesting.kept)
    abroad = Attesting({}, MASTER, Signer(bytes(32)), "sealbus:cd", attesting.kept)
    for why, shown, holder, service in (
        ("no attestation result is shown", "", HOLDER, attesting),
        ("did not attest so under this certificate", token, replace(HOLDER, serial="5f"), attesting),
        ("did not attest so under this certificate", token, replace(HOLDER, agent=OTHER), attesting),
        ("bound to another key", token, replace(HOLDER, key=OTHER_KEY), attesting),
        ("signed by no verifier that is trusted", token, HOLDER, foreign),
        ("for another audience", token, HOLDER, abroad),
        ("three parts", "x", HOLDER, attesting),
    ):
        assert why in refusal(service, shown, holder, ACCEPTED, NOON)
    row = attesting.kept.find(ME)
    attesting.kept.put(replace(row, agent=OTHER, serial="5e"))
    assert "for another agent" in refusal(attesting, token, replace(HOLDER, agent=OTHER), ACCEPTED, NOON)
    attest(attesting, NOON + 1)
    assert refusal(attesting, token, HOLDER, ACCEPTED, NOON + 1) == "", "another process of the agent has its own"
    attesting.kept = Attestations(Register(Sqlite(tmp_path / "other.db")))
    assert "did not attest so" in refusal(attesting, token, HOLDER, ACCEPTED, NOON)


def test_a_measurement_that_is_withdrawn_ends_a_result(attesting):
    token = attest(attesting)
    other = frozenset({Measurement(EvidenceKind.SOFTWARE, 0, hashlib.sha256(b"other").digest())})
    assert "not accepted any more" in refusal(attesting, token, HOLDER, other, NOON)
    assert "no measurement of it is accepted" in refusal(attesting, token, HOLDER, frozenset(), NOON)
    assert refusal(attesting, token, HOLDER, other | ACCEPTED, NOON) == ""


def test_what_an_agent_attested_last_is_kept(attesting):
    attest(attesting)
    kept = attesting.kept.find(ME)
    assert kept == Attested(
        ME, "5e", EvidenceKind.SOFTWARE, str(CODE), hashlib.sha256(KEY).digest(), kept.nonce, NOON, NOON + LIFE
    )
    attest(attesting, NOON + LIFE)
    assert len(attesting.kept.of(ME)) == 1, "the first has ended"
    assert attesting.kept.last() == {ME: replace(kept, nonce=attesting.kept.find(ME).nonce, since=NOON + LIFE,
                                                until=NOON + 2 * LIFE)}  # fmt: skip
    assert attesting.kept.find(OTHER) is None


def test_results_of_one_agent_are_bounded_and_the_oldest_goes(attesting):
    first = attest(attesting)
    tokens = [attest(attesting, NOON + number) for number in range(1, MAX_RESULTS)]
    assert refusal(attesting, first, HOLDER, ACCEPTED, NOON) == ""
    tokens.append(attest(attesting, NOON + MAX_RESULTS))
    assert len(attesting.kept.of(ME)) == MAX_RESULTS
    assert "did not attest so" in refusal(attesting, first, HOLDER, ACCEPTED, NOON)
    assert {refusal(attesting, each, HOLDER, ACCEPTED, NOON + MAX_RESULTS) for each in tokens} == {""}


# Roots, and who gets in without a token.
def test_a_kind_has_a_verifier_where_its_root_was_given(tmp_path):
    assert open_verifiers(tmp_path, MASTER, development=False) == {}
    assert set(open_verifiers(tmp_path, MASTER, development=True)) == {EvidenceKind.SOFTWARE}
    root = made.Authority("root")
    for kind in ("tpm", "snp", "nitro"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "maker.pem").write_bytes(root.certificate.public_bytes(Encoding.PEM))
    found = open_verifiers(tmp_path, MASTER, development=False)
    assert {kind: type(each) for kind, each in found.items()} == {
        EvidenceKind.TPM: TpmVerifier,
        EvidenceKind.SNP: SnpVerifier,
        EvidenceKind.NITRO: NitroVerifier,
    }
    assert list(found[EvidenceKind.TPM].roots) == ["maker"]
    (tmp_path / "snp" / "odd.pem").write_bytes(b"noise")
    with pytest.raises(Refused, match=r"odd\.pem: expected one certificate in PEM"):
        open_verifiers(tmp_path, MASTER, development=False)


def test_an_agent_that_attested_is_admitted_and_another_device_is_not_while_it_lasts(tmp_path):
    register = Register(Sqlite(tmp_path / "register.db"))
    assert register.admit(ME, b"first", NOON, same=False) == 1
    register.certified(ME, 1, "5e", NOON + 100)
    assert register.admit(ME, b"first", NOON, same=False) == 1, "its answer may have been lost"
    with pytest.raises(Refused, match="another device attests") as error:
        register.admit(ME, b"second", NOON, same=False)
    assert error.value.code is Code.CREDENTIAL
    assert register.admit(ME, b"second", NOON, same=True) == 2
    register.certified(ME, 2, "5f", NOON + 100)
    assert register.admit(ME, b"third", NOON + 101, same=False) == 3, "the last certificate has ended"
    register.revoke(ME, "it left")
    for request in (b"third", b"fourth"):
        with pytest.raises(Refused, match="only a token lets it in again"):
            register.admit(ME, request, NOON + 10**9, same=True)
