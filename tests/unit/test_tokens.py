"""Broker tokens: what the issuer mints holds, and every other token is refused at the step that is there for it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from joserfc.jwk import ECKey, OctKey

from bus.authority.tokens import ALGORITHM, ISSUER, Claims, audience, mint, new_key, public_keys, verify
from bus.codes import Code
from bus.errors import BusError, Expired, Refused, Unverified
from tests.unit.ledger_build import DEPLOYMENT, NOON, OTHER_DEPLOYMENT

LIFE, SKEW = 600_000, 30_000
KEY, OTHER = new_key(), new_key()
JWKS = json.dumps({"keys": [KEY.as_dict(private=False)]}).encode()
KEYS = public_keys(JWKS)
AUDIENCE = audience(DEPLOYMENT)
PUBLISHED = Path(__file__).parents[1] / "vectors" / "data" / "jose"
NOW = NOON // 1000
GOOD = {"iss": ISSUER, "aud": AUDIENCE, "sub": "writer-1", "iat": NOW, "nbf": NOW, "exp": NOW + 600, "jti": "1"}
HEADER = {"alg": ALGORITHM, "typ": "JWT", "kid": KEY.kid}


def part(value: object) -> bytes:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def token(header: dict | None = None, claims: dict | bytes | None = None, key: ECKey = KEY) -> bytes:
    """Signed by ``key`` with ES256, whatever the header says: as one who holds the key could."""
    head, body = part(HEADER if header is None else header), part(GOOD if claims is None else claims)
    message = head + b"." + body
    r, s = decode_dss_signature(key.private_key.sign(message, ec.ECDSA(hashes.SHA256())))
    return message + b"." + part(r.to_bytes(32, "big") + s.to_bytes(32, "big"))


def check(data: bytes, now: int = NOON) -> Claims:
    return verify(data, KEYS, AUDIENCE, now, skew_ms=SKEW, life_ms=LIFE)


def refused(data: bytes, now: int = NOON) -> BusError:
    with pytest.raises(Refused) as told:
        check(data, now)
    assert data.decode(errors="replace") not in str(told.value)
    return told.value


def at(step: str, data: bytes, code: Code = Code.UNVERIFIED) -> None:
    error = refused(data)
    assert isinstance(error, Unverified)
    assert (error.step, error.code) == (step, code)


def test_what_is_minted_holds_from_its_beginning_to_its_end():
    made = mint(KEY, AUDIENCE, "writer-1", NOON, LIFE).encode()
    claims = check(made)
    assert (claims.principal, claims.begins, claims.ends) == ("writer-1", NOON, NOON + LIFE)
    assert check(made, NOON + LIFE + SKEW - 1) == claims
    assert check(mint(KEY, AUDIENCE, "writer-1", NOON, LIFE).encode()).token_id != claims.token_id
    assert check(token()).principal == "writer-1"  # so that what is refused below is refused for its one change


def test_the_signature_is_plain_es256():
    """By another library than the one that made it: r and s of ECDSA over P-256 and SHA-256."""
    message, _, signature = mint(KEY, AUDIENCE, "writer-1", NOON, LIFE).encode().rpartition(b".")
    raw = base64.urlsafe_b64decode(signature + b"==")
    halves = (int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    KEY.public_key.verify(encode_dss_signature(*halves), message, ec.ECDSA(hashes.SHA256()))


def test_a_life_is_never_longer_than_asked_for():
    claims = check(mint(KEY, AUDIENCE, "writer-1", NOON + 999, 2999).encode(), NOON)
    assert claims.ends - claims.begins == 2000


def test_expired():
    made = mint(KEY, AUDIENCE, "writer-1", NOON, LIFE).encode()
    error = refused(made, NOON + LIFE + SKEW)
    assert isinstance(error, Expired)
    assert error.code is Code.EXPIRED


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_from_the_future(name):
    late = NOW + SKEW // 1000
    assert check(token(claims={**GOOD, name: late})).principal == "writer-1"
    at("future", token(claims={**GOOD, name: late + 1}), Code.FUTURE)


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": audience(OTHER_DEPLOYMENT)},
        {"aud": "kafka"},
        {"aud": [AUDIENCE]},
        {"aud": ""},
        {"iss": "https://idp.example"},
        {"iss": ISSUER + "x"},
        {"sub": ""},
        {"sub": "User:writer-1"},
        {"sub": "writer-1\n"},
        {"sub": ["writer-1"]},
        {"exp": str(NOW + 600)},
        {"exp": NOW + 600.0},
        {"iat": True},
        {"jti": 7},
    ],
)
def test_for_another_deployment_or_with_other_kinds_of_claims(changed):
    at("claims", token(claims={**GOOD, **changed}))


@pytest.mark.parametrize("name", sorted(GOOD))
def test_every_claim_is_needed(name):
    at("claims", token(claims={key: value for key, value in GOOD.items() if key != name}))


@pytest.mark.parametrize("ends", [NOW + 601, NOW, NOW - 1, 10**30])
def test_a_life_beyond_the_rotation_interval_or_none(ends):
    at("life", token(claims={**GOOD, "exp": ends}))


def test_a_claim_twice():
    twice = json.dumps(GOOD).replace('"sub": "writer-1"', '"sub": "reader-1", "sub": "writer-1"').encode()
    at("claims", token(claims=twice))


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, "HS256", "ES384", "EdDSA", "es256", ["ES256"]])
def test_no_algorithm_but_es256_whoever_signed(alg):
    at("header", token({**HEADER, "alg": alg}))


def test_alg_none_without_a_signature():
    head = part({**HEADER, "alg": "none"})
    at("header", head + b"." + part(GOOD) + b".AA")
    at("form", head + b"." + part(GOOD) + b".")
    at("form", head + b"." + part(GOOD))


def test_key_confusion():
    """HMAC under what everybody knows: the public key in each of its forms."""
    public = KEY.public_key
    forms = [
        public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint),
        JWKS,
        json.dumps(KEY.as_dict(private=False)).encode(),
    ]
    for secret in forms:
        for alg in ("HS256", "ES256"):
            message = part({**HEADER, "alg": alg}) + b"." + part(GOOD)
            made = message + b"." + part(hmac.digest(secret, message, hashlib.sha256))
            at("signature" if alg == "ES256" else "header", made)


@pytest.mark.parametrize(
    "kid",
    ["", "../../dev/null", "/dev/null", "' OR '1'='1", "http://evil.example/key", "0", "\0", None, 0, [], {}, True],
)
def test_kid_injection(kid):
    at("kid", token({**HEADER, "kid": kid}), Code.UNKNOWN_KEY)


def test_a_key_that_comes_with_the_token_is_not_used():
    for more in (
        {"jwk": OTHER.as_dict(private=False)},
        {"jku": "https://evil.example/jwks.json"},
        {"x5u": "https://evil.example/cert.pem"},
        {"x5c": ["AA=="]},
        {"crit": ["exp"], "exp": NOW},
        {"b64": False, "crit": ["b64"]},
        {"zip": "DEF"},
    ):
        at("header", token({**HEADER, **more}, key=OTHER))
        at("header", token({**HEADER, **more}))
    at("header", token({name: value for name, value in HEADER.items() if name != "kid"}))


def test_another_key_under_our_kid_and_under_its_own():
    at("signature", token(key=OTHER))
    at("kid", token({**HEADER, "kid": OTHER.kid}, key=OTHER), Code.UNKNOWN_KEY)


def test_every_byte_is_covered():
    """Any flipped bit of header, claims or signature is refused, somewhere; base64 leaves 4 bits of the end unused."""
    made = token()
    for position in range(len(made) - 1):
        changed = bytearray(made)
        changed[position] ^= 1
        refused(bytes(changed))


@pytest.mark.parametrize(
    "data", [b"", b".", b"..", b"a.b", b"a.b.c.d", b"\xff.\xff.\xff", b"A" * 3000, b"A.A.A\n", b" A.A.A", b"A=.A=.A="]
)
def test_what_is_no_token(data):
    with pytest.raises(Unverified) as told:
        check(data)
    assert told.value.step == "form"


@pytest.mark.parametrize("header", [b"[]", b"null", b"{", b"\xff", b"[" * 1000, b'{"alg":"ES256","alg":"none"}'])
def test_a_header_that_is_no_object(header):
    at("header", part(header) + b"." + part(GOOD) + b".AAAA")


def test_published_tokens_are_refused():
    """RFC 7520 and 8037: ES512, HS256, a detached payload, EdDSA."""
    found = {}
    for path in sorted(PUBLISHED.glob("*.json")):
        document = json.loads(path.read_bytes())
        if "output" in document:
            found[document["input"]["alg"], path.name[:3]] = error = refused(document["output"]["compact"].encode())
            assert isinstance(error, Unverified)
    steps = {name: error.step for name, error in found.items()}
    assert steps == {
        ("ES512", "4_3"): "header",
        ("HS256", "4_4"): "header",
        ("HS256", "4_5"): "form",
        ("EdDSA", "jws"): "header",
    }


def test_only_named_p256_keys_make_a_jwks():
    published = json.loads((PUBLISHED / "jwk_3_1.ec_public_key.json").read_bytes())
    secret = OctKey.generate_key(256, {"kid": "a"}).as_dict(private=True)
    unnamed = {name: value for name, value in KEY.as_dict(private=False).items() if name != "kid"}
    ours = KEY.as_dict(private=False)
    assert published["crv"] == "P-521"
    for keys in ([published], [secret], [unnamed], [ours, published], [ours, ours], [], [7]):
        with pytest.raises(Refused, match="JWKS"):
            public_keys(json.dumps({"keys": keys}).encode())
    for data in (b"", b"[]", b"{}", b"[" * 100_000):
        with pytest.raises(Refused, match="JWKS"):
            public_keys(data)
    assert set(public_keys(json.dumps({"keys": [ours, OTHER.as_dict(private=False)]}).encode())) == {KEY.kid, OTHER.kid}


def test_neither_public_keys_nor_claims_hold_a_private_part():
    assert b'"d"' not in JWKS
    assert KEY.as_dict(private=True)["d"] not in repr(KEYS) + repr(check(token())) + repr(KEY)
