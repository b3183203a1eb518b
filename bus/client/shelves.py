"""An agent's stores in this process: their file, their keys, and what is due: wiping, and sealing anew.

``bus.client.fate`` says what becomes of what is sealed under an epoch; it is done on open, on close, and beside calls
when a minute has passed, a new epoch has come or the policy took a domain away.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bus.authority.bundle import DomainBundle
from bus.client.fate import Fate, Terms, fate
from bus.client.keystore import KeyStore
from bus.client.storefile import StoredEpoch, StoreFile
from bus.codes import Code
from bus.crypto.entries import EntryKeys
from bus.errors import BusError, Denied, Erased, Refused, RetryLater, Unverified
from bus.policy.model import Policy
from bus.wire.names import AgentId, DomainName

log = logging.getLogger("bus.client")

TEND_MS: Final = 60_000
BATCH: Final = 256
"""Entries that are sealed anew in one transaction."""


def now_ms() -> int:
    """This machine's clock, ms since 1970."""
    return time.time_ns() // 1_000_000


class Shelves:
    """The stores of one agent in this process, with their keys. Thread-safe."""

    def __init__(
        self,
        path: Path,
        keys: KeyStore,
        agent: AgentId,
        deployment: bytes,
        times: tuple[int, int],
        law: Callable[[], Policy | None],
        authority: Callable[[], BusError | None],
        tell: Callable[[BusError], None],
        clock: Callable[[], int] = now_ms,
    ) -> None:
        """``times``: grace and skew (ms). ``law``: the policy in force, None while there is none. ``authority``: why
        keys may be missing that are not gone, or Refused where the agent gets none. ``tell`` is given each ``Erased``.

        Raises Refused(store) or RetryLater(store) where the file cannot be used.
        """
        self.file = StoreFile(path, deployment)
        self.clock = clock
        self._keys = keys
        self._agent = agent
        self._deployment = deployment
        self._times = times
        self._law = law
        self._authority = authority
        self._tell = tell
        self._derived: dict[tuple[DomainName, int], EntryKeys] = {}
        self._tended = (0, 0)
        self._touched: tuple[Policy | None, frozenset[str]] = (None, frozenset())

    def enter(self, domain: DomainName) -> None:
        """Before each use: what is due is done. Raises Denied where ``domain`` is lost, AccessRefused or Refused where
        the authority gives no keys, Refused(tier-unavailable) for a domain whose tier has none yet."""
        now, newest = self.clock(), self._keys.newest()
        if newest != self._tended[1] or abs(now - self._tended[0]) >= TEND_MS or self._left(domain):
            self.tend()
        if self._left(domain):
            raise Denied(
                f"{self._agent} may neither produce nor consume {domain}: what it stored under its keys is wiped",
                rule=f"{domain}.consume",
                code=Code.CONSUME,
            )
        policy = self._law()
        if policy is not None and not policy.domains[domain].protectable:
            tier = policy.domains[domain].tier.name
            raise Refused(f"store: tier {tier} of {domain} has no keys in this release", code=Code.TIER_UNAVAILABLE)
        self._keys.check(domain)
        if isinstance(why := self._authority(), Refused):
            raise why

    def _left(self, domain: str) -> bool:
        policy = self._law()
        if policy is None:
            return False
        if policy is not self._touched[0]:
            either = policy.may_produce(self._agent) + policy.may_consume(self._agent)
            self._touched = (policy, frozenset(each.name for each in either))
        return domain not in self._touched[1]

    def newest(self, domain: DomainName) -> tuple[EntryKeys, int]:
        """Keys of the epoch to seal under, and its end (ms). Raises RetryLater where there are none now."""
        begun = self._keys.begun(domain, self.clock())
        if not begun:
            self._keys.ask()
            raise RetryLater(f"{self._agent}: no keys of {domain} now", code=Code.RETRY)
        held = begun[max(begun)]
        return self._derive(domain, held), held.epoch.not_after

    def used(self, domain: DomainName) -> list[EntryKeys]:
        """Keys of the epochs that entries of ``domain`` are sealed under, in a transaction.

        Raises RetryLater where some are newer than any that is held: their keys are on the way.
        """
        stored = self.file.epochs(domain)
        if stored and self._keys.held(domain, stored[0].number) is None:
            self._keys.refresh(force=True)
            if max(self._keys.begun(domain, self.clock()), default=0) < stored[0].number:
                self._keys.ask()
                raise RetryLater(f"{self._agent}: no key of {domain}, epoch {stored[0].number}, now", code=Code.RETRY)
        found = []
        for each in stored:
            held = self._keys.held(domain, each.number)
            if held is not None:
                found.append(self._derive(domain, held))
            elif not each.lost:
                self._tended = (0, 0)  # the next call looks at it
        return found

    def _derive(self, domain: DomainName, held: DomainBundle) -> EntryKeys:
        place = (domain, held.epoch.epoch)
        made = self._derived.get(place)
        if made is None:
            made = self._derived[place] = EntryKeys(held.store, self._deployment, *place)
        return made

    def tend(self) -> None:
        """Wipe what has no right to be there any more, and seal anew what would lose its key."""
        self._keys.refresh(force=True)
        now, policy = self.clock(), self._law()
        self._tended = (now, self._keys.newest())
        if policy is None:
            return
        terms, settled = Terms(policy.backlog_horizon_ms, *self._times), self._authority() is None
        lost, old, wiped = [], [], 0
        with self.file.transaction():
            self.file.expire(now)
            for each in self.file.epochs():
                domain = DomainName(each.domain)
                if self._left(domain):
                    wiped += self._wipe(each, "the policy gives no right there any more")
                    continue
                if not settled or self._keys.withheld(domain) is not None:
                    continue
                begun = self._keys.begun(domain, now)
                found = fate(each, begun, terms, now)
                if found in (Fate.WIPE, Fate.MISSED) and not each.lost:
                    lost.append(each)
                if found is Fate.WIPE:
                    wiped += self._wipe(each, "its epoch was erased, or is beyond the backlog horizon")
                elif found is Fate.RESEAL:
                    old.append(each)
                if found is not Fate.WIPE and (found is Fate.MISSED) != bool(each.lost):
                    self.file.mark(each, now if found is Fate.MISSED else 0)
        if wiped:
            self.file.forget()
        self._derived = {
            (domain, number): made
            for (domain, number), made in self._derived.items()
            if self._keys.held(domain, number) is not None
        }
        for each in old:
            self._reseal(each)
        for each in lost:
            message = f"store: what {self._agent} put under epoch {each.number} of {each.domain} has no key any more"
            self._tell(Erased(message, epoch=each.number, domain=each.domain))

    def _wipe(self, stored: StoredEpoch, why: str) -> int:
        count = self.file.remove_epoch(stored)
        log.warning("store: %d entries of %s, epoch %d, are wiped: %s", count, stored.domain, stored.number, why)
        return count

    def _reseal(self, stored: StoredEpoch) -> None:
        """Under the newest epoch, some at a time, so that other processes come between."""
        domain, last = DomainName(stored.domain), 0
        held = self._keys.held(domain, stored.number)
        if held is None:
            return
        keys = self._derive(domain, held)
        newest, ends = self.newest(domain)
        while True:
            with self.file.transaction():
                rows = self.file.after("epoch", [stored.id], last, BATCH)
                for row in rows:
                    last = row.id
                    try:
                        entry = keys.open(row.token, row.body, row.expires)
                    except Unverified:
                        log.warning("store: an entry of %s, epoch %d, does not open", domain, stored.number)
                        continue  # it ends with its epoch
                    token = newest.token(entry.store, entry.name)
                    sealed = (newest.shelf(entry.store), token, newest.seal(token, entry, row.expires))
                    self.file.move(row.id, domain, newest.epoch, ends, sealed)
            if len(rows) < BATCH:
                return

    def close(self) -> None:
        """Do what is due, and close the file."""
        try:
            self.tend()
        except BusError as error:
            log.warning("%s", error)  # it is done when the file is opened again
        finally:
            self.file.close()
