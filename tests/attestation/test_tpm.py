"""TPM 2.0 without a TPM: credential activation and quotes by a TPM in Python, every step made to fail alone.

``tests/integration/test_swtpm.py`` does the same with tpm2-tools and swtpm.
"""

from __future__ import annotations

import struct

import pytest
from cryptography import x509

from bus.attestation.evidence import pack
from bus.attestation.tpm import TpmVerifier, split_certificates
from bus.attestation.tpm_structures import DECRYPT, RESTRICTED, read_attestation_key, read_quote
from bus.crypto.keys import Secret
from bus.wire.measurement import EvidenceKind, Measurement
from tests.attestation.made import (
    AK_ATTRIBUTES,
    ASKED,
    GOLDEN,
    KEY,
    NOW,
    OTHER_KEY,
    QUESTIONS,
    Authority,
    Tpm,
    refused,
)

ROOT = Authority("maker")
TPM = Tpm(ROOT)
VERIFIER = TpmVerifier({"maker": ROOT.certificate}, Secret.random("verifier"))
ACCEPTED = frozenset({GOLDEN})
SECRET = TPM.activate(VERIFIER.challenge(TPM.offer(), ASKED, NOW))


def appraise(evidence, question=ASKED, accepted=ACCEPTED):
    return VERIFIER.appraise(evidence, question, accepted, NOW)


def test_a_quote_for_this_question_agent_and_key_is_believed():
    found = appraise(TPM.evidence(SECRET))
    assert (found.measurement, found.confirmation, found.question) == (GOLDEN, KEY, ASKED)
    assert found.facts == {
        "clock_ms": 123_456,
        "resets": 7,
        "restarts": 2,
        "clock_safe": "yes",
        "firmware": "0000000000002020",
        "root": "maker",
    }


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_a_replay_is_refused_by_challenge_and_by_quote(question):
    refused("activation", appraise, TPM.evidence(SECRET), question)
    fresh = TPM.activate(VERIFIER.challenge(TPM.offer(), question, NOW))
    refused("binding", appraise, TPM.evidence(fresh), question)
    assert appraise(TPM.evidence(fresh, question), question).question == question


def test_a_quote_for_another_key_is_refused():
    attest, signature = TPM.quote(ASKED.binding(OTHER_KEY))
    evidence = pack(EvidenceKind.TPM, TPM.certificate, TPM.public, SECRET, attest, signature, KEY)
    refused("binding", appraise, evidence)


@pytest.mark.parametrize(
    ("step", "how"),
    [
        ("measurement", {"value": bytes(32)}),
        ("measurement", {"selection": b"\0\0\0\1\0\x0b\3\0\x20\0"}),  # PCR 13
        ("selection", {"selection": b"\0\0\0\1\0\x0b\3\1\x40\0"}),  # PCRs 0 and 14
        ("selection", {"selection": b"\0\0\0\1\0\x0b\3\0\0\0"}),  # none
        ("selection", {"selection": b"\0\0\0\0"}),
        ("selection", {"selection": b"\0\0\0\1\0\x04\3\0\x40\0"}),  # the SHA-1 bank
        ("selection", {"selection": b"\0\0\0\2\0\x0b\3\0\x40\0\0\x04\3\0\x40\0"}),
        ("qualified-name", {"signer": b"\0\x0b" + bytes(32)}),
        ("decode", {"head": b"\xffTCG\x80\x17"}),  # a certification, not a quote
        ("decode", {"head": b"\xffTCH\x80\x18"}),  # what a restricted key never signs of outside bytes
        ("decode", {"selection": b"\0\0\0\5" + b"\0\x0b\3\0\x40\0" * 5}),
        ("decode", {"selection": b"\0\0\0\1\0\x0b\5\0\x40\0\0\0"}),
    ],
)
def test_a_signed_quote_that_says_something_else_is_refused(step, how):
    refused(step, appraise, TPM.evidence(SECRET, **how))


@pytest.mark.parametrize(
    "accepted",
    [
        frozenset(),
        frozenset({Measurement(EvidenceKind.TPM, 13, GOLDEN.digest)}),
        frozenset({Measurement(EvidenceKind.SOFTWARE, 14, GOLDEN.digest)}),
    ],
)
def test_a_pcr_that_is_not_accepted_is_refused(accepted):
    refused("measurement", appraise, TPM.evidence(SECRET), ASKED, accepted)


def test_a_foreign_ek_and_a_foreign_ak_are_refused():
    foreign = Tpm(Authority("maker"))
    refused("chain", VERIFIER.challenge, foreign.offer(), ASKED, NOW)
    refused("chain", appraise, foreign.evidence(SECRET))
    # An AK from elsewhere beside the certified EK: its TPM does not open what is made for that name.
    mixed = pack(EvidenceKind.TPM, TPM.certificate, foreign.public)
    challenge = VERIFIER.challenge(mixed, ASKED, NOW)
    for each in (TPM, foreign):
        with pytest.raises(ValueError):
            each.activate(challenge)
    attest, signature = foreign.quote(ASKED.binding(KEY))
    evidence = pack(EvidenceKind.TPM, TPM.certificate, foreign.public, SECRET, attest, signature, KEY)
    refused("activation", appraise, evidence)


def test_a_quote_signed_by_another_key_is_refused():
    attest, signature = Tpm(ROOT).quote(ASKED.binding(KEY))
    evidence = pack(EvidenceKind.TPM, TPM.certificate, TPM.public, SECRET, attest, signature, KEY)
    refused("signature", appraise, evidence)


@pytest.mark.parametrize(
    "attributes", [AK_ATTRIBUTES & ~RESTRICTED, AK_ATTRIBUTES | DECRYPT, AK_ATTRIBUTES & ~2, AK_ATTRIBUTES & ~(1 << 5)]
)
def test_a_key_that_signs_anything_or_can_leave_is_refused(attributes):
    refused("key", VERIFIER.challenge, Tpm(ROOT, attributes).offer(), ASKED, NOW)


def test_an_ek_of_another_size_or_use_is_refused():
    refused("endorsement", VERIFIER.challenge, Tpm(ROOT, bits=3072).offer(), ASKED, NOW)
    server = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])
    refused("endorsement", VERIFIER.challenge, Tpm(ROOT, use=server).offer(), ASKED, NOW)


def test_a_key_of_another_kind_or_off_the_curve_is_refused():
    refused("decode", read_attestation_key, b"\0\1" + TPM.public[2:])
    refused("decode", read_attestation_key, TPM.public + b"\0")
    refused("decode", read_attestation_key, TPM.public[:-34] + b"\0\x20" + bytes(32))


def test_a_field_of_a_quote_has_a_bound():
    assert read_quote(TPM.quote(bytes(64))[0]).extra == bytes(64)
    refused("decode", read_quote, TPM.quote(bytes(65))[0])


def test_certificates_are_cut_by_their_length_and_at_most_four():
    assert split_certificates(TPM.certificate * 2) == [TPM.certificate] * 2
    refused("bounds", split_certificates, TPM.certificate * 5)
    refused("decode", split_certificates, TPM.certificate[:-1])
    refused("decode", split_certificates, b"\x30\x82" + struct.pack(">H", 9))
