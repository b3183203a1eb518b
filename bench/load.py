"""What the benchmarks read: sealed records, written before anything is measured, and the stack they are written to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bus.crypto.seal import Sealer
from bus.stack.local import Stack
from bus.wire import envelope
from bus.wire.names import AgentId, DomainName
from demo.raw import RawClient

PARTITIONS = 4
DOMAIN = "agent_memory"
SOURCE, TARGET = f"{DOMAIN}.in", "bench.relay"
AGENT, OTHER = "retriever-1", "orchestrator-1"
SESSION = "bench-session-0001"
LIFETIME_MS = 3_600_000


def make_target(stack: Stack) -> None:
    """The topic that the bare relay writes to."""
    admin = AdminClient(stack.admin_connection().config())
    topic = NewTopic(TARGET, PARTITIONS, 1, config={"message.timestamp.type": "LogAppendTime"})
    for future in admin.create_topics([topic]).values():
        future.result(30)


def plaintexts(agent: str, size: int, *, changing: bool = False) -> Iterator[bytes]:
    """Envelopes of ``agent`` with ``size`` bytes of payload; ``changing``: one metadata value differs each time."""
    number = 0
    metadata = {"sender_ip": "10.0.0.1", "routing_path": "a>b", "locale": "en"}
    while True:
        if changing:
            metadata["request_id"] = os.urandom(8).hex()
        if changing or number == 0:
            source, domain = AgentId(agent), DomainName(DOMAIN)
            profile = envelope.encode_profile(
                envelope.Profile(source=source, domain=domain, purpose="care", metadata=metadata)
            )
        now = time.time_ns() // 1_000_000
        message = envelope.encode_plain_message(os.urandom(16), now, now + LIFETIME_MS, SESSION)
        yield envelope.encode_plaintext(profile, message, os.urandom(size))
        number += 1


def write(
    stack: Stack,
    sealers: list[Sealer],
    records: int,
    texts: Iterator[bytes],
    *,
    partition: Callable[[int], int] = lambda number: number % PARTITIONS,
) -> Callable[[], None]:
    """Write ``records`` in one open transaction; nobody sees them before the function that comes back is called."""
    config = stack.admin_connection().config(
        transactional_id=f"bench-load-{os.getpid()}", acks="all", linger_ms=20, queue_buffering_max_messages=1_000_000
    )
    producer = Producer({**config, "transaction.timeout.ms": 600_000})
    producer.init_transactions(30)
    producer.begin_transaction()
    for number in range(records):
        place = partition(number)
        _, value = sealers[number % len(sealers)].seal(place, next(texts))
        producer.produce(SOURCE, value, partition=place)
        if number % 1000 == 0:
            producer.poll(0)
    producer.flush(60)
    return lambda: producer.commit_transaction(60)


def load(stack: Stack, records: int, size: int, *, changing: bool = False) -> Callable[[], None]:
    """``write`` for one sending process of one agent."""
    sealer = RawClient(stack).sealer(AGENT, DOMAIN)
    return write(stack, [sealer], records, plaintexts(AGENT, size, changing=changing))


def ends(stack: Stack, topic: str = SOURCE) -> dict[int, int]:
    """Where each partition ends."""
    consumer = Consumer(stack.admin_connection().config(group_id="bus-admin"))
    try:
        return {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=10, cached=False)[1]
            for number in range(PARTITIONS)
        }
    finally:
        consumer.close()
