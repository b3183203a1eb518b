"""The clock check: what the broker's append times prove about this machine's clock, and when it is asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bus.kafka.clock import CHECK_S, STEP_MS, ClockCheck, ahead

LIMIT = 30_000


class Hands:
    """A wall clock (ms) and a monotonic one (s), moved by hand."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1_000_000_000, 50.0

    def pass_by(self, seconds: float) -> None:
        self.wall += int(seconds * 1000)
        self.monotonic += seconds


def made(limit: int = LIMIT) -> tuple[ClockCheck, Hands]:
    hands = Hands()
    return ClockCheck(limit, lambda: hands.wall, lambda: hands.monotonic), hands


def test_the_first_transaction_is_looked_at_then_one_a_second():
    check, hands = made()
    assert check.due()
    assert check.judge(hands.wall, [hands.wall], hands.wall) == 0
    assert not check.due()
    hands.pass_by(CHECK_S * 0.9)
    assert not check.due()
    hands.pass_by(CHECK_S * 0.2)
    assert check.due()


def test_a_clock_that_was_set_is_looked_at_at_once():
    check, hands = made()
    for step in (STEP_MS + 1, -STEP_MS - 1):
        check.judge(hands.wall, [hands.wall], hands.wall)
        assert not check.due()
        hands.wall += step
        assert check.due()
        check.judge(hands.wall, [hands.wall], hands.wall)
        hands.wall += step // 2
        assert not check.due(), "a small correction, as time servers make"


@given(st.integers(-10 * LIMIT, 10 * LIMIT), st.integers(0, 20_000), st.floats(0, 1))
def test_a_clock_within_the_limit_is_never_called_off_however_slow_the_broker_is(off, took, where):
    """The broker appends at some time between sending and answer, by its own clock, which differs by ``off``."""
    check, hands = made()
    appended = hands.wall + int(took * where) + off
    found = check.judge(hands.wall, [appended], hands.wall + took)
    if abs(off) <= LIMIT:
        assert found == 0
    if abs(off) > LIMIT + took:
        assert found > LIMIT
        assert found <= abs(off)


def test_a_clock_that_is_off_stays_due_until_it_agrees():
    check, hands = made()
    assert check.judge(hands.wall, [hands.wall - LIMIT - 1], hands.wall) == LIMIT + 1
    assert check.due()
    assert check.judge(hands.wall, [hands.wall, hands.wall + LIMIT + 5], hands.wall) == LIMIT + 5, "any record tells"
    assert check.due()
    assert check.judge(hands.wall, [hands.wall - LIMIT], hands.wall) == 0
    assert not check.due()


def test_without_a_limit_nothing_is_looked_at():
    check, _ = made(0)
    assert not check.due()


@given(st.integers(-10 * LIMIT, 10 * LIMIT), st.integers(0, 20_000), st.floats(0, 1))
def test_another_clock_is_never_called_further_off_than_it_is_nor_on_the_wrong_side(off, took, where):
    found = ahead(1_000_000, 1_000_000 + int(took * where) + off, 1_000_000 + took)
    assert abs(off) - took <= abs(found) <= abs(off)
    assert found * off >= 0
