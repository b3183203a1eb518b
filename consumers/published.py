"""The policy as the broker tells it, for services that follow it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from bus.authority.trust import LiveSnapshot, TrustFile, open_snapshot
from bus.errors import BusError
from bus.kafka.feed import Feed

log = logging.getLogger("bus.policy")


class Published:
    """``held`` is the newest snapshot of `bus.policy` that the policy signer signed; its number only rises."""

    def __init__(self, feed: Feed, trust: TrustFile, held: LiveSnapshot | None = None) -> None:
        self._feed = feed
        self._trust = trust
        self.held = held

    def new(self, wait_s: float = 0) -> Iterator[LiveSnapshot]:
        """Snapshots that came since, the first within ``wait_s`` s; what cannot be opened is logged and passed over.

        Raises AccessRefused.
        """
        while (value := self._feed.poll(wait_s)) is not None:
            wait_s = 0
            try:
                self.held = open_snapshot(value, self._trust, self.held)
            except BusError as error:
                log.error("policy snapshot refused: %s", error)  # noqa: TRY400  # the reason is the message
            else:
                yield self.held
