"""The recorder: a good block becomes entries and an interval; one that fails is kept whole as one unverified entry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bus.authority.local import ensure_authority, ensure_enforcer, load_signer
from bus.codes import Code
from bus.crypto.keys import Secret
from bus.errors import Refused, RetryLater
from bus.files import Layout
from bus.ledger.leaf import Position, hop_key, leaf_hash, open_hop, token
from bus.ledger.query import LedgerQuery
from bus.ledger.store import Interval, Ledger
from bus.wire import hopblock
from bus.wire.hop import Verdict, decode_hop
from bus.wire.names import AUDIT
from consumers.audit.recorder import UNVERIFIED_INDEX, record_block
from tests.unit.ledger_build import (
    AUDIT_ROOT,
    DAY,
    DEPLOYMENT,
    INPUT,
    KEYS,
    NOON,
    OTHER_DEPLOYMENT,
    STRANGER,
    certificate,
    keys_of,
    make_block,
    make_hop,
    make_trust,
    name_of,
    record,
)

HOPS = [make_hop(number) for number in range(3)]
GOOD = make_block(HOPS, 0, 3)
UNKNOWN_CODE = make_hop(0, code=Code.REPLAY).replace(b"replay", b"unsaid")


def recorded(value: bytes, **more):
    return record_block(value, 1, 40, more.pop("trust", make_trust()), keys_of)


def assert_kept_unverified(value: bytes, **more) -> None:
    """One entry that holds the value as it came, on no day, without tokens or interval."""
    entries, intervals = recorded(value, **more)
    assert intervals == []
    (entry,) = entries
    assert (entry.day, entry.offset, entry.index) == (0, 40, UNVERIFIED_INDEX)
    assert (entry.body, entry.tokens) == (value, ())
    assert entry.leaf == leaf_hash(Position(AUDIT, 1, 40, UNVERIFIED_INDEX), value, entry.disclosure)


def test_a_good_block_becomes_an_entry_a_hop_and_its_interval():
    entries, intervals = recorded(GOOD)
    assert intervals == [Interval(INPUT, 0, 0, 3, 40)]
    assert [(each.day, each.offset, each.index) for each in entries] == [(DAY, 40, index) for index in range(3)]
    for index, entry in enumerate(entries):
        at = Position(AUDIT, 1, 40, index)
        assert open_hop(hop_key(KEYS, at), entry.body, at) == HOPS[index]
        assert entry.leaf == leaf_hash(at, entry.body, entry.disclosure)


def test_an_entry_opens_nowhere_but_in_its_place():
    entry = recorded(GOOD)[0][1]
    at = Position(AUDIT, 1, 40, 1)
    for other in (replace(at, partition=2), replace(at, offset=41), replace(at, index=0), replace(at, topic="x")):
        for k in (hop_key(KEYS, at), hop_key(KEYS, other)):
            with pytest.raises(Refused, match="does not open"):
                open_hop(k, entry.body, other)


def test_a_block_without_hops_has_its_interval_only():
    assert recorded(make_block([], 5, 9)) == ([], [Interval(INPUT, 0, 5, 9, 40)])


def test_recording_is_deterministic():
    assert recorded(GOOD) == recorded(GOOD)


def test_tokens_are_blind_and_of_their_day():
    tokens = recorded(GOOD)[0][0].tokens
    terms = {
        "agent": "writer-1",
        "domain": "notes",
        "verdict": "ALLOW",
        "decision": name_of(0),
        "correlation": "session-0",
        "message": decode_hop(HOPS[0]).message_id.hex(),
    }
    assert sorted(tokens) == sorted(token(KEYS, field, value) for field, value in terms.items())
    assert not any(value.encode() in b"".join(tokens) for value in terms.values())
    assert token(replace(KEYS, search=Secret(bytes(32), "search")), "agent", "writer-1") not in tokens


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (make_block(HOPS, 0, 3, signer=STRANGER), "unknown enforcer"),
        (make_block(HOPS, 0, 3, count=2), "count too small"),
        (make_block(HOPS, 0, 3, count=4), "count too large"),
        (make_block([], 0, 3, count=1), "count of nothing"),
        (make_block(HOPS, 0, 3, sealed_with=Secret(bytes(32), "audit")), "another root"),
        (make_block(HOPS, 0, 3, deployment=OTHER_DEPLOYMENT), "another deployment"),
        (make_block([b"not a hop"], 0, 3), "a hop that is none"),
        (make_block([HOPS[0] + b"\0"], 0, 3), "a hop with a byte too much"),
        (make_block([UNKNOWN_CODE], 0, 3), "a code that this version does not know"),
        (make_block([make_hop(3)], 0, 3), "a hop past its interval"),
        (make_block([make_hop(0)], 1, 3), "a hop before its interval"),
        (make_block([HOPS[0], HOPS[0]], 0, 3), "a hop twice"),
        (make_block([HOPS[1], HOPS[0]], 0, 3), "hops out of order"),
        (make_block([make_hop(0, topic="plans.in")], 0, 3), "a hop of another input"),
        (GOOD[:-1], "cut"),
        (GOOD + b"\0", "a byte too much"),
        (GOOD[:10], "nothing but a marker"),
        (b"", "empty"),
        (b"\xff" * 600, "noise"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_block_that_fails_is_kept_as_one_unverified_entry(value, why):
    assert_kept_unverified(value)


def test_a_flipped_bit_anywhere_makes_a_block_unverified():
    for at in range(0, len(GOOD), 7):
        assert_kept_unverified(GOOD[:at] + bytes([GOOD[at] ^ 1]) + GOOD[at + 1 :])


@pytest.mark.parametrize(
    "changes",
    [
        {"not_after": NOON - 86_400_000},
        {"not_before": NOON + 86_400_000},
        {"domains": ["plans"]},
    ],
)
def test_a_block_of_a_day_or_domain_outside_its_enforcers_certificate_is_unverified(changes):
    assert_kept_unverified(GOOD, trust=make_trust(certificate(**changes)))


@pytest.mark.parametrize("hour", [1, 11, 13, 23])
def test_a_new_enforcers_blocks_verify_on_its_first_day(tmp_path, hour):
    layout = Layout(tmp_path / "state")
    trust = ensure_authority(layout, DEPLOYMENT)
    began = DAY * hopblock.DAY_MS + hour * 3_600_000
    trust = ensure_enforcer(layout, trust, "bus-enforcer-1", ["notes"], began)
    signer = load_signer(layout.service("bus-enforcer-1") / "signing.key")
    entries, intervals = recorded(make_block(HOPS, 0, 3, signer=signer), trust=trust.trust())
    assert (len(entries), len(intervals)) == (3, 1)


def test_a_root_that_cannot_be_had_now_is_waited_for_and_not_taken_for_a_forgery():
    def later(_day):
        raise RetryLater("not there", code=Code.RETRY)

    with pytest.raises(RetryLater):
        record_block(GOOD, 1, 40, make_trust(), later)


def test_a_forged_block_does_not_make_the_recorder_ask_for_keys():
    def never(_day):
        raise AssertionError("asked")

    entries, _ = record_block(make_block(HOPS, 0, 3, signer=STRANGER, day=2**32 - 1), 1, 40, make_trust(), never)
    assert entries[0].index == UNVERIFIED_INDEX


def test_what_was_recorded_is_found_by_its_terms_and_opened(tmp_path):
    ledger = Ledger(tmp_path / "ledger" / "ledger.db", DEPLOYMENT)
    denied = make_hop(3, decision=Verdict.DENY, code=Code.REPLAY, agent="reader-1", domain="plans")
    record(ledger, [make_block([*HOPS, denied], 0, 4), b"a value that is no block"])
    query = LedgerQuery(ledger, keys_of)
    found = {
        "": query.search({}),
        "agent": query.search({"agent": "writer-1"}),
        "code": query.search({"code": "replay"}),
        "both": query.search({"agent": "writer-1", "code": "replay"}),
        "decision": query.search({"decision": name_of(2)}),
        "limit": query.search({"agent": "writer-1"}, 2),
        "nobody": query.search({"agent": "nobody"}),
    }
    offsets = {name: [each.hop.offset for each in hops] for name, hops in found.items()}
    assert offsets == {
        "": [0, 1, 2, 3],
        "agent": [0, 1, 2],
        "code": [3],
        "both": [],
        "decision": [2],
        "limit": [0, 1],
        "nobody": [],
    }
    assert [each.hop.offset for each in query.trace(name_of(1))] == [0, 1, 2]
    with pytest.raises(Refused, match="no decision, message or correlation 'x'"):
        query.trace("x")


def test_a_hop_block_key_is_not_the_key_of_stored_hops():
    assert AUDIT_ROOT.reveal() not in {KEYS.blocks.reveal(), KEYS.hops.reveal(), KEYS.search.reveal()}
    assert len({KEYS.blocks.reveal(), KEYS.hops.reveal(), KEYS.search.reveal()}) == 3
