"""Asks agents what they are, appraises what they answer, signs the result, and says later whether one is in force.

In RATS terms (RFC 9334) both roles of the authority: verifier (``question``, ``appraise``, ``result``) and relying
party (``refused``). What is accepted of an agent comes with each call, from the policy of that moment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from bus.attestation import eat, evidence, questions
from bus.attestation.evidence import Appraised, Question, Verifier
from bus.attestation.tpm import TpmVerifier
from bus.authority.attested import Attestations, Attested
from bus.codes import Code
from bus.crypto.keys import Secret
from bus.crypto.signing import Signer
from bus.errors import Expired, Refused, Unverified, WireError
from bus.wire.measurement import EvidenceKind, Measurement
from bus.wire.names import AgentId

ISSUER: Final = "sealbus-authority"
_MEND: Final = "docs/operations/attestation.md"


@dataclass(frozen=True, slots=True)
class Holder:
    """Who asks: the agent and serial number of a client certificate, and its key (SubjectPublicKeyInfo, DER)."""

    agent: AgentId
    serial: str
    key: bytes


class Attesting:
    """``verifiers`` by kind: evidence of a kind without one is refused. ``key``: 32 bytes that replicas share."""

    def __init__(
        self, verifiers: Mapping[EvidenceKind, Verifier], key: Secret, signer: Signer, audience: str, kept: Attestations
    ) -> None:
        self._verifiers = verifiers
        self._key = key
        self._signer = signer
        self._audience = audience
        self._keys = eat.VerifierKeys([signer.public_key])
        self.kept = kept

    def question(self, agent: AgentId, key: bytes, offer: bytes, now_ms: int) -> tuple[bytes, bytes]:
        """A nonce for ``agent`` and its key, and for a TPM's offer the challenge that it must open.

        Raises Refused(attestation) for an offer that is none.
        """
        asked = questions.ask(self._key, agent, key, now_ms)
        if not offer:
            return asked.nonce, b""
        verifier = self._verifiers.get(EvidenceKind.TPM)
        if not isinstance(verifier, TpmVerifier):
            raise _no_verifier(EvidenceKind.TPM)
        try:
            return asked.nonce, verifier.challenge(offer, asked, _time(now_ms))
        except (Unverified, WireError) as error:
            raise _refused(agent, error) from None

    def appraise(
        self, agent: AgentId, key: bytes, nonce: bytes, data: bytes, accepted: frozenset[Measurement], now_ms: int
    ) -> Appraised:
        """What the evidence ``data`` proves of ``agent``, which shows ``key``. The nonce is used up, whatever follows.

        Raises Refused(attestation) with the check that failed, or RetryLater.
        """
        try:
            return self._appraise(Question(nonce, agent), key, data, accepted, now_ms)
        except (Unverified, WireError, Expired) as error:
            raise _refused(agent, error) from None

    def _appraise(
        self, asked: Question, key: bytes, data: bytes, accepted: frozenset[Measurement], now_ms: int
    ) -> Appraised:
        until = questions.check(self._key, asked, key, now_ms)
        if not self.kept.take(asked.nonce, until, now_ms):
            raise Unverified("nonce: it was answered before", step="nonce")
        kind = evidence.kind_of(data)
        verifier = self._verifiers.get(kind)
        if verifier is None:
            raise _no_verifier(kind)
        found = verifier.appraise(data, asked, accepted, _time(now_ms))
        if found.confirmation != key:
            raise Unverified("evidence: bound to another key than the one that is shown", step="confirmation")
        return found

    def result(self, found: Appraised, serial: str, life_ms: int, now_ms: int) -> tuple[str, Attested]:
        """The EAT of what was ``found`` under the certificate ``serial``, and the row to keep of it.

        It lives ``life_ms``, but at most ten minutes.
        """
        life = min(max(life_ms // 1000, 1), eat.MAX_LIFE)
        token = eat.sign_result(self._signer, found, ISSUER, self._audience, _time(now_ms), life)
        ends = (now_ms // 1000 + life) * 1000
        return token, row(found, serial, now_ms, ends)

    def refused(
        self,
        token: str,
        holder: Holder,
        kept: Mapping[bytes, Attested],
        accepted: frozenset[Measurement],
        now_ms: int,
    ) -> str:
        """Why the EAT ``token`` lets ``holder`` have nothing; empty where it is in force and accepted now.

        ``kept``: what the agent attested, by nonce.
        """
        if not accepted:
            return "no measurement of it is accepted"
        if not token:
            return "no attestation result is shown"
        try:
            held = kept.get(eat.shown_nonce(token))
            if held is None or held.serial != holder.serial:
                return "it did not attest so under this certificate"
            expected = eat.Expected(ISSUER, self._audience, holder.agent, held.nonce, holder.key)
            result = eat.verify_result(token, self._keys, expected, _time(now_ms))
        except (Unverified, WireError, Expired) as error:
            return str(error)
        return "" if result.measurement in accepted else f"{result.measurement} is not accepted any more"


def row(found: Appraised, serial: str, since_ms: int, until_ms: int) -> Attested:
    """What to keep of what was ``found``; no result is in force where it ends as it begins."""
    asked, measured = found.question, str(found.measurement)
    return Attested(asked.agent, serial, found.kind, measured, found.device, asked.nonce, since_ms, until_ms)


def digest(token: str) -> str:
    """SHA-256 of an EAT in hex: how the log names it."""
    return hashlib.sha256(token.encode()).hexdigest()


def _time(now_ms: int) -> datetime:
    return datetime.fromtimestamp(now_ms / 1000, UTC)


def _refused(agent: AgentId, error: Refused) -> Refused:
    return Refused(f"{agent}: {error}", code=Code.ATTESTATION, hint=_MEND)


def _no_verifier(kind: EvidenceKind) -> Refused:
    why = "it is taken in development mode alone" if kind is EvidenceKind.SOFTWARE else "the authority trusts no root"
    return Refused(f"{kind} evidence: {why}", code=Code.ATTESTATION, hint=_MEND)
