"""Secrets do not leak by repr, copy or pickle; derived keys agree with RFC 5869 done by hand and are all different."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import hmac
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.crypto import keys
from bus.crypto.keys import Secret

BYTES = b"\xa5key material, 32 bytes of it...\x5a"
ROOT = Secret(bytes(range(32)), "root(memory, 1)")
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def expand_by_hand(key: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand of RFC 5869, section 2.3."""
    made, block, number = b"", b"", 1
    while len(made) < length:
        block = hmac.digest(key, block + info + bytes([number]), hashlib.sha256)
        made += block
        number += 1
    return made[:length]


def info_by_hand(use: str, *parts: str) -> bytes:
    """The info of a key, from the wire format's sections 1.5 and 2."""
    told = [f"sealbus/v1/{use}".encode(), *(part.encode() for part in parts)]
    return b"".join(len(each).to_bytes(2, "big") + each for each in told)


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format, "%s".__mod__, ascii])
def test_no_way_to_print_a_secret_shows_its_bytes(show):
    shown = show(Secret(BYTES, "agent mac"))
    assert shown == "Secret(agent mac)"


def test_a_dataclass_of_secrets_prints_their_names_only():
    shown = repr(keys.agent_keys(ROOT, "writer-1"))
    for secret in (ROOT, *(getattr(keys.agent_keys(ROOT, "writer-1"), each) for each in ("mac", "seal", "notice"))):
        assert repr(secret.reveal()) not in shown
        assert secret.reveal().hex() not in shown
    assert "Secret(writer-1 mac)" in shown


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_not_pickled(protocol):
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret(BYTES, "x"), protocol)


@pytest.mark.parametrize("holder", [keys.agent_keys(ROOT, "a"), keys.role_key(ROOT, "READER")])
def test_what_holds_a_secret_is_not_pickled_either(holder):
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(holder)


@pytest.mark.parametrize(
    "leak",
    [copy.copy, copy.deepcopy, json.dumps, lambda secret: dataclasses.asdict(keys.ReadingKey(b"12345678", secret))],
)
def test_a_secret_is_not_copied_or_turned_into_a_document(leak):
    with pytest.raises(TypeError):
        leak(Secret(BYTES, "x"))


def test_secrets_are_equal_by_their_bytes_whatever_their_name():
    assert Secret(BYTES, "one") == Secret(BYTES, "other")


@pytest.mark.parametrize("other", [Secret(BYTES[:-1] + b"!", "one"), Secret(BYTES[:-1], "one"), BYTES, "one", None])
def test_a_secret_is_equal_to_nothing_else(other):
    assert Secret(BYTES, "one") != other


def test_a_secret_is_compared_in_constant_time(monkeypatch):
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("bus.crypto.keys.hmac.compare_digest", compare)
    assert Secret(BYTES, "x") == Secret(BYTES, "y")
    assert compared == [(BYTES, BYTES)]


def test_a_secret_has_no_hash():
    with pytest.raises(TypeError):
        hash(Secret(BYTES, "x"))


def test_random_secrets_and_instances_are_of_full_length_and_new_each_time():
    assert len({Secret.random("x").reveal() for _ in range(100)}) == 100
    assert {len(Secret.random("x").reveal()) for _ in range(5)} == {32}
    assert len({keys.fresh_instance() for _ in range(100)}) == 100
    assert len(keys.fresh_instance()) == 16


@given(NAMES, NAMES)
def test_every_key_is_the_one_of_the_wire_format(agent, tenant):
    root = ROOT.reveal()
    own = keys.agent_keys(ROOT, agent)
    made = {
        "key-id": own.key_id,
        "mac": own.mac.reveal(),
        "seal": own.seal.reveal(),
        "notice": own.notice.reveal(),
        "notice-key-id": own.notice_key_id,
    }
    for purpose, key in made.items():
        assert key == expand_by_hand(root, info_by_hand("key/agent", agent, purpose), len(key)), purpose
    assert {name: len(key) for name, key in made.items() if len(key) != 32} == {"key-id": 16, "notice-key-id": 16}
    role, target = keys.role_key(ROOT, "READER", tenant), keys.target_key(ROOT, agent)
    assert role.kek.reveal() == expand_by_hand(root, info_by_hand("key/role", "READER", tenant), 32)
    assert target.kek.reveal() == expand_by_hand(root, info_by_hand("key/target", agent), 32)
    for reader in (role, target):
        assert reader.key_id == expand_by_hand(reader.kek.reveal(), info_by_hand("key/reader-id"), 8)
        assert keys.reading_key(reader.kek) == reader


def test_instance_and_purpose_keys_are_those_of_the_wire_format():
    instance = bytes(range(16))
    for use in ("seal", "notice", "dead", "audit"):
        expected = expand_by_hand(BYTES, info_by_hand(f"key/instance/{use}") + instance, 32)
        assert keys.instance_key(Secret(BYTES, "x"), use, instance).reveal() == expected
    assert keys.purpose_key(ROOT, "dead").reveal() == expand_by_hand(
        ROOT.reveal(), info_by_hand("key/purpose", "dead"), 32
    )
    assert keys.root_digest(ROOT) == expand_by_hand(ROOT.reveal(), info_by_hand("key/purpose", "commitment"), 32)


@given(st.lists(st.tuples(NAMES, NAMES), min_size=2, max_size=8, unique=True))
def test_no_two_holders_share_a_key(holders):
    """Two names never run into each other: ("ab", "c") and ("a", "bc") have keys of their own."""
    roles = [keys.role_key(ROOT, role, tenant).kek.reveal() for role, tenant in holders]
    assert len(set(roles)) == len(roles)
    agents = {agent for agent, _ in holders}
    made = [
        key
        for agent in agents
        for own in [keys.agent_keys(ROOT, agent)]
        for key in (own.mac.reveal(), own.seal.reveal(), own.notice.reveal(), keys.target_key(ROOT, agent).kek.reveal())
    ]
    assert len(set(made)) == 4 * len(agents)


def test_another_root_gives_other_keys_throughout():
    other = Secret(bytes(31) + b"\x01", "root(memory, 2)")
    one, two = keys.agent_keys(ROOT, "a"), keys.agent_keys(other, "a")
    for field in dataclasses.fields(keys.AgentKeys):
        assert getattr(one, field.name) != getattr(two, field.name), field.name
