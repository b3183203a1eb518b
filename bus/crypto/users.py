"""Users on whose behalf an agent acts: their identity provider's token (a JWT, RFC 7519), verified offline.

What a token says about how to check it is never believed: its issuer and ``kid`` only select among the keys that the
deployment trusts, and a key has one algorithm. Pure; who reads the file of issuers, and when, is elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, JWKRegistry, OKPKey, RSAKey

from bus.codes import Code
from bus.crypto.jose import json_part
from bus.errors import Unverified
from bus.wire import preimage

FORMAT: Final = "sealbus.users/1"
MAX_TOKEN: Final = 8192
"""Bytes of a token."""
MAX_SUBJECT: Final = 255
MIN_RSA_BITS: Final = 2048
ID_BYTES: Final = 16
Key = ECKey | RSAKey | OKPKey


@dataclass(frozen=True, slots=True)
class UserIssuer:
    """An identity provider: the ``aud`` that its tokens have for this deployment, and its keys by kid."""

    audience: str
    keys: Mapping[str, Key] = field(repr=False)


Issuers = Mapping[str, UserIssuer]
"""By ``iss``."""


@dataclass(frozen=True, slots=True)
class User:
    """A verified user: ``id`` is what policies and hops call them; the token holds up to ``until`` (ms since 1970)."""

    id: str
    until: int


def user_id(issuer: str, subject: str) -> str:
    """32 hex digits for a user of an identity provider: the same in every token, and no name to read."""
    digest = hashlib.sha256(preimage.label("user") + preimage.part(issuer.encode()) + preimage.part(subject.encode()))
    return digest.digest()[:ID_BYTES].hex()


def claimed(token: bytes) -> str:
    """Whom a token names, unverified: for an early look at what the policy will say. Empty where it names nobody."""
    claims = json_part(token.split(b".")[1]) if token.count(b".") == 2 else None
    issuer, subject = (claims or {}).get("iss"), (claims or {}).get("sub")
    return user_id(issuer, subject) if isinstance(issuer, str) and isinstance(subject, str) else ""


def verify(token: bytes, issuers: Issuers, now_ms: int, skew_ms: int) -> User:
    """The user of ``token``, once all of this holds. Raises Unverified with ``step``; messages never hold the token.

    1. ``form``: at most 8,192 bytes, three parts of base64url.
    2. ``header``: no critical extension; whatever else stands there is not looked at.
    3. ``issuer``: ``iss`` is trusted, ``kid`` is one of its keys, ``alg`` is that key's own.
    4. ``signature``.
    5. ``audience``: ``aud`` is, or has, the one of this deployment.
    6. ``subject``: ``sub`` is a text of at most 255 characters.
    7. ``time``, within ``skew_ms``: before ``exp``, which must be there, not before ``nbf`` and ``iat``.
    """

    def refuse(step: str, why: str) -> Unverified:
        return Unverified(f"user token: {why}", step=step)

    # 1. Form.
    parts = token.split(b".")
    header, claims = (json_part(part) for part in parts[:2]) if len(parts) == 3 else (None, None)
    if len(token) > MAX_TOKEN or header is None or claims is None:
        raise refuse("form", f"expected a JWT of at most {MAX_TOKEN} bytes, found {len(token)} bytes")
    # 2. Header.
    if "crit" in header or header.get("b64", True) is not True:
        raise refuse("header", "a critical extension")
    # 3. Which key.
    issuer, kid = claims.get("iss"), header.get("kid")
    trusted = issuers.get(issuer) if isinstance(issuer, str) else None
    key = trusted.keys.get(kid) if trusted is not None and isinstance(kid, str) else None
    if trusted is None or key is None or header.get("alg") != _algorithm(key):
        raise refuse("issuer", "of no issuer, key and algorithm that are trusted")
    # 4. Signature.
    try:
        jws.deserialize_compact(token, key, algorithms=[_algorithm(key)])
    except (JoseError, ValueError):
        raise refuse("signature", "the signature does not hold") from None
    # 5. Audience.
    audience = claims.get("aud")
    if trusted.audience != audience and not (isinstance(audience, list) and trusted.audience in audience):
        raise refuse("audience", "for another audience")
    # 6. Subject.
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT:
        raise refuse("subject", f"expected a sub of 1 to {MAX_SUBJECT} characters")
    # 7. Time.
    ends: Any = claims.get("exp")
    begins: list[Any] = [claims.get("nbf", 0), claims.get("iat", 0)]
    if not all(_is_time(each) for each in (ends, *begins)):
        raise refuse("time", "expected exp, and numbers for nbf and iat where they are there")
    if max(begins) * 1000 > now_ms + skew_ms or ends * 1000 <= now_ms - skew_ms:
        raise refuse("time", "not valid now")
    return User(user_id(str(issuer), subject), int(ends * 1000) + skew_ms - 1)


def _is_time(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 2**53


def parse_issuers(data: bytes) -> Issuers:
    """The trusted issuers of a file: ``{"format": "sealbus.users/1", "issuers": [{"issuer", "audience", "jwks"}]}``.

    Raises Unverified(users) for anything else, and for keys without a kid, symmetric, weak or of two algorithms.
    """
    try:
        return _issuers(json.loads(data))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, JoseError) as error:
        why = str(error) if type(error) is ValueError else type(error).__name__
        raise Unverified(f"trusted issuers of users: {why}", step="users", code=Code.SETTINGS) from None


def _issuers(document: Any) -> Issuers:
    if document["format"] != FORMAT:
        raise ValueError(f"expected format {FORMAT}")
    found: dict[str, UserIssuer] = {}
    for each in document["issuers"]:
        keys = [_key(key) for key in each["jwks"]["keys"]]
        named = {str(key.kid): key for key in keys}
        texts = each["issuer"], each["audience"]
        if len(named) != len(keys) or not keys or not all(isinstance(text, str) and text for text in texts):
            raise ValueError("expected an issuer, an audience and keys with a kid each")
        if each["issuer"] in found:
            raise ValueError("an issuer is given twice")
        found[each["issuer"]] = UserIssuer(each["audience"], named)
    return found


def _key(document: dict[str, Any]) -> Key:
    key = JWKRegistry.import_key(document)
    if not isinstance(key, Key) or key.is_private or not key.kid or not _algorithm(key):
        raise ValueError("expected public keys with a kid: P-256, Ed25519, or RSA of 2048 bits at least")
    if document.get("alg", _algorithm(key)) != _algorithm(key):
        raise ValueError(f"a key for {document['alg']}: expected ES256, Ed25519, RS256 or PS256")
    return key


def _algorithm(key: Key) -> str:
    """The one algorithm of a key; empty for a key that is not taken."""
    if isinstance(key, ECKey):
        return "ES256" if key.curve_name == "P-256" else ""
    if isinstance(key, OKPKey):
        told = key.as_dict().get("alg", "Ed25519")
        return told if key.curve_name == "Ed25519" and told in ("Ed25519", "EdDSA") else ""
    told = key.as_dict().get("alg", "RS256")
    return told if key.raw_value.key_size >= MIN_RSA_BITS and told in ("RS256", "PS256") else ""
