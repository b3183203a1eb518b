"""Short-lived broker tokens: an ES256 JWT of one principal, made by the issuer and checked here as strictly as can be.

The broker checks tokens itself, against the same JWKS; ``verify`` serves whoever else is shown one (`bus doctor`). What
a token says about how to check it is never believed: the algorithm is fixed, and its ``kid`` only selects among the
deployment's own keys. Files and the keys' rotation are elsewhere (``bus.authority.tokenkeys``, ``tokenfiles``).
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jws, jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from bus.codes import Code
from bus.crypto.jose import json_part
from bus.errors import Expired, Refused, Unverified

ALGORITHM: Final = "ES256"
ISSUER: Final = "sealbus-issuer"
MAX_TOKEN: Final = 2048
"""Bytes of a token; ours have some 450."""
_TEXT: Final = ("iss", "aud", "sub", "jti")
_TIMES: Final = ("iat", "nbf", "exp")
_PRINCIPAL: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")
_PART: Final = re.compile(rb"[A-Za-z0-9_-]+\Z")


def audience(deployment: bytes) -> str:
    """The ``aud`` of one deployment's tokens: no other deployment's broker takes them."""
    return f"sealbus:{deployment.hex()}"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says; times in ms since 1970."""

    principal: str
    token_id: str
    begins: int
    ends: int


def new_key() -> ECKey:
    """A fresh P-256 key; its ``kid`` is its RFC 7638 thumbprint."""
    key = ECKey.generate_key("P-256", {"use": "sig", "alg": ALGORITHM}, private=True)
    return ECKey.import_key({**key.as_dict(private=True), "kid": key.thumbprint()})


def public_keys(document: bytes) -> dict[str, ECKey]:
    """The keys of a JWKS by kid. Raises Refused(credential) for anything but P-256 keys that are named."""
    try:
        keys = [ECKey.import_key(each) for each in json.loads(document)["keys"]]
        named = {key.kid: key for key in keys if key.kid and key.curve_name == "P-256"}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, JoseError):
        named = {}
        keys = []
    if not named or len(named) != len(keys):
        raise Refused("JWKS: expected P-256 keys with a kid each", code=Code.CREDENTIAL)
    return named


def mint(key: ECKey, audience: str, principal: str, now_ms: int, life_ms: int) -> str:
    """A token of ``principal`` that begins now and lives at most ``life_ms``. Times in a JWT are whole seconds."""
    now = now_ms // 1000
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "aud": audience,
        "sub": principal,
        "iat": now,
        "nbf": now,
        "exp": now + life_ms // 1000,
        "jti": str(uuid.uuid4()),
    }
    return jwt.encode({"alg": ALGORITHM, "typ": "JWT", "kid": key.kid}, claims, key, algorithms=[ALGORITHM])


def verify(
    token: bytes, keys: Mapping[str, ECKey], audience: str, now_ms: int, *, skew_ms: int, life_ms: int
) -> Claims:
    """What ``token`` says, once all of this holds; each step refuses with its own name.

    1. ``form``: at most 2,048 bytes, three parts of base64url and nothing else.
    2. ``header``: exactly alg, typ and kid: no key, no address of a key, no critical extension comes with a token.
       alg is ES256 and nothing else: not `none`, not an HMAC under what is our public key.
    3. ``kid``: one of the deployment's own keys, by equality.
    4. ``signature``: of that key over the bytes as they came.
    5. ``claims``: iss, aud, sub, jti are texts, iat, nbf, exp whole numbers; iss and aud are ours, sub is a principal.
    6. ``life``: exp is after nbf, by the longest life at most.
    7. Time, within ``skew_ms``: Unverified(``future``) before nbf or iat, Expired from exp on.

    Raises Unverified with ``step``, Expired. Messages never hold the token.
    """

    def refuse(step: str, why: str, code: Code = Code.UNVERIFIED) -> Unverified:
        return Unverified(f"token: {why}", step=step, code=code)

    # 1. Form.
    parts = token.split(b".")
    if len(token) > MAX_TOKEN or len(parts) != 3 or not all(_PART.match(part) for part in parts):
        raise refuse("form", f"expected three base64url parts of at most {MAX_TOKEN} bytes, found {len(token)} bytes")
    # 2. Header.
    header = json_part(parts[0])
    if header is None or set(header) != {"alg", "typ", "kid"} or header["typ"] != "JWT":
        raise refuse("header", "expected a header of alg, typ and kid alone")
    if header["alg"] != ALGORITHM:
        raise refuse("header", f"expected alg {ALGORITHM}")
    # 3. Which of our keys.
    key = keys.get(header["kid"]) if isinstance(header["kid"], str) else None
    if key is None:
        raise refuse("kid", "made with none of this deployment's keys", Code.UNKNOWN_KEY)
    # 4. Signature.
    try:
        jws.deserialize_compact(token, key, algorithms=[ALGORITHM])
    except (JoseError, ValueError):
        raise refuse("signature", "the signature does not hold") from None
    # 5. Claims.
    claims = json_part(parts[1])
    if (
        claims is None
        or not all(isinstance(claims.get(name), str) for name in _TEXT)
        or not all(type(claims.get(name)) is int for name in _TIMES)
    ):
        raise refuse("claims", f"expected {', '.join((*_TEXT, *_TIMES))}")
    if claims["iss"] != ISSUER or claims["aud"] != audience:
        raise refuse("claims", "of another issuer or for another deployment")
    if not _PRINCIPAL.match(claims["sub"]):
        raise refuse("claims", "sub is no principal")
    # 6. Life.
    begins, ends = claims["nbf"] * 1000, claims["exp"] * 1000
    if not 0 < ends - begins <= life_ms:
        raise refuse("life", f"expected a life of at most {life_ms} ms, found {ends - begins}")
    # 7. Time.
    if max(begins, claims["iat"] * 1000) > now_ms + skew_ms:
        raise refuse("future", "not valid yet", Code.FUTURE)
    if ends <= now_ms - skew_ms:
        raise Expired(f"token of {claims['sub']}: expired {now_ms - ends} ms ago")
    return Claims(claims["sub"], claims["jti"], begins, ends)
