"""A raw client past the SDK: the administrator's credential on the broker, any agent's keys from the roots.

It exists to show what the enforcer refuses. No agent can do this: none holds a root or that credential. With an agent's
credential, and the keys of its own folder (``held``), it does what that agent can do without the SDK.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from bus.authority.bundle import DomainBundle
from bus.authority.local import open_roots
from bus.authority.trust import TrustFile, read_trust
from bus.client.keystore import KeyStore
from bus.crypto.keys import AgentKeys, agent_keys
from bus.crypto.seal import Sealer
from bus.kafka.config import Connection, connect
from bus.stack.local import Stack
from bus.stack.server import ADMIN
from bus.wire import envelope
from bus.wire.names import AgentId, DomainName, domain_topics
from bus.wire.objects import Epoch

JUDGED_S: Final = 10.0


class RawClient:
    """Writes any bytes to any topic that ``principal`` may write; seals as any agent."""

    def __init__(self, stack: Stack, principal: str = ADMIN, **more: Any) -> None:
        """``more``: settings of its producer."""
        self.stack = stack
        self.connection = connect(stack.settings, principal)
        self.deployment = stack.settings.deployment_id
        self._producer = Producer(self.connection.config(acks="all", message_timeout_ms=20_000, **more))

    def produce(self, topic: str, value: bytes, partition: int = 0, **more: Any) -> int:
        """Write one record; returns its offset. Raises KafkaException."""
        placed: list[tuple[KafkaError | None, int]] = []

        def delivered(error: KafkaError | None, message: Message) -> None:
            placed.append((error, message.offset() or 0))

        self._producer.produce(topic, value, partition=partition, on_delivery=delivered, **more)
        self._producer.flush(30)
        error, offset = placed[0]
        if error is not None:
            raise KafkaException(error)
        return offset

    def keys(self, agent: str, domain: str, epoch: int = 0) -> tuple[AgentKeys, Epoch]:
        """An agent's keys as only the holder of the root can make them, and their epoch."""
        roots = open_roots(self.stack.settings, self.stack.layout, read_trust(self.stack.layout.trust))
        now = time.time_ns() // 1_000_000
        stored = [each for number in roots.numbers() for each in roots.load(number) if each.epoch.domain == domain]
        fitting = [e for e in stored if (e.epoch.epoch == epoch if epoch else e.epoch.not_before <= now)]
        newest = max(fitting, key=lambda each: each.epoch.epoch)
        return agent_keys(newest.root, agent), newest.epoch

    def sealer(self, agent: str, domain: str, topic: str = "") -> Sealer:
        """A fresh sending process of ``agent``."""
        return Sealer(self.keys(agent, domain)[0], self.deployment, topic or domain_topics(DomainName(domain)).inbound)


def held(folder: Path, agent: str, domain: str, trust: TrustFile) -> DomainBundle:
    """What the folder of ``agent`` has to send to ``domain`` with, now. Raises RetryLater or AccessRefused."""
    store = KeyStore(folder / "keys", AgentId(agent), trust.anchor, trust.deployment)
    return store.sending(DomainName(domain), time.time_ns() // 1_000_000)


def judged(connection: Connection) -> str:
    """What the broker says of a credential: the code of its refusal, or "taken" where it says nothing against it."""
    producer = Producer(connection.config())
    deadline = time.monotonic() + JUDGED_S
    while connection.failure is None and time.monotonic() < deadline:
        try:
            producer.list_topics(timeout=0.2)
        except KafkaException:
            producer.poll(0)  # serves the error callback
        else:
            return "taken"
    return str(connection.failure.code) if connection.failure is not None else "no answer"


def plaintext(agent: str, domain: str, payload: bytes = b'{"raw": true}', *, now: int = 0, **changes: Any) -> bytes:
    """An honest envelope, or with ``changes`` (fields of Profile or Message) a dishonest one."""
    now = now or time.time_ns() // 1_000_000
    in_message = {k: changes.pop(k) for k in list(changes) if k in envelope.Message.__dataclass_fields__}
    profile = envelope.Profile(AgentId(agent), DomainName(domain), **changes)
    fields = {"message_id": os.urandom(16), "created_at": now, "expires_at": now + 300_000, "correlation_id": "raw"}
    message = envelope.Message(**{**fields, **in_message})
    return envelope.encode_plaintext(envelope.encode_profile(profile), envelope.encode_message(message), payload)
