"""The policy in force, for an agent that may be out of it: who left it may not read the broker's policy topic any more.

It is what the agent's follower read last, or the file of the policy that was applied last where that is newer and on
this machine (public, signed, as on the topic). Says what the policy is, not whether it is still valid.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bus.authority.trust import LiveSnapshot, TrustFile, open_snapshot
from bus.errors import BusError
from bus.policy.model import Policy


class Law:
    """Call it for the policy, None while there is none. Costs a ``stat`` while the file is as it was."""

    def __init__(self, path: Path, trust: TrustFile, followed: Callable[[], LiveSnapshot | None]) -> None:
        self._path = path
        self._trust = trust
        self._followed = followed
        self._stamp = (0, 0)
        self._filed: LiveSnapshot | None = None

    def __call__(self) -> Policy | None:
        """The newest of both. A file that cannot be read, or that the anchor did not sign, is passed over."""
        self._look()
        found = [each for each in (self._filed, self._followed()) if each is not None]
        return max(found, key=lambda each: each.signed.number).policy if found else None

    def _look(self) -> None:
        try:
            told = self._path.stat()
            if (stamp := (told.st_mtime_ns, told.st_ino)) != self._stamp:
                self._stamp = stamp
                self._filed = open_snapshot(self._path.read_bytes(), self._trust, self._filed)
        except (OSError, BusError):
            return
