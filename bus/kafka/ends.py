"""Where the partitions end that a consumer reads, as librdkafka's statistics tell it, without a request of its own.

``Consumer.get_watermark_offsets`` from another thread was seen to wait for tens of seconds, cached or not.
"""

from __future__ import annotations

import json
from typing import Any, Final

from bus.kafka.transaction import Place

INTERVAL_MS: Final = 2000


class Ends:
    """High watermarks by partition. ``config`` goes into the consumer's; then ``lag`` may be asked from any thread."""

    def __init__(self) -> None:
        self._ends: dict[Place, int] = {}

    @property
    def config(self) -> dict[str, Any]:
        """Settings of the consumer that have it tell its statistics."""
        return {"statistics.interval.ms": INTERVAL_MS, "stats_cb": self._take}

    def _take(self, statistics: str) -> None:
        found = {}
        for topic, told in json.loads(statistics).get("topics", {}).items():
            for number, each in told.get("partitions", {}).items():
                if int(number) >= 0 and each.get("hi_offset", -1) >= 0:
                    found[topic, int(number)] = int(each["hi_offset"])
        self._ends = found

    def lag(self, positions: dict[Place, int]) -> dict[Place, int]:
        """Records from each position to the end of its partition, 0 where none is known."""
        ends = self._ends
        return {place: max(ends.get(place, 0) - position, 0) for place, position in positions.items()}
