"""Session keys: what a source seals for whoever computes, past broker, enforcer and auditor.

session key = HKDF(salt: the authority's own session secret, input: root(zone, domain, epoch)). An enforcer has the root
and not the secret; a copy of the secret opens nothing without the root, and with the root it is erased. It is leased
to agents that may write or read the domain, where it asks for attestation to those that attest.

A payload that is protected at its source: suite (1) | epoch u64 | instance 16 | counter u64 | ciphertext | tag 16. Each
process of a source has an instance, a subkey and a counter of its own; the message id, the source and the domain are
authenticated with it, so that nobody can pass it off as another's.
"""

from __future__ import annotations

import hmac
import itertools
import os
import time
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus.codes import Code
from bus.crypto.keys import INSTANCE_LENGTH, Secret, expand, fresh_instance, instance_key
from bus.crypto.seal import MAX_USES, Opener
from bus.errors import Refused, Unverified
from bus.wire import preimage

SUITE: Final = b"\x01"
HEADER_LENGTH: Final = 1 + 8 + INSTANCE_LENGTH + 8
OVERHEAD: Final = HEADER_LENGTH + 16
MAX_INSTANCES: Final = 1024
LOOK_AGAIN_S: Final = 0.2
"""How long a key is used without a look at whether it is still held: as long as a folder of keys is not read again."""


def session_key(root: Secret, secret: Secret, domain: str, epoch: int) -> Secret:
    """The session key of one domain and epoch (RFC 5869: extract, then expand)."""
    extracted = Secret(hmac.digest(secret.reveal(), root.reveal(), "sha256"), "session")
    return expand(extracted, preimage.session_info(domain, epoch), f"session({domain}, {epoch})")


class SourceSealer:
    """Protects payloads of one process under one session key. Thread-safe; a forked child makes its own."""

    def __init__(self, session: Secret, epoch: int, deployment: bytes, domain: str, agent: str) -> None:
        instance = fresh_instance()
        self._aead = AESGCM(instance_key(session, "source", instance).reveal())
        self._prefix = SUITE + epoch.to_bytes(8, "big") + instance
        self._aad = preimage.source_aad(deployment, domain, agent)
        self._counter = itertools.count()
        self._process = os.getpid()

    def seal(self, message_id: bytes, payload: bytes, context: bytes = b"") -> bytes:
        """``payload`` of the message with this id (16 bytes), or with a ``context`` a part of it. Raises Refused when
        the key is used up."""
        if os.getpid() != self._process:
            raise Refused("session key: a forked child makes a Bus of its own", code=Code.INTERNAL)
        counter = next(self._counter)
        if counter >= MAX_USES:
            raise Refused("session key: used up; a new epoch brings a new one", code=Code.EPOCH_LATE)
        header = self._prefix + counter.to_bytes(8, "big")
        return header + self._aead.encrypt(
            preimage.counter_nonce(counter), payload, self._aad + message_id + header + context
        )


class SourceOpener:
    """Opens payloads of one domain that were protected at their source. ``session`` gives the key of an epoch."""

    def __init__(self, deployment: bytes, domain: str, session: Callable[[int], Secret | None]) -> None:
        self._deployment = deployment
        self._domain = domain
        self._session = session
        self._held: dict[bytes, Opener] = {}
        self._known: dict[tuple[str, bytes], tuple[float, Opener, bytes]] = {}

    def open(self, agent: str, message_id: bytes, payload: bytes, context: bytes = b"") -> bytes:
        """What ``agent`` sealed. Raises Unverified (source) for other bytes, Refused (open) without the epoch's key."""
        if len(payload) < OVERHEAD or not payload.startswith(SUITE):
            raise Unverified("payload: expected one that is protected at its source", step="source", code=Code.OPEN)
        name = agent, payload[1:25]
        found = self._known.get(name)
        if found is None or found[0] < time.monotonic():
            opener = self._opener(name[1])
            aad = preimage.source_aad(self._deployment, self._domain, agent)
            if len(self._known) >= MAX_INSTANCES:
                self._known.clear()
            found = self._known[name] = (time.monotonic() + LOOK_AGAIN_S, opener, aad)
        header = payload[:HEADER_LENGTH]
        aad = found[2] + message_id + header + context
        # The nonce of a counter: four zeros before it.
        return found[1].open(b"\0\0\0\0" + header[25:], payload[HEADER_LENGTH:], aad)

    def _opener(self, name: bytes) -> Opener:
        """Of an epoch and instance."""
        found = self._held.get(name)
        epoch = int.from_bytes(name[:8], "big")
        session = self._session(epoch)  # asked again and again: an epoch that was erased opens nothing any more
        if session is None:
            self._held.pop(name, None)
            self._known = {each: held for each, held in self._known.items() if each[1] != name}
            raise Refused(
                f"{self._domain}: no session key of epoch {epoch} is held",
                code=Code.OPEN,
                hint="does the domain ask for an attestation that this agent does not have? bus agent show",
            )
        if found is None:
            found = Opener(instance_key(session, "source", name[8:]).reveal())
            if len(self._held) >= MAX_INSTANCES:
                self._held.clear()
            self._held[name] = found
        return found
