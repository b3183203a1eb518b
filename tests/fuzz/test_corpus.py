"""The kept inputs: those that reach every line that fuzzing reached, and those that once broke a reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.keep import shrunk, smallest
from tests.fuzz.target import CORPUS, CRASH, Target, signature
from tests.fuzz.targets import TARGETS

CRASHES = [
    pytest.param(target, path, id=f"{name}/{path.name}")
    for name, target in TARGETS.items()
    for path in target.corpus()
    if path.name.startswith(CRASH)
]


@pytest.mark.parametrize("name", TARGETS)
def test_kept_inputs_are_read_or_refused_and_there_are_both(name: str) -> None:
    target = TARGETS[name]
    outcomes = {target.check(data) for data in target.samples()}
    # Metadata of a committed offset that somebody else wrote means the beginning.
    assert outcomes == {True, False} or (name == "place" and True in outcomes)


@pytest.mark.parametrize(("target", "path"), CRASHES)
def test_an_input_that_broke_a_reader_breaks_it_no_more(target: Target, path: Path) -> None:
    target.check(path.read_bytes())


def test_the_corpus_is_small_and_each_folder_is_a_targets() -> None:
    assert {each.name for each in CORPUS.iterdir()} <= set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 300_000


def parse(data: bytes) -> None:
    """Whether a decision id is one, by the product's own lines."""
    TARGETS["decision_id"].parse(data)


def test_of_inputs_that_reach_the_same_lines_the_shortest_is_kept() -> None:
    target = Target("again", parse, (b"aaaaaaaaaaaaaaaa",))
    reached: set = set()
    assert smallest(target, [b"b" * 16, b"a" * 16], reached) == [b"a" * 16]
    assert smallest(target, [b"c" * 16, b"1" * 16, b"11"], reached) == [b"11"]


def test_an_input_at_fault_is_cut_down_to_what_makes_it_so() -> None:
    def read(data: bytes) -> None:
        if b"!" in data:
            raise KeyError

    target = Target("shouting", read, (b"",))
    with pytest.raises(KeyError) as raised:
        target.check(b"some text! and more")
    assert shrunk(target, b"some text! and more", signature(raised.value)) == b"!"
