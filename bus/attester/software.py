"""Measures the code that an agent runs: every file of named folders, and the interpreter. Decides nothing."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

from bus.attestation import software
from bus.attestation.evidence import Question, pack
from bus.attester.base import Sign
from bus.errors import Refused
from bus.wire.measurement import EvidenceKind, Measurement
from bus.wire.preimage import attestation_software


def measure(folders: Mapping[str, Path], interpreter: Path = Path(sys.executable)) -> Measurement:
    """The measurement of all files under ``folders`` (by a name that does not change with the machine).

    Compiled files (``__pycache__``) are left out: Python writes them. A link is refused, as it leads elsewhere; so is a
    folder without files. Raises Refused, or OSError where something cannot be read.
    """
    files: dict[str, bytes] = {}
    for name, folder in folders.items():
        for path in sorted(folder.rglob("*")):
            if "__pycache__" in path.parts:
                continue
            if path.is_symlink():
                raise Refused(f"{path}: a link is not measured")
            if path.is_file():
                files[f"{name}/{path.relative_to(folder).as_posix()}"] = _digest(path)
    if not files:
        raise Refused("software measurement: no files to measure")
    return software.measure(_digest(interpreter), files)


def evidence(measured: Measurement, question: Question, confirmation: bytes, sign: Sign) -> bytes:
    """Evidence for ``question``. ``sign`` signs as the agent's key ``confirmation`` (SubjectPublicKeyInfo, DER)."""
    signature = sign(attestation_software(question.binding(confirmation), measured.digest))
    return pack(EvidenceKind.SOFTWARE, measured.digest, confirmation, signature)


class SoftwareAttester:
    """Says of itself what it measured, signed by the agent's own key: evidence of wiring only."""

    def __init__(self, measured: Measurement) -> None:
        self._measured = measured

    def offer(self) -> bytes:
        """Nothing: there is nobody to challenge but the key."""
        return b""

    def answer(self, challenge: bytes, question: Question, confirmation: bytes, sign: Sign) -> bytes:  # noqa: ARG002
        """As ``Attester.answer``."""
        return evidence(self._measured, question, confirmation, sign)


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
