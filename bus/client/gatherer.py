"""Gathers rows of many sources into full batches of a domain of tier FHE, where one row costs as much as thousands.

It is a reader of the domain that the rows come in, and trusted like one: whoever wants its figures closed to everybody
encrypts where they come from. A row is in the gatherer's sealed store before its delivery is acknowledged, and leaves
it when its batch is stored at the broker: after a crash in between that batch comes twice, and none is lost.
"""

from __future__ import annotations

import math
import threading
import time
from typing import TYPE_CHECKING, Final

from bus.client.delivery import Delivery
from bus.codes import Code
from bus.errors import Refused, RetryLater
from bus.tiers.fhe import MAX_ROWS, MIN_ROWS
from bus.tiers.fheframe import MAX_COLUMNS
from bus.wire.names import Tier

if TYPE_CHECKING:
    from bus.client.bus import Bus

_ROW: Final = "row/"
KEPT_S: Final = 30 * 86_400.0


class Gatherer:
    """Rows of ``source`` to batches of ``sink``: of ``rows`` rows, or of 256 at least when the oldest waited ``every``
    seconds. ``run`` once."""

    def __init__(self, me: Bus, source: str, sink: str, *, rows: int = MAX_ROWS, every: float = 60.0) -> None:
        """Raises Refused for another tier than FHE, or numbers out of range."""
        found = me._policy().domains.get(sink)  # type: ignore[call-overload]
        if found is None or found.tier is not Tier.FHE or not found.protectable:
            raise Refused(f"{sink}: expected a domain of tier FHE with a context", code=Code.SETTINGS)
        if not MIN_ROWS <= rows <= MAX_ROWS:
            raise Refused(f"rows: expected {MIN_ROWS} to {MAX_ROWS}, found {rows}", code=Code.SETTINGS)
        self._me = me
        self._source = source
        self._sink = sink
        self._rows = rows
        self._every = every
        self._store = me.store(f"gather-{sink}"[:63], source)
        self._held = {name: row for name, row in self._store.items(_ROW) if isinstance(row, dict)}
        self._since = time.monotonic()

    @property
    def waiting(self) -> int:
        """Rows that are in no batch yet."""
        return len(self._held)

    def run(self, stop: threading.Event) -> None:
        """Until ``stop``; what waits then is kept for the next run."""
        inbox = self._me.subscribe(self._source)
        while not stop.is_set():
            got = inbox.get(0.2)
            if got is not None:
                try:
                    self._take(got)
                except Refused as error:
                    error.message_id = str(got.id)
                    self._me._tell(error)
            while not stop.is_set() and self._due():
                try:
                    self._publish()
                except RetryLater as wait:
                    stop.wait(wait.after)

    def _take(self, got: Delivery) -> None:
        """Keep one row. Raises Refused (schema) for what is no mapping of names to finite numbers."""
        row = got.value()
        if not isinstance(row, dict) or not 1 <= len(row) <= MAX_COLUMNS or not all(map(_finite, row.values())):
            raise Refused(f"{self._source}: expected a row of finite numbers", code=Code.SCHEMA)
        if self._held and {*next(iter(self._held.values()))} != {*row}:
            raise Refused(f"{self._source}: expected the columns of the rows that wait", code=Code.SCHEMA)
        name = _ROW + got.message_id.hex()
        if not self._held:
            self._since = time.monotonic()
        self._store.put(name, row, expires_in=KEPT_S)
        self._held[name] = row

    def _due(self) -> bool:
        late = time.monotonic() - self._since >= self._every
        return len(self._held) >= (MIN_ROWS if late else self._rows)

    def _publish(self) -> None:
        """One batch of the oldest rows; raises what publishing raises, and keeps them then."""
        names = sorted(self._held)[: self._rows]
        rows = [self._held[name] for name in names]
        self._me.publish(self._sink, {column: [row[column] for row in rows] for column in rows[0]}, purpose="batch")
        for name in names:
            self._store.delete(name)
            del self._held[name]
        self._since = time.monotonic()


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
