"""What the tiers are compared over: 90 % coordination and memory, 9 % inference, 1 % figures, and what is told of it.

A record is 1 KiB of payload, and in tier FHE a row of eight numbers. Rows are gathered into batches, which cost the
same whatever is in them: so that every comparison with FHE says how many rows a batch has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self

from bus.tiers.fhe import MAX_ROWS, MIN_ROWS
from bus.wire.names import Tier

SHARES: Final = {Tier.RETRIEVAL: 0.90, Tier.COMPUTATION: 0.09, Tier.FHE: 0.01}
LEAST: Final = round(MIN_ROWS / SHARES[Tier.FHE])
"""Records of a mix whose figures fill the smallest batch that is published."""
PUBLISHED: Final = 0.60
"""What tiers are published to cut of the overhead, at most, beside heavy encryption of everything."""
TIERED: Final = "tiered"


@dataclass(frozen=True, slots=True)
class Place:
    """The domain of the bundled law that stands for a tier, who writes it there and who reads it."""

    domain: str
    source: str
    reader: str


PLACES: Final = {
    Tier.RETRIEVAL: Place("agent_memory", "retriever-1", "orchestrator-1"),
    Tier.COMPUTATION: Place("pii_inference", "executor-1", "analyst-1"),
    Tier.FHE: Place("financial_models", "analyst-1", "analyst-1"),
}


def uniform(tier: Tier) -> str:
    """The name of the whole mix in one tier."""
    return f"all-{tier.name}"


@dataclass(frozen=True, slots=True)
class Mix:
    """Records by tier."""

    parts: Mapping[Tier, int]

    @classmethod
    def of(cls, records: int) -> Self:
        """``records`` by the shares, and at least so many that the figures fill a batch."""
        count = max(records, LEAST)
        parts = {tier: round(count * share) for tier, share in SHARES.items()}
        parts[Tier.RETRIEVAL] += count - sum(parts.values())
        return cls(parts)

    @property
    def records(self) -> int:
        """All of them."""
        return sum(self.parts.values())

    def shares(self) -> dict[Tier, float]:
        """The part of each tier."""
        return {tier: count / self.records for tier, count in self.parts.items()}


def batches(rows: int) -> list[int]:
    """The rows of each batch, as few batches as hold them. Raises ValueError for fewer rows than are published."""
    if rows < MIN_ROWS:
        raise ValueError(f"expected at least {MIN_ROWS} rows, found {rows}")
    count = -(-rows // MAX_ROWS)
    return [rows // count + (number < rows % count) for number in range(count)]


def saved(tiered: float, uniform: float) -> float:
    """What the tiers spare of one tier's cost: 0.6 where they take 40 % of it, negative where they take more."""
    return 1 - tiered / uniform


def percentile(parts: Sequence[tuple[float, Sequence[float]]], percent: float) -> float:
    """Of samples in groups, each group with its share of the records, whatever number of samples it has."""
    weighed = sorted((value, share / len(values)) for share, values in parts for value in values)
    wanted, passed = percent / 100 * sum(share for share, _ in parts), 0.0
    for value, weight in weighed:
        passed += weight
        if passed >= wanted - 1e-9:
            return value
    return weighed[-1][0]
