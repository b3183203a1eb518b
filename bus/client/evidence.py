"""What an agent answers to the authority's question: its attester's evidence, with the agent's key at hand."""

from __future__ import annotations

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bus.attestation.confirmation import to_der
from bus.attestation.evidence import Question
from bus.attester.base import Attester
from bus.codes import Code
from bus.errors import Refused
from bus.wire.names import AgentId


def answer(attester: Attester, nonce: bytes, challenge: bytes, agent: str, key_pem: bytes) -> bytes:
    """Evidence for ``nonce``, bound to ``agent`` and the key in ``key_pem``. Raises as ``Attester.answer``."""
    key = serialization.load_pem_private_key(key_pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Refused(f"{agent}: expected a P-256 key", code=Code.CREDENTIAL)

    def sign(message: bytes) -> bytes:
        return key.sign(message, ec.ECDSA(hashes.SHA256()))

    return attester.answer(challenge, Question(nonce, AgentId(agent)), to_der(key.public_key()), sign)
