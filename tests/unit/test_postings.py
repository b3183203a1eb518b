"""The search index: every leaf that a token was given for is found, and no other, in however many rows and segments."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import WireError
from bus.ledger import postings
from bus.ledger.postings import SEGMENT_BITS, leaves, place, plain_rows, single_leaves
from bus.ledger.store import Entry, Ledger
from bus.native import native
from tests.unit.ledger_build import DAY, DEPLOYMENT

ENDLESS = 2**40


def token(number: int) -> bytes:
    """Tokens of several buckets."""
    return bytes([number * 40 % 256]) + b"%015d" % number


def entries_of(*blocks: list[set[int]]) -> list[Entry]:
    """An entry for each set of token numbers, a hop block for each list."""
    return [
        Entry(DAY, offset, index, b"", bytes(32), bytes(32), tuple(token(each) for each in sorted(tokens)))
        for offset, block in enumerate(blocks)
        for index, tokens in enumerate(block)
    ]


def found(several: list[postings.Row], single: list[postings.Single], value: bytes) -> list[tuple[int, int]]:
    """(partition, leaf) that rows say of a token."""
    of_several = [
        each for _, named, first, others in several if named == value for each in leaves(first, others, ENDLESS)
    ]
    of_single = [
        each
        for _, bucket, first, tokens in single
        if bucket == postings.bucket(value)
        for each in single_leaves(first, tokens, value, ENDLESS)
    ]
    return sorted(of_several + of_single)


BLOCKS = st.lists(st.lists(st.sets(st.integers(0, 8), max_size=4), max_size=40), max_size=4)


@given(BLOCKS, st.integers(0, 300), st.integers(0, ENDLESS - 200))
def test_rows_say_the_leaves_of_every_token_once_and_no_others(blocks, partition, leaf):
    entries = entries_of(*blocks)
    several, single = plain_rows(entries, partition, leaf)
    for value in map(token, range(9)):
        expected = [(partition, leaf + at) for at, each in enumerate(entries) if value in each.tokens]
        assert found(several, single, value) == expected
    assert all(segment == first >> SEGMENT_BITS for segment, _, first, _ in [*several, *single])
    counts = [Counter(each for tokens in block for each in tokens) for block in blocks]
    assert len(several) == sum(count > 1 for each in counts for count in each.values())
    assert sum(len(tokens) for *_, tokens in single) == 18 * sum(
        count == 1 for each in counts for count in each.values()
    )


@given(BLOCKS, st.integers(0, 300), st.integers(0, ENDLESS - 200), st.sampled_from([3, postings.MAX_BLOCK]))
def test_compiled_rows_are_the_plain_ones(blocks, partition, leaf, longest):
    if native is None and "CI" not in os.environ:
        pytest.skip("sealbus-native is not installed: no Rust compiler when the environment was made")
    assert native is not None, "the compiled steps were not built"
    entries = entries_of(*blocks)
    twice = [each._replace(tokens=each.tokens + each.tokens[:1]) for each in entries]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postings, "MAX_BLOCK", longest)
        for some in (entries, twice):
            assert postings.rows(some, partition, leaf) == plain_rows(some, partition, leaf)


@pytest.mark.parametrize("plain", [True, False])
def test_a_token_of_another_length_is_refused(monkeypatch, plain):
    if plain:
        monkeypatch.setattr(postings, "native", None)
    entry = entries_of([{1}])[0]
    for wrong in (b"", bytes(15), bytes(17)):
        with pytest.raises(ValueError, match="expected 16 bytes"):
            postings.rows([entry._replace(tokens=(wrong,))], 0, 0)


def test_tokens_take_few_rows():
    several, single = plain_rows(entries_of([{0, number + 1} for number in range(1000)]), 0, 0)
    assert [(named, len(others)) for _, named, _, others in several] == [(token(0), 2)]
    assert len(single) <= 64
    assert sum(len(tokens) for *_, tokens in single) == 18 * 1000


def test_leaves_beyond_a_uint16_begin_rows_of_their_own(monkeypatch):
    monkeypatch.setattr(postings, "MAX_BLOCK", 4)
    several, single = plain_rows(entries_of([{number, 99} for number in range(9)]), 2, 5)
    assert [first & 0xFFFF for _, _, first, _ in several] == [5, 9]
    assert [found(several, single, token(number)) for number in range(9)] == [[(2, 5 + number)] for number in range(9)]
    assert found(several, single, token(99)) == [(2, leaf) for leaf in range(5, 14)]


def test_a_single_token_is_found_by_whole_rows_and_not_across_them():
    value = bytes(range(1, 17))
    tokens = b"x" * 7 + value + b"y" * 13 + value + b"\0\3"
    assert tokens.find(value) == 7
    assert list(single_leaves(place(1, 10), tokens, value, ENDLESS)) == [(1, 13)]
    assert list(single_leaves(place(1, 10), tokens, value, 13)) == []


@pytest.mark.parametrize("others", [b"\x02\x00", b"\x01", b"\x80", b"\x02\x00\x80\x00", b"\xff" * 6])
def test_a_row_that_no_recorder_writes_is_refused(others):
    with pytest.raises(WireError):
        list(leaves(place(1, 5), others, 100))


def test_no_leaf_is_found_beyond_the_tree():
    everything = b"\xfe\xff\xff\xff\x0f"
    assert list(leaves(place(1, 5), everything, 8)) == [(1, 5), (1, 6), (1, 7)]
    assert list(leaves(place(1, 9), everything, 8)) == []


@pytest.mark.parametrize("plain", [True, False])
def test_a_token_is_found_in_every_segment_and_partition(tmp_path, monkeypatch, plain):
    if plain:
        monkeypatch.setattr(postings, "native", None)
    ledger = Ledger(tmp_path / "ledger" / "ledger.db", DEPLOYMENT)
    width, total = 2**SEGMENT_BITS, 2 * 2**SEGMENT_BITS + 10
    rare = {0: {7}, width - 1: {7}, width: {7, 8}, total - 1: {7}}
    for partition in (0, 300):
        block = entries_of([rare.get(number, set()) | {9} for number in range(total)])
        ledger.append(partition, 0, 1, block, [])
        ledger.append(partition, 1, 2, [each._replace(offset=1) for each in block[:3]], [])
    ledger.append(1, 0, 1, [], [])
    expected = [0, width - 1, width, total - 1, total]
    assert ledger.find([token(7)]) == [(partition, leaf) for partition in (0, 300) for leaf in expected]
    assert ledger.find([token(8), token(6)]) == [(partition, width) for partition in (0, 300)]
    assert len(ledger.find([token(9)])) == 2 * (total + 3)
