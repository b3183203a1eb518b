"""AWS Nitro: a real document with AWS's own chain, and made ones for every step."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from bus.attestation import cbor
from bus.attestation.evidence import pack
from bus.attestation.nitro import NitroVerifier, read_document
from bus.errors import Refused
from bus.wire.measurement import EvidenceKind, Measurement
from tests.attestation.made import (
    ASKED,
    DATA,
    IMAGE,
    KEY,
    NOW,
    OTHER_KEY,
    QUESTIONS,
    Authority,
    Enclave,
    encode,
    refused,
)

REAL = (DATA / "nitro-document.cbor").read_bytes()
MADE_AT = datetime(2025, 1, 6, 16, 7, 5, 472000, UTC)
ROOT = x509.load_pem_x509_certificate((DATA / "nitro-root.pem").read_bytes())
AWS = {"aws-nitro": ROOT}
MADE = Enclave()
VERIFIER = NitroVerifier({"aws": MADE.root.certificate})
ACCEPTED = frozenset({IMAGE})


def test_awss_root_is_the_one_that_aws_publishes():
    published = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
    assert hashlib.sha256(ROOT.public_bytes(Encoding.DER)).hexdigest() == published


def test_a_real_document_holds_up_to_the_question_that_it_does_not_answer():
    found = read_document(REAL, AWS, MADE_AT)
    assert (found.time, found.root, len(found.pcrs)) == (MADE_AT, "aws-nitro", 16)
    assert found.module == "i-0bee92034f3d60691-enc01943c5eaab3ad6a"
    accepted = frozenset({Measurement(EvidenceKind.NITRO, 0, found.pcrs[0])})
    refused("binding", NitroVerifier(AWS).appraise, pack(EvidenceKind.NITRO, REAL, KEY), ASKED, accepted, MADE_AT)


def test_a_real_document_is_refused_for_time_and_root():
    refused("validity", read_document, REAL, AWS, MADE_AT + timedelta(hours=4))
    refused("validity", read_document, REAL, AWS, MADE_AT - timedelta(hours=1))
    refused("chain", read_document, REAL, VERIFIER.roots, MADE_AT)
    refused("chain", read_document, REAL, {}, MADE_AT)


def test_every_byte_of_a_real_document_counts():
    for place in range(3, len(REAL), 13):
        changed = REAL[:place] + bytes([REAL[place] ^ 4]) + REAL[place + 1 :]
        with pytest.raises(Refused):
            read_document(changed, AWS, MADE_AT)


def test_a_document_for_this_question_agent_and_key_is_believed():
    found = VERIFIER.appraise(MADE.evidence(), ASKED, ACCEPTED, NOW)
    assert (found.measurement, found.confirmation, found.question) == (IMAGE, KEY, ASKED)
    assert (found.facts["module"], found.facts["root"]) == ("i-1-enc1", "aws")


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_another_question_is_refused(question):
    refused("binding", VERIFIER.appraise, MADE.evidence(), question, ACCEPTED, NOW)


@pytest.mark.parametrize(
    ("step", "fields"),
    [
        ("debug", {"pcrs": {0: bytes(48)}}),
        ("debug", {"pcrs": {}}),
        ("time", {"timestamp": int((NOW - timedelta(minutes=6)).timestamp() * 1000)}),
        ("time", {"timestamp": int((NOW + timedelta(minutes=6)).timestamp() * 1000)}),
        ("binding", {"user_data": ASKED.binding(OTHER_KEY)}),
        ("binding", {"user_data": None}),
        ("binding", {"nonce": None}),
        ("measurement", {"pcrs": {0: IMAGE.digest[::-1]}}),
        ("measurement", {"pcrs": {0: IMAGE.digest[::-1], 1: IMAGE.digest}}),
        ("algorithm", {"algorithm": -7}),
        ("decode", {"digest": "SHA256"}),
        ("decode", {"pcrs": {0: IMAGE.digest[:32]}}),
        ("decode", {"pcrs": [IMAGE.digest]}),
        ("decode", {"pcrs": {"0": IMAGE.digest}}),
        ("decode", {"cabundle": []}),
        ("decode", {"cabundle": [b"x"] * 20}),
        ("decode", {"cabundle": [b"", b"no certificate"]}),
        ("decode", {"certificate": "text"}),
        ("decode", {"timestamp": -1}),
        ("decode", {"nonce": 7}),
        ("decode", {"user_data": "text"}),
        ("decode", {"timestamp": (1 << 53) - 1}),
    ],
)
def test_a_signed_document_that_says_something_else_is_refused(step, fields):
    refused(step, VERIFIER.appraise, MADE.evidence(**fields), ASKED, ACCEPTED, NOW)


def test_a_register_that_nobody_extended_proves_nothing():
    zeros = frozenset({Measurement(EvidenceKind.NITRO, 1, bytes(48))})
    refused("measurement", VERIFIER.appraise, MADE.evidence(), ASKED, zeros, NOW)


def test_a_foreign_chain_another_curve_and_another_length_are_refused():
    foreign = Enclave()
    bundle = [MADE.root.der, MADE.zone.der]
    refused("chain", VERIFIER.appraise, foreign.evidence(cabundle=bundle), ASKED, ACCEPTED, NOW)
    refused("chain", VERIFIER.appraise, MADE.evidence(cabundle=[MADE.root.der, foreign.zone.der]), ASKED, ACCEPTED, NOW)
    refused("chain", VERIFIER.appraise, MADE.evidence(cabundle=[MADE.root.der]), ASKED, ACCEPTED, NOW)
    small = Enclave(ec.SECP256R1)
    refused(
        "algorithm", NitroVerifier({"aws": small.root.certificate}).appraise, small.evidence(), ASKED, ACCEPTED, NOW
    )
    protected, payload = encode({1: -35}), cbor.read_sign1(MADE.document()).payload
    cut = pack(EvidenceKind.NITRO, encode([protected, {}, payload, bytes(95)]), KEY)
    refused("signature", VERIFIER.appraise, cut, ASKED, ACCEPTED, NOW)
    protected, _, payload, signature = cbor.loads(MADE.document())
    longer = encode([protected, {}, payload, signature[:48] + b"\0" + signature[48:]])  # the same numbers
    refused("signature", VERIFIER.appraise, pack(EvidenceKind.NITRO, longer, KEY), ASKED, ACCEPTED, NOW)
    more = encode([encode({1: -35, 4: b"kid"}), {}, payload, bytes(96)])
    refused("algorithm", VERIFIER.appraise, pack(EvidenceKind.NITRO, more, KEY), ASKED, ACCEPTED, NOW)


def test_the_root_in_the_bundle_is_not_what_is_trusted():
    liar = Authority("aws.nitro-enclaves")
    evidence = MADE.evidence(cabundle=[liar.der, MADE.zone.der])
    assert VERIFIER.appraise(evidence, ASKED, ACCEPTED, NOW).facts["root"] == "aws"
    refused("chain", NitroVerifier({"aws": liar.certificate}).appraise, evidence, ASKED, ACCEPTED, NOW)
