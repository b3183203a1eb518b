"""Rates and breakers of a partition: exact buckets in the broker's time; breakers that open, try, close; restored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.kafka.limits import (
    CLOSED,
    HOUR_MS,
    MAX_FAILURES,
    MAX_METERS,
    OPEN,
    UNIT,
    PartitionLimits,
    breaker_name,
    rate_name,
)
from bus.kafka.windows import PartitionWindows, restored
from bus.wire.records import MAX_LIMIT_ENTRIES, parse_window

ENFORCER = bytes(range(16))
RATE, BREAKER = rate_name("normal", "agent-1"), breaker_name("worker", "agent-1")
SECOND = HOUR_MS // 3600


def taken(limits: PartitionLimits, times: list[int], per_hour: int = 3600, burst: int = 3) -> list[bool]:
    return [limits.take(RATE, per_hour, burst, now) for now in times]


def through_the_topic(windows: PartitionWindows, upto: int, *, snapshot: bool = False) -> PartitionWindows:
    made = windows.snapshot(ENFORCER, upto) if snapshot else windows.take_delta(ENFORCER, upto)
    return restored([parse_window(each.encode_unsigned() + bytes(64)) for each in made], upto)


def test_a_bucket_gives_its_burst_and_then_one_a_second():
    limits = PartitionLimits()
    assert taken(limits, [0, 0, 0, 0]) == [True, True, True, False]
    assert taken(limits, [SECOND - 1, SECOND, SECOND]) == [False, True, False]
    assert taken(limits, [10 * SECOND] * 4) == [True, True, True, False]


def test_a_time_that_goes_back_fills_nothing():
    limits = PartitionLimits()
    taken(limits, [5 * SECOND] * 3)
    assert taken(limits, [0, 5 * SECOND]) == [False, False]


@given(st.lists(st.integers(0, 60 * SECOND), max_size=200).map(sorted), st.integers(1, 100_000), st.integers(1, 20))
def test_no_bucket_ever_gives_more_than_its_burst_and_its_rate(times, per_hour, burst):
    given_at = [now for now, yes in zip(times, taken(PartitionLimits(), times, per_hour, burst), strict=True) if yes]
    for first, start in enumerate(given_at):
        for last in range(first, len(given_at)):
            assert last - first + 1 <= burst + (given_at[last] - start) * per_hour / HOUR_MS


def test_names_do_not_share_a_bucket():
    limits = PartitionLimits()
    assert limits.take("rate|normal|a", 1, 1, 0)
    assert limits.take("rate|normal|b", 1, 1, 0)
    assert not limits.take("rate|normal|a", 1, 1, 0)


def test_a_breaker_opens_at_its_count_lets_one_try_and_closes():
    limits = PartitionLimits()
    for now in (0, 10, 20):
        assert limits.closed(BREAKER, 60 * SECOND, now)
        limits.failed(BREAKER, 3, 30 * SECOND, now)
    assert not limits.closed(BREAKER, 60 * SECOND, 30)
    assert limits.reopens(BREAKER, 60 * SECOND) == 20 + 60 * SECOND
    assert limits.closed(BREAKER, 60 * SECOND, 20 + 60 * SECOND)
    limits.passed(BREAKER)
    assert limits.closed(BREAKER, 60 * SECOND, 21 + 60 * SECOND)


def test_a_try_that_fails_opens_it_again():
    limits = PartitionLimits()
    for _ in range(3):
        limits.failed(BREAKER, 3, 30 * SECOND, 1)
    limits.failed(BREAKER, 3, 30 * SECOND, 100 * SECOND)
    assert not limits.closed(BREAKER, 60 * SECOND, 101 * SECOND)


def test_refusals_that_are_too_old_do_not_count():
    limits = PartitionLimits()
    for now in (0, 31 * SECOND, 62 * SECOND, 93 * SECOND):
        limits.failed(BREAKER, 2, 30 * SECOND, now)
        assert limits.closed(BREAKER, 60 * SECOND, now)


def test_a_breaker_is_told_when_it_opens_and_when_it_closes_and_not_between():
    limits = PartitionLimits()
    limits.failed(BREAKER, 2, 30 * SECOND, 1)
    limits.passed(BREAKER)
    assert limits.take_changes() == {}
    for now in (2, 3, 100 * SECOND):  # the second opens it, the third is a try that fails
        limits.failed(BREAKER, 2, 30 * SECOND, now)
    assert limits.take_changes() == {("worker", OPEN): 1}
    assert limits.take_changes() == {}
    for _ in range(2):
        limits.passed(BREAKER)
    assert limits.take_changes() == {("worker", CLOSED): 1}


def test_breakers_that_refuse_are_counted_by_rule_until_they_let_one_try():
    limits = PartitionLimits()
    for whom, now in (("agent-1", 1), ("agent-2", 11)):
        limits.failed(breaker_name("worker", whom), 1, SECOND, now)
    limits.failed(breaker_name("worker", "agent-3"), 2, SECOND, 1)
    limits.failed(breaker_name("worker-2", "agent-1"), 1, SECOND, 1)
    limits.take(rate_name("worker", "agent-1"), 1, 1, 1)
    assert [limits.refusing("worker", SECOND, now) for now in (11, SECOND + 1, SECOND + 11)] == [2, 1, 0]
    assert limits.refusing("worker-2", SECOND, 11) == 1
    assert limits.refusing("work", SECOND, 11) == 0
    limits.passed(breaker_name("worker", "agent-1"))
    assert limits.refusing("worker", SECOND, 11) == 1


def test_what_passes_while_it_is_closed_forgets_no_refusal():
    limits = PartitionLimits()
    limits.failed(BREAKER, 2, 30 * SECOND, 1)
    limits.passed(BREAKER)
    limits.failed(BREAKER, 2, 30 * SECOND, 2)
    assert not limits.closed(BREAKER, 60 * SECOND, 3)


@pytest.mark.parametrize("snapshot", [False, True])
def test_another_enforcer_goes_on_where_this_one_stood(snapshot):
    windows = PartitionWindows()
    taken(windows.limits, [7, 7, 7])
    windows.limits.failed(BREAKER, 2, 30 * SECOND, 7)
    other = through_the_topic(windows, 3, snapshot=snapshot).limits
    assert taken(other, [7]) == [False]
    other.failed(BREAKER, 2, 30 * SECOND, 8)
    assert not other.closed(BREAKER, 60 * SECOND, 9)
    opened = PartitionWindows()
    for _ in range(2):
        opened.limits.failed(BREAKER, 2, 30 * SECOND, 8)
    after = through_the_topic(opened, 9, snapshot=snapshot).limits
    assert not after.closed(BREAKER, 60 * SECOND, 9)
    assert (after.refusing("worker", 60 * SECOND, 9), after.take_changes()) == (1, {})


def test_a_breaker_that_closed_again_is_not_restored_as_open():
    windows, values = PartitionWindows(), []
    windows.limits.failed(BREAKER, 1, 30 * SECOND, 8)
    values += windows.take_delta(ENFORCER, 1)
    windows.limits.passed(BREAKER)
    values += windows.take_delta(ENFORCER, 2)
    for upto, refusing in ((1, 1), (2, 0)):
        held = restored([parse_window(each.encode_unsigned() + bytes(64)) for each in values[:upto]], upto)
        assert held.limits.refusing("worker", 60 * SECOND, 9) == refusing


def test_a_delta_holds_what_changed_and_a_snapshot_all():
    windows = PartitionWindows()
    windows.limits.take("rate|a|x", 1, 2, 0)
    windows.limits.take("rate|a|y", 1, 2, 0)
    assert [each.name for each in windows.take_delta(ENFORCER, 2)[0].limits] == ["rate|a|x", "rate|a|y"]
    windows.limits.take("rate|a|y", 1, 2, 0)
    assert [(each.name, each.tokens) for each in windows.take_delta(ENFORCER, 3)[0].limits] == [("rate|a|y", 0)]
    assert [(each.name, each.tokens) for each in windows.snapshot(ENFORCER, 3)[0].limits] == [
        ("rate|a|x", UNIT),
        ("rate|a|y", 0),
    ]


def test_many_meters_go_into_several_parts_and_come_back():
    windows = PartitionWindows()
    for number in range(2 * MAX_LIMIT_ENTRIES + 1):
        windows.limits.take(f"rate|a|{number}", 1, 1, 0)
    made = windows.snapshot(ENFORCER, 1)
    assert [(each.part, each.parts, len(each.limits)) for each in made] == [(0, 3, 400), (1, 3, 400), (2, 3, 1)]
    back = restored([parse_window(each.encode_unsigned() + bytes(64)) for each in made], 1)
    assert len(back.limits) == 2 * MAX_LIMIT_ENTRIES + 1


def test_beyond_the_bound_idle_meters_are_forgotten_and_open_breakers_kept():
    limits = PartitionLimits()
    limits.failed("breaker|open|x", 1, SECOND, 1)
    limits.failed("breaker|failing|x", 9, SECOND, 1)
    for number in range(MAX_METERS + 5):
        limits.take(f"rate|a|{number}", 1, 1, number + 1)
    names = {each.name for each in limits.snapshot()}
    assert len(names) == len(limits) == MAX_METERS
    assert {"breaker|open|x", "breaker|failing|x"} <= names
    assert "rate|a|0" not in names


def test_times_of_refusals_are_bounded():
    limits = PartitionLimits()
    for now in range(3 * MAX_FAILURES):
        limits.failed(BREAKER, 10**6, HOUR_MS, now)
    (entry,) = limits.snapshot()
    assert entry.failures == tuple(range(2 * MAX_FAILURES, 3 * MAX_FAILURES))
