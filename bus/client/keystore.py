"""An agent's keys as the issuer writes them: which epoch to send under now, which keys open an epoch's records.

Reads ``agents/<id>/keys/<epoch>`` again when something is missing; forgets what the issuer took away.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from bus.authority.bundle import Bundle, DomainBundle, read_bundle
from bus.codes import Code
from bus.crypto.keys import AgentKeys, ReadingKey, Secret
from bus.errors import AccessRefused, BusError, RetryLater
from bus.wire.names import AgentId, DomainName

REFRESH_S = 0.2
WAIT_S = 2.0
MISSED_S = 10.0


class KeyStore:
    """Keys of one agent, by epoch."""

    def __init__(
        self,
        folder: Path,
        agent: AgentId,
        anchor: bytes,
        deployment: bytes,
        missing: Callable[[], None] | None = None,
        withheld: Callable[[str], BusError | None] = lambda _: None,
    ) -> None:
        """``missing`` is called when a key is looked for that is not there yet; ``withheld`` says of a domain why its
        keys do not come, or None."""
        self._folder = folder
        self._agent = agent
        self._anchor = anchor
        self._deployment = deployment
        self._missing = missing
        self._withheld = withheld
        self._bundles: dict[int, tuple[tuple[int, int], Bundle]] = {}
        self._notices: dict[bytes, AgentKeys] = {}
        self._read_at = 0.0
        self._missed: dict[DomainName, float] = {}
        """Until when no session key of a domain is waited for any more."""
        self._lock = threading.Lock()

    def refresh(self, *, force: bool = False) -> None:
        """Read the folder again, at most every 0.2 s unless forced."""
        with self._lock:
            if not force and time.monotonic() - self._read_at < REFRESH_S:
                return
            self._read_at = time.monotonic()
            try:
                found = {int(path.name): path for path in self._folder.iterdir() if path.name.isdigit()}
            except OSError:
                found = {}
            for number in set(self._bundles) - set(found):
                del self._bundles[number]
            for number, path in found.items():
                self._take(number, path)
            self._notices = {
                each.own.notice_key_id: each.own
                for _, bundle in self._bundles.values()
                for each in bundle.values()
                if each.own is not None
            }

    def _take(self, number: int, path: Path) -> None:
        try:
            told = path.stat()
            stamp = (told.st_mtime_ns, told.st_ino)
            held = self._bundles.get(number)
            if held is not None and held[0] == stamp:
                return
            bundle = read_bundle(path, self._agent, self._anchor, self._deployment)
        except FileNotFoundError:
            return  # taken away since it was listed
        self._bundles[number] = (stamp, bundle)

    def withheld(self, domain: DomainName) -> BusError | None:
        """Why the keys of ``domain`` do not come, or None."""
        return self._withheld(domain)

    def check(self, domain: DomainName) -> None:
        """Raise AccessRefused(attestation) where the keys of ``domain`` are withheld: those that are held end, too."""
        if (why := self._withheld(domain)) is not None:
            raise why

    def begun(self, domain: DomainName, now_ms: int) -> dict[int, DomainBundle]:
        """The epochs of ``domain`` that have begun, by number, whether they may be sent under or not. Does not wait."""
        self.refresh()
        held = {number: each[domain] for number, (_, each) in list(self._bundles.items()) if domain in each}
        return {number: each for number, each in held.items() if each.epoch.not_before <= now_ms}

    def ask(self) -> None:
        """Say that a key is missing, to who brings them."""
        if self._missing is not None:
            self._missing()

    def sending(self, domain: DomainName, now_ms: int) -> DomainBundle:
        """The newest epoch that has begun. Raises RetryLater when there is none yet, AccessRefused when never."""
        deadline = time.monotonic() + WAIT_S
        while True:
            self.refresh()
            begun = [
                each[domain]
                for _, each in list(self._bundles.values())
                if domain in each and each[domain].own is not None and each[domain].epoch.not_before <= now_ms
            ]
            if begun:
                newest = max(begun, key=lambda each: each.epoch.epoch)
                if newest.epoch.not_after >= now_ms or time.monotonic() > deadline:
                    return newest
            if time.monotonic() > deadline:
                break
            self.ask()
            time.sleep(0.02)
        if self._bundles:
            raise RetryLater(f"{self._agent}: no key to send to {domain} now", code=Code.RETRY, after=1)
        raise AccessRefused(
            f"{self._agent}: no keys in {self._folder}",
            principal=self._agent,
            operation="send",
            resource=domain,
            code=Code.CREDENTIAL,
            hint="does the issuer run, and is the agent in agents.yaml? `bus doctor`",
        )

    def held(self, domain: DomainName, epoch: int) -> DomainBundle | None:
        """The keys of one epoch of ``domain``, where they are held."""
        self.refresh()
        found = self._bundles.get(epoch)
        return found[1].get(domain) if found is not None else None

    def reading(self, domain: DomainName, epoch: int) -> tuple[ReadingKey, ...] | None:
        """Keys that may open records of ``epoch``; None where there are none any more: newer ones are there.

        Raises RetryLater where the epoch is newer than any that is held, after 2 s of looking: its keys are under way.
        """
        deadline = time.monotonic() + WAIT_S
        self.refresh()  # an epoch that was erased since is not read any more
        held = self._bundles.get(epoch)
        if held is None or domain not in held[1]:
            self.refresh(force=True)  # the domain may have been granted since
        while True:
            held = self._bundles.get(epoch)
            if held is not None and domain in held[1]:
                return held[1][domain].reading
            if any(number > epoch and domain in bundle for number, (_, bundle) in list(self._bundles.items())):
                return None
            if time.monotonic() > deadline:
                raise RetryLater(
                    f"{self._agent}: the keys of {domain}, epoch {epoch}, are not there yet", code=Code.RETRY
                )
            if self._withheld(domain) is None:
                self.ask()
            self.refresh(force=True)
            time.sleep(0.02)

    def session(self, domain: DomainName, epoch: int) -> Secret | None:
        """The session key of ``epoch``, where there is one; of an epoch newer than all that are held after 2 s of
        looking, once in 10 s: a source whose clock is ahead may be in it already, and one that made it up must not keep
        its readers waiting."""
        now = time.monotonic()
        held = self.held(domain, epoch)
        deadline = now + WAIT_S if held is None and self._missed.get(domain, 0.0) < now else now
        if deadline > now and epoch > self.newest():
            self._missed[domain] = now + MISSED_S
        while held is None and epoch > self.newest() and time.monotonic() < deadline:
            self.ask()
            self.refresh(force=True)
            time.sleep(0.02)
            held = self.held(domain, epoch)
        return held.session if held is not None else None

    def all_reading(self, domain: DomainName) -> dict[int, tuple[ReadingKey, ...]]:
        """Keys that may open records of ``domain``, by epoch."""
        self.refresh(force=True)
        return {
            number: bundle[domain].reading
            for number, (_, bundle) in list(self._bundles.items())
            if domain in bundle and bundle[domain].reading
        }

    def notice_key(self, key_id: bytes) -> AgentKeys | None:
        """Whose notice key this is, if mine."""
        return self._notices.get(key_id)

    def newest(self) -> int:
        """The highest epoch held, or 0."""
        return max(list(self._bundles), default=0)
