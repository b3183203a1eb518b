"""What the ledger recorded since a time: newest first, no further back than needed, and keys of older days unasked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bus.codes import Code
from bus.errors import Refused
from bus.ledger.query import APART_MS, LedgerQuery
from bus.ledger.store import Ledger
from bus.wire.hop import Hop
from tests.unit.ledger_build import DAY, DEPLOYMENT, NOON, STRANGER, keys_of, make_block, make_hop, record

HOUR = 3_600_000
FACTS = {"roles": "WRITER", "tier_floor": ""}


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "ledger" / "ledger.db"


def held(path: Path, *numbers: int, partition: int = 1, **tail: Any) -> LedgerQuery:
    """A ledger of one hop a block; the hop of ``number`` was decided at NOON + number + 5."""
    ledger = Ledger(path, DEPLOYMENT)
    for number in numbers:
        record(ledger, [make_block([make_hop(number, **{"facts": FACTS, **tail})], number, number + 1)], partition)
    return LedgerQuery(ledger, keys_of)


def numbers(hops: list[Hop]) -> list[int]:
    return [hop.offset for hop in hops]


def test_hops_since_a_time_come_newest_first_over_all_partitions(path):
    held(path, 0, HOUR, 3 * HOUR)
    query = held(path, 2 * HOUR, 4 * HOUR, partition=2)
    assert numbers(query.since(0)) == [4 * HOUR, 3 * HOUR, 2 * HOUR, HOUR, 0]
    assert numbers(query.since(NOON + 2 * HOUR + 5)) == [4 * HOUR, 3 * HOUR, 2 * HOUR]
    assert numbers(query.since(NOON + 2 * HOUR + 6)) == [4 * HOUR, 3 * HOUR]
    assert numbers(query.since(NOON + 5 * HOUR)) == []
    assert numbers(LedgerQuery(Ledger(path.with_name("other"), DEPLOYMENT), keys_of).since(0)) == []


def test_an_older_hop_between_newer_ones_ends_nothing_unless_it_is_far_apart(path):
    query = held(path, 0, 2 * APART_MS, APART_MS + 10, 3 * APART_MS)
    assert numbers(query.since(NOON + 2 * APART_MS)) == [3 * APART_MS, 2 * APART_MS]
    far = held(path.with_name("far"), 2 * APART_MS, 0, 3 * APART_MS)
    assert numbers(far.since(NOON + 2 * APART_MS)) == [3 * APART_MS]


def test_more_than_a_page_is_read_and_blocks_that_did_not_verify_are_passed_over(path, monkeypatch):
    monkeypatch.setattr("bus.ledger.query.PAGE", 2)
    query = held(path, *range(5))
    record(query._ledger, [make_block([make_hop(5)], 5, 6, signer=STRANGER)])
    assert numbers(query.since(0)) == [4, 3, 2, 1, 0]


def test_days_before_the_window_are_not_opened(path):
    """Their keys may have been destroyed. The newest hop of one alone is, to see that its day was not changed."""
    asked = []

    def keys(day: int) -> Any:
        asked.append(day)
        return keys_of(day)

    query = LedgerQuery(held(path, 0, 1)._ledger, keys)
    assert numbers(query.since(NOON + 2 * 24 * HOUR)) == []
    assert asked == [DAY]
    assert numbers(query.since(NOON)) == [1, 0]
    assert set(asked) == {DAY}


def test_a_table_that_is_damaged_is_told_as_a_refusal_of_the_ledger(path):
    query = held(path, HOUR)
    query._ledger._db.connection.execute("drop table entry")
    with pytest.raises(Refused, match="the ledger cannot be used: no such table: entry") as refused:
        list(query.since(0))
    assert refused.value.code is Code.LEDGER
