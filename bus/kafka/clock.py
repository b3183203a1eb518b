"""Whether this machine's clock agrees with the broker's: an enforcer whose clock is off decides nothing.

The broker's append times are the bus's clock. An enforcer dates its decisions with its own, and readers refuse bundles
that were decided too far from their append; keys and policy would be judged wrongly, too. So a transaction's delivery
reports are compared with the clock before it commits: once a second, and whenever the clock was set.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

CHECK_S: Final = 1.0
STEP_MS: Final = 500
"""The wall clock against the monotonic one: beyond this, someone set it (or the machine slept)."""


def wall_ms() -> int:
    """This machine's clock, ms since 1970."""
    return time.time_ns() // 1_000_000


def ahead(began_ms: int, told_ms: int, ended_ms: int) -> int:
    """By how many ms another clock is ahead of this one beyond doubt, negative where it is behind.

    It showed ``told_ms`` at some time between ``began_ms`` and ``ended_ms`` of this one.
    """
    return max(told_ms - ended_ms, 0) + min(told_ms - began_ms, 0)


class ClockCheck:
    """``limit_ms`` 0 means that nothing is checked."""

    def __init__(
        self, limit_ms: int, wall: Callable[[], int] = wall_ms, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit_ms = limit_ms
        self.wall = wall
        self._monotonic = monotonic
        self._agreed_at = float("-inf")
        self._distance = 0.0

    def _from_monotonic(self) -> float:
        return self.wall() - self._monotonic() * 1000

    def due(self) -> bool:
        """Whether the next transaction must be looked at before it commits."""
        if not self.limit_ms:
            return False
        stepped = abs(self._from_monotonic() - self._distance) > STEP_MS
        return stepped or self._monotonic() - self._agreed_at > CHECK_S

    def judge(self, began_ms: int, appended_ms: list[int], ended_ms: int) -> int:
        """By how many ms the clock is off beyond doubt, 0 within the limit: records that were sent after ``began_ms``
        and answered by ``ended_ms`` were appended at these times of the broker's."""
        off = max((abs(ahead(began_ms, each, ended_ms)) for each in appended_ms), default=0)
        if off > self.limit_ms:
            return off
        self._agreed_at, self._distance = self._monotonic(), self._from_monotonic()
        return 0
