"""What `bus doctor` says of clocks: by how much this one is off from which, on which side, and what to set."""

from __future__ import annotations

import pytest

from bus.stack import clocks
from bus.stack.clocks import Reading, describe, mend
from tests.unit import build

LIMIT, NOW, TOOK = build.SKEW, build.NOW, 40


def broker(ahead: int) -> Reading:
    """The broker's clock, read by a machine whose answer took 40 ms."""
    return Reading("the broker", NOW, NOW + 20 + ahead, NOW + TOOK)


def authority(ahead: int) -> Reading:
    return Reading("the authority", NOW, NOW + 20 + ahead, NOW + TOOK)


@pytest.mark.parametrize(
    ("ahead", "found"),
    [
        (0, "as the broker's, looked at within 40 ms"),
        (-20, "as the broker's, looked at within 40 ms"),
        (45_000, "44980 ms behind the broker's"),
        (-45_000, "44980 ms ahead of the broker's"),
    ],
)
def test_a_difference_is_named_with_its_side(ahead, found):
    assert describe([broker(ahead)], LIMIT) == f"{found} (harmless up to 30000 ms)"


def test_every_clock_is_named():
    told = describe([broker(1000), authority(-2000)], LIMIT)
    assert told == "980 ms behind the broker's; 1980 ms ahead of the authority's (harmless up to 30000 ms)"


def test_within_the_skew_nothing_is_to_be_done_and_beyond_it_something_is():
    edge = LIMIT + TOOK - 20
    for side in (1, -1):
        at = edge if side > 0 else -LIMIT - 20
        assert mend([broker(at)], LIMIT) == ""
        assert (
            mend([broker(at + side)], LIMIT)
            == "set this machine's clock (NTP) if it is the wrong one, else that of the broker"
        )


def test_of_three_clocks_the_odd_one_is_named():
    far = 2 * LIMIT
    assert mend([broker(0), authority(0)], LIMIT) == ""
    assert mend([broker(far), authority(0)], LIMIT).startswith("set the clock of the broker (NTP)")
    assert mend([broker(0), authority(far)], LIMIT).startswith("set the clock of the authority (NTP)")
    assert mend([broker(far), authority(far)], LIMIT).startswith("set this machine's clock (NTP)")


def test_the_check_fails_with_both_clocks_in_one_line(monkeypatch, tmp_path):
    from dataclasses import replace

    from bus.settings import Settings
    from bus.stack import checks
    from bus.stack.local import Stack

    stack = Stack(replace(Settings(), state=tmp_path))
    monkeypatch.setattr(clocks, "read", lambda _: [broker(0), authority(2 * LIMIT)])
    found = checks._clock(stack)
    assert (found.name, found.ok) == ("clock", False)
    assert "59980 ms behind the authority's" in found.found
    monkeypatch.setattr(clocks, "read", lambda _: [broker(0), authority(LIMIT)])
    assert (checks._clock(stack).ok, checks._clock(stack).mend) == (True, "")
