"""The local issuer: makes epochs with random roots and writes one 0600 bundle per agent and epoch.

It stands where the authority service will: the shape of an agent's folder does not change with it. ``Issuer.step`` does
what is due at a given time and says when to come back, so that a test drives it with its own clock.

An epoch is of one domain and has a number that rises over all of them; domains whose epochs begin and end together
share the number. A domain has the next one a lead before the last ends, and a new one at once, in place of those that
are open or coming, when the policy lets other agents open it: whoever lost it holds no key of what is sealed from then
on.

Replicas of the authority share one store. A number is claimed with all its roots by who is first; the other reads them
back, and asks anew what is due.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from bus.authority.bundle import make_bundle
from bus.authority.documents import Place
from bus.authority.roots import RootStore, StoredEpoch
from bus.authority.sessions import read_session
from bus.authority.tombstones import place_of
from bus.crypto.keys import Secret, root_digest
from bus.crypto.signing import Signer, sign_object
from bus.files import Layout, make_folder, write_secret
from bus.policy.attestation import check_issuing
from bus.policy.model import Policy
from bus.policy.rekeying import opening_digest
from bus.settings import Settings
from bus.wire.hopblock import DAY_MS
from bus.wire.names import NO_ZONE, AgentId, DomainName
from bus.wire.objects import Epoch

log = logging.getLogger("bus.authority")
Epochs = Mapping[int, list[StoredEpoch]]
"""By number, ascending."""


class Issuer:
    """Creates what is missing, strips what has closed, destroys what is beyond the backlog horizon, takes back what is
    erased."""

    def __init__(
        self,
        layout: Layout,
        store: RootStore,
        signer: Signer,
        settings: Settings,
        owners: Mapping[str, int],
        *,
        files: bool = True,
    ) -> None:
        """``files`` False writes no bundle: agents ask for them (``leases``)."""
        self._layout = layout
        self._store = store
        self._signer = signer
        self._settings = settings
        self._owners = owners
        self._files = files
        self._session = read_session(layout)
        self._epochs: dict[int, list[StoredEpoch]] = {}
        self._held: dict[str, list[StoredEpoch]] = {}
        """By domain, oldest first."""
        self._written: dict[tuple[int, str], tuple[bytes, bool, bool]] = {}
        """Bundles by epoch and agent: under which policy, with sending keys or without, and whether there is one."""
        self._leased: dict[tuple[int, str, bool, bool], tuple[bytes, int, bytes | None]] = {}
        """Bundles by epoch, agent, whether they send and whether it attested: under which policy, of how many roots,
        and what is in them."""
        self._leasing = threading.Lock()
        self._stripped: set[int] = set()
        self._erased: set[Place] = set()
        """Whose keys were taken back."""
        self._days: set[int] = set()
        """Whose audit roots are there: the provider is asked once a day."""
        self._openers: dict[DomainName, bytes] = {}
        self._digest = b""

    def step(self, policy: Policy, now_ms: int) -> int:
        """Bring epochs and bundles up to ``now_ms``; returns when (ms since 1970) something is due next.

        Raises PolicyError where bundles are files and a domain waits for attestation.
        """
        settings = self._settings
        check_issuing(policy, files=self._files)
        settings.check_interval(policy.rotation_interval_ms)  # a domain's own can only be shorter
        if policy.digest != self._digest:
            self._stripped.clear()  # who may read closed epochs may have changed
            self._digest = policy.digest
            self._openers = {domain: opening_digest(policy, domain) for domain in policy.domains}
        self._take_back()
        # 1. The current epoch of each domain and, a lead before it begins, the next one.
        self._read_new()
        while not self._create_due(policy, now_ms):
            self._read_new()  # another replica was first
        # 2. The audit's roots of today and tomorrow.
        for day in {now_ms // DAY_MS, now_ms // DAY_MS + 1} - self._days:
            self._store.audit_root(day, create=True)
            self._days.add(day)
        # 3. Bundles: written for open epochs, without sending keys for closed ones, gone beyond the horizon.
        for number, epochs in sorted(self._epochs.items()):
            closes = epochs[0].epoch.not_after + settings.grace_ms
            if closes + policy.backlog_horizon_ms < now_ms:
                self._destroy(number)
            elif self._files and closes < now_ms and number not in self._stripped:
                self._write_bundles(number, policy, sending=False)
                self._stripped.add(number)
            elif self._files and closes >= now_ms:
                self._write_bundles(number, policy, sending=True)
        # 4. An agent that left the policy loses its keys at once, those of closed epochs too.
        for folder in self._agent_folders() if self._files else ():
            if folder.name not in policy.agents:
                for path in (folder / "keys").glob("*"):
                    path.unlink(missing_ok=True)
        ends = [self._chain(domain, now_ms)[-1].epoch.not_after for domain in policy.domains]
        return min(ends) - settings.lead_ms - settings.max_clock_skew_ms

    def held(self) -> Epochs:
        """The epochs that ``step`` holds, for ``leases``."""
        return dict(sorted(self._epochs.items()))

    def leases(
        self, agent: AgentId, policy: Policy, epochs: Epochs, now_ms: int, *, attested: bool = False
    ) -> dict[int, bytes]:
        """The bundle of ``agent`` in each of ``epochs``, without sending keys for closed ones. Thread-safe: ``epochs``
        are those that ``held`` told after a ``step`` under ``policy``; each bundle is made once.

        ``attested`` as for ``make_bundle``.
        """
        found = {}
        # A tombstone holds from the moment that it is there.
        erased = self._store.tombstones.places(min(epochs, default=0))
        closed = {number for number, _ in erased}
        for number, held in epochs.items():
            left = [each for each in held if place_of(each.epoch) not in erased] if number in closed else held
            sending = held[0].epoch.not_after + self._settings.grace_ms >= now_ms
            name, of = (number, agent, sending, attested), (policy.digest, len(left))
            made = self._leased.get(name)
            if made is None or made[:2] != of:
                data = make_bundle(agent, policy, left, sending=sending, attested=attested, session=self._session)
                made = (*of, data)
                with self._leasing:
                    self._leased[name] = made
            if made[2] is not None:
                found[number] = made[2]
        return found

    def _read_new(self) -> None:
        for number in self._store.numbers():
            if number not in self._epochs and (epochs := self._store.load(number)):
                self._take(number, epochs)

    def _create_due(self, policy: Policy, now_ms: int) -> bool:
        """Make what is due; False where a number was claimed by another, so that something else may be due."""
        due: defaultdict[tuple[int, int], list[DomainName]] = defaultdict(list)
        for domain in sorted(policy.domains):
            for span in self._due(domain, policy, now_ms):
                due[span].append(domain)
        return all(self._create(domains, begin, end) for (begin, end), domains in sorted(due.items()))

    def _due(self, domain: DomainName, policy: Policy, now_ms: int) -> Iterator[tuple[int, int]]:
        """Begin and end (ms) of the epochs that ``domain`` lacks, in their order; none longer than its interval."""
        interval, skew = policy.interval_ms(domain), self._settings.max_clock_skew_ms
        chain, until = self._chain(domain, now_ms), now_ms + self._settings.lead_ms + skew
        wrong = next((at for at, each in enumerate(chain) if each.openers != self._openers[domain]), None)
        if not chain:  # it is new, or the issuer was away
            ended = (each.epoch.not_after for each in self._held.get(domain, []) if each.epoch.not_after <= now_ms)
            last = max([now_ms - skew, *ended])
        elif wrong is None:
            last = chain[-1].epoch.not_after
        else:  # the whole rest is replaced, also where it has not begun: who left holds the keys of that, too
            first, until = chain[wrong].epoch, max(until, chain[-1].epoch.not_after)
            end = min(first.not_after, max(now_ms, first.not_before) + interval)
            # It begins where what it replaces began: whatever anybody's clock says, it takes its place.
            yield max(first.not_before, end - interval - skew) if wrong == 0 else first.not_before, end
            last = end
        ends = self._ends(policy, interval, now_ms)
        while last < until:
            end = next((each for each in ends if last < each <= last + interval), last + interval)
            yield last, end
            last = end

    def _chain(self, domain: str, now_ms: int) -> list[StoredEpoch]:
        """The epochs in force from ``now_ms`` on without a gap, oldest first: each the newest that has begun then."""
        chain: list[StoredEpoch] = []
        begun = now_ms + self._settings.max_clock_skew_ms
        at = now_ms
        while True:
            fitting = [
                each
                for each in self._held.get(domain, [])
                if each.epoch.not_before <= begun and each.epoch.not_after > at
            ]
            if not fitting:
                return chain
            chain.append(max(fitting, key=lambda each: each.epoch.epoch))
            at = begun = chain[-1].epoch.not_after

    def _ends(self, policy: Policy, interval: int, now_ms: int) -> list[int]:
        """When the epochs in force end of the domains that rotate as often: new ones keep in step with them."""
        return sorted(
            {
                each.epoch.not_after
                for domain in policy.domains
                if policy.interval_ms(domain) == interval
                for each in self._chain(domain, now_ms)
            }
        )

    def _create(self, domains: list[DomainName], begin: int, end: int) -> bool:
        number = max([*self._epochs, *(number for number, _ in self._erased)], default=0) + 1
        made = [self._make(number, domain, begin, end) for domain in domains]
        if not self._store.claim(made):
            return False
        self._take(number, made)
        log.info("epoch %d of %s begins at %d", number, ", ".join(domains), begin)
        return True

    def _take(self, number: int, epochs: list[StoredEpoch]) -> None:
        self._epochs[number] = epochs
        for each in epochs:
            self._held.setdefault(each.epoch.domain, []).append(each)

    def _make(self, number: int, domain: DomainName, begin: int, end: int) -> StoredEpoch:
        root = Secret.random(f"root({domain}, {number})")
        epoch = Epoch(
            deployment=self._settings.deployment_id,
            epoch=number,
            not_before=begin,
            not_after=end,
            zone=NO_ZONE,
            domain=domain,
            root_digest=root_digest(root),
        )
        return StoredEpoch(epoch, sign_object(self._signer, epoch), root, self._openers[domain])

    def _write_bundles(self, number: int, policy: Policy, *, sending: bool) -> None:
        for agent in sorted(policy.agents):
            path = self._layout.agent(agent) / "keys" / str(number)
            name, made = (number, agent), (policy.digest, sending)
            if self._written.get(name) == (*made, path.exists()):
                continue  # made under this policy, and as it was left
            owner = self._owners.get(agent)
            make_folder(self._layout.agent(agent), owner=owner)
            make_folder(self._layout.agent(agent) / "keys", owner=owner)
            data = make_bundle(agent, policy, self._epochs[number], sending=sending, session=self._session)
            if data is None:
                path.unlink(missing_ok=True)
            elif not path.exists() or path.read_bytes() != data:
                write_secret(path, data, owner)
            self._written[name] = (*made, data is not None)

    def _agent_folders(self) -> list[Path]:
        parent = self._layout.agent("x").parent
        return sorted(parent.iterdir()) if parent.is_dir() else []

    def _take_back(self) -> None:
        """Forget roots that were erased since; ``step`` writes the bundles of their epochs anew, without them."""
        for number, name in sorted(self._store.tombstones.places() - self._erased):
            left = []
            for each in self._epochs.pop(number, []):
                if place_of(each.epoch) == (number, name):
                    self._held[each.epoch.domain].remove(each)
                else:
                    left.append(each)
            self._forget(number)
            if left:
                self._epochs[number] = left
            elif not self._store.names(number):
                self._remove_bundles(number)
            self._erased.add((number, name))
            log.info("epoch %d of %s is erased: its keys are taken back", number, name.rpartition(".")[2])

    def _destroy(self, number: int) -> None:
        self._remove_bundles(number)
        self._store.destroy(number)
        for each in self._epochs.pop(number):
            self._held[each.epoch.domain].remove(each)
        self._forget(number)
        log.info("epoch %d destroyed: beyond the backlog horizon", number)

    def _remove_bundles(self, number: int) -> None:
        for folder in self._agent_folders():
            (folder / "keys" / str(number)).unlink(missing_ok=True)

    def _forget(self, number: int) -> None:
        """What was written and leased of an epoch."""
        self._stripped.discard(number)
        self._written = {name: made for name, made in self._written.items() if name[0] != number}
        with self._leasing:
            self._leased = {name: made for name, made in self._leased.items() if name[0] != number}
