"""What every kind of evidence has in common: its framing, what it is asked, what a verifier finds.

In RATS terms (RFC 9334) an *attester* makes evidence, a *verifier* appraises it against reference values (the policy's
accepted measurements) and endorsements (the makers' certificates); the *relying party* acts on the signed result
(``bus.attestation.eat``). Framing: kind (uint8), then each part behind its length (uint16).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol

from bus.codes import Code
from bus.errors import Unverified, WireError
from bus.wire.measurement import EvidenceKind, Measurement
from bus.wire.names import AgentId
from bus.wire.preimage import attestation_binding, part

MAX_EVIDENCE: Final = 32 * 1024
NONCE_LENGTH: Final = 32
_NUMBERS: Final = {EvidenceKind.SOFTWARE: 1, EvidenceKind.TPM: 2, EvidenceKind.SNP: 3, EvidenceKind.NITRO: 4}


@dataclass(frozen=True, slots=True)
class Question:
    """What a verifier asked one agent: a nonce (32 bytes) that it made, and that it takes once."""

    nonce: bytes
    agent: AgentId

    def binding(self, confirmation: bytes) -> bytes:
        """SHA-256 (32 bytes) over nonce, agent and the agent's key: what evidence must carry to answer this."""
        return hashlib.sha256(attestation_binding(self.nonce, self.agent, confirmation)).digest()


@dataclass(frozen=True, slots=True)
class Appraised:
    """What a verifier found. ``confirmation`` is the agent's key (SubjectPublicKeyInfo, DER) that it is bound to.

    ``device`` (32 bytes) names the TPM, chip or enclave; ``facts`` are for the log: clock, resets, TCB, root.
    """

    kind: EvidenceKind
    measurement: Measurement
    question: Question
    confirmation: bytes = field(repr=False)
    device: bytes
    facts: Mapping[str, str | int] = field(default_factory=dict)


class Verifier(Protocol):
    """One kind of evidence. Trust anchors are the verifier's own; it holds no state."""

    def appraise(self, data: bytes, question: Question, accepted: frozenset[Measurement], now: datetime) -> Appraised:
        """What the evidence ``data`` proves at ``now`` (with a time zone).

        Raises Unverified, whose ``step`` names the check, or WireError for bytes that are no evidence of this kind.
        """


def pack(kind: EvidenceKind, *parts: bytes) -> bytes:
    """Evidence in its framing. Raises WireError(bounds) where it would be too large."""
    if any(len(each) > 0xFFFF for each in parts):
        raise WireError("evidence: a part is over 65,535 bytes")
    data = bytes([_NUMBERS[kind]]) + b"".join(map(part, parts))
    if len(data) > MAX_EVIDENCE:
        raise WireError(f"evidence: {len(data)} bytes, expected at most {MAX_EVIDENCE}")
    return data


def unpack(kind: EvidenceKind, data: bytes, limits: Sequence[int]) -> list[bytes]:
    """The parts of ``data``: as many as ``limits``, each of at least 1 and at most so many bytes.

    Raises WireError: bounds for sizes, version for another kind.
    """
    if not 1 <= len(data) <= MAX_EVIDENCE:
        raise WireError(f"evidence: {len(data)} bytes, expected 1 to {MAX_EVIDENCE}")
    if data[0] != _NUMBERS[kind]:
        raise WireError(f"evidence: expected kind {kind}, found number {data[0]}", code=Code.VERSION)
    parts: list[bytes] = []
    at = 1
    for limit in limits:
        length = int.from_bytes(data[at : at + 2], "big")
        found = data[at + 2 : at + 2 + length]
        if len(found) != length or not 1 <= length <= limit:
            raise WireError(f"{kind} evidence: part {len(parts)}: {length} bytes, expected 1 to {limit}")
        parts.append(found)
        at += 2 + length
    if at != len(data):
        raise WireError(f"{kind} evidence: {len(data) - at} bytes behind the last part")
    return parts


def kind_of(data: bytes) -> EvidenceKind:
    """Which verifier ``data`` is for. Raises WireError: bounds where it is empty, version for an unknown number."""
    for kind, number in _NUMBERS.items():
        if data[:1] == bytes([number]):
            return kind
    raise WireError("evidence: no kind that is known", code=Code.VERSION if data else Code.BOUNDS)


def check_nonce(question: Question) -> None:
    """Refuse to verify against a nonce that is none: an empty one would make replay possible."""
    if len(question.nonce) != NONCE_LENGTH:
        raise Unverified(f"nonce: {len(question.nonce)} bytes, expected {NONCE_LENGTH}", step="nonce")


def check_binding(found: bytes, expected: bytes, what: str) -> None:
    """Raise Unverified(binding) where evidence answers another question, or is bound to another agent or key."""
    if not hmac.compare_digest(found, expected):
        raise Unverified(f"{what}: not bound to this nonce, agent and key", step="binding")


def check_accepted(found: Measurement, accepted: frozenset[Measurement]) -> Measurement:
    """``found``, where it is accepted for this agent. Raises Unverified(measurement)."""
    if found not in accepted or not found.told:
        raise Unverified(f"{found} is not accepted for this agent", step="measurement")
    return found
