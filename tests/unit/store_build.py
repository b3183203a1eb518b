"""A store of an agent whose keys a real issuer makes, under a clock of the test; and `python -m` children that use it.

``python -m tests.unit.store_build STATE NOW NAME COUNT`` puts NAME/0, NAME/1 … into the store and says so after each;
with COUNT 0 it goes on until it is ended.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass, field
from pathlib import Path

from bus.authority.erasure import make_tombstone
from bus.authority.local import load_signer
from bus.authority.trust import read_trust
from bus.client.keystore import KeyStore
from bus.client.shelves import Shelves
from bus.client.store import Store
from bus.crypto.signing import sign_object
from bus.errors import BusError
from bus.files import Layout
from bus.policy.model import Policy
from bus.wire.names import AgentId, DomainName
from tests.unit.ledger_build import DEPLOYMENT, NOON, Authority, make_authority, make_policy

AGENT = AgentId("writer-1")
NOTES, PLANS = DomainName("notes"), DomainName("plans")
INTERVAL, GRACE, SKEW, HORIZON = 600_000, 120_000, 30_000, 3_600_000
BOTH = make_policy(horizon_ms=HORIZON)
"""writer-1 writes and reads notes, and reads plans."""


@dataclass
class Desk:
    """An issuer, the stores of one agent, and what may change: time, the policy, what the authority says."""

    authority: Authority
    policy: Policy | None = BOTH
    now: int = NOON
    said: BusError | None = None
    told: list[BusError] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.authority.layout.store(AGENT)

    def step(self) -> None:
        """Let the issuer do what is due."""
        assert self.policy is not None
        self.authority.issuer.step(self.policy, self.now)

    def pass_by(self, ms: int) -> None:
        """Time passes, with the issuer at work every interval."""
        until = self.now + ms
        while self.now < until:
            self.now = min(self.now + INTERVAL, until)
            self.step()

    def erase(self, *numbers: int, domain: str = NOTES) -> None:
        """What `bus keys erase` does, and the issuer after it."""
        signer = load_signer(self.authority.layout.signer("issuer"))
        for number in numbers:
            stored = self.authority.store.open(number, f".{domain}")
            made = make_tombstone(stored, BOTH.agents, self.now)
            self.authority.store.tombstones.put(sign_object(signer, made), "file:x")
        self.authority.store.destroy_erased()
        self.step()

    def shelves(self) -> Shelves:
        """The file, opened as a process of the agent does."""
        layout = self.authority.layout
        held = KeyStore(layout.agent(AGENT) / "keys", AGENT, self.authority.trust.anchor, DEPLOYMENT)
        held.refresh(force=True)
        return Shelves(
            self.path,
            held,
            AGENT,
            DEPLOYMENT,
            (GRACE, SKEW),
            lambda: self.policy,
            lambda: self.said,
            self.told.append,
            lambda: self.now,
        )

    def store(self, name: str = "checkpoints", domain: DomainName = NOTES) -> Store:
        return Store(self.shelves(), name, domain)


def make_desk(folder: Path) -> Desk:
    """A desk whose issuer has made the first epoch."""
    desk = Desk(make_authority(folder))
    desk.step()
    return desk


def main(state: str, now: str, name: str, count: str) -> None:
    """The child: keys and file of the parent's desk."""
    layout = Layout(Path(state))
    held = KeyStore(layout.agent(AGENT) / "keys", AGENT, read_trust(layout.trust).anchor, DEPLOYMENT)
    shelves = Shelves(
        layout.store(AGENT),
        held,
        AGENT,
        DEPLOYMENT,
        (GRACE, SKEW),
        lambda: BOTH,
        lambda: None,
        lambda _: None,
        lambda: int(now),
    )
    store = Store(shelves, "checkpoints", NOTES)
    for number in itertools.islice(itertools.count(), int(count) or None):
        store.put(f"{name}/{number}", {"step": number, "state": "s" * 2000})
        store.put("shared", {"by": name})
        print(number, flush=True)
    shelves.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
