"""What an agent attests with. SEV-SNP and Nitro have theirs in the guest's own tools: those are given to ``Bus``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from bus.attestation.evidence import Question

Sign = Callable[[bytes], bytes]
"""Signs as the agent's key (P-256: ECDSA with SHA-256, DER)."""


class Attester(Protocol):
    """One way to attest. Used by one thread, for every certificate of its agent."""

    def offer(self) -> bytes:
        """What the verifier makes a challenge for; empty where the kind needs none."""

    def answer(self, challenge: bytes, question: Question, confirmation: bytes, sign: Sign) -> bytes:
        """Evidence for ``question``, bound to the agent's key ``confirmation`` (SubjectPublicKeyInfo, DER).

        Raises Refused, or Unavailable where it may succeed later.
        """
