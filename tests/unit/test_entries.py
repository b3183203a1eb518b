"""Entries at rest: what is sealed opens in its place alone, nothing is sealed alike twice, keys are as documented."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.crypto.entries import MAX_NAME, MAX_VALUE, SALT_LENGTH, Entry, EntryKeys, check_size
from bus.crypto.keys import Secret, store_key
from bus.errors import TooLarge, Unverified
from tests.unit import build  # noqa: F401  # lifts hypothesis's deadline

ROOT = Secret(bytes(range(32)), "root")
DEPLOYMENT = bytes(16)
KEYS = EntryKeys(store_key(ROOT, "writer-1"), DEPLOYMENT, "notes", 7)
END = 1_772_445_600_000


def part(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def expand(key: bytes, info: bytes) -> bytes:
    """HKDF-Expand of 32 bytes (RFC 5869), without the library that the product uses."""
    return hmac.digest(key, info + b"\x01", "sha256")


def test_keys_and_tokens_are_as_the_document_writes_them():
    store = expand(ROOT.reveal(), part(b"sealbus/v1/key/agent") + part(b"writer-1") + part(b"store"))
    assert store_key(ROOT, "writer-1").reveal() == store
    names = expand(store, part(b"sealbus/v1/key/store/names"))
    told = part(b"sealbus/v1/store/name") + part(b"cache") + part(b"a")
    assert KEYS.token("cache", "a") == hmac.new(names, told, hashlib.sha256).digest()
    assert KEYS.shelf("cache") == hmac.new(names, part(b"sealbus/v1/store/shelf") + part(b"cache"), "sha256").digest()


@given(st.text(max_size=20), st.text(max_size=50), st.binary(max_size=300), st.booleans(), st.sampled_from([0, END]))
def test_what_is_sealed_comes_back(store, name, data, is_json, end):
    entry, token = Entry(store, name, data, is_json), KEYS.token(store, name)
    assert KEYS.open(token, KEYS.seal(token, entry, end), end) == entry


@given(st.text(max_size=9), st.text(max_size=9), st.text(max_size=9), st.text(max_size=9))
def test_two_places_never_share_a_token(store, name, other, also):
    assert (KEYS.token(store, name) == KEYS.token(other, also)) == ((store, name) == (other, also))
    assert KEYS.token(store, name) != KEYS.shelf(store)


ENTRY = Entry("cache", "a", b"value", is_json=False)
TOKEN = KEYS.token("cache", "a")
OTHERS = {
    "another agent": EntryKeys(store_key(ROOT, "writer-2"), DEPLOYMENT, "notes", 7),
    "another root": EntryKeys(store_key(Secret(bytes(32), "root"), "writer-1"), DEPLOYMENT, "notes", 7),
    "another deployment": EntryKeys(store_key(ROOT, "writer-1"), bytes([1]) * 16, "notes", 7),
    "another domain": EntryKeys(store_key(ROOT, "writer-1"), DEPLOYMENT, "plans", 7),
    "another epoch": EntryKeys(store_key(ROOT, "writer-1"), DEPLOYMENT, "notes", 8),
}


@pytest.mark.parametrize("name", OTHERS)
def test_an_entry_opens_under_its_own_key_and_place_alone(name):
    body = KEYS.seal(TOKEN, ENTRY, END)
    assert KEYS.open(TOKEN, body, END) == ENTRY
    with pytest.raises(Unverified) as refused:
        OTHERS[name].open(TOKEN, body, END)
    assert refused.value.step == "open"


def test_an_entry_under_another_name_or_with_another_end_does_not_open():
    body = KEYS.seal(TOKEN, ENTRY, END)
    for token, end in ((KEYS.token("cache", "b"), END), (TOKEN, END + 1), (TOKEN, 0)):
        with pytest.raises(Unverified):
            KEYS.open(token, body, end)


def test_a_changed_byte_and_a_shorter_body_do_not_open():
    body = KEYS.seal(TOKEN, ENTRY, END)
    for at in range(len(body)):
        with pytest.raises(Unverified):
            KEYS.open(TOKEN, body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :], END)
        with pytest.raises(Unverified):
            KEYS.open(TOKEN, body[:at], END)


def test_nothing_is_sealed_under_one_key_twice():
    bodies = [KEYS.seal(TOKEN, ENTRY, END) for _ in range(500)]
    assert len({body[:SALT_LENGTH] for body in bodies}) == len({body[SALT_LENGTH:] for body in bodies}) == 500


def test_sizes_have_bounds_that_are_met_exactly():
    check_size("ä" * (MAX_NAME // 2), bytes(MAX_VALUE))
    for name, size, limit in (("ä" * (MAX_NAME // 2) + "a", 0, MAX_NAME), ("a", MAX_VALUE + 1, MAX_VALUE)):
        with pytest.raises(TooLarge) as refused:
            check_size(name, bytes(size))
        assert refused.value.limit == limit


def test_no_value_and_no_key_is_in_a_repr():
    assert "value" not in repr(ENTRY)
    assert KEYS._key.reveal().hex() not in repr(KEYS)
