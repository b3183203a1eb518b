"""Rounds: draw faults, hurt the site under load, let it come to rest, count everything."""

import random
import threading
import time
from dataclasses import dataclass, field, replace

from demo.raw import RawClient
from tests.chaos import load
from tests.chaos.faults import KINDS, Kind, draw
from tests.chaos.oracle import Findings, Oracle, Published
from tests.chaos.site import DOMAINS, Site
from tests.integration.oracle import verified

SETTLE_S = 90.0
"""How long after its faults a round may need until every input has its hop."""


@dataclass(slots=True)
class Round:
    """What one round was."""

    number: int
    faults: list[str]
    seconds: float
    findings: Findings
    errors: list[str] = field(default_factory=list)


class Chaos:
    """Rounds on one site from one seed; each has one to ``most`` faults out of ``kinds``."""

    def __init__(self, site: Site, seed: int, most: int = 3, kinds: list[Kind] = KINDS) -> None:
        self._site = site
        self._seed = seed
        self._most = most
        self._kinds = kinds
        self.published = Published()
        self.oracle = Oracle(site.stack, DOMAINS)
        self.restarts: list[int] = []
        """Rounds after which the broker had to be started once more."""
        self._raw = RawClient(site.stack)
        self._mischief = load.Mischief(self._raw, random.Random(f"{seed} mischief"))
        settings = site.stack.settings
        proxied = replace(settings, bootstrap=site.proxy.bootstrap)
        self._lanes = [
            load.Lane(proxied if agent == load.PROXIED else settings, agent, domain, f"{seed} {agent} {domain}")
            for agent, domain in load.LANES
        ]
        for lane in self._lanes:
            lane.start()

    def round(self, number: int) -> Round:
        """One round: its faults and their times come from the seed and its number, whatever was before."""
        began = time.monotonic()
        rng = random.Random(f"{self._seed} round {number}")
        drawn = draw(rng, self._most, self._kinds)
        told, errors = [], []
        for lane in self._lanes:
            lane.going.set()
        self._mischief.act(self.published, rng.randrange(2, 10))
        threads = [
            threading.Thread(target=self._hurt, args=(kind, rng.randrange(1 << 32), told, errors), name=kind.name)
            for kind in drawn
        ]
        for thread in threads:
            thread.start()
        threading.Event().wait(rng.uniform(1.5, 3))  # load, also where a fault is over in no time
        for thread in threads:
            thread.join()
        threading.Event().wait(rng.uniform(0.1, 0.5))
        for lane in self._lanes:
            lane.going.clear()
        for each in (*self._lanes, self._mischief):
            each.settle(self.published)
        findings = self.oracle.count(self.published, SETTLE_S, self._site.mend)
        if findings.unaudited and not findings.doubled:
            # A group coordinator that was killed can come back with a group of minutes before: members that are gone
            # keep partitions, and only another start of the broker helps. Whatever waited must then be done, once.
            self._site.kill_broker()
            self._site.start_broker()
            self.restarts.append(number)
            told.append("broker started once more for partitions that nobody was given")
            findings = self.oracle.count(self.published, SETTLE_S, self._site.mend)
        return Round(number, told, time.monotonic() - began, findings, errors)

    def _hurt(self, kind: Kind, seed: int, told: list[str], errors: list[str]) -> None:
        try:
            told.append(kind.act(self._site, random.Random(seed)))
        except BaseException as error:  # told with the round: the site may still be judged
            errors.append(f"{kind.name}: {type(error).__name__}: {error}")

    def verify(self) -> list[str]:
        """What `bus audit verify` finds wrong with the ledger."""
        return verified(self._site.stack)["problems"]

    def close(self) -> None:
        """End the load."""
        for lane in self._lanes:
            lane.close()
