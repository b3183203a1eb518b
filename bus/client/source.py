"""Payloads that are protected at their source: sealed before they leave the agent, opened when they are whole again."""

from __future__ import annotations

import threading
from dataclasses import replace

from bus.client.delivery import Delivery
from bus.client.keystore import KeyStore
from bus.codes import Code
from bus.crypto.session import SourceOpener, SourceSealer
from bus.errors import AccessRefused
from bus.wire.envelope import ProtectAt
from bus.wire.names import AgentId, DomainName


class Sources:
    """Sealers of one agent, one a domain and epoch. Thread-safe."""

    def __init__(self, keys: KeyStore, agent: AgentId, deployment: bytes) -> None:
        self._keys = keys
        self._agent = agent
        self._deployment = deployment
        self._lock = threading.Lock()
        self._held: dict[DomainName, tuple[int, SourceSealer]] = {}

    def seal(self, domain: DomainName, message_id: bytes, payload: bytes, now_ms: int) -> bytes:
        """``payload`` under the session key of the newest epoch. Raises RetryLater where there is none now,
        AccessRefused where there will be none."""
        with self._lock:
            until, sealer = self._held.get(domain, (0, None))
            if sealer is None or now_ms > until:
                until, sealer = self._held[domain] = self._fresh(domain, now_ms)
        return sealer.seal(message_id, payload)

    def _fresh(self, domain: DomainName, now_ms: int) -> tuple[int, SourceSealer]:
        self._keys.check(domain)
        held = self._keys.sending(domain, now_ms)
        if held.session is None:
            raise AccessRefused(
                f"{self._agent}: no session key of {domain}",
                principal=self._agent,
                operation="protect",
                resource=domain,
                code=Code.CREDENTIAL,
                hint="whoever issues keys has no session secret: bus doctor",
            )
        epoch = held.epoch.epoch
        return held.epoch.not_after, SourceSealer(held.session, epoch, self._deployment, domain, self._agent)


class Opened:
    """Opens deliveries of one domain whose payload was protected at its source; others are as they are."""

    def __init__(self, keys: KeyStore, deployment: bytes, domain: DomainName) -> None:
        self._opener = SourceOpener(deployment, domain, lambda epoch: keys.session(domain, epoch))

    def open(self, delivery: Delivery) -> Delivery:
        """With its payload in the clear. Raises Unverified (source), or Refused where the key is not held."""
        if delivery.profile.protect_at is not ProtectAt.SOURCE:
            return delivery
        payload = self._opener.open(delivery.source, delivery.message_id, delivery.payload)
        return replace(delivery, payload=payload)
