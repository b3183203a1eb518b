"""What looks from outside: a raw client past the SDK, and readers of topics and ledger with plain consumers.

The readers share no code with the product's record path: they see bytes, offsets and what `bus audit search` prints.
"""

import hashlib
import json
import os
import subprocess
import sys
import time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from bus.authority.local import open_roots
from bus.authority.trust import read_trust
from bus.crypto.keys import agent_keys
from bus.crypto.seal import Sealer
from bus.stack.local import Stack
from bus.wire import envelope
from bus.wire.names import domain_topics


class RawClient:
    """Writes any bytes to any topic with the administrator's credential; seals with any agent's keys."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.connection = stack.admin_connection()
        self.deployment = stack.settings.deployment_id
        self._producer = Producer(self.connection.config(acks="all", message_timeout_ms=20_000))

    def produce(self, topic: str, value: bytes, partition: int = 0, **more) -> int:
        """Write one record; returns its offset."""
        placed = []
        self._producer.produce(
            topic, value, partition=partition, on_delivery=lambda e, m: placed.append((e, m.offset())), **more
        )
        self._producer.flush(30)
        error, offset = placed[0]
        assert error is None, error
        return offset

    def keys(self, agent: str, domain: str, epoch: int | None = None):
        """An agent's keys for a domain as only the holder of the root can make them, and the epoch."""
        roots = open_roots(self.stack.settings, self.stack.layout, read_trust(self.stack.layout.trust))
        number = epoch or max(roots.numbers())
        stored = next(each for each in roots.load(number) if each.epoch.domain == domain)
        return agent_keys(stored.root, agent), stored.epoch

    def sealer(self, agent: str, domain: str, topic: str = "") -> Sealer:
        """A fresh sending process of ``agent``."""
        return Sealer(self.keys(agent, domain)[0], self.deployment, topic or domain_topics(domain).inbound)


def plaintext(agent: str, domain: str, payload: bytes = b'{"raw": true}', *, now: int = 0, **changes) -> bytes:
    """An honest envelope, or with ``changes`` (of Profile or Message) a dishonest one."""
    now = now or int(time.time() * 1000)
    in_message = {k: changes.pop(k) for k in list(changes) if k in envelope.Message.__dataclass_fields__}
    profile = envelope.Profile(agent, changes.pop("domain", domain), **changes)
    fields = {"message_id": os.urandom(16), "created_at": now, "expires_at": now + 300_000, "correlation_id": "raw"}
    message = envelope.Message(**{**fields, **in_message})
    return envelope.encode_plaintext(envelope.encode_profile(profile), envelope.encode_message(message), payload)


def read_topic(stack: Stack, topic: str, *, committed: bool = True) -> list[tuple[int, int, bytes]]:
    """(partition, offset, value) of everything in a topic up to its present end."""
    config = stack.admin_connection().config(
        group_id="bus-admin",
        enable_partition_eof=True,
        enable_auto_commit=False,
        isolation_level="read_committed" if committed else "read_uncommitted",
    )
    consumer = Consumer(config)
    try:
        partitions = consumer.list_topics(topic, 10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
        rows, open_ends = [], set(partitions)
        deadline = time.monotonic() + 30
        while open_ends and time.monotonic() < deadline:
            message = consumer.poll(1)
            if message is None:
                continue
            if message.error() is None:
                rows.append((message.partition(), message.offset(), message.value()))
            elif message.error().code() == KafkaError._PARTITION_EOF:
                open_ends.discard(message.partition())
        assert not open_ends, f"{topic}: {open_ends} not read to their end"
        return rows
    finally:
        consumer.close()


def bus_command(stack: Stack, *arguments: str, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess:
    """Run the `bus` command in a process of its own."""
    environ = {**os.environ, "BUS_CONFIG": str(stack.layout.settings)}
    done = subprocess.run(
        [sys.executable, "-m", "bus.cli.main", *arguments],
        capture_output=True,
        text=True,
        env=environ,
        timeout=timeout,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


def hops(stack: Stack, *arguments: str) -> list[dict]:
    """Hops as `bus audit search --json` prints them."""
    done = bus_command(stack, "audit", "search", "--json", "--limit", "100000", *arguments, check=False)
    assert done.returncode in (0, 1), done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def wait_for_hop(stack: Stack, value: bytes, timeout: float = 30) -> dict:
    """The hop whose origin digest is that of ``value``."""
    return wait_for_hops(stack, [value], timeout)[0]


def wait_for_hops(stack: Stack, values: list[bytes], timeout: float = 30) -> list[dict]:
    """The hops of ``values``, in their order; each must have exactly one."""
    wanted = [hashlib.sha256(value).hexdigest() for value in values]
    deadline = time.monotonic() + timeout
    while True:
        found: dict[str, list[dict]] = {}
        for hop in hops(stack):
            found.setdefault(hop["origin_digest"], []).append(hop)
        if all(digest in found for digest in wanted):
            return [found[digest][-1] for digest in wanted]
        assert time.monotonic() < deadline, f"{sum(d not in found for d in wanted)} hops missing"
