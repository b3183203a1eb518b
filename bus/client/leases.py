"""Keeps an agent's keys leased: asks the authority before they end, at once when something is missing.

Where keys wait for attestation it attests first, and anew before the result ends; where that fails the other keys come
all the same, and sending to such a domain says why.

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
from bus.codes import Code
from bus.errors import AccessRefused, BusError, Refused, RetryLater

log = logging.getLogger("bus.client")

POLL_S: Final = 5.0
"""How long a change of policy that takes nothing new to see may go unnoticed."""
JITTER: Final = 0.2
RETRY_S: Final = 1.0
FIRST_S: Final = 10.0
ATTEST_AGAIN_S: Final = 30.0
"""After a refusal: what runs here is not what the policy accepts, and one of both has to change first."""


class LeaseKeeper:
    """``wake`` asks for a round now; ``failure`` is why the last one failed, or None."""

    def __init__(self, client: AuthorityClient, name: str) -> None:
        self._client = client
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._first = threading.Event()
        self._name = name
        self._attest_after = 0.0
        self.failure: BusError | None = None
        self.unattested: BusError | None = None
        """Why the last attestation failed, or None."""
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

    def withheld(self, domain: str) -> AccessRefused | None:
        """Why there are no keys of ``domain``, where that is for want of attestation."""
        why = self._client.withheld.get(domain)
        if why is None:
            return None
        return AccessRefused(
            f"{self._name}: no keys of {domain}, which requires attestation: {self.unattested or why}",
            principal=self._name,
            operation="lease",
            resource=domain,
            code=Code.ATTESTATION,
            hint=f"`attester` in bus.toml; `bus agent show {self._name}` where the authority runs",
        )

    def last_word(self) -> BusError | None:
        """None where the last round brought what there is; Refused where the authority gives this agent nothing."""
        if not self._first.is_set():
            return RetryLater(f"{self._name}: the authority has not answered yet", code=Code.RETRY)
        return self.failure

    def close(self) -> None:
        """End, and forget what was leased."""
        self._stop.set()
        self._wake.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(30)
        self._client.close()
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
            self._attest(now_ms)
            due = self._client.lease()
            if self._client.withheld and self._attest(now_ms):
                due = self._client.lease()
        except BusError as error:
            if self.failure is None or type(self.failure) is not type(error):
                log.warning("keys cannot be leased: %s", error)
            self.failure = error
            return RETRY_S
        self.failure = None
        if isinstance(self.unattested, RetryLater):
            return RETRY_S
        if not self._client.withheld:
            self.unattested = None
        if self._client.attest_at > now_ms:
            due = min(due, self._client.attest_at)
        return max(min((due - now_ms) / 1000, POLL_S), RETRY_S / 10)

    def _attest(self, now_ms: int) -> bool:
        """Whether it attested now."""
        if time.monotonic() < self._attest_after:
            return False
        try:
            done = self._client.attest_if_due(now_ms)
        except (BusError, OSError) as error:  # an attester works with files and devices
            why = error if isinstance(error, BusError) else Refused(f"attester: {error}", code=Code.ATTESTATION)
            if str(why) != str(self.unattested or ""):
                log.warning("attestation failed: %s", why)
            self.unattested = why
            self._attest_after = time.monotonic() + (RETRY_S if isinstance(why, RetryLater) else ATTEST_AGAIN_S)
            return False
        if done or not self._client.withheld:
            self.unattested = None
        return done
