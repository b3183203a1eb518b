"""Every reader of bytes from outside, under damage that knows the format: it reads, or refuses with a registered code.

The same mutations as in the long form (`python -m tests.fuzz`), drawn by hypothesis so that what fails is made small.
Time and memory are the long form's: here nothing is timed.
"""

from __future__ import annotations

import struct
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bus.errors import Refused
from tests.fuzz.bulk import LARGE, bulk
from tests.fuzz.mutate import edited, mutated
from tests.fuzz.target import Fault, Target
from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import Tally, judge

quick = settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)


@pytest.mark.parametrize("name", TARGETS)
@quick
@given(st.randoms(use_true_random=False))
def test_a_damaged_sample_is_read_or_refused_and_nothing_else_happens(name: str, random: Random) -> None:
    target = TARGETS[name]
    target.check(mutated(random, target.samples(), target.tokens, target.limit))


@pytest.mark.parametrize("name", TARGETS)
@quick
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_and_nothing_else_happens(name: str, data: bytes) -> None:
    TARGETS[name].check(data)


@pytest.mark.parametrize("name", LARGE)
def test_large_inputs_are_read_or_refused_and_nothing_else_happens(name: str) -> None:
    for data in bulk(name):
        TARGETS[name].check(data)


# What the fuzzer itself finds: a test of a property that no input could break would say nothing.
def read_number(data: bytes) -> int:
    """A reader with three faults: short input, 7, and bytes after the number."""
    number = struct.unpack(">H", data[:2])[0]
    if number > 1000:
        raise Refused("too large")
    return 1 // (number - 7)


FAULTY = Target("faulty", read_number, (b"\x00\x01",), lambda _number: b"\x00\x01", limit=8)


@pytest.mark.parametrize(
    ("data", "fault"),
    [(b"\x00", struct.error), (b"\x00\x07", ZeroDivisionError), (b"\x00\x01\x00", Fault), (b"\x00\x08", None)],
)
def test_a_reader_at_fault_is_found_out(data: bytes, fault: type[Exception] | None) -> None:
    if fault is None:
        with pytest.raises(Fault, match="not what the writer writes"):
            FAULTY.check(data)
    else:
        with pytest.raises(fault):
            FAULTY.check(data)
    assert FAULTY.check(b"\x00\x01") is True
    assert FAULTY.check(b"\xff\xff") is False


def test_what_is_believed_without_a_signature_is_found_out() -> None:
    target = Target("credulous", len, (b"signed",), believe=len)
    assert target.check(b"signed") is True
    with pytest.raises(Fault, match="nobody sealed or signed it"):
        target.check(b"forged")


def test_mutation_finds_each_fault_of_a_faulty_reader_and_the_shortest_input_is_kept() -> None:
    tally, random = Tally("faulty"), Random(1)
    for _ in range(3000):
        judge(FAULTY, mutated(random, FAULTY.seeds, (), FAULTY.limit), tally)
    kinds = {told.split(" ")[0]: data for told, data in tally.faults.items()}
    assert kinds.keys() == {"error", "ZeroDivisionError", "Fault"}
    assert (kinds["error"], kinds["ZeroDivisionError"]) == (b"", b"\x00\x07")
    assert (tally.inputs, tally.accepted > 0, tally.refused > 0) == (3000, True, True)


def test_the_same_seed_mutates_the_same_way_and_within_the_limit() -> None:
    for name in ("sealed", "mesh"):
        target = TARGETS[name]
        first, again = (
            [edited(random, target.seeds[0], target.seeds, target.tokens, target.limit) for _ in range(200)]
            for random in (Random("1"), Random("1"))
        )
        assert first == again
        assert len(set(first)) > 150
        assert max(map(len, first)) <= target.limit
