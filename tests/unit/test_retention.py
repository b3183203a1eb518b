"""Retention: segments go whole, with what finds them; checkpoints, exports, earlier proofs hold; what is held stays."""

from __future__ import annotations

import hashlib
import shutil
import sqlite3
from pathlib import Path

import pytest

from bus.codes import Code
from bus.crypto.keys import Secret
from bus.errors import PolicyError, Refused, Unverified
from bus.ledger.export import export, verify_export
from bus.ledger.leaf import day_keys
from bus.ledger.payloads import Lost, Payload, Wanted
from bus.ledger.proof import verify_proof
from bus.ledger.query import LedgerQuery
from bus.ledger.retention import Due, due, nothing, open_retired, retire
from bus.ledger.segments import SEGMENT
from bus.ledger.store import Append, Ledger
from bus.ledger.verify import verify_ledger
from bus.policy.holdfile import read_holds
from bus.wire.hop import Verdict
from bus.wire.hopblock import DAY_MS
from tests.unit.ledger_build import (
    DAY,
    DEPLOYMENT,
    KEYS,
    LEDGER_SIGNER,
    NOON,
    STRANGER,
    keys_of,
    make_block,
    make_hop,
    name_of,
    record,
)

KEY = LEDGER_SIGNER.public_key
TOTAL = 2 * SEGMENT + 700
BLOCK = 500
"""No divisor of a segment: one block begins in each and ends in the next."""


def agent(number: int) -> str:
    return "writer-1" if number % 2 else "writer-2"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "ledger.db"
    ledger = Ledger(path, DEPLOYMENT)
    for first in range(0, TOTAL, BLOCK):
        numbers = range(first, min(first + BLOCK, TOTAL))
        hops = [make_hop(each, agent=agent(each), correlation=f"s-{each // 1000}") for each in numbers]
        record(ledger, [make_block(hops, numbers[0], numbers[-1] + 1)])
        if first % (8 * BLOCK) == 0:
            ledger.sign(1, LEDGER_SIGNER)
    ledger.sign(1, LEDGER_SIGNER)
    ledger.close()
    return path


@pytest.fixture
def ledger(whole, tmp_path) -> Ledger:
    shutil.copy(whole, tmp_path / "ledger.db")
    return Ledger(tmp_path / "ledger.db", DEPLOYMENT)


LATER = (DAY + 1) * DAY_MS


def execute(ledger: Ledger, statement: str) -> None:
    with sqlite3.connect(ledger._db.name) as db:
        db.execute(statement)


def found(ledger: Ledger, **terms: str) -> list[int]:
    return [each.leaf for each in LedgerQuery(ledger, keys_of).search(terms)]


def take(ledger: Ledger, *segments: int) -> None:
    for segment in segments:
        retire(ledger, LedgerQuery(ledger, keys_of), Due(1, segment), LEDGER_SIGNER, NOON)


def test_what_is_old_goes_and_all_that_is_signed_holds(ledger, tmp_path):
    query = LedgerQuery(ledger, keys_of)
    before, proof = verify_ledger(ledger, KEY), query.prove(name_of(7))
    newest = found(ledger, agent="writer-2")
    told = list(due(ledger, query, LATER, nothing))
    assert [(each.partition, each.segment, each.held) for each in told] == [(1, 0, ""), (1, 1, "")]
    assert list(due(ledger, query, DAY * DAY_MS, nothing)) == []
    for each in told:
        retire(ledger, query, each, LEDGER_SIGNER, NOON)
    after = verify_ledger(ledger, KEY)
    assert (after.problems, after.retired, after.leaves) == ([], 2 * SEGMENT, TOTAL)
    assert after.checkpoints == before.checkpoints
    verify_proof(proof, KEY)
    with pytest.raises(Refused, match="no decision"):
        query.prove(name_of(7))
    assert found(ledger, agent="writer-2") == [leaf for leaf in newest if leaf >= 2 * SEGMENT]
    export(ledger, tmp_path / "out", LEDGER_SIGNER, NOON)
    report = verify_export(tmp_path / "out", KEY)
    assert (report.problems, report.retired) == ([], 2 * SEGMENT)
    record(ledger, [make_block([make_hop(TOTAL)], TOTAL, TOTAL + 1)])
    ledger.sign(1, LEDGER_SIGNER)
    assert verify_ledger(ledger, KEY).problems == []
    assert query.prove(name_of(TOTAL)).leaf == TOTAL


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_search_rows_of_a_block_over_the_edge_go_with_its_last_segment(ledger, order):
    edge = f"s-{(SEGMENT + 100) // 1000}"
    whole = found(ledger, correlation=edge)
    assert whole[0] < SEGMENT <= whole[-1]
    take(ledger, order[0])
    left = [leaf for leaf in whole if leaf // SEGMENT != order[0]]
    assert found(ledger, correlation=edge) == left
    assert [each for each in (SEGMENT - 1, SEGMENT) if found(ledger, decision=name_of(each))] == [
        each for each in (SEGMENT - 1, SEGMENT) if each // SEGMENT != order[0]
    ]
    take(ledger, order[1])
    assert found(ledger, correlation=edge) == []
    with sqlite3.connect(ledger._db.name) as db:
        for table in ("posting", "single"):
            rows = db.execute(f"select min(place) from {table}").fetchone()
            assert rows[0] & (1 << 40) - 1 >= 2 * SEGMENT - BLOCK


def test_a_segment_that_is_gone_without_a_note_is_missed(ledger):
    take(ledger, 0)
    execute(ledger, "delete from retired")
    problems = verify_ledger(ledger, KEY).problems
    assert f"partition 1: leaf {SEGMENT} does not match" in problems


@pytest.mark.parametrize(
    "statement",
    [
        "update retired set note = replace(note, '0', '1')",
        "update tile set hashes = zeroblob(length(hashes)) where level = 0 and number = 3",
        "update retired set segment = 1",
    ],
)
def test_a_note_that_does_not_hold_or_other_leaves_below_it_are_named(ledger, statement):
    take(ledger, 0)
    execute(ledger, statement)
    assert verify_ledger(ledger, KEY).problems


def test_a_note_of_another_log_segment_or_key_is_refused(ledger):
    take(ledger, 0)
    note = ledger.retired(1)[0]
    assert open_retired(note, DEPLOYMENT, 1, 0, KEY) == ledger.tree(1).subtree(14, 0)
    for arguments in ((DEPLOYMENT, 2, 0, KEY), (DEPLOYMENT, 1, 1, KEY), (bytes(16), 1, 0, KEY)):
        with pytest.raises(Unverified, match="retention"):
            open_retired(note, *arguments)
    with pytest.raises(Unverified, match="no signature by this key"):
        open_retired(note, DEPLOYMENT, 1, 0, STRANGER.public_key)


def test_a_segment_that_is_not_signed_or_was_taken_is_not_taken(ledger):
    with pytest.raises(Unverified, match="not under a checkpoint"):
        take(ledger, 2)
    take(ledger, 0)
    with pytest.raises(Refused):
        take(ledger, 0)


def test_what_is_held_stays_whole(ledger):
    held = list(due(ledger, LedgerQuery(ledger, keys_of), LATER, lambda hop: "case" * (hop.offset == 5)))
    assert [each.held for each in held] == ["case", ""]


def test_days_whose_keys_are_gone_stay_unless_that_is_asked_for(ledger):
    def gone(day):
        raise FileNotFoundError(day)

    def denied(day):
        raise PermissionError(day)

    query = LedgerQuery(ledger, gone)
    assert [each.held for each in due(ledger, query, LATER, nothing)] == [f"the keys of day {DAY} are gone"] * 2
    assert [each.held for each in due(ledger, query, LATER, nothing, unreadable=True)] == ["", ""]
    with pytest.raises(PermissionError):  # what may mend is no reason
        list(due(ledger, LedgerQuery(ledger, denied), LATER, nothing))


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("update entry set day = 1 where leaf = 7", "leaf 7 does not open"),
        ("update entry set day = 1", "the keys of day 1 are gone"),
        ("delete from entry where leaf = 7", "1 of its hops are missing"),
        ("update entry set hop = 4294967295 where leaf = 7", "a hop block in it did not verify"),
    ],
)
def test_what_was_changed_is_not_taken_and_not_signed_for(ledger, statement, why):
    def keys(day):
        if day == DAY:
            return KEYS
        if statement.endswith("day = 1"):
            raise FileNotFoundError(day)
        return day_keys(day, Secret(bytes([11]) * 32, "another day's"))

    execute(ledger, statement)
    first = next(due(ledger, LedgerQuery(ledger, keys), LATER, nothing))
    assert first.held == why
    if "day" not in statement:
        with pytest.raises(Unverified, match="leaf 7"):
            take(ledger, 0)
    if not statement.endswith("day = 1"):  # all of them: that is seen with keys alone
        assert verify_ledger(ledger, KEY).problems


def test_a_fresh_segment_under_an_old_day_is_not_taken(ledger):
    """Somebody with the database and no key makes it look old: its hops say when they were decided."""
    execute(ledger, f"update entry set day = {DAY - 400}")
    query = LedgerQuery(ledger, lambda _: KEYS)
    told = list(due(ledger, query, (DAY - 300) * DAY_MS, nothing))
    assert [each.held for each in told] == [
        "leaf 0 is newer than its day says",
        f"leaf {SEGMENT} is newer than its day says",
    ]


def test_kept_records_go_with_their_hops_but_for_those_that_others_name(ledger):
    query = LedgerQuery(ledger, keys_of)
    record(ledger, [make_block([make_hop(5, decision=Verdict.DENY, code=Code.REPLAY)], 5, 6)])  # sent again
    ledger.sign(1, LEDGER_SIGNER)
    each = next(due(ledger, query, LATER, nothing))
    digests = {number: hashlib.sha256(b"record %d" % number).digest() for number in (5, 6, 7)}
    assert set(digests.values()) <= each.digests
    wanted = {number: Wanted("notes.in", 0, number, digest, 3) for number, digest in digests.items()}
    other = Wanted("notes.in", 0, 2, b"o" * 32, 3)
    ledger.append_all([Append(2, 0, 1, [], [], [*wanted.values(), other])])
    ledger.keep([(wanted[5], b"abc"), (wanted[6], b"abc"), (other, b"def")], [])
    retire(ledger, query, each, LEDGER_SIGNER, NOON)
    assert ledger.payload(digests[6]) == Payload(None, Lost.RETIRED.value)
    assert ledger.payload(digests[5]) == Payload(b"abc", "")
    assert ledger.payload(other.digest) == Payload(b"def", "")
    assert ledger.wanted() == []


def test_holds_are_read_with_their_days(tmp_path):
    assert read_holds(tmp_path) == []
    with pytest.raises(PolicyError, match="expected the folder of the policy"):
        read_holds(tmp_path / "nowhere")
    (tmp_path / "holds.yaml").write_text(
        "holds:\n  - {name: case-7, reason: litigation, domain: notes, since: 2025-08-01, until: 2025-08-02}\n"
    )
    (hold,) = read_holds(tmp_path)
    day = hold.since * 86_400_000
    asked = {"agent": "a", "correlation": "", "person": ""}
    assert hold.covers(domain="notes", at_ms=day, **asked)
    assert hold.covers(domain="notes", at_ms=day + 2 * 86_400_000 - 1, **asked)
    assert not hold.covers(domain="notes", at_ms=day + 2 * 86_400_000, **asked)
    assert not hold.covers(domain="notes", at_ms=day - 1, **asked)
    assert not hold.covers(domain="plans", at_ms=day, **asked)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("holds:\n  - name: c\n", "holds.yaml:2"),
        ("holds:\n  - name: c\n    reason: r\n    since: soon\n", "expected a day, as in"),
        ("holds:\n  - name: c\n    reason: r\n    agnet: x\n", "holds.yaml:4"),
        ("holds:\n  - {name: c, reason: r, since: 2026-06-30, until: 2026-01-01}\n", "expected since before until"),
    ],
)
def test_a_hold_that_is_none_is_refused_with_its_place(tmp_path, text, expected):
    (tmp_path / "holds.yaml").write_text(text)
    with pytest.raises(PolicyError) as refused:
        read_holds(tmp_path)
    assert expected in str(refused.value)
