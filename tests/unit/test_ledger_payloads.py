"""Records kept with their hops: once each, named where they are lost, proven by their hop; an older ledger has none."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sqlite3
from pathlib import Path

import pytest

from bus.errors import Refused, RetryLater, Unverified
from bus.ledger import payloads
from bus.ledger.payloads import Lost, Wanted
from bus.ledger.proof import parse_proof, verify_proof
from bus.ledger.query import LedgerQuery
from bus.ledger.store import Append, Ledger
from bus.ledger.verify import Report, verify_ledger
from tests.unit.ledger_build import DEPLOYMENT, INPUT, LEDGER_SIGNER, keys_of, make_ledger, name_of

RECORDS = [b"record %d" % number for number in range(12)]


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "ledger" / "ledger.db"


def wanted(number: int, *, offset: int | None = None, size: int = 100) -> Wanted:
    """The record whose hop is ``make_hop(number)``."""
    digest = hashlib.sha256(RECORDS[number]).digest()
    return Wanted(INPUT, 0, number if offset is None else offset, digest, size)


def want(ledger: Ledger, *records: Wanted) -> None:
    """Record that these are wanted, as the recorder does with hops."""
    _, position = ledger.state(1)
    ledger.append_all([Append(1, position, position + 1, [], [], records)])


def keeping(path: Path, *numbers: int) -> Ledger:
    """A ledger of 12 hops in which the records of ``numbers`` are kept."""
    ledger = make_ledger(path)
    records = [wanted(number) for number in numbers]
    want(ledger, *records)
    ledger.keep([(each, RECORDS[each.offset]) for each in records], [])
    return ledger


def test_what_is_wanted_is_given_out_by_place_until_it_is_settled(path):
    ledger = make_ledger(path)
    want(ledger, wanted(2), wanted(0))
    assert ledger.wanted() == [wanted(0), wanted(2)]
    ledger.keep([(wanted(0), RECORDS[0])], [])
    assert (ledger.wanted(), ledger.waiting()) == ([wanted(2)], 1)
    ledger.close()
    again = Ledger(path, DEPLOYMENT)
    assert again.wanted() == [wanted(2)]
    again.keep([], [(wanted(2), Lost.DELETED)])
    assert (again.wanted(), again.waiting()) == ([], 0)


def test_a_batch_is_bounded_by_bytes_and_by_number_and_never_empty(path, monkeypatch):
    ledger = make_ledger(path)
    want(ledger, *(wanted(number, size=400) for number in range(4)))
    monkeypatch.setattr(payloads, "MAX_TAKEN_BYTES", 1000)
    assert len(ledger.wanted()) == 2
    monkeypatch.setattr(payloads, "MAX_TAKEN_BYTES", 10)
    assert len(ledger.wanted()) == 1
    monkeypatch.setattr(payloads, "MAX_TAKEN_BYTES", 10_000)
    monkeypatch.setattr(payloads, "MAX_TAKEN", 3)
    assert len(ledger.wanted()) == 3


def test_places_that_are_skipped_keep_none_of_the_others_waiting(path, monkeypatch):
    ledger = make_ledger(path)
    places = [("a.in", 0), ("a.in", 3), ("b.in", 1)]
    records = [Wanted(*place, offset, bytes([offset]) * 32, 10) for place in places for offset in range(3)]
    want(ledger, *records)
    assert ledger.wanted() == records
    assert ledger.wanted({places[0]}) == records[3:]
    assert ledger.wanted({places[1]}) == records[:3] + records[6:]
    assert ledger.wanted(places) == []
    monkeypatch.setattr(payloads, "MAX_TAKEN", 4)
    assert ledger.wanted({places[0]}) == records[3:7]


def test_a_record_that_was_sent_again_is_kept_once_and_not_fetched_twice(path):
    ledger = keeping(path, 1)
    want(ledger, wanted(1, offset=50), wanted(3))
    assert ledger.wanted() == [wanted(3)]


def test_a_later_copy_takes_the_place_of_what_was_lost_and_never_the_other_way(path):
    ledger = make_ledger(path)
    want(ledger, wanted(1), wanted(1, offset=50))
    ledger.keep([], [(wanted(1), Lost.DELETED)])
    ledger.keep([(wanted(1, offset=50), RECORDS[1])], [])
    digest = wanted(1).digest
    assert ledger.payload(digest).sealed == RECORDS[1]
    ledger.keep([], [(wanted(1), Lost.CHANGED)])
    assert (ledger.payload(digest).sealed, ledger.payload(digest).lost) == (RECORDS[1], "")


def test_a_batch_that_fails_leaves_nothing_wanted(path):
    ledger = make_ledger(path)
    _, position = ledger.state(1)
    with pytest.raises(Refused, match="expected position"):
        ledger.append_all([Append(1, position + 1, position + 2, [], [], (wanted(0),))])
    assert ledger.wanted() == []


def test_a_query_gives_the_record_or_says_why_not(path):
    ledger = keeping(path, 0)
    want(ledger, wanted(1), wanted(2))
    ledger.keep([], [(wanted(1), Lost.DELETED)])
    query = LedgerQuery(ledger, keys_of)
    hop = [query.decided(name_of(number)).hop for number in range(4)]
    assert query.payload(hop[0]) == RECORDS[0]
    with pytest.raises(Refused, match="is not kept: deleted from the topic before it was kept"):
        query.payload(hop[1])
    with pytest.raises(RetryLater, match="is not kept yet"):
        query.payload(hop[2])
    with pytest.raises(Refused, match="was not to be kept"):
        query.payload(hop[3])


def test_a_proof_with_the_record_is_verified_with_no_database(path):
    query = LedgerQuery(keeping(path, 5), keys_of)
    proof = parse_proof(query.prove(name_of(5), payload=True).to_json())
    assert proof.payload == RECORDS[5]
    hop, _ = verify_proof(proof, LEDGER_SIGNER.public_key)
    assert hop.decision_id == name_of(5)
    for other in (RECORDS[4], RECORDS[5] + b"\0", b""):
        with pytest.raises(Unverified) as refused:
            verify_proof(dataclasses.replace(proof, payload=other), LEDGER_SIGNER.public_key)
        assert refused.value.step == "payload"
    without = query.prove(name_of(5))
    assert "payload" not in json.loads(without.to_json())
    verify_proof(parse_proof(without.to_json()), LEDGER_SIGNER.public_key)
    with pytest.raises(Refused, match="was not to be kept"):
        query.prove(name_of(6), payload=True)


def test_verification_counts_what_is_kept_and_lost_and_finds_other_bytes(path):
    ledger = keeping(path, 0, 1)
    want(ledger, wanted(2))
    ledger.keep([], [(wanted(2), Lost.DELETED)])
    report = verify_ledger(ledger, LEDGER_SIGNER.public_key)
    assert (report.payloads, report.lost, report.problems) == (2, 1, [])
    db = sqlite3.connect(path)
    with db:
        db.execute("update payload set sealed = ? where digest = ?", (RECORDS[3], wanted(1).digest))
    db.close()
    report = verify_ledger(ledger, LEDGER_SIGNER.public_key)
    assert report.problems == [f"payload {wanted(1).digest.hex()}: other bytes are kept"]
    query = LedgerQuery(ledger, keys_of)
    with pytest.raises(Unverified, match="other bytes are kept"):
        query.payload(query.decided(name_of(1)).hop)


def test_a_ledger_of_an_earlier_release_has_none_until_the_recorder_opens_it(path):
    make_ledger(path).close()
    db = sqlite3.connect(path)
    db.execute("drop table payload")
    db.execute("drop table wanted")
    db.close()
    older = Ledger(path, DEPLOYMENT, read_only=True)
    assert verify_ledger(older, LEDGER_SIGNER.public_key) == Report(
        leaves=12, checkpoints=4, intervals=4, sizes={1: 12}
    )
    query = LedgerQuery(older, keys_of)
    with pytest.raises(Refused, match="was not to be kept"):
        query.payload(query.decided(name_of(0)).hop)
    assert Ledger(path, DEPLOYMENT).wanted() == []
