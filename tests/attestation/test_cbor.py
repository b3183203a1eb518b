"""CBOR and COSE_Sign1: the published vectors (cose-wg/Examples), and what strict reading refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from bus.attestation import base64url, cbor
from bus.errors import WireError
from tests.attestation.made import DATA, encode

UNPROTECTED = "sign-pass-01"
"""Valid COSE whose algorithm nothing protects; refused here, as every document has it in its protected header."""
VECTORS = sorted((DATA / "cose").glob("*.json"))


def number(key: dict[str, str], name: str) -> int:
    data = bytes.fromhex(key[f"{name}_hex"]) if f"{name}_hex" in key else base64url.decode(key[name])
    return int.from_bytes(data, "big")


def es256_holds(vector: dict[str, Any]) -> bool:
    told = vector["input"]["sign0"]
    sign1 = cbor.read_sign1(bytes.fromhex(vector["output"]["cbor"]))
    if sign1.headers.get(1) != -7:
        return False
    numbers = ec.EllipticCurvePublicNumbers(number(told["key"], "x"), number(told["key"], "y"), ec.SECP256R1())
    r, s = (int.from_bytes(each, "big") for each in (sign1.signature[:32], sign1.signature[32:]))
    signed = sign1.signed(bytes.fromhex(told.get("external", "")))
    try:
        numbers.public_key().verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.stem)
def test_published_sign1_vectors(path):
    vector = json.loads(path.read_text())
    if "tag" in vector["title"].lower() and vector.get("fail"):
        with pytest.raises(WireError):
            es256_holds(vector)
    else:
        assert es256_holds(vector) is not (vector.get("fail", False) or path.stem == UNPROTECTED)
    if not vector.get("fail") and path.stem != UNPROTECTED:
        sign1 = cbor.read_sign1(bytes.fromhex(vector["output"]["cbor"]))
        external = bytes.fromhex(vector["input"]["sign0"].get("external", ""))
        assert sign1.signed(external).hex().upper() == vector["intermediates"]["ToBeSign_hex"]


def test_there_are_vectors():
    assert len(VECTORS) == 10


@pytest.mark.parametrize(
    "data",
    [
        "",
        "1800",  # 0 in two bytes
        "190017",
        "1a0000ffff",
        "1b00000000ffffffff",
        "5f4100ff",  # indefinite length
        "9fff",
        "1c" + "ff" * 16,  # a length that is reserved
        "bfff",
        "f90000",  # a float
        "f7",  # undefined
        "e0",
        "c000",  # a tag
        "a200000000",  # a key twice
        "a1f400",  # false as a key
        "a1800000",
        "61ff",  # not UTF-8
        "4200",  # cut
        "8201",
        "a101",
        "1801ff",
        "0000",
        "5bffffffffffffffff",
        "9bffffffffffffffff",
        "bb7fffffffffffffff",
        "81" * 10 + "00",
    ],
)
def test_other_forms_are_refused(data):
    with pytest.raises(WireError):
        cbor.loads(bytes.fromhex(data))


@pytest.mark.parametrize(
    "value",
    [
        *([], {}, [b"", {}, b""], [b"", {}, b"", b"", b""], ["", {}, b"", b""], [b"", [], b"", b""], 0),
        *([encode([]), {}, b"", b""], [encode({1: 0}), {1: 0}, b"", b""], [b"", {}, None, b""]),
    ],
)
def test_other_values_are_no_sign1(value):
    with pytest.raises(WireError):
        cbor.read_sign1(encode(value))


KEYS = st.integers(-(2**64), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=40)
VALUES = st.recursive(
    KEYS | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


def depth(value: Any) -> int:
    inner = [*value.keys(), *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(VALUES.filter(lambda value: depth(value) <= cbor.MAX_DEPTH))
def test_what_is_encoded_is_read_back(value):
    assert cbor.loads(encode(value)) == value


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_with_one_encoding_or_refused(data):
    try:
        value = cbor.loads(data)
    except WireError:
        return
    assert encode(value) == data
