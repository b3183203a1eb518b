"""SEV-SNP: real reports with AMD's own chain, and made ones for every step."""

from __future__ import annotations

import hashlib
import struct
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from bus.attestation.evidence import pack
from bus.attestation.snp import SnpVerifier, read_report
from bus.errors import Unverified
from bus.wire.measurement import EvidenceKind, Measurement
from tests.attestation.made import (
    ASKED,
    CHIP,
    DATA,
    KEY,
    LAUNCHED,
    NOW,
    OTHER_KEY,
    QUESTIONS,
    TCB,
    Authority,
    Chip,
    refused,
)

pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")  # AMD's VCEKs have the number 0

ASK, ARK = x509.load_pem_x509_certificates((DATA / "snp-milan-chain.pem").read_bytes())
ASK_DER = ASK.public_bytes(Encoding.DER)
AMD = {"amd-milan": ARK}
ACCEPTED = frozenset({LAUNCHED})
MADE = Chip()
VERIFIER = SnpVerifier({"ark": MADE.root.certificate})


def sample(name: str) -> tuple[bytes, bytes]:
    return (DATA / f"snp-{name}-report.bin").read_bytes(), (DATA / f"snp-{name}-vcek.der").read_bytes()


def test_amds_root_is_the_one_that_amd_publishes():
    published = "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd"
    assert hashlib.sha256(ARK.public_bytes(Encoding.DER)).hexdigest() == published


def test_a_real_report_holds_up_to_the_question_that_it_does_not_answer():
    report, vcek = sample("milan")
    found = read_report(report, vcek, ASK_DER, AMD, NOW)
    assert (found.version, found.tcb, found.root) == (2, (3, 0, 8, 115), "amd-milan")
    assert found.measurement == report[0x90:0xC0]
    evidence = pack(EvidenceKind.SNP, report, vcek, ASK_DER, KEY)
    accepted = frozenset({Measurement(EvidenceKind.SNP, 0, found.measurement)})
    refused("binding", SnpVerifier(AMD).appraise, evidence, ASKED, accepted, NOW)


def test_a_real_report_is_refused_for_debug_time_root_and_chip():
    report, vcek = sample("milan")
    refused("debug", read_report, *sample("debug"), ASK_DER, AMD, NOW)
    refused("validity", read_report, report, vcek, ASK_DER, AMD, NOW + timedelta(days=3650))
    refused("chain", read_report, report, vcek, ASK_DER, {"ark": MADE.root.certificate}, NOW)
    refused("chain", read_report, report, vcek, ASK_DER, {}, NOW)
    refused("signature", read_report, report, sample("debug")[1], ASK_DER, AMD, NOW)


def test_every_signed_byte_of_a_real_report_counts():
    report, vcek = sample("milan")
    for place in range(0, len(report), 7):
        changed = report[:place] + bytes([report[place] ^ 4]) + report[place + 1 :]
        with pytest.raises(Unverified) as error:
            read_report(changed, vcek, ASK_DER, AMD, NOW)
        assert error.value.step in ("algorithm", "signature")


def test_a_report_for_this_question_agent_and_key_is_believed():
    found = VERIFIER.appraise(MADE.evidence(), ASKED, ACCEPTED, NOW)
    assert (found.measurement, found.confirmation, found.question) == (LAUNCHED, KEY, ASKED)
    assert (found.device, found.facts["root"]) == (hashlib.sha256(CHIP).digest(), "ark")


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_another_question_is_refused(question):
    refused("binding", VERIFIER.appraise, MADE.evidence(), question, ACCEPTED, NOW)


def test_another_key_is_refused():
    report = MADE.report(ASKED.binding(OTHER_KEY) + bytes(32))
    evidence = pack(EvidenceKind.SNP, report, MADE.vcek, MADE.ask.der, KEY)
    refused("binding", VERIFIER.appraise, evidence, ASKED, ACCEPTED, NOW)


@pytest.mark.parametrize("accepted", [frozenset(), frozenset({Measurement(EvidenceKind.SNP, 0, bytes(48))})])
def test_another_measurement_is_refused(accepted):
    refused("measurement", VERIFIER.appraise, MADE.evidence(), ASKED, accepted, NOW)


def test_zeros_are_no_measurement_whoever_accepts_them():
    zeros = frozenset({Measurement(EvidenceKind.SNP, 0, bytes(48))})
    evidence = MADE.evidence(fields={0x90: bytes(48)})
    refused("measurement", VERIFIER.appraise, evidence, ASKED, zeros, NOW)


@pytest.mark.parametrize(
    ("step", "fields"),
    [
        ("debug", {0x08: struct.pack("<Q", 3 << 16 | 1 << 19)}),
        ("policy", {0x08: struct.pack("<Q", 3 << 16 | 1 << 18)}),
        ("policy", {0x08: struct.pack("<Q", 1 << 16)}),
        ("vmpl", {0x30: struct.pack("<I", 1)}),
        ("algorithm", {0x34: struct.pack("<I", 2)}),
        ("algorithm", {0x48: struct.pack("<I", 1 << 2)}),  # signed by a VLEK
        ("algorithm", {0x00: struct.pack("<I", 6)}),
        ("chip", {0x1A0: bytes(64)}),
        ("tcb", {0x180: bytes([TCB[0], TCB[1], 0, 0, 0, 0, TCB[2], TCB[3] - 1])}),
        ("tcb", {0x180: bytes([TCB[0] + 1, TCB[1], 0, 0, 0, 0, TCB[2], TCB[3]])}),
    ],
)
def test_a_signed_report_that_says_something_else_is_refused(step, fields):
    refused(step, VERIFIER.appraise, MADE.evidence(fields=fields), ASKED, ACCEPTED, NOW)


def test_another_product_curve_or_ask_and_a_changed_tail_are_refused():
    turin = Chip(product=b"Turin-C1")
    refused("chip", SnpVerifier({"ark": turin.root.certificate}).appraise, turin.evidence(), ASKED, ACCEPTED, NOW)
    small = Chip(curve=ec.SECP256R1)
    refused("algorithm", SnpVerifier({"ark": small.root.certificate}).appraise, small.evidence(), ASKED, ACCEPTED, NOW)
    foreign = Authority("ASK")
    report = MADE.report(ASKED.binding(KEY) + bytes(32))
    evidence = pack(EvidenceKind.SNP, report, MADE.vcek, foreign.der, KEY)
    refused("chain", VERIFIER.appraise, evidence, ASKED, ACCEPTED, NOW)
    tail = pack(EvidenceKind.SNP, report[:-1] + b"\1", MADE.vcek, MADE.ask.der, KEY)
    refused("signature", VERIFIER.appraise, tail, ASKED, ACCEPTED, NOW)
    refused("bounds", read_report, report[:-1], MADE.vcek, MADE.ask.der, VERIFIER.roots, NOW)
