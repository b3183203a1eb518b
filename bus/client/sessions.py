"""Tickets of what an agent was given, by session (correlation id): whatever it writes there builds on all of it.

Kept as long as the process lives, up to a bound; a session beyond it has no tickets, and its messages have the label of
the highest that the agent could have read.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Sequence
from typing import Final

from bus.client.delivery import Delivery
from bus.errors import WireError
from bus.wire.envelope import MAX_TICKETS
from bus.wire.ticket import parse_ticket

MAX_SESSIONS: Final = 100_000
Shown = tuple[tuple[bytes, ...], tuple[str, ...]]
"""Tickets, and the labels that they prove."""


class Sessions:
    """Thread-safe. None stands for a session in which something came without a ticket, or too many different ones."""

    def __init__(self) -> None:
        self._held: dict[str, dict[tuple[str, ...], bytes] | None] = {}
        self._lock = threading.Lock()

    def given(self, delivery: Delivery) -> None:
        """Remember a delivery's ticket."""
        with self._lock:
            if delivery.correlation not in self._held:
                if len(self._held) >= MAX_SESSIONS:
                    return
                self._held[delivery.correlation] = {}
            held = self._held[delivery.correlation]
            if held is None:
                return
            try:
                labels = parse_ticket(delivery.ticket).labels
            except WireError:
                labels = None
            if labels is None or (labels not in held and len(held) >= MAX_TICKETS):
                self._held[delivery.correlation] = None
            else:
                held[labels] = delivery.ticket

    def shown(self, session: str, causation: Sequence[uuid.UUID | Delivery]) -> Shown | None:
        """What a message of ``session`` shows; None where it can show nothing that proves all it builds on."""
        if any(isinstance(each, Delivery) and each.correlation != session for each in causation):
            return None
        for each in causation:
            if isinstance(each, Delivery):
                self.given(each)
        with self._lock:
            held = self._held.get(session)
            if not held:
                return None
            return tuple(held.values()), tuple(sorted({name for labels in held for name in labels}))
