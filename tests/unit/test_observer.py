"""The observer with the broker's disks: finds what is planted in each encoding, and nothing that is not there."""

from __future__ import annotations

import base64
import gzip
import json
import struct

import pydantic_core
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.observer import Sighting, encodings, look

ITEM = "CANARY_SSN_9762BD77"
AWKWARD = 'Zoë said "no"\n'
NOISE = bytes(range(256)) * 40


def found(folder, data: bytes, *items: str, name: str = "00000000.log.bin") -> frozenset[str]:
    (folder / name).write_bytes(data)
    return look(folder, items or (ITEM,)).items


def batch(records: bytes, codec: int = 0) -> bytes:
    """A record batch of message format v2 around ``records``."""
    body = struct.pack(">iBIh", 0, 2, 0, codec) + bytes(61 - 23) + records
    return struct.pack(">qi", 0, len(body)) + body


ENCODED = {
    "raw": lambda item: item.encode(),
    "json": lambda item: json.dumps({"k": item}).encode(),
    "json as the sdk writes it": lambda item: pydantic_core.to_json({"k": item}),
    "hex": lambda item: item.encode().hex().encode(),
    "upper-case hex": lambda item: item.encode().hex().upper().encode(),
    "utf-16-le": lambda item: item.encode("utf-16-le"),
    "utf-16-be": lambda item: item.encode("utf-16-be"),
    "base64": lambda item: base64.b64encode(item.encode()),
    "base64 shifted by one": lambda item: base64.b64encode(b"x" + item.encode() + b"yz"),
    "base64 shifted by two": lambda item: base64.b64encode(b"xy" + item.encode() + b"z"),
    "base64 shifted by three": lambda item: base64.b64encode(b"xyz" + item.encode()),
    "base64 for urls": lambda item: base64.urlsafe_b64encode(b"\xff\xfe" + item.encode() + b"\xff"),
}


@pytest.mark.parametrize("item", [ITEM, "4711-0815", AWKWARD, "ÿÿÿ???>>>"])
@pytest.mark.parametrize("encoding", ENCODED)
def test_an_item_is_found_in_each_encoding(tmp_path, encoding, item):
    planted = ENCODED[encoding](item)
    assert found(tmp_path, NOISE + planted + NOISE, item) == {item}
    assert found(tmp_path, NOISE + NOISE, item) == frozenset()


@pytest.mark.parametrize("encoding", ENCODED)
def test_a_neighbour_of_an_item_is_not_taken_for_it(tmp_path, encoding):
    neighbour = ITEM.replace("SSN", "SSM")
    assert found(tmp_path, NOISE + ENCODED[encoding](neighbour) + NOISE) == frozenset()


@settings(deadline=None, max_examples=200)
@given(st.text(min_size=4, max_size=20), st.binary(max_size=7), st.binary(max_size=7))
def test_base64_is_found_at_every_alignment_and_with_any_neighbours(item, before, after):
    told = base64.b64encode(before + item.encode() + after)
    assert any(form in told for form in encodings(item))


@settings(deadline=None)
@given(st.binary(max_size=400))
def test_what_is_not_there_is_not_found(data):
    for told in (data, base64.b64encode(data), data.hex().encode(), json.dumps(data.decode("latin-1")).encode()):
        assert not any(form in told for form in encodings(ITEM))


def test_an_item_in_a_compressed_batch_is_found(tmp_path):
    records = batch(b"nothing here") + batch(gzip.compress(b"key" + ITEM.encode() + b"value"), codec=1) + batch(b"end")
    assert ITEM.encode() not in records
    assert found(tmp_path, records, name="00000000.log") == {ITEM}
    clean = batch(b"nothing here") + batch(gzip.compress(b"key and value"), codec=1)
    assert found(tmp_path, clean, name="00000000.log") == frozenset()


@pytest.mark.parametrize("codec", [2, 3, 4])
def test_a_batch_that_cannot_be_decompressed_is_refused_by_name(tmp_path, codec):
    with pytest.raises(ValueError, match=f"codec {codec}: the observer must learn it"):
        found(tmp_path, batch(b"nothing") + batch(b"x", codec), name="00000000.log")


def test_uncompressed_batches_and_other_files_are_read_as_they_are(tmp_path):
    assert found(tmp_path, batch(ITEM.encode()), name="00000000.log") == {ITEM}
    assert found(tmp_path, b"\xff" * 80 + ITEM.encode(), name="00000000.timeindex") == {ITEM}


def test_an_item_after_a_batch_that_was_preallocated_is_found(tmp_path):
    data = batch(b"records") + bytes(4096) + ITEM.encode()
    assert found(tmp_path, data, name="00000000.log") == {ITEM}


def test_every_folder_is_looked_at_and_counted(tmp_path):
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "one").write_bytes(b"123" + ITEM.encode())
    (tmp_path / "two").write_bytes(b"12345")
    (tmp_path / "empty").touch()
    (tmp_path / "link").symlink_to(deep)
    seen = look(tmp_path, [ITEM, "another item"])
    assert seen == Sighting(frozenset({ITEM}), 3, 3 + len(ITEM) + 5)


def test_holes_are_not_read_and_what_lies_between_them_is(tmp_path):
    path = tmp_path / "index"
    size = 64 * 1024 * 1024
    with path.open("wb") as out:
        out.truncate(size)
        out.seek(size // 2)
        out.write(ITEM.encode())
    if path.stat().st_blocks * 512 >= size:
        pytest.skip("this file system keeps no holes")
    seen = look(tmp_path, [ITEM])
    assert seen.items == {ITEM}
    assert len(ITEM) <= seen.bytes_read < size // 8


def test_a_short_item_has_no_form_so_short_that_it_is_everywhere():
    assert min(len(form) for form in encodings("abcd")) == 4
    assert all(len(form) >= 4 for item in ("4711", "ÄÖÜ?", ITEM) for form in encodings(item))
