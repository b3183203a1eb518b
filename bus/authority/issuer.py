"""The local issuer: makes epochs with random roots and writes one 0600 bundle per agent and epoch.

It stands where the authority service will: the shape of an agent's folder does not change with it. ``Issuer.step`` does
what is due at a given time and says when to come back, so that a test drives it with its own clock.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from bus.authority.bundle import make_bundle
from bus.authority.roots import RootStore, StoredEpoch
from bus.crypto.keys import Secret, root_digest
from bus.crypto.signing import Signer, sign_object
from bus.files import Layout, make_folder, write_secret
from bus.policy.model import Policy
from bus.settings import Settings
from bus.wire.hopblock import DAY_MS
from bus.wire.names import NO_ZONE
from bus.wire.objects import Epoch

log = logging.getLogger("bus.authority")


class Issuer:
    """Creates what is missing, strips what has closed, destroys what is beyond the backlog horizon."""

    def __init__(
        self, layout: Layout, store: RootStore, signer: Signer, settings: Settings, owners: Mapping[str, int]
    ) -> None:
        self._layout = layout
        self._store = store
        self._signer = signer
        self._settings = settings
        self._owners = owners
        self._epochs: dict[int, list[StoredEpoch]] = {}
        self._stripped: set[int] = set()
        self._digest = b""

    def step(self, policy: Policy, now_ms: int) -> int:
        """Bring epochs and bundles up to ``now_ms``; returns when (ms since 1970) something is due next."""
        settings = self._settings
        settings.check_interval(policy.rotation_interval_ms)
        if policy.digest != self._digest:
            self._stripped.clear()  # who may read closed epochs may have changed
            self._digest = policy.digest
        for number in self._store.numbers():
            if number not in self._epochs:
                self._epochs[number] = self._store.load(number)
        # 1. The current epoch and, a lead before it begins, the next one.
        while self._last_end() < now_ms + settings.lead_ms + settings.max_clock_skew_ms:
            self._create(policy, max(self._last_end(), now_ms - settings.max_clock_skew_ms))
        # 2. Domains that the policy gained since an open epoch was made join that epoch.
        for number, epochs in self._epochs.items():
            if epochs[0].epoch.not_after >= now_ms:
                self._join(number, policy)
        # 3. The audit's roots of today and tomorrow.
        for day in (now_ms // DAY_MS, now_ms // DAY_MS + 1):
            self._store.audit_root(day, create=True)
        # 4. Bundles: written for open epochs, without sending keys for closed ones, gone beyond the horizon.
        for number, epochs in sorted(self._epochs.items()):
            closes = epochs[0].epoch.not_after + settings.grace_ms
            if closes + policy.backlog_horizon_ms < now_ms:
                self._destroy(number)
            elif closes < now_ms and number not in self._stripped:
                self._write_bundles(number, policy, sending=False)
                self._stripped.add(number)
            elif closes >= now_ms:
                self._write_bundles(number, policy, sending=True)
        # 5. An agent that left the policy loses its keys at once, those of closed epochs too.
        for folder in self._agent_folders():
            if folder.name not in policy.agents:
                for path in (folder / "keys").glob("*"):
                    path.unlink(missing_ok=True)
        return self._last_end() - settings.lead_ms - settings.max_clock_skew_ms

    def _last_end(self) -> int:
        return max((epochs[0].epoch.not_after for epochs in self._epochs.values()), default=0)

    def _create(self, policy: Policy, begin: int) -> None:
        number = max(self._epochs, default=0) + 1
        self._epochs[number] = [
            self._make(number, domain, begin, begin + policy.rotation_interval_ms) for domain in sorted(policy.domains)
        ]
        log.info("epoch %d begins at %d", number, begin)

    def _make(self, number: int, domain: str, begin: int, end: int) -> StoredEpoch:
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
        return self._store.put(sign_object(self._signer, epoch), root)

    def _join(self, number: int, policy: Policy) -> None:
        first = self._epochs[number][0].epoch
        held = {each.epoch.domain for each in self._epochs[number]}
        for domain in sorted(set(policy.domains) - held):
            self._epochs[number].append(self._make(number, domain, first.not_before, first.not_after))

    def _write_bundles(self, number: int, policy: Policy, *, sending: bool) -> None:
        for agent in sorted(policy.agents):
            owner = self._owners.get(agent)
            make_folder(self._layout.agent(agent), owner=owner)
            folder = make_folder(self._layout.agent(agent) / "keys", owner=owner)
            data = make_bundle(agent, policy, self._epochs[number], sending=sending)
            path = folder / str(number)
            if data is None:
                path.unlink(missing_ok=True)
            elif not path.exists() or path.read_bytes() != data:
                write_secret(path, data, owner)

    def _agent_folders(self) -> list[Path]:
        parent = self._layout.agent("x").parent
        return sorted(parent.iterdir()) if parent.is_dir() else []

    def _destroy(self, number: int) -> None:
        for folder in self._agent_folders():
            (folder / "keys" / str(number)).unlink(missing_ok=True)
        self._store.destroy(number)
        del self._epochs[number]
        log.info("epoch %d destroyed: beyond the backlog horizon", number)
