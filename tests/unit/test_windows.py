"""Replay windows against a model: a plain set of all that was accepted, and the rule for what is too old to know.

The state machine also writes deltas and snapshots as signed bytes and restores from them, as an enforcer does after an
abort; whatever it does, no sequence is accepted twice.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bus.codes import Code
from bus.errors import RetryLater
from bus.kafka import windows
from bus.kafka.windows import MAX_INSTANCES, REPLAY, TOO_MANY, WIDTH, PartitionWindows, restored
from bus.wire.records import MAX_WINDOW, MAX_WINDOW_ENTRIES, Window, WindowEntry, parse_window

ENFORCER = b"e" * 16
SEQUENCES = st.one_of(st.integers(0, 3000), st.integers(2**32 - 2, 2**32 + 2), st.integers(2**64 - 3000, 2**64 - 1))
STEPS = st.one_of(st.integers(-3, 3), st.integers(-1030, -1018), st.integers(1018, 1030), st.integers(-1200, 5000))


def name(agent: int = 0, instance: int = 0) -> bytes:
    return bytes([agent]) * 16 + instance.to_bytes(16, "big")


def on_the_wire(records: list[Window]) -> list[Window]:
    """The records as another enforcer reads them."""
    return [parse_window(each.encode_unsigned() + bytes(64)) for each in records]


class Model:
    """All that was accepted of each instance, with nothing forgotten."""

    def __init__(self) -> None:
        self.seen: dict[bytes, set[int]] = {}

    def accept(self, instance: bytes, sequence: int) -> int:
        seen = self.seen.get(instance)
        if seen is None:
            if sum(each[:16] == instance[:16] for each in self.seen) >= MAX_INSTANCES:
                return TOO_MANY
            self.seen[instance] = {sequence}
            return sequence
        highest = max(seen)
        if sequence in seen or sequence <= highest - WIDTH:
            return REPLAY
        seen.add(sequence)
        return max(sequence - highest - 1, 0)


class WindowMachine(RuleBasedStateMachine):
    """Records come, transactions commit or abort; a commit's windows are what a restart finds."""

    @initialize(parts=st.sampled_from([1, 2, 4000]))
    def begin(self, parts: int) -> None:
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(windows, "MAX_WINDOW_ENTRIES", parts)
        self.windows, self.model, self.log, self.offset = PartitionWindows(), Model(), [], 0
        self.committed = (0, {})

    def teardown(self) -> None:
        if hasattr(self, "patch"):
            self.patch.undo()

    @rule(agent=st.integers(0, 1), instance=st.integers(0, 3), sequence=SEQUENCES)
    def a_record_of_any_sequence(self, agent: int, instance: int, sequence: int) -> None:
        self.take(name(agent, instance), sequence)

    @precondition(lambda self: self.model.seen)
    @rule(which=st.integers(0, 99), step=STEPS)
    def a_record_near_the_highest(self, which: int, step: int) -> None:
        instance = sorted(self.model.seen)[which % len(self.model.seen)]
        sequence = max(self.model.seen[instance]) + step
        if 0 <= sequence < 2**64:
            self.take(instance, sequence)

    @precondition(lambda self: self.model.seen)
    @rule(which=st.integers(0, 99), past=st.integers(0, 99))
    def a_record_that_was_accepted_before(self, which: int, past: int) -> None:
        instance = sorted(self.model.seen)[which % len(self.model.seen)]
        seen = sorted(self.model.seen[instance])
        assert self.windows.accept(instance, seen[past % len(seen)]) == REPLAY

    def take(self, instance: bytes, sequence: int) -> None:
        assert self.windows.accept(instance, sequence) == self.model.accept(instance, sequence)
        self.offset += 1
        self.windows.highest_time += 7

    @rule(snapshot=st.booleans())
    def commit(self, snapshot: bool) -> None:
        write = self.windows.snapshot if snapshot else self.windows.take_delta
        made = on_the_wire(write(ENFORCER, self.offset))
        assert [(each.part, each.parts) for each in made] == [(part, len(made)) for part in range(len(made))]
        assert {(each.upto, each.snapshot) for each in made} == {(self.offset, snapshot)}
        self.log.extend(made)
        self.committed = (self.offset, {each: set(seen) for each, seen in self.model.seen.items()})

    @precondition(lambda self: self.log)
    @rule(from_snapshot=st.booleans())
    def abort(self, from_snapshot: bool) -> None:
        """What was staged is void; a reader starts at the topic's beginning or at the last snapshot."""
        self.offset, seen = self.committed
        starts = [place for place, each in enumerate(self.log) if each.snapshot and each.part == 0]
        self.windows = restored(self.log[starts[-1] if from_snapshot and starts else 0 :], self.offset)
        self.model.seen = {each: set(accepted) for each, accepted in seen.items()}
        assert self.windows.highest_time == self.log[-1].highest_time

    @invariant()
    def as_many_windows_as_instances(self) -> None:
        if hasattr(self, "windows"):
            assert len(self.windows) == len(self.model.seen)


TestWindowMachine = WindowMachine.TestCase
TestWindowMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(st.lists(st.integers(0, WIDTH - 1), unique=True, max_size=60))
def test_within_its_width_every_sequence_is_accepted_once_in_any_order(order):
    held = PartitionWindows()
    for sequence in order:
        assert held.accept(name(), sequence) >= 0
    assert [held.accept(name(), each) for each in order] == [REPLAY] * len(order)
    left = set(range(WIDTH)) - set(order)
    assert all(held.accept(name(), each) >= 0 for each in left)


@pytest.mark.parametrize(("behind", "expected"), [(1, 0), (WIDTH - 1, 0), (WIDTH, REPLAY), (WIDTH + 1, REPLAY)])
def test_a_sequence_is_known_for_the_width_of_the_window_and_refused_beyond(behind, expected):
    held = PartitionWindows()
    held.accept(name(), 5000)
    assert held.accept(name(), 5000 - behind) == expected


@pytest.mark.parametrize(
    ("sequences", "gaps"),
    [
        ([0, 1, 2], [0, 0, 0]),
        ([5], [5]),
        ([0, 3, 1, 2, 4], [0, 2, 0, 0, 0]),
        ([0, 2000, 2001], [0, 1999, 0]),
        ([0, WIDTH, WIDTH + 1], [0, WIDTH - 1, 0]),
        ([2**64 - 1], [2**64 - 1]),
    ],
)
def test_a_gap_is_what_was_skipped_just_before(sequences, gaps):
    held = PartitionWindows()
    assert [held.accept(name(), each) for each in sequences] == gaps


def test_a_jump_beyond_the_width_forgets_no_replay():
    held = PartitionWindows()
    for sequence in (0, 1, 1 + WIDTH, 1 + 5 * WIDTH):
        held.accept(name(), sequence)
    assert [held.accept(name(), each) for each in (0, 1, 1 + WIDTH, 1 + 5 * WIDTH)] == [REPLAY] * 4
    assert held.accept(name(), 5 * WIDTH) == 0


def test_an_agent_has_at_most_64_instances_and_others_have_theirs():
    held = PartitionWindows()
    assert [held.accept(name(0, each), 0) for each in range(MAX_INSTANCES + 2)] == [0] * MAX_INSTANCES + [TOO_MANY] * 2
    assert len(held) == MAX_INSTANCES, "a refused instance leaves nothing behind"
    assert held.accept(name(0, 3), 1) == 0
    assert held.accept(name(1, 0), 0) == 0


def test_the_limit_of_instances_outlives_a_restart():
    held = PartitionWindows()
    for each in range(MAX_INSTANCES):
        held.accept(name(0, each), 0)
    again = restored(on_the_wire([*held.take_delta(ENFORCER, 64), *held.snapshot(ENFORCER, 64)]), 64)
    assert again.accept(name(0, MAX_INSTANCES), 0) == TOO_MANY
    assert again.accept(name(1, 0), 0) == 0


def test_a_partition_holds_a_bounded_number_of_windows(monkeypatch):
    monkeypatch.setattr(windows, "MAX_WINDOWS", 3)
    held = PartitionWindows()
    assert [held.accept(name(agent), 0) for agent in range(4)] == [0, 0, 0, TOO_MANY]
    assert held.accept(name(1), 1) == 0


def test_windows_of_ended_keys_are_dropped_with_their_count():
    held = PartitionWindows()
    for each in range(MAX_INSTANCES):
        held.accept(name(0, each), 0)
    held.accept(name(1), 0)
    assert held.drop(lambda key_id: key_id == bytes(16)) == MAX_INSTANCES
    assert len(held) == 1
    assert [entry.key_id for entry in held.take_delta(ENFORCER, 65)[0].entries] == [name(1)[:16]]
    assert held.accept(name(0, 99), 0) == 0
    assert held.drop(lambda _: False) == 0


def test_a_delta_holds_what_changed_since_the_last_one_and_is_never_missing():
    held = PartitionWindows()
    held.accept(name(0), 0)
    held.accept(name(1), 0)
    assert len(held.take_delta(ENFORCER, 2)[0].entries) == 2
    held.accept(name(1), 1)
    assert held.accept(name(0), 0) == REPLAY
    assert held.take_delta(ENFORCER, 4)[0].entries == (WindowEntry(name(1)[:16], bytes(16), 1, 0b11),)
    held.highest_time = 9
    assert held.take_delta(ENFORCER, 5) == [Window(ENFORCER, 5, 9, 0, 1, False, ())]


def test_a_snapshot_holds_every_window_and_nothing_before_it_counts():
    held = PartitionWindows()
    held.accept(name(0), 0)
    old = on_the_wire(held.take_delta(ENFORCER, 1))
    held.drop(lambda _: True)
    held.accept(name(1), 0)
    again = restored([*old, *on_the_wire(held.snapshot(ENFORCER, 2))], 2)
    assert len(again) == 1
    assert again.accept(name(1), 0) == REPLAY
    assert again.accept(name(0), 0) == 0


def parts(count: int, monkeypatch: pytest.MonkeyPatch, *, snapshot: bool) -> list[Window]:
    """Windows of ``count`` instances, one a record."""
    monkeypatch.setattr(windows, "MAX_WINDOW_ENTRIES", 1)
    held = PartitionWindows()
    for each in range(count):
        held.accept(name(each), 0)
    return on_the_wire((held.snapshot if snapshot else held.take_delta)(ENFORCER, 10))


@pytest.mark.parametrize("committed", [0, 9, 11, 2**40])
def test_windows_that_end_elsewhere_than_the_committed_offset_are_refused(committed, monkeypatch):
    made = parts(2, monkeypatch, snapshot=True)
    assert len(restored(made, 10)) == 2
    with pytest.raises(RetryLater) as refusal:
        restored(made, committed)
    assert refusal.value.code is Code.RETRY


def test_no_windows_are_right_for_offset_0_only():
    assert len(restored([], 0)) == 0
    with pytest.raises(RetryLater):
        restored([], 1)


@pytest.mark.parametrize("snapshot", [True, False])
@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_set_of_parts_of_which_one_is_missing_is_refused(missing, snapshot, monkeypatch):
    """A part that is gone takes its instances' windows along: their records would be accepted again."""
    made = parts(3, monkeypatch, snapshot=snapshot)
    assert len(restored(made, 10)) == 3
    with pytest.raises(RetryLater):
        restored(made[:missing] + made[missing + 1 :], 10)


def test_a_set_of_parts_that_is_cut_by_the_next_set_is_refused(monkeypatch):
    made = parts(3, monkeypatch, snapshot=False)
    after = replace(made[0], upto=12, part=0, parts=1)
    assert len(restored([*made, after], 12)) == 3
    with pytest.raises(RetryLater):
        restored([*made[:2], after], 12)


def test_the_largest_record_of_windows_is_within_its_bound():
    full = tuple(
        WindowEntry(n.to_bytes(16, "big"), bytes(16), 2**64 - 1, 2**1024 - 1) for n in range(MAX_WINDOW_ENTRIES)
    )
    value = Window(ENFORCER, 2**63, 2**63, 0, 1, True, full).encode_unsigned() + bytes(64)
    assert len(value) <= MAX_WINDOW
    assert parse_window(value).entries == full
