"""Leaves of a partition as runs of numbers: ``0-41,44``."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from bus.errors import Unverified


def runs(leaves: Iterable[int]) -> str:
    """The text for ``leaves``."""
    told: list[list[int]] = []
    for leaf in sorted(leaves):
        if told and told[-1][1] >= leaf - 1:
            told[-1][1] = leaf
        else:
            told.append([leaf, leaf])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in told)


class Leaves:
    """What a text of runs names: how many, and whether one is among them. Raises Unverified(report) for other text."""

    def __init__(self, text: str) -> None:
        self._first: list[int] = []
        self._last: list[int] = []
        for part in filter(None, text.split(",")):
            first, _, last = part.partition("-")
            if not all(each.isascii() and each.isdecimal() and len(each) < 16 for each in (first, last or first)):
                raise Unverified(f"report: not runs of leaves: {text[:40]!r}", step="report")
            self._first.append(int(first))
            self._last.append(int(last or first))
        after = [-1, *self._last]
        if any(not before < first <= last for before, first, last in zip(after, self._first, self._last, strict=False)):
            raise Unverified(f"report: runs of leaves out of order: {text[:40]!r}", step="report")

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in zip(self._first, self._last, strict=True))

    def __contains__(self, leaf: object) -> bool:
        at = bisect_right(self._first, leaf) - 1 if isinstance(leaf, int) else -1
        return at >= 0 and leaf <= self._last[at]  # type: ignore[operator]  # an int, as asked above

    @property
    def below(self) -> int:
        """More than the last."""
        return self._last[-1] + 1 if self._last else 0
