"""Published vectors against the functions of ``bus`` that do the work, not against the library beneath them.

Each source stands in ``data/<source>`` with a NOTE of where it comes from. Every file's number of cases is asserted,
so that an empty or shortened file cannot pass.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import struct
from pathlib import Path
from typing import Any

import fastavro
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus.codes import Code
from bus.crypto import tree
from bus.crypto.keys import Secret, expand
from bus.crypto.seal import mac_state, open_with, verify_mac
from bus.crypto.signing import verify
from bus.errors import Unverified, WireError
from bus.wire import codec
from bus.wire.schemas import MARKER, Schema, single_object_head
from bus.wire.sealed import Sealed

DATA = Path(__file__).parent / "data"
MERKLE = DATA / "merkle_rfc6962" / "testdata"

Case = dict[str, Any]


def wycheproof(name: str, total: int) -> list[tuple[Case, Case]]:
    """(group, test) of a file; ``total`` is what the file must hold."""
    document = json.loads((DATA / "wycheproof" / f"{name}_test.json").read_text())
    cases = [(group, test) for group in document["testGroups"] for test in group["tests"]]
    assert len(cases) == document["numberOfTests"] == total
    return cases


def results(cases: list[tuple[Case, Case]]) -> tuple[int, int]:
    """(valid, invalid); a third kind of result would not be counted and fail the sum."""
    kinds = [test["result"] for _, test in cases]
    return kinds.count("valid"), kinds.count("invalid")


def test_hkdf_expand() -> None:
    cases = wycheproof("hkdf_sha256", 86)
    assert results(cases) == (83, 3)
    for _, test in cases:
        salt, material, info = (bytes.fromhex(test[each]) for each in ("salt", "ikm", "info"))
        extracted = Secret(hmac.digest(salt, material, "sha256"), "extracted")
        if test["result"] == "valid":
            assert expand(extracted, info, "okm", test["size"]).reveal() == bytes.fromhex(test["okm"]), test["tcId"]
        else:
            with pytest.raises(ValueError, match="8160"):
                expand(extracted, info, "okm", test["size"])


def test_aes_256_gcm() -> None:
    ours = [
        (group, test)
        for group, test in wycheproof("aes_gcm", 316)
        if (group["keySize"], group["ivSize"], group["tagSize"]) == (256, 96, 128)
    ]
    assert results(ours) == (39, 27)
    for _, test in ours:
        key, nonce, aad, ct, tag, plain = (bytes.fromhex(test[n]) for n in ("key", "iv", "aad", "ct", "tag", "msg"))
        if test["result"] == "valid":
            assert open_with(AESGCM(key), nonce, ct + tag, aad) == plain, test["tcId"]
            with pytest.raises(Unverified):
                open_with(AESGCM(key), nonce, ct + tag, aad + b"\0")
        else:
            with pytest.raises(Unverified) as refused:
                open_with(AESGCM(key), nonce, ct + tag, aad)
            assert (refused.value.step, refused.value.code) == ("open", Code.OPEN), test["tcId"]


def test_hmac_sha256() -> None:
    ours = [(group, test) for group, test in wycheproof("hmac_sha256", 174) if group["tagSize"] == 256]
    assert results(ours) == (33, 54)
    for _, test in ours:
        key, message, tag = (bytes.fromhex(test[each]) for each in ("key", "msg", "tag"))
        half = len(message) // 2
        # The MAC of a record covers what its state has taken, then header and tail.
        state = mac_state(Secret(key, "mac"), message[:half])
        record = Sealed(message[half:], b"", b"", 0, tag, b"", b"")
        if test["result"] == "valid":
            assert mac_state(Secret(key, "mac"), message).finalize() == tag, test["tcId"]
            verify_mac(state, record)
        else:
            with pytest.raises(InvalidSignature):
                mac_state(Secret(key, "mac"), message).verify(tag)
            with pytest.raises(Unverified) as refused:
                verify_mac(state, record)
            assert (refused.value.step, refused.value.code) == ("mac", Code.MAC), test["tcId"]


def test_hmac_sha256_of_half_its_length_is_refused() -> None:
    ours = [(group, test) for group, test in wycheproof("hmac_sha256", 174) if group["tagSize"] == 128]
    assert results(ours) == (33, 54)
    for _, test in ours:
        key, message, tag = (bytes.fromhex(test[each]) for each in ("key", "msg", "tag"))
        with pytest.raises(Unverified):
            verify_mac(mac_state(Secret(key, "mac")), Sealed(message, b"", b"", 0, tag, b"", b""))


def test_ed25519() -> None:
    cases = wycheproof("ed25519", 151)
    assert results(cases) == (88, 63)
    for group, test in cases:
        public_key = bytes.fromhex(group["publicKey"]["pk"])
        signature, message = bytes.fromhex(test["sig"]), bytes.fromhex(test["msg"])
        if test["result"] == "valid":
            verify(public_key, signature, message, "vector")
            with pytest.raises(Unverified):
                verify(public_key, signature, message + b"\0", "vector")
        else:
            with pytest.raises(Unverified) as refused:
                verify(public_key, signature, message, "vector")
            assert refused.value.step == "signature", test["tcId"]


def _hash(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _merkle_cases(kind: str) -> list[Any]:
    paths = sorted((MERKLE / kind).rglob("*.json"))
    names = [path.relative_to(MERKLE / kind).as_posix() for path in paths]
    return [pytest.param(path, id=name) for path, name in zip(paths, names, strict=True)]


INCLUSION = _merkle_cases("inclusion")
CONSISTENCY = _merkle_cases("consistency")


def test_merkle_vectors_are_all_there() -> None:
    wanted = [
        sum(json.loads(case.values[0].read_text())["wantErr"] is False for case in cases)
        for cases in (INCLUSION, CONSISTENCY)
    ]
    assert (len(INCLUSION), len(CONSISTENCY)) == (98, 98)
    assert wanted == [6, 6]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("path", INCLUSION)
def test_merkle_inclusion(path: Path, compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(tree, "native", None)
    case = json.loads(path.read_text())
    assert case.keys() == {"leafIdx", "treeSize", "root", "leafHash", "proof", "desc", "wantErr"}
    proof = [_hash(each) for each in case["proof"] or []]
    arguments = (_hash(case["leafHash"]), case["leafIdx"], case["treeSize"], proof, _hash(case["root"]))
    if case["wantErr"]:
        with pytest.raises(Unverified) as refused:
            tree.verify_inclusion(*arguments)
        assert refused.value.step == "inclusion"
    else:
        tree.verify_inclusion(*arguments)


@pytest.mark.parametrize("path", CONSISTENCY)
def test_merkle_consistency(path: Path) -> None:
    case = json.loads(path.read_text())
    assert case.keys() == {"size1", "size2", "root1", "root2", "proof", "desc", "wantErr"}
    proof = [_hash(each) for each in case["proof"] or []]
    arguments = (case["size1"], case["size2"], _hash(case["root1"]), _hash(case["root2"]), proof)
    if case["wantErr"]:
        with pytest.raises(Unverified) as refused:
            tree.verify_consistency(*arguments)
        assert refused.value.step == "consistency"
    else:
        tree.verify_consistency(*arguments)


# The eight leaves of the reference log from which the vectors of trees 1 to 8 were made.
REFERENCE_LEAVES = [
    bytes.fromhex(each)
    for each in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]


def test_own_proofs_are_the_published_ones() -> None:
    leaves = [tree.leaf_hash(each) for each in REFERENCE_LEAVES]
    checked = 0
    for path in sorted((MERKLE / "inclusion").glob("[0-9]/happy-path.json")):
        case = json.loads(path.read_text())
        some = leaves[: case["treeSize"]]
        assert tree.root(some) == _hash(case["root"])
        assert some[case["leafIdx"]] == _hash(case["leafHash"])
        assert tree.inclusion_path(some, case["leafIdx"]) == [_hash(each) for each in case["proof"] or []]
        checked += 1
    assert checked == 5
    assert tree.root([]) == hashlib.sha256().digest()


def avro_schema_tests() -> list[tuple[str, str, int | None]]:
    """(input, canonical form, fingerprint) of schema-tests.txt; a long input stands between INPUT and INPUT."""
    cases: list[tuple[str, str, int | None]] = []
    source = canonical = ""
    fingerprint: int | None = None
    lines = iter((DATA / "avro" / "schema-tests.txt").read_text().splitlines())
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "<<INPUT":
            if source:
                cases.append((source, canonical, fingerprint))
            source, canonical, fingerprint = rest, "", None
            while not rest and (more := next(lines)) != "INPUT":
                source += more
        elif word == "<<canonical":
            canonical = rest
        elif word == "<<fingerprint":
            fingerprint = int(rest)
    return [*cases, (source, canonical, fingerprint)]


def test_avro_fingerprints() -> None:
    cases = avro_schema_tests()
    by_form = {canonical: fingerprint for _, canonical, fingerprint in cases if fingerprint is not None}
    assert (len(cases), sum(fingerprint is not None for *_, fingerprint in cases)) == (34, 26)
    assert len(by_form) == 23
    for source, canonical, _ in cases:
        expected = MARKER + struct.pack("<q", by_form[canonical])  # little endian, as single-object encoding has it
        assert single_object_head(json.loads(source)) == expected, source
        assert single_object_head(json.loads(canonical)) == expected, canonical


def test_avro_single_object_message() -> None:
    document = json.loads((DATA / "avro" / "messageV1" / "test_schema.avsc").read_text())
    data = (DATA / "avro" / "messageV1" / "test_message.bin").read_bytes()
    head = single_object_head(document)
    assert len(data) == 38
    assert data[:10] == head
    kind = Schema("message", fastavro.parse_schema(document), head)
    value = {"id": 42, "name": "Bill", "tags": ["dog_lover", "cat_hater"]}
    assert codec.decode_marked(kind, data) == value
    assert head + codec.encode(kind, value) == data
    for place in range(len(head)):
        with pytest.raises(WireError) as refused:
            codec.decode_marked(kind, data[:place] + bytes((data[place] ^ 1,)) + data[place + 1 :])
        assert refused.value.code is Code.VERSION
    for other in (data[:-1], data + b"\0"):
        with pytest.raises(WireError) as refused:
            codec.decode_marked(kind, other)
        assert refused.value.code is Code.DECODE
