"""Proof documents: made from a ledger, carried as text, verified with a public key alone; nothing in one can change."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.codes import Code
from bus.errors import Refused, Unverified, WireError
from bus.ledger.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from bus.ledger.leaf import Position
from bus.ledger.proof import FORMAT, Proof, parse_proof, verify_proof
from bus.ledger.query import LedgerQuery
from tests.unit.ledger_build import LEDGER_SIGNER, STRANGER, keys_of, make_block, make_hop, make_ledger, name_of, record

KEY = LEDGER_SIGNER.public_key
FIELDS = ("format", "topic", "partition", "offset", "index", "leaf", "hop", "k", "body", "path", "checkpoint")


@pytest.fixture(scope="module")
def query(tmp_path_factory) -> LedgerQuery:
    """Twelve hops, four blocks, four checkpoints."""
    return LedgerQuery(make_ledger(tmp_path_factory.mktemp("proof") / "ledger" / "ledger.db"), keys_of)


@pytest.fixture(scope="module")
def proof(query) -> Proof:
    """Of the eighth hop: leaf 7, second of the third block."""
    return query.prove(name_of(7))


def flip(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def test_each_hop_is_proven_by_its_document_alone(query):
    for number in range(12):
        hop, checkpoint = verify_proof(parse_proof(query.prove(name_of(number)).to_json()), KEY)
        assert (hop.decision_id, hop.offset, hop.tail.agent) == (name_of(number), number, "writer-1")
        assert checkpoint.size == 12


def test_a_document_is_one_line_of_json_with_a_format(proof):
    text = proof.to_json()
    assert "\n" not in text
    assert tuple(json.loads(text)) == FIELDS
    assert parse_proof(text) == proof
    assert (proof.at, proof.leaf) == (Position("bus.audit", 1, 2, 1), 7)


def test_a_proof_discloses_one_hop_and_opens_no_other(query, proof):
    others = [query.prove(name_of(number)) for number in range(12) if number != 7]
    text = proof.to_json()
    assert [each for each in others if each.k.hex() in text or each.hop.hex() in text] == []
    for other in others:
        with pytest.raises(Unverified):
            verify_proof(dataclasses.replace(other, k=proof.k), KEY)


@pytest.mark.parametrize(
    ("change", "step"),
    [
        ({"at": Position("bus.audit2", 1, 2, 1)}, "open"),
        ({"at": Position("bus.audit", 0, 2, 1)}, "open"),
        ({"at": Position("bus.audit", 1, 3, 1)}, "open"),
        ({"at": Position("bus.audit", 1, 2, 0)}, "open"),
        ({"at": Position("bus.audit", -1, 2, 1)}, "disclosure"),
        ({"at": Position("bus.audit", 2**32, 2, 1)}, "disclosure"),
        ({"at": Position("x" * 70_000, 1, 2, 1)}, "disclosure"),
        ({"at": Position("\ud800", 1, 2, 1)}, "disclosure"),
        ({"leaf": 6}, "inclusion"),
        ({"leaf": 8}, "inclusion"),
        ({"leaf": 12}, "inclusion"),
        ({"leaf": -1}, "inclusion"),
        ({"k": bytes(32)}, "open"),
        ({"k": b""}, "disclosure"),
        ({"k": bytes(31)}, "disclosure"),
        ({"body": b""}, "open"),
        ({"path": ()}, "inclusion"),
        ({"path": (bytes(32),) * 4}, "inclusion"),
        ({"path": (b"short",)}, "inclusion"),
        ({"checkpoint": ""}, "checkpoint"),
    ],
)
def test_a_changed_field_is_refused_at_its_step(proof, change, step):
    verify_proof(proof, KEY)
    with pytest.raises(Unverified) as refused:
        verify_proof(dataclasses.replace(proof, **change), KEY)
    assert refused.value.step == step


def test_flipped_bytes_are_refused_at_their_step(proof):
    flipped = {
        "disclosure": {"hop": flip(proof.hop)},
        "open": {"body": flip(proof.body)},
        "inclusion": {"path": (flip(proof.path[0]), *proof.path[1:])},
        "signature": {"checkpoint": proof.checkpoint.replace("\n12\n", "\n13\n")},
    }
    for step, change in flipped.items():
        with pytest.raises(Unverified) as refused:
            verify_proof(dataclasses.replace(proof, **change), KEY)
        assert refused.value.step == step


@pytest.mark.parametrize("path", [lambda p: p[:-1], lambda p: (*p, bytes(32)), lambda p: p[::-1]])
def test_a_path_of_another_length_or_order_is_refused(proof, path):
    with pytest.raises(Unverified) as refused:
        verify_proof(dataclasses.replace(proof, path=path(proof.path)), KEY)
    assert refused.value.step == "inclusion"


def test_another_public_key_is_refused(proof):
    with pytest.raises(Unverified, match="no signature by this key"):
        verify_proof(proof, STRANGER.public_key)


def test_a_checkpoint_of_another_tree_is_refused(proof):
    held = open_checkpoint(proof.checkpoint, KEY)
    for other in (Checkpoint(held.origin, 12, bytes(32)), Checkpoint(held.origin, 7, held.root)):
        note = sign_checkpoint(other, LEDGER_SIGNER)
        with pytest.raises(Unverified) as refused:
            verify_proof(dataclasses.replace(proof, checkpoint=note), KEY)
        assert refused.value.step == "inclusion"


def test_every_byte_of_the_disclosed_hop_counts(proof):
    for at in range(len(proof.hop)):
        changed = proof.hop[:at] + bytes([proof.hop[at] ^ 0x80]) + proof.hop[at + 1 :]
        with pytest.raises(Unverified):
            verify_proof(dataclasses.replace(proof, hop=changed), KEY)


def test_a_document_of_another_format_is_refused(proof):
    for format_ in ("sealbus.proof/2", "", None):
        with pytest.raises(Unverified, match=r"expected format sealbus\.proof/1") as refused:
            parse_proof(json.dumps(json.loads(proof.to_json()) | {"format": format_}))
        assert refused.value.step == "format"


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("value", [None, {}, [], "zz", 5, -1, 1e400, float("nan"), 2**70])
def test_a_field_of_another_kind_never_verifies(proof, field, value):
    held = json.loads(proof.to_json())
    with pytest.raises((Unverified, WireError)):
        verify_proof(parse_proof(json.dumps(held | {field: value})), KEY)
    del held[field]
    with pytest.raises(Unverified, match="not a proof document: KeyError"):
        parse_proof(json.dumps(held))


@pytest.mark.parametrize(
    "text", ["", "{", "null", "5", '"text"', "[]", "{}", "\ud800", "[" * 100_000, '{"a":' * 100_000, "9" * 5000]
)
def test_text_that_is_no_document_is_refused(text):
    with pytest.raises(Unverified) as refused:
        parse_proof(text)
    assert refused.value.step == "format"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def only_refusals(text: str) -> None:
    with pytest.raises((Unverified, WireError)):
        verify_proof(parse_proof(text), KEY)


@settings(deadline=None)
@given(st.text() | JSON.map(json.dumps))
def test_any_text_and_any_json_is_refused_and_nothing_else_raised(text):
    only_refusals(text)


@settings(deadline=None)
@given(st.data())
def test_a_document_with_any_other_values_is_refused_and_nothing_else_raised(proof, data):
    held = json.loads(proof.to_json())
    hex_text = st.binary(max_size=80).map(bytes.hex)
    values = JSON | hex_text | st.lists(hex_text, max_size=5)
    fields = data.draw(st.lists(st.sampled_from(FIELDS), min_size=1, unique=True))
    changed = held | {field: data.draw(values) for field in fields}
    assert held["format"] == FORMAT
    if parsed_as(changed) == proof:
        return  # a number in another notation
    only_refusals(json.dumps(changed))


def parsed_as(document: dict[str, object]) -> Proof | None:
    try:
        return parse_proof(json.dumps(document))
    except Unverified:
        return None


def test_a_hop_is_proven_only_under_a_checkpoint(tmp_path: Path):
    ledger = make_ledger(tmp_path / "ledger" / "ledger.db", total=3)
    query = LedgerQuery(ledger, keys_of)
    record(ledger, [make_block([make_hop(3)], 3, 4)])
    verify_proof(query.prove(name_of(2)), KEY)
    with pytest.raises(Refused, match="not under a checkpoint yet") as refused:
        query.prove(name_of(3))
    assert (refused.value.code, refused.value.hint) == (Code.LEDGER, "try again")
    ledger.sign(1, LEDGER_SIGNER)
    verify_proof(query.prove(name_of(3)), KEY)


@pytest.mark.parametrize("name", [name_of(99), "", "not-an-id", "0" * 16, "a" * 15])
def test_a_decision_that_is_not_there_cannot_be_proven(query, name):
    with pytest.raises(Refused):
        query.prove(name)
