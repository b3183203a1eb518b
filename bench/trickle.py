"""Latency of one record at a time in each tier: from `publish` until its reader has it open; then comes the next."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from time import perf_counter
from typing import Final

from bench import fhe
from bench.mix import PLACES, TIERED, Mix, Place, percentile, uniform
from bench.rows import Figures
from bus.client.bus import Bus
from bus.stack.local import Stack
from bus.wire.names import Tier

RECORDS: Final = 200
"""Of RETRIEVAL and COMPUTATION each."""
EVERY: Final = 10
"""Then a batch of rows."""
ENFORCER: Final = "bus-enforcer-1"
SIZE: Final = 1024


def measure(stack: Stack, rows: int, records: int = RECORDS) -> dict[Tier, list[float]]:
    """Delays by tier, ms: the tiers take turns, so that they have the same machine. FHE is a batch of ``rows``, from
    its encryption until it is loaded; what gathering them takes is not in it."""
    stack.start_service(ENFORCER)
    try:
        with ExitStack() as held:
            ways = {tier: _Way(stack, place, held, rows) for tier, place in PLACES.items()}
            for way in ways.values():
                way.send()
            told: dict[Tier, list[float]] = {tier: [] for tier in ways}
            for number in range(records):
                for tier, way in ways.items():
                    if tier is not Tier.FHE or number % EVERY == 0:
                        told[tier].append(way.send())
            return told
    finally:
        stack.stop_service(ENFORCER)


class _Way:
    """The source and the reader of one tier."""

    def __init__(self, stack: Stack, place: Place, held: ExitStack, rows: int) -> None:
        self._domain = place.domain
        self._source, self._reader = (
            held.enter_context(Bus(agent, settings=stack.settings)) for agent in (place.source, place.reader)
        )
        self._inbox = self._reader.subscribe(place.domain)
        self._inbox.wait_assigned()
        batched = place is PLACES[Tier.FHE]
        self._payload: object = fhe.columns(rows) if batched else os.urandom(SIZE)
        self._batched = batched

    def send(self) -> float:
        """One record, ms. Raises RuntimeError where it does not arrive."""
        began = perf_counter()
        sent = self._source.publish(self._domain, self._payload)
        while (got := self._inbox.get(30)) is not None:
            if got.id == sent.id:
                if self._batched:
                    self._reader.fhe.open(got)
                return (perf_counter() - began) * 1000
        raise RuntimeError(f"{self._domain}: a record did not arrive")


def summary(delays: Mapping[Tier, Sequence[float]], mix: Mix) -> dict[str, Figures]:
    """p50 and p99 of the mix, each tier with its share of the records, and of each tier."""
    groups = {TIERED: [(share, delays[tier]) for tier, share in mix.shares().items()]}
    groups |= {uniform(tier): [(1.0, values)] for tier, values in delays.items()}
    return {
        name: {**{f"p{each}": percentile(parts, each) for each in (50, 99)}, "samples": sum(len(v) for _, v in parts)}
        for name, parts in groups.items()
    }
