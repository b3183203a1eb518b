"""What an enforcer must keep reading, off the polling thread: policy, new roots, tombstones, the audit's roots.

A key provider may be slow or away for minutes; records under keys that are held go on meanwhile. The watcher reads
and verifies, the polling thread takes what was read between two batches (``take``, ``wait``). A round counts as read
from the moment it began: whoever met an unknown key id at t needs a round that began at t or later.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from dataclasses import dataclass
from typing import Final

from bus.authority.documents import Place
from bus.authority.local import now_ms
from bus.authority.roots import RootStore, StoredEpoch
from bus.authority.tombstones import place_of
from bus.authority.trust import LiveSnapshot, TrustFile
from bus.codes import Code
from bus.crypto.keys import Secret
from bus.crypto.signing import open_object
from bus.crypto.users import Issuers
from bus.errors import BusError, Refused, RetryLater
from bus.kafka.feed import Feed
from bus.wire.hopblock import DAY_MS
from bus.wire.names import CONTROL
from bus.wire.objects import Tombstone
from consumers.enforcer.issuers import IssuersFile
from consumers.published import Published

log = logging.getLogger("bus.enforcer")

INTERVAL_S: Final = 0.25
"""Between two rounds, unless someone waits."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one round brought. ``failure`` says what could not be read; the rest is whole all the same."""

    began_ms: int
    snapshots: tuple[LiveSnapshot, ...]
    epochs: tuple[StoredEpoch, ...]
    audit_roots: tuple[tuple[int, Secret], ...]
    erased: tuple[Tombstone, ...]
    issuers: Issuers | None = None
    """Who vouches for users, where that changed."""
    failure: BusError | OSError | None = None


class Watcher:
    """A thread of rounds. ``feed`` gives policy snapshots and ``control`` tombstones, which stand beside the roots too;
    ``snapshot`` is the newest one read."""

    def __init__(
        self,
        feed: Feed,
        control: Feed,
        roots: RootStore,
        trust: TrustFile,
        snapshot: LiveSnapshot,
        users: IssuersFile | None = None,
    ) -> None:
        self._feed = feed
        self._published = Published(feed, trust, snapshot)
        self._control = control
        self._roots = roots
        self._trust = trust
        self._users = users
        self._rounds: queue.SimpleQueue[Round] = queue.SimpleQueue()
        self._held: set[Place] = set()
        self._days: set[int] = set()
        self._buried: set[Place] = set()
        self._damaged: set[Place] = set()
        self._failed = False
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def take(self) -> Round | None:
        """The oldest round that was not taken yet, or None."""
        try:
            return self._rounds.get_nowait()
        except queue.Empty:
            return None

    def wait(self, timeout: float) -> Round | None:
        """Like ``take``, but asks for a round now and waits up to ``timeout`` s for one."""
        self._wake.set()
        try:
            return self._rounds.get(timeout=max(timeout, 0.001))
        except queue.Empty:
            return None

    def close(self) -> None:
        """End the thread and leave the topics."""
        self._stop.set()
        self._wake.set()
        self._thread.join(10)
        self._feed.close()
        self._control.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            made = self._round()
            if made.failure is not None and not self._failed:
                log.warning("policy or keys cannot be read now: %s", made.failure)
            self._failed = made.failure is not None
            self._rounds.put(made)
            self._wake.wait(INTERVAL_S)
            self._wake.clear()

    def _round(self) -> Round:
        began = now_ms()
        snapshots: list[LiveSnapshot] = []
        epochs: list[StoredEpoch] = []
        days: list[tuple[int, Secret]] = []
        erased: list[Tombstone] = []
        failure: BusError | OSError | None = None
        issuers = self._users.read() if self._users is not None else None
        try:
            self._read_tombstones(erased)
            snapshots.extend(self._published.new())
            self._read_days(began // DAY_MS, days)
            self._read_epochs(epochs)
        except (RetryLater, OSError) as error:
            failure = error
        except Exception as error:  # whatever a broken file raises: the thread lives on, the rest is taken
            log.exception("policy or keys cannot be read")
            failure = RetryLater(f"policy or keys cannot be read: {type(error).__name__}", code=Code.RETRY)
        return Round(began, tuple(snapshots), tuple(epochs), tuple(days), tuple(erased), issuers, failure)

    def _read_tombstones(self, into: list[Tombstone]) -> None:
        """Tombstones that are new: from `bus.control`, and those beside the roots, which outlive its retention."""
        while (value := self._control.poll(0)) is not None:
            if not value:
                continue  # `bus doctor` writes these
            try:
                tombstone = open_object(Tombstone, value, self._trust.anchor, self._trust.deployment)
            except BusError as error:
                log.warning("%s: passed over: %s", CONTROL, error)
                continue
            self._bury(tombstone, into)
        for place in sorted(self._roots.tombstones.places() - self._buried):
            try:
                self._bury(self._roots.tombstones.read(place).tombstone, into)
            except Refused as error:
                # It may be mended, or come by the topic: it is looked at again, and told once.
                if place not in self._damaged:
                    log.error("tombstone %d.%s: %s", *place, error)  # noqa: TRY400  # the reason is the message
                self._damaged.add(place)

    def _bury(self, tombstone: Tombstone, into: list[Tombstone]) -> None:
        place = place_of(tombstone)
        if place not in self._buried:
            self._buried.add(place)
            into.append(tombstone)

    def _read_epochs(self, into: list[StoredEpoch]) -> None:
        """Roots that are new: of a new epoch, or of a domain that joined one. Each is unwrapped once."""
        places = self._roots.places()
        self._held &= places
        for number, name in sorted(places - self._held, reverse=True):  # the newest is needed first
            began = time.monotonic()
            self._held.add((number, name))
            try:
                into.append(self._roots.open(number, name))
            except Refused as error:  # final: this root is lost, the others are not
                log.error("root %d/%s: %s", number, name, error)  # noqa: TRY400  # the reason is the message
                continue
            except (RetryLater, OSError):
                self._held.discard((number, name))
                raise
            log.info("epoch %d: root of %s read in %.0f ms", number, name, (time.monotonic() - began) * 1000)

    def _read_days(self, today: int, into: list[tuple[int, Secret]]) -> None:
        for day in (today, today + 1):
            if day not in self._days:
                try:
                    into.append((day, self._roots.audit_root(day)))
                except FileNotFoundError:
                    continue  # the issuer has not made it yet
                self._days.add(day)
