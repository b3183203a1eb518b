"""The blind index: equal values have equal tokens under one field's key and epoch, no others do, and a search finds
records by them alone. The real broker's part is in tests/integration/test_policy_mesh.py."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from confluent_kafka import KafkaError
from hypothesis import given
from hypothesis import strategies as st

from bus.authority.bundle import make_bundle
from bus.client import search
from bus.client.keystore import KeyStore
from bus.client.search import places, wanted
from bus.crypto import blind, keys
from bus.crypto.keys import Secret
from bus.errors import AccessRefused, Refused, RetryLater, Unavailable
from bus.files import write_secret
from bus.kafka import whole
from bus.kafka.config import Connection
from bus.kafka.identity import Identity
from bus.tiers import retrieval
from bus.wire import derived
from bus.wire.names import RoleName
from tests.unit.build import MEMORY, READER, World, domain_policy, make_policy
from tests.unit.inspected import CARD, MAIL, NO_PII, Site, mask
from tests.unit.ledger_build import ANCHOR, DEPLOYMENT
from tests.unit.test_bundle import NOTES, POLICY, stored
from tests.unit.test_bundle import READER as LEASING

KEK = keys.reading_key(Secret(bytes(range(32)), "kek"))
TEXTS = st.text(max_size=12)


def key(field: str) -> Secret:
    return keys.index_key(KEK, field)


@given(TEXTS, TEXTS)
def test_texts_have_one_token_where_they_are_the_same_to_a_reader(one, other):
    same = one.casefold() == other.casefold()
    if same:
        assert blind.token(key("a"), one) == blind.token(key("a"), other)
    assert blind.token(key("a"), one) != blind.token(key("b"), one)
    assert len(blind.token(key("a"), one)) == 16


@pytest.mark.parametrize(
    ("one", "other"), [("C-17", "c-17"), ("\uff23-17", "c-17"), ("STRASSE", "straße"), (4711, "4711")]
)
def test_forms_of_one_value_have_one_token(one, other):
    assert blind.token(key("a"), one) == blind.token(key("a"), other)


@pytest.mark.parametrize(("one", "other"), [("c-17", "c-18"), (1, True), ("", "0"), (1.5, 15), (b"x".hex(), "X")])
def test_other_values_have_other_tokens(one, other):
    assert blind.token(key("a"), one) != blind.token(key("a"), other)


@pytest.mark.parametrize(
    ("payload", "values"),
    [
        ({"id": "c-17", "other": "x"}, ["c-17"]),
        ({"id": ["c-17", 4, {"deep": 1}, ["c-18"]]}, ["c-17", 4, "c-18"]),
        ([{"id": "a"}, {"id": "b"}, {"id": "a"}], ["a", "b"]),
        ({"id": None}, []),
        ({"id": {"id": "no"}}, []),
        ({"id": True, "customer": {"id": "inner"}}, [True]),
        ("id", []),
    ],
)
def test_what_stands_under_a_field_is_found_once_each(payload, values):
    assert blind.values(json.dumps(payload).encode(), ["id"]) == [("id", each) for each in values]


def test_a_path_goes_through_objects_and_arrays():
    payload = {"customer": [{"id": "c-17"}, {"id": "c-18"}, "c-19"]}
    found = blind.values(json.dumps(payload).encode(), ["customer.id"])
    assert found == [("customer.id", "c-17"), ("customer.id", "c-18")]


@pytest.mark.parametrize("payload", [b"", b"not json", b'{"id": "c-17"', b"\xff\xfe", b"[" * 100_000])
def test_nothing_is_found_in_what_is_no_json(payload):
    assert blind.values(payload, ["id"]) == []


def test_a_text_that_is_too_long_to_name_a_case_has_no_token():
    """Its NFKC may be 18 times as long, and it would be hashed for each reader."""
    most, more = "\ufdfa" * blind.MAX_TEXT, "\ufdfa" * (blind.MAX_TEXT + 1)
    assert blind.values(json.dumps({"id": [more, "c-17", most]}).encode(), ["id"]) == [("id", "c-17"), ("id", most)]


def test_a_field_below_any_number_of_arrays_is_found(monkeypatch):
    """Some Pythons read deeper JSON than they let a function call itself."""
    deep = "c-17"
    for _ in range(5_000):
        deep = [deep]
    monkeypatch.setattr(blind.json, "loads", lambda _: {"id": [deep, "c-18"], "customer": [[{"id": 1}]]})
    assert blind.values(b"", ["id", "customer.id"]) == [("id", "c-17"), ("id", "c-18"), ("customer.id", 1)]


# What the enforcer writes.
def index_of(site: Site, *payloads: object, **changes: object) -> derived.Index:
    _, made = site.run(*(site.sealed(each, **changes) for each in payloads))
    (value,) = made.bundles
    return derived.parse(value).index


def token(site: Site, field: str, value: object, *reader: str) -> bytes:
    epoch = site.context.sealing(MEMORY)
    return blind.token(epoch.index(*(reader or ("role", "READER")), field), value)


ONE_ROLE = frozenset({RoleName("READER")})


def test_the_enforcer_writes_tokens_of_the_fields_that_the_policy_names():
    site = Site(consume=ONE_ROLE, blind_index=("customer_id", "n"))
    index = index_of(site, {"customer_id": "C-17", "text": "x"}, {"text": "y"}, {"customer_id": "c-17", "n": 5})
    expected = [(0, "customer_id", "c-17"), (2, "customer_id", "c-17"), (2, "n", 5)]
    assert index == tuple(sorted((place, token(site, field, value)) for place, field, value in expected))
    assert index_of(Site(), {"customer_id": "C-17"}) == ()


def test_each_reader_has_tokens_of_its_own():
    site = Site(blind_index=("note",))
    roles = [token(site, "note", "x", "role", role) for role in ("READER", "ARCHIVIST")]
    assert index_of(site, {"note": "x"}) == tuple((0, each) for each in sorted(roles))
    assert index_of(site, {"note": "x"}, target=READER) == ((0, token(site, "note", "x", "target", READER)),)


def test_a_record_has_at_most_64_tokens_and_its_readers_the_same_ones():
    site = Site(blind_index=("note",))
    index = index_of(site, {"note": list(range(100))})
    expected = [token(site, "note", each, "role", role) for each in range(32) for role in ("READER", "ARCHIVIST")]
    assert index == tuple((0, each) for each in sorted(expected))


def test_tokens_are_of_what_readers_see():
    site = Site(
        consume=ONE_ROLE, blind_index=("note", "card"), guardrails=(NO_PII,), masks=(mask(payload={"card": "drop"}),)
    )
    index = index_of(site, {"note": MAIL, "card": CARD})
    assert index == ((0, token(site, "note", "[EMAIL]")),)


def test_tokens_are_signed_with_their_bundle():
    site = Site(consume=ONE_ROLE, blind_index=("note",))
    _, made = site.run(site.sealed({"note": "x"}))
    assert [each.value() for each in site.read(made)] == [{"note": "x"}]
    bundle = derived.parse(made.bundles[0])
    other = derived.encode_key_table(bundle.sets, ((0, bytes(16)),))
    made.bundles[0] = made.bundles[0].replace(bundle.key_table, other)
    with pytest.raises(Exception, match="signature"):
        site.read(made)


# What a search looks for.
INDEXED = replace(POLICY, domains={name: replace(each, blind_index=("id",)) for name, each in POLICY.domains.items()})


def store(folder, agent=LEASING, numbers=(5, 6)) -> KeyStore:
    for number in numbers:
        write_secret(folder / str(number), make_bundle(agent, INDEXED, [stored(NOTES, number)]) or b"")
    return KeyStore(folder, agent, ANCHOR.public_key, DEPLOYMENT)


def test_a_search_asks_for_the_tokens_of_all_own_keys_in_each_epoch(tmp_path):
    asked = wanted(store(tmp_path), INDEXED.domains[NOTES], {"id": "C-17"})
    for number in (5, 6):
        root = stored(NOTES, number).root
        held = (keys.target_key(root, LEASING), keys.role_key(root, "READER"))
        assert asked[number] == (frozenset(blind.token(keys.index_key(each, "id"), "c-17") for each in held),)
    assert set(asked) == {5, 6}


def test_a_search_for_a_text_that_has_no_token_is_refused(tmp_path):
    wanted(store(tmp_path), INDEXED.domains[NOTES], {"id": "x" * blind.MAX_TEXT})
    with pytest.raises(Refused, match="at most 256 characters") as refused:
        wanted(store(tmp_path), INDEXED.domains[NOTES], {"id": "x" * (blind.MAX_TEXT + 1)})
    assert refused.value.code == "schema"


@pytest.mark.parametrize("values", [{}, {"name": "x"}, {"id": "x", "name": "x"}])
def test_a_field_without_an_index_is_refused(tmp_path, values):
    with pytest.raises(Refused, match="blind index of notes, which has id; found") as refused:
        wanted(store(tmp_path), INDEXED.domains[NOTES], values)
    assert refused.value.code == "schema"


def test_a_search_waits_where_no_key_is_held(tmp_path):
    with pytest.raises(RetryLater):
        wanted(store(tmp_path, numbers=()), INDEXED.domains[NOTES], {"id": "x"})


def test_a_record_is_found_where_it_has_every_token():
    site = Site(consume=ONE_ROLE, blind_index=("a", "b"))
    payloads = [{"a": 1, "b": 2}, {"a": 1}, {"b": 2}, {"a": [3, 1], "b": [2, 4]}]
    _, made = site.run(*map(site.sealed, payloads))
    bundle = derived.parse(made.bundles[0])
    one, two = frozenset({token(site, "a", 1), bytes(16)}), frozenset({token(site, "b", 2)})
    epoch = bundle.head.epoch
    assert places(bundle, {epoch: (one, two)}) == {0, 3}
    assert places(bundle, {epoch: (one,)}) == {0, 1, 3}
    assert places(bundle, {epoch: (frozenset({token(site, "a", 2)}),)}) == frozenset()
    assert places(bundle, {epoch + 1: (one,)}) == frozenset()


def test_nothing_is_opened_but_what_has_the_tokens(monkeypatch):
    site = Site(consume=ONE_ROLE, blind_index=("a",))
    _, made = site.run(*map(site.sealed, [{"a": 1}, {"a": 2}, {"a": 1}, {"a": 2}]))
    opened, really = [], retrieval.Opener.open_entries

    def counted(opener, entries, covered):
        opened.extend(each.body for each in entries)
        return really(opener, entries, covered)

    monkeypatch.setattr(retrieval.Opener, "open_entries", counted)
    bundle = derived.parse(made.bundles[0])
    there = places(bundle, {bundle.head.epoch: (frozenset({token(site, "a", 2)}),)})
    assert [each.value() for each in site.read(made, only=there)] == [{"a": 2}, {"a": 2}]
    assert opened == [bundle.entries[1].body, bundle.entries[3].body]


def test_two_epochs_share_no_token():
    one, other = (World(make_policy(domain_policy(MEMORY))).reading("READER", MEMORY) for _ in range(2))
    assert blind.token(keys.index_key(one, "a"), "x") != blind.token(keys.index_key(other, "a"), "x")


class Refusing:
    """A consumer that the broker tells nothing of a topic but why."""

    def __init__(self, code: int) -> None:
        self.code = code

    def list_topics(self, topic: str, _timeout: float) -> SimpleNamespace:
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions={}, error=KafkaError(self.code))})

    def assign(self, _partitions: list) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("code", "expected"),
    [(KafkaError.TOPIC_AUTHORIZATION_FAILED, AccessRefused), (KafkaError.UNKNOWN_TOPIC_OR_PART, Unavailable)],
)
def test_a_topic_that_cannot_be_read_is_not_one_without_a_find(tmp_path, monkeypatch, code, expected):
    connection = Connection("localhost:1", tmp_path / "ca.pem", Identity(LEASING, Secret(b"x", "password")))
    monkeypatch.setattr(whole, "Consumer", lambda _: Refusing(code))
    domain = INDEXED.domains[NOTES]
    asked = search.Search(connection, store(tmp_path), LEASING, domain, lambda: None, lambda _: None)
    with pytest.raises(expected, match=r"read .*notes\.out"):
        asked.run({"id": "x"}, 5)
