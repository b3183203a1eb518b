"""Where an enforcer's worker goes on after a restore: windows and committed offset agree, or the windows prove more."""

from __future__ import annotations

import pytest

from bus.crypto.signing import window_message
from bus.errors import BusError, RetryLater
from bus.kafka.loop import Committed
from bus.kafka.windows import PartitionWindows
from consumers.enforcer.worker import EnforcerWorker
from tests.unit.build import DEPLOYMENT, World

WORLD = World()
PLACE = ("memory.in", 0)


def written(*uptos: int) -> list[bytes]:
    """Window records as an enforcer writes them: one sequence more each time."""
    windows, values = PartitionWindows(), []
    for sequence, upto in enumerate(uptos):
        windows.accept(b"k" * 16 + b"i" * 16, sequence)
        for window in windows.take_delta(WORLD.signer.key_id, upto):
            signed = window.encode_unsigned()
            values.append(signed + WORLD.signer.sign(window_message(DEPLOYMENT, "memory.windows", 0, signed)))
    return values


class Reader:
    def __init__(self, values: list[bytes] | None) -> None:
        self.values = values

    def read(self, starts):
        return dict.fromkeys(starts, self.values)


def worker(values: list[bytes] | None) -> EnforcerWorker:
    return EnforcerWorker(
        WORLD.context(), "bus-enforcer-1", lambda: WORLD.trust("memory"), Reader(values), lambda _: None
    )


@pytest.mark.parametrize(("committed", "start"), [(9, 9), (5, 9), (0, 9)])
def test_it_goes_on_where_the_windows_end_though_the_coordinator_answers_an_older_offset(committed, start):
    made = worker(written(3, 5, 9))
    assert made.restore({PLACE: Committed(committed, "w1:0")}) == {PLACE: start}
    assert made.windows() == {PLACE: 1}


def test_windows_that_end_before_the_committed_offset_are_not_whole():
    with pytest.raises(RetryLater, match="windows hold input up to 9"):
        worker(written(3, 5, 9)).restore({PLACE: Committed(12, "w1:0")})


def test_no_windows_at_all_fit_no_committed_offset_unless_retention_took_them():
    with pytest.raises(RetryLater):
        worker([]).restore({PLACE: Committed(12, "w1:0")})
    assert worker(None).restore({PLACE: Committed(12, "w1:0")}) == {PLACE: 12}


def test_an_offset_that_is_not_stable_needs_windows_that_prove_it():
    assert worker(written(3, 5, 9)).restore({PLACE: Committed(5, "w1:0", stable=False)}) == {PLACE: 9}
    for values in ([], None):
        with pytest.raises(RetryLater, match="no windows prove"):
            worker(values).restore({PLACE: Committed(5, "w1:0", stable=False)})


def test_windows_without_a_committed_offset_stop_until_somebody_decides():
    assert worker([]).restore({PLACE: Committed(None, "")}) == {PLACE: 0}
    for values in (written(3), None):
        with pytest.raises(BusError, match="no offset is committed"):
            worker(values).restore({PLACE: Committed(None, "")})


def test_a_window_that_no_certified_enforcer_signed_is_refused():
    (value,) = written(3)
    with pytest.raises(BusError):
        worker([value[:-1] + bytes([value[-1] ^ 1])]).restore({PLACE: Committed(3, "w1:0")})
