"""Software measurement: a digest of code and interpreter that the agent says of itself.

It shows that attestation is wired through, and nothing about the machine: whoever holds the agent's key can claim any
measurement. Evidence: digest (32 bytes), the agent's key, its signature over binding and digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime

from bus.attestation import confirmation as keys
from bus.attestation import evidence
from bus.attestation.evidence import Appraised, Question
from bus.errors import Unverified
from bus.wire.measurement import EvidenceKind, Measurement
from bus.wire.preimage import attestation_code, attestation_software, part


def measure(interpreter: bytes, files: Mapping[str, bytes]) -> Measurement:
    """The measurement of ``files`` (path to SHA-256) run by ``interpreter`` (its SHA-256)."""
    digest = hashlib.sha256(attestation_code() + interpreter)
    for path in sorted(files):
        digest.update(part(path.encode()) + files[path])
    return Measurement(EvidenceKind.SOFTWARE, 0, digest.digest())


class SoftwareVerifier:
    """Has no trust anchor, because there is none."""

    def appraise(
        self,
        data: bytes,
        question: Question,
        accepted: frozenset[Measurement],
        now: datetime,  # noqa: ARG002 - nothing here has an end
    ) -> Appraised:
        """As ``Verifier.appraise``; steps in their order."""
        # 1. Sizes and framing.
        evidence.check_nonce(question)
        digest, confirmation, signature = evidence.unpack(EvidenceKind.SOFTWARE, data, (32, keys.MAX_KEY, 128))
        if len(digest) != 32:
            raise Unverified(f"software measurement: {len(digest)} bytes, expected 32", step="measurement")
        # 2. Signed by the agent's key for this question: a replay, another nonce, agent or key fail here.
        message = attestation_software(question.binding(confirmation), digest)
        keys.verify(confirmation, signature, message)
        # 3. Accepted.
        measured = evidence.check_accepted(Measurement(EvidenceKind.SOFTWARE, 0, digest), accepted)
        device = hashlib.sha256(confirmation).digest()
        return Appraised(EvidenceKind.SOFTWARE, measured, question, confirmation, device, {"proves": "wiring only"})
