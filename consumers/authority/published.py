"""The policy as the broker tells it: a replica on a machine of its own follows what was applied on another."""

from __future__ import annotations

import logging
from typing import Final

from bus.authority.trust import LiveSnapshot, TrustFile, open_snapshot
from bus.errors import BusError
from bus.kafka.feed import Feed

log = logging.getLogger("bus.authority")
FIRST_S: Final = 1.0
"""How long the first answer of the broker is waited for, at a time."""


class Published:
    """The newest snapshot of `bus.policy` that the policy signer signed; its number only rises."""

    def __init__(self, feed: Feed, trust: TrustFile) -> None:
        self._feed = feed
        self._trust = trust
        self._held: LiveSnapshot | None = None

    def __call__(self) -> LiveSnapshot | None:
        """None before the first; what cannot be opened is logged and passed over. Raises AccessRefused."""
        while (value := self._feed.poll(0 if self._held else FIRST_S)) is not None:
            try:
                self._held = open_snapshot(value, self._trust, self._held)
            except BusError as error:
                log.error("policy snapshot passed over: %s", error)  # noqa: TRY400  # the reason is the message
        return self._held
