"""A raw client past the SDK: the administrator's credential on the broker, any agent's keys from the roots.

It exists to show what the enforcer refuses. No agent can do this: none holds a root or that credential.
"""

from __future__ import annotations

import os
import time
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from bus.authority.local import open_roots
from bus.authority.trust import read_trust
from bus.crypto.keys import AgentKeys, agent_keys
from bus.crypto.seal import Sealer
from bus.stack.local import Stack
from bus.wire import envelope
from bus.wire.names import AgentId, DomainName, domain_topics
from bus.wire.objects import Epoch


class RawClient:
    """Writes any bytes to any topic; seals as any agent."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.connection = stack.admin_connection()
        self.deployment = stack.settings.deployment_id
        self._producer = Producer(self.connection.config(acks="all", message_timeout_ms=20_000))

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


def plaintext(agent: str, domain: str, payload: bytes = b'{"raw": true}', *, now: int = 0, **changes: Any) -> bytes:
    """An honest envelope, or with ``changes`` (fields of Profile or Message) a dishonest one."""
    now = now or time.time_ns() // 1_000_000
    in_message = {k: changes.pop(k) for k in list(changes) if k in envelope.Message.__dataclass_fields__}
    profile = envelope.Profile(AgentId(agent), DomainName(domain), **changes)
    fields = {"message_id": os.urandom(16), "created_at": now, "expires_at": now + 300_000, "correlation_id": "raw"}
    message = envelope.Message(**{**fields, **in_message})
    return envelope.encode_plaintext(envelope.encode_profile(profile), envelope.encode_message(message), payload)
