"""Security labels: a level and categories, ordered as a lattice (NIST SP 800-53 AC-16, Bell-LaPadula).

Reading needs a clearance that covers the label; what is derived from several records has the join of their labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Label:
    """``level`` is an index into the policy's levels, from the lowest; the lowest without categories is the bottom."""

    level: int = 0
    categories: frozenset[str] = frozenset()

    def join(self, other: Label) -> Label:
        """The lowest label that covers both."""
        return Label(max(self.level, other.level), self.categories | other.categories)

    def covers(self, other: Label) -> bool:
        """Whether who is cleared for this may read ``other``."""
        return self.level >= other.level and self.categories >= other.categories


BOTTOM = Label()


class Propagate(Enum):
    """Whether a record has the label of what it builds on, and what says so."""

    NONE = "none"
    TICKETS = "tickets"
    """What its agent shows of its session; without that, the highest that the agent could have read."""
    SESSION = "session"
    """The highest that its agent could have read, whatever it shows."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """The levels of a policy, lowest first, and its categories."""

    levels: tuple[str, ...] = ()
    categories: frozenset[str] = frozenset()

    def parse(self, names: Iterable[str]) -> Label | None:
        """The join of ``names``, each a level or a category; None where one is neither. Without levels: BOTTOM."""
        if not self.levels:
            return BOTTOM
        label = BOTTOM
        for name in names:
            if name in self.categories:
                label = Label(label.level, label.categories | {name})
            elif name in self.levels:
                label = Label(max(label.level, self.levels.index(name)), label.categories)
            else:
                return None
        return label

    def names(self, label: Label) -> tuple[str, ...]:
        """``label`` as it is written: its level, where the policy has any, and its categories."""
        return (*self.levels[label.level : label.level + 1], *sorted(label.categories))


def joined(labels: Sequence[Label]) -> Label:
    """The lowest label that covers all of them."""
    found = BOTTOM
    for each in labels:
        found = found.join(each)
    return found
