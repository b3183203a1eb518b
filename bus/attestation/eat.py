"""The attestation result: an Entity Attestation Token (RFC 9711) as a JWT that the verifier signs with Ed25519.

The relying party needs the verifier's public key and nothing of the evidence. A result lives at most ten minutes, is
for one agent, one audience and one key (`cnf`), and holds the nonce that it answers. One header and one set of claims
is written, and no other is read: what a token could say beside that (`jwk`, `x5u`, `crit`, another algorithm) is
refused before any key is used.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from bus.attestation import base64url
from bus.attestation.confirmation import jwk
from bus.attestation.evidence import Appraised
from bus.codes import Code
from bus.crypto import signing
from bus.errors import Expired, Unverified, WireError
from bus.wire.measurement import EvidenceKind, Measurement, parse_measurement
from bus.wire.names import AgentId

MAX_TOKEN: Final = 4096
MAX_LIFE: Final = 600
"""Seconds."""
PROFILE: Final = "urn:uuid:93dfcace-27ae-5bb3-8d98-6ec53723d3d4"
TYPE: Final = "eat+jwt"
ALGORITHM: Final = "Ed25519"
_DEBUG: Final = {EvidenceKind.SNP: "disabled", EvidenceKind.NITRO: "disabled"}
"""Of software and TPM nothing is known about debuggers, and nothing is said."""
_UEID_RAND: Final = b"\x01"


@dataclass(frozen=True, slots=True)
class AttestationResult:
    """What the verifier says. Times in s since 1970; ``confirmation`` is the public JWK of the agent's key."""

    issuer: str
    audience: str
    agent: AgentId
    nonce: bytes
    measurement: Measurement
    confirmation: Mapping[str, str] = field(repr=False)
    device: bytes
    issued: int
    expires: int


@dataclass(frozen=True, slots=True)
class Expected:
    """What the relying party asks for. ``confirmation``: the key (SubjectPublicKeyInfo, DER) of who shows the token.

    ``skew`` (s) is how far the verifier's clock may be ahead.
    """

    issuer: str
    audience: str
    agent: AgentId
    nonce: bytes
    confirmation: bytes = field(repr=False)
    skew: int = 30


class VerifierKeys:
    """Public keys (Ed25519, 32 bytes) of the verifiers that are trusted, by the key id that each key has itself."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._keys = {signing.key_id_of(key).hex(): key for key in keys}

    def find(self, key_id: object) -> bytes:
        """The key of this id. Raises Unverified(key)."""
        key = self._keys.get(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise Unverified("attestation result: signed by no verifier that is trusted", step="key")
        return key


def sign_result(
    signer: signing.Signer, found: Appraised, issuer: str, audience: str, now: datetime, life: int = MAX_LIFE
) -> str:
    """The token for what a verifier found, valid from ``now`` for ``life`` s: at least one, at most ten minutes."""
    issued = int(now.timestamp())
    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": found.question.agent,
        "aud": audience,
        "iat": issued,
        "exp": issued + min(max(life, 1), MAX_LIFE),
        "eat_profile": PROFILE,
        "eat_nonce": base64url.encode(found.question.nonce),
        "ueid": base64url.encode(_UEID_RAND + found.device),
        "measres": [["sealbus", [[str(found.measurement), "success"]]]],
        "cnf": {"jwk": jwk(found.confirmation)},
        **({"dbgstat": _DEBUG[found.kind]} if found.kind in _DEBUG else {}),
    }
    header = {"alg": ALGORITHM, "kid": signer.key_id.hex(), "typ": TYPE}
    signed = f"{_text(header)}.{_text(claims)}"
    return f"{signed}.{base64url.encode(signer.sign(signed.encode()))}"


def verify_result(token: str, keys: VerifierKeys, expected: Expected, now: datetime) -> AttestationResult:
    """The result in ``token``; steps in their order.

    Raises WireError (bounds, decode), Unverified with its step, or Expired (codes expired and future).
    """
    # 1. Size and form.
    if len(token) > MAX_TOKEN:
        raise WireError(f"attestation result: {len(token)} characters, expected at most {MAX_TOKEN}")
    parts = token.split(".")
    if len(parts) != 3:
        raise WireError("attestation result: expected three parts", code=Code.DECODE)
    head, body, signature = map(base64url.decode, parts)
    # 2. The header, whole: algorithm and type are ours, and there is no place for a key or a link to one.
    header = _read(head)
    if header.get("alg") != ALGORITHM:
        raise Unverified(f"attestation result: expected algorithm {ALGORITHM}", step="algorithm")
    if header.keys() != {"alg", "kid", "typ"} or header["typ"] != TYPE:
        raise Unverified("attestation result: expected the header alg, kid, typ and no other", step="header")
    # 3. The key, by an id that is computed from the key, never from the token.
    key = keys.find(header["kid"])
    # 4. The signature, before any claim is looked at.
    signing.verify(key, signature, f"{parts[0]}.{parts[1]}".encode(), "attestation result")
    # 5. The claims are those that this profile has.
    result = _result(_read(body))
    # 6. For whom: issuer, audience, agent.
    for what in ("issuer", "audience", "agent"):
        if getattr(result, what) != getattr(expected, what):
            raise Unverified(f"attestation result: it is for another {what}", step=what)
    # 7. When.
    at = now.timestamp()
    if result.issued > at + expected.skew:
        raise Expired("attestation result: issued in the future", code=Code.FUTURE)
    if result.expires <= at:
        raise Expired("attestation result: past its end")
    # 8. For this question, shown by whoever has this key.
    if result.nonce != expected.nonce:
        raise Unverified("attestation result: it answers another nonce", step="nonce")
    if result.confirmation != jwk(expected.confirmation):
        raise Unverified("attestation result: it is bound to another key", step="confirmation")
    return result


def shown_nonce(token: str) -> bytes:
    """The nonce that ``token`` claims to answer, to find what was asked; nothing of it is verified.

    Raises WireError.
    """
    parts = token.split(".")
    if len(token) > MAX_TOKEN or len(parts) != 3:
        raise WireError("attestation result: expected three parts", code=Code.DECODE)
    claimed = _read(base64url.decode(parts[1])).get("eat_nonce")
    return base64url.decode(claimed) if isinstance(claimed, str) else b""


def _result(claims: dict[str, Any]) -> AttestationResult:
    try:
        ((group, ((text, verdict),)),) = claims["measres"]
        measurement = parse_measurement(text)
        optional = {"dbgstat": _DEBUG[measurement.kind]} if measurement.kind in _DEBUG else {}
        known = {"iss", "sub", "aud", "iat", "exp", "eat_profile", "eat_nonce", "ueid", "measres", "cnf", *optional}
        issued, expires, confirmation = claims["iat"], claims["exp"], claims["cnf"]["jwk"]
        ueid = base64url.decode(claims["ueid"])
        if not (
            claims.keys() == known
            and claims["eat_profile"] == PROFILE
            and claims.get("dbgstat") == optional.get("dbgstat")
            and (group, verdict) == ("sealbus", "success")
            and type(issued) is type(expires) is int
            and 0 <= issued < expires <= issued + MAX_LIFE
            and ueid[:1] == _UEID_RAND
            and len(ueid) == 33
            and claims["cnf"].keys() == {"jwk"}
            and isinstance(confirmation, dict)
        ):
            raise Unverified("attestation result: not the claims of this profile", step="claims")
        return AttestationResult(
            issuer=claims["iss"],
            audience=claims["aud"],
            agent=claims["sub"],
            nonce=base64url.decode(claims["eat_nonce"]),
            measurement=measurement,
            confirmation=confirmation,
            device=ueid[1:],
            issued=issued,
            expires=expires,
        )
    except (KeyError, TypeError, ValueError, AttributeError, WireError):
        raise Unverified("attestation result: not the claims of this profile", step="claims") from None


def _text(value: dict[str, Any]) -> str:
    return base64url.encode(json.dumps(value, separators=(",", ":"), sort_keys=True).encode())


def _read(data: bytes) -> dict[str, Any]:
    """A JSON object in the one form that ``_text`` writes: no key twice, no space, sorted."""
    try:
        value = json.loads(data)
        if isinstance(value, dict) and json.dumps(value, separators=(",", ":"), sort_keys=True).encode() == data:
            return value
    except (ValueError, RecursionError, TypeError):
        pass
    raise WireError("attestation result: not JSON in its one form", code=Code.DECODE)
