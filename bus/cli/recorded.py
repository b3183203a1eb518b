"""The history of a plan: what the ledger recorded of late, decided again under the draft and under the live policy.

A ledger that is not there, or cannot be read, is told and keeps nobody from planning.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from bus.admin.plan import Plan
from bus.authority.local import now_ms
from bus.cli import audit
from bus.cli.durations import duration_ms
from bus.cli.output import say
from bus.errors import BusError
from bus.policy.replay import Flip, Replay, replay
from bus.settings import Settings
from bus.wire.hop import Hop, Verdict

MAX_READ: Final = 1_000_000
"""Hops; of more the newest are replayed, at some 20,000 a second."""
TELL_EVERY: Final = 100_000
SHOWN: Final = 3
"""Ways that the line of a verdict names."""


@dataclass(frozen=True, slots=True)
class History:
    """``made`` of the hops of a ``window`` as it was written ("24h"); ``read`` of them, all unless ``cut``.

    ``unread`` says why there are none: the ledger could not be read.
    """

    window: str
    read: int = 0
    made: Replay = field(default_factory=Replay)
    cut: bool = False
    unread: str = ""

    def document(self) -> dict[str, Any]:
        """Its part of the plan's JSON."""
        return {
            "window": self.window,
            "read": self.read,
            "decided": self.made.decided,
            "without_facts": self.made.unknown,
            "complete": not self.cut and not self.unread,
            "unread": self.unread,
            "flips": flip_rows(self.made),
        }

    def __str__(self) -> str:
        made = self.made
        if self.unread:
            return f"{self.window} not replayed: {self.unread}"
        total = made.decided + made.unknown
        if not total:
            return f"{self.window}, no decisions recorded"
        which = f"the newest {self.read:,} hops alone: " if self.cut else ""
        told = f"{total:,} decisions, {made.decided:,} replayed ({100 * made.decided // total} % have facts)"
        return f"{self.window}, {which}{told}: {self._new(Verdict.ALLOW)}, {self._new(Verdict.DENY)}"

    def _new(self, verdict: Verdict) -> str:
        ways: Counter[str] = Counter()
        for flip, count in self.made.flips.items():
            if flip.after == verdict.value:
                ways[f"{flip.agent} -> {flip.domain}"] += count
        named = [name for name, _ in ways.most_common(SHOWN)]
        more = [f"{len(ways) - SHOWN} more"] if len(ways) > SHOWN else []
        return f"{ways.total():,} new {verdict.value}" + (f" ({', '.join([*named, *more])})" if ways else "")

    def allowed(self) -> list[tuple[Flip, int]]:
        """Flips to ALLOW, the most frequent first: what was stopped, and would go on."""
        return [(flip, count) for flip, count in self.made.flips.most_common() if flip.after == Verdict.ALLOW.value]


def flip_rows(made: Replay) -> list[dict[str, Any]]:
    """Flips as JSON, the most frequent first, each with a decision id."""
    return [
        {**dataclasses.asdict(flip), "count": count, "example": made.example[flip]}
        for flip, count in made.flips.most_common()
    ]


def parse_window(text: str) -> tuple[str, int] | None:
    """A duration, as it was written and in ms; None for "none". Raises click.UsageError."""
    if text == "none":
        return None
    return text, duration_ms("--history", text, "as in 24h or 7d, or none")


def recorded(settings: Settings, plan: Plan, window: tuple[str, int] | None) -> History | None:
    """Replay the ledger's hops of the last ``window``; tells of its progress on stderr.

    None where no window is asked for, or nothing could flip: without a live policy, or with the same one.
    """
    if window is None or plan.live is None or plan.live_digest == plan.policy.digest:
        return None
    text, length = window
    read = 0

    def counted(hops: Iterable[Hop]) -> Iterator[Hop]:
        nonlocal read
        for hop in hops:
            read += 1
            if read % TELL_EVERY == 0:
                say(f"history: {read:,} hops replayed")
            yield hop

    try:
        hops = audit.open_query(settings).since(now_ms() - length)
        made = replay(counted(islice(hops, MAX_READ)), plan.policy, plan.live)
        return History(text, read, made, cut=next(hops, None) is not None)
    except (BusError, OSError) as error:
        return History(text, unread=str(error))
