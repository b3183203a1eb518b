"""Which domains keep their records with their hops, by the number of the policy that a hop was decided under.

Policies are read from bus.policy when a hop names one that is newer than those that were read: whoever decided under
it had it from there. What compaction took from the topic counts as the next one that is there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final

from bus.authority.trust import TrustFile, open_snapshot
from bus.errors import BusError

MAX_MISSING: Final = 1024
log = logging.getLogger("bus.audit")


class Laws:
    """``read`` gives every value of bus.policy; it raises RetryLater or AccessRefused."""

    def __init__(self, read: Callable[[], list[bytes]], trust: TrustFile) -> None:
        self._read = read
        self._trust = trust
        self._kept: dict[int, frozenset[str]] = {}
        self._missing: set[int] = set()

    def keeps(self, number: int, domain: str) -> bool:
        """Whether policy ``number`` has the records of ``domain`` kept."""
        self._reach(number)
        later = [each for each in self._kept if each >= number]
        return bool(self._kept) and domain in self._kept[min(later) if later else max(self._kept)]

    def ever(self, met: Iterable[int], domain: str) -> bool:
        """Whether any policy that is known does, with those of the numbers ``met`` among them."""
        for number in met:
            self._reach(number)
        return any(domain in each for each in self._kept.values())

    def now(self, domain: str) -> bool:
        """Whether the newest policy on the topic does."""
        self._take()
        return bool(self._kept) and domain in self._kept[max(self._kept)]

    def _reach(self, number: int) -> None:
        if number in self._missing or number <= max(self._kept, default=0):
            return
        self._take()
        if number > max(self._kept, default=0):  # no enforcer that is honest names one
            if len(self._missing) >= MAX_MISSING:
                self._missing.clear()
            self._missing.add(number)

    def _take(self) -> None:
        for value in self._read():
            try:
                snapshot = open_snapshot(value, self._trust)
            except BusError as error:
                log.error("policy snapshot passed over: %s", error)  # noqa: TRY400  # the reason is the message
                continue
            kept = frozenset(name for name, each in snapshot.policy.domains.items() if each.payload_kept)
            self._kept[snapshot.signed.number] = kept
