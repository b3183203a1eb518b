"""Payloads that are protected at their source: sealed before they leave the agent, opened when they are whole again."""

from __future__ import annotations

import threading

from bus.client.keystore import KeyStore
from bus.codes import Code
from bus.crypto.session import SourceOpener, SourceSealer
from bus.errors import RetryLater, Unverified
from bus.wire.envelope import Profile, ProtectAt
from bus.wire.names import AgentId, DomainName


class Sources:
    """Sealers of one agent, one a domain and epoch. Thread-safe."""

    def __init__(self, keys: KeyStore, agent: AgentId, deployment: bytes) -> None:
        self._keys = keys
        self._agent = agent
        self._deployment = deployment
        self._lock = threading.Lock()
        self._held: dict[tuple[DomainName, int], SourceSealer] = {}

    def seal(self, domain: DomainName, message_id: bytes, payload: bytes, now_ms: int, context: bytes = b"") -> bytes:
        """``payload``, or with a ``context`` a part of one, under the session key of the newest epoch.

        Raises RetryLater where there is none yet, AccessRefused where keys of the domain wait for an attestation.
        """
        self._keys.check(domain)
        held = self._keys.sending(domain, now_ms)  # the newest that has begun: who lost the domain has no key of it
        if held.session is None:
            self._keys.ask()
            raise RetryLater(f"{self._agent}: no session key of {domain} yet", code=Code.RETRY, after=1)
        name = (domain, held.epoch.epoch)
        with self._lock:
            sealer = self._held.get(name)
            if sealer is None:
                self._held = {each: made for each, made in self._held.items() if each[0] != domain}
                sealer = SourceSealer(held.session, held.epoch.epoch, self._deployment, domain, self._agent)
                self._held[name] = sealer
        return sealer.seal(message_id, payload, context)


class Opened:
    """Opens payloads of one domain that were protected at their source; others are as they are."""

    def __init__(self, keys: KeyStore, deployment: bytes, domain: DomainName) -> None:
        self._opener = SourceOpener(deployment, domain, lambda epoch: keys.session(domain, epoch))

    def payload(self, profile: Profile, message_id: bytes, payload: bytes, *, required: bool) -> bytes:
        """``payload`` in the clear. ``required``: the policy has no other in this domain, whatever an enforcer says.
        Raises Unverified (source), or Refused where the key is not held."""
        if profile.protect_at is ProtectAt.SOURCE:
            return self._opener.open(profile.source, message_id, payload)
        if required:
            raise Unverified("payload: expected one that is protected at its source", step="source", code=Code.OPEN)
        return payload
