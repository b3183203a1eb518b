"""Keeps an agent's keys leased: asks the authority before they end, at once when something is missing.

A thread of its own. While the authority is away the agent works with what it holds until that ends; then sending and
reading raise RetryLater, as without keys. What is leased is removed when the agent closes.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import Final

from bus.client.authority import AuthorityClient
from bus.errors import BusError, RetryLater

log = logging.getLogger("bus.client")

POLL_S: Final = 5.0
"""How long a change of policy that takes nothing new to see may go unnoticed."""
JITTER: Final = 0.2
RETRY_S: Final = 1.0
FIRST_S: Final = 10.0


class LeaseKeeper:
    """``wake`` asks for a round now; ``failure`` is why the last one failed, or None."""

    def __init__(self, client: AuthorityClient, name: str) -> None:
        self._client = client
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._first = threading.Event()
        self.failure: BusError | None = None
        self._thread = threading.Thread(target=self._run, name=f"{name} leases", daemon=True)

    def start(self) -> None:
        """Begin, and wait for the first round. Raises Refused(credential) where the authority says no."""
        self._thread.start()
        self._first.wait(FIRST_S)
        if self.failure is not None and not isinstance(self.failure, RetryLater):
            self.close()
            raise self.failure

    def wake(self) -> None:
        """Something is missing."""
        self._wake.set()

    def close(self) -> None:
        """End, and forget what was leased."""
        self._stop.set()
        self._wake.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(30)
        self._client.wipe()

    def _run(self) -> None:
        while not self._stop.is_set():
            pause = self._round()
            self._first.set()
            self._wake.wait(pause * random.uniform(1 - JITTER, 1.0))  # noqa: S311  # spreads load, guards nothing
            self._wake.clear()

    def _round(self) -> float:
        """One round; s until the next."""
        now_ms = time.time_ns() // 1_000_000
        try:
            self._client.renew_if_due(now_ms)
            due = self._client.lease()
        except BusError as error:
            if self.failure is None or type(self.failure) is not type(error):
                log.warning("keys cannot be leased: %s", error)
            self.failure = error
            return RETRY_S
        self.failure = None
        return max(min((due - now_ms) / 1000, POLL_S), RETRY_S / 10)
