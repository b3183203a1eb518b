"""Nonces that a verifier asks with: each for one agent and one key, for a minute. Pure, and nothing is kept.

A nonce is its own end (8 bytes, ms since 1970), 8 random bytes, and a MAC over both, agent and key (16 bytes): to ask
costs the verifier nothing, replicas with the same key take each other's, and only those that were answered are to be
remembered, until they end (``bus.authority.attested``).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Final

from bus.attestation.evidence import NONCE_LENGTH, Question, check_nonce
from bus.crypto.keys import Secret
from bus.errors import Expired, Unverified
from bus.wire.names import AgentId
from bus.wire.preimage import attestation_nonce

QUESTION_MS: Final = 60_000
"""How long an answer may take: a TPM takes seconds."""
_END: Final = 8
_TOLD: Final = 16
"""Where the end stops, and where the random bytes do."""


def ask(key: Secret, agent: AgentId, confirmation: bytes, now_ms: int) -> Question:
    """A question for ``agent``, which is to answer with the key ``confirmation`` (SubjectPublicKeyInfo, DER)."""
    told = (now_ms + QUESTION_MS).to_bytes(_END, "big") + secrets.token_bytes(_TOLD - _END)
    return Question(told + _mac(key, told, agent, confirmation), agent)


def check(key: Secret, question: Question, confirmation: bytes, now_ms: int) -> int:
    """When the nonce of ``question`` ends (ms since 1970). Whether it was answered before is the caller's to know.

    Raises Unverified(nonce) for one that was not made here for this agent and key, Expired for one that has ended.
    """
    check_nonce(question)
    told, mac = question.nonce[:_TOLD], question.nonce[_TOLD:]
    if not hmac.compare_digest(mac, _mac(key, told, question.agent, confirmation)):
        raise Unverified("nonce: not asked of this agent and key", step="nonce")
    until = int.from_bytes(told[:_END], "big")
    if until <= now_ms:
        raise Expired("nonce: past its end")
    return until


def _mac(key: Secret, told: bytes, agent: AgentId, confirmation: bytes) -> bytes:
    mac = hmac.digest(key.reveal(), attestation_nonce(told, agent, confirmation), hashlib.sha256)
    return mac[: NONCE_LENGTH - _TOLD]
