"""Rates and circuit breakers of one input partition: token buckets and failure counts by name. Pure.

Time is the partition's effective time (the broker's), so that the same records give the same decisions wherever and
whenever they are enforced. Like replay windows, what changed is staged until commit and rides in the `.windows` topic:
another enforcer that takes the partition over goes on with it, and reconnecting resets nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from bus.wire.records import LimitEntry

UNIT: Final = 1_000_000
"""Tokens are counted in millionths: exact integers, the same on every machine."""
HOUR_MS: Final = 3_600_000
MAX_FAILURES: Final = 64
MAX_METERS: Final = 20_000
"""Per partition; beyond it idle meters are forgotten, and what is not idle keeps its state."""


OPEN: Final = "open"
CLOSED: Final = "closed"


def rate_name(rule: str, whom: str) -> str:
    """The meter of a rate for ``whom``: an agent, a role, a tenant or a domain."""
    return f"rate|{rule}|{whom}"


def breaker_name(rule: str, whom: str) -> str:
    """The meter of a breaker for ``whom``."""
    return f"breaker|{rule}|{whom}"


@dataclass(slots=True)
class Meter:
    """``tokens`` (millionths) as of ``at``; refusals by time; ``opened`` is when a breaker opened, 0 while closed."""

    tokens: int = 0
    at: int = 0
    failures: list[int] = field(default_factory=list)
    opened: int = 0


class PartitionLimits:
    """Meters by name. ``take`` is asked for a record, ``failed`` and ``passed`` are told how it ended."""

    __slots__ = ("_changes", "_meters", "_open", "_touched")

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}
        self._touched: set[str] = set()
        self._open: set[str] = set()
        self._changes: Counter[tuple[str, str]] = Counter()

    def __len__(self) -> int:
        return len(self._meters)

    def take(self, name: str, per_hour: int, burst: int, now: int) -> bool:
        """One token of a bucket that fills ``per_hour`` tokens an hour up to ``burst``; False where there is none."""
        full = burst * UNIT
        meter = self._meters.get(name)
        if meter is None:
            meter = self._meters[name] = Meter(full, now)
        elif now > meter.at:
            meter.tokens = min(full, meter.tokens + (now - meter.at) * per_hour * UNIT // HOUR_MS)
            meter.at = now
        if meter.tokens < UNIT:
            return False
        meter.tokens -= UNIT
        self._touched.add(name)
        return True

    def closed(self, name: str, half_open_ms: int, now: int) -> bool:
        """Whether a breaker lets a record through: closed, or open for so long that one may try."""
        meter = self._meters.get(name)
        return meter is None or not meter.opened or now - meter.opened >= half_open_ms

    def reopens(self, name: str, half_open_ms: int) -> int:
        """When an open breaker lets one try, in ms since 1970."""
        return self._meters[name].opened + half_open_ms

    def failed(self, name: str, count: int, within_ms: int, now: int) -> None:
        """A refusal: the breaker opens at the ``count``-th within ``within_ms``, and again where a try failed."""
        meter = self._meters.setdefault(name, Meter(0, now))
        recent = [each for each in meter.failures if now - each < within_ms]
        meter.failures = [*recent[1 - MAX_FAILURES :], now]
        if meter.opened or len(meter.failures) >= count:
            if not meter.opened:
                self._turned(name, OPEN)
            meter.opened, meter.failures = now, []
            self._open.add(name)
        self._touched.add(name)

    def passed(self, name: str) -> None:
        """A record that tried an open breaker went through: it closes."""
        meter = self._meters.get(name)
        if meter is not None and meter.opened:
            meter.opened, meter.failures = 0, []
            self._touched.add(name)
            self._open.discard(name)
            self._turned(name, CLOSED)

    def _turned(self, name: str, to: str) -> None:
        self._changes[name.split("|")[1], to] += 1

    def take_changes(self) -> Counter[tuple[str, str]]:
        """How often breakers changed since the last call, by rule and ``OPEN`` or ``CLOSED``.

        One that a failed try opens again was open all the while.
        """
        made, self._changes = self._changes, Counter()
        return made

    def refusing(self, rule: str, half_open_ms: int, now: int) -> int:
        """How many breakers of ``rule`` let nothing through at ``now``. From any thread."""
        prefix = breaker_name(rule, "")
        return sum(name.startswith(prefix) and not self.closed(name, half_open_ms, now) for name in list(self._open))

    def delta(self) -> list[LimitEntry]:
        """Meters that changed since the last call."""
        made = self._entries(sorted(self._touched))
        self._touched.clear()
        return made

    def snapshot(self) -> list[LimitEntry]:
        """All meters. Beyond ``MAX_METERS`` those that say least are forgotten: closed, without refusals, oldest."""
        if len(self._meters) > MAX_METERS:
            spare = sorted(self._meters, key=lambda name: _worth(self._meters[name]))
            for name in spare[: len(self._meters) - MAX_METERS]:
                del self._meters[name]
                self._open.discard(name)
        self._touched.clear()
        return self._entries(sorted(self._meters))

    def restore(self, entry: LimitEntry) -> None:
        """Take a meter as a window record tells it."""
        self._meters[entry.name] = Meter(entry.tokens, entry.at, list(entry.failures), entry.opened)
        if entry.opened:
            self._open.add(entry.name)
        else:
            self._open.discard(entry.name)

    def _entries(self, names: list[str]) -> list[LimitEntry]:
        held = self._meters
        return [
            LimitEntry(name, held[name].tokens, held[name].at, tuple(held[name].failures), held[name].opened)
            for name in names
        ]


def _worth(meter: Meter) -> tuple[bool, bool, int]:
    return bool(meter.opened), bool(meter.failures), meter.at
