"""Tickets of what an agent was given, by session (correlation id): whatever it writes there builds on all of it.

Only a session that began in this process is known whole. A session is named by its first message, whose id holds the
time (UUIDv7); one that is older than this process, or was named by hand, shows no tickets, nor does one beyond the
bound. Messages there have the label of the highest that the agent could have read. What another process under the same
name was given is not known here: agents of several processes need `propagate: session` (docs/adr/0009).
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
_NEW: Final[dict[tuple[str, ...], bytes]] = {}
Shown = tuple[tuple[bytes, ...], tuple[str, ...]]
"""Tickets, and the labels that they prove."""


class Sessions:
    """Thread-safe. None stands for a session in which something came without a ticket, or too many different ones.

    ``since``: when this process began (ms since 1970).
    """

    def __init__(self, since: int) -> None:
        self._since = since
        self._given: dict[bytes, str] = {}
        self._held: dict[str, dict[tuple[str, ...], bytes] | None] = {}
        self._lock = threading.Lock()

    def given(self, delivery: Delivery) -> None:
        """Remember a delivery's ticket."""
        if not delivery.ticket and self._held.get(delivery.correlation, _NEW) is None:
            return  # nothing to learn; the usual case where the policy gives no tickets
        with self._lock:
            if len(self._given) >= MAX_SESSIONS:
                self._given.clear()
            self._given[delivery.message_id] = delivery.correlation
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
        if not self._began_here(session):
            return None
        for each in causation:
            if isinstance(each, Delivery):
                self.given(each)
        with self._lock:
            for each in causation:
                known = self._given.get(each.bytes) if isinstance(each, uuid.UUID) else each.correlation
                if known != session:
                    return None
            held = self._held.get(session)
            if not held:
                return None
            return tuple(held.values()), tuple(sorted({name for labels in held for name in labels}))

    def _began_here(self, session: str) -> bool:
        """Whether all that was given in ``session`` was given to this process."""
        try:
            first = uuid.UUID(hex=session)
        except ValueError:
            return False
        return first.version == 7 and first.int >> 80 >= self._since
