"""Software measurement: what the agent signs of itself, and what the attester measures."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, x25519

from bus.attestation.confirmation import to_der
from bus.attestation.evidence import pack
from bus.attestation.software import SoftwareVerifier, measure
from bus.attester import software
from bus.errors import Refused
from bus.wire.measurement import EvidenceKind
from tests.attestation.made import AGENT_KEY, ASKED, KEY, NOW, OTHER_KEY, QUESTIONS, refused

INTERPRETER = hashlib.sha256(b"python").digest()
CODE = {"agent/main.py": hashlib.sha256(b"main").digest(), "agent/tool.py": hashlib.sha256(b"tool").digest()}
MEASURED = measure(INTERPRETER, CODE)
ACCEPTED = frozenset({MEASURED})
VERIFIER = SoftwareVerifier()
EVIDENCE = software.evidence(MEASURED, ASKED, KEY, AGENT_KEY.sign)


def test_a_measurement_signed_for_this_question_is_believed():
    found = VERIFIER.appraise(EVIDENCE, ASKED, ACCEPTED, NOW)
    assert (found.kind, found.measurement, found.confirmation) == (EvidenceKind.SOFTWARE, MEASURED, KEY)
    assert found.facts == {"proves": "wiring only"}


def test_a_p256_key_signs_too_and_an_x25519_key_cannot():
    key = ec.generate_private_key(ec.SECP256R1())
    evidence = software.evidence(
        MEASURED, ASKED, to_der(key.public_key()), lambda message: key.sign(message, ec.ECDSA(hashes.SHA256()))
    )
    assert VERIFIER.appraise(evidence, ASKED, ACCEPTED, NOW).confirmation == to_der(key.public_key())
    sealing = to_der(x25519.X25519PrivateKey.generate().public_key())
    refused(
        "possession",
        VERIFIER.appraise,
        software.evidence(MEASURED, ASKED, sealing, AGENT_KEY.sign),
        ASKED,
        ACCEPTED,
        NOW,
    )


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_a_replay_for_another_question_is_refused(question):
    refused("possession", VERIFIER.appraise, EVIDENCE, question, ACCEPTED, NOW)


def test_another_key_measurement_or_length_is_refused():
    stolen = software.evidence(MEASURED, ASKED, OTHER_KEY, AGENT_KEY.sign)
    refused("possession", VERIFIER.appraise, stolen, ASKED, ACCEPTED, NOW)
    refused("measurement", VERIFIER.appraise, EVIDENCE, ASKED, frozenset(), NOW)
    short = pack(EvidenceKind.SOFTWARE, MEASURED.digest[:31], KEY, bytes(64))
    refused("measurement", VERIFIER.appraise, short, ASKED, ACCEPTED, NOW)


@pytest.mark.parametrize(
    "other",
    [
        measure(INTERPRETER[::-1], CODE),
        measure(INTERPRETER, {**CODE, "agent/more.py": bytes(32)}),
        measure(INTERPRETER, {"agent/main.py": CODE["agent/main.py"]}),
        measure(INTERPRETER, dict(zip(CODE, reversed(CODE.values()), strict=True))),
        measure(INTERPRETER, {"agent/main.p": b"y" + CODE["agent/main.py"], "agent/tool.py": CODE["agent/tool.py"]}),
    ],
)
def test_interpreter_names_contents_and_number_of_files_count(other):
    assert other != MEASURED
    assert measure(INTERPRETER, dict(reversed(CODE.items()))) == MEASURED


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    code = tmp_path / "code"
    (code / "__pycache__").mkdir(parents=True)
    (code / "main.py").write_bytes(b"main")
    (code / "__pycache__" / "main.pyc").write_bytes(b"compiled")
    (tmp_path / "python").write_bytes(b"python")
    return code


def test_the_attester_measures_files_and_interpreter(folder):
    interpreter = folder.parent / "python"
    found = software.measure({"agent": folder}, interpreter)
    assert found == measure(INTERPRETER, {"agent/main.py": CODE["agent/main.py"]})
    (folder / "__pycache__" / "main.pyc").write_bytes(b"compiled anew")
    assert software.measure({"agent": folder}, interpreter) == found
    (folder / "main.py").write_bytes(b"changed")
    assert software.measure({"agent": folder}, interpreter) != found


def test_the_attester_refuses_links_and_nothing(folder):
    with pytest.raises(Refused, match="no files"):
        software.measure({"agent": folder / "__pycache__"}, folder.parent / "python")
    (folder / "link.py").symlink_to(folder / "main.py")
    with pytest.raises(Refused, match="a link is not measured"):
        software.measure({"agent": folder}, folder.parent / "python")
