"""Sends messages over a stack and reads them back as each observer may: all readers, one role, the broker's disks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from bus.authority.trust import read_trust
from bus.client.bus import Bus
from bus.client.delivery import Delivery
from bus.client.keystore import KeyStore
from bus.client.opening import Profiles, open_bundle
from bus.crypto.keys import ReadingKey
from bus.errors import StackError
from bus.stack.local import Stack
from bus.wire import derived
from bus.wire.envelope import Kind
from bus.wire.names import AgentId, DomainName, domain_topics
from probe.traces import Say

CONTROL: Final = "probe-control"
DOMAINS: Final = ("agent_memory", "coordination")
WAIT_S: Final = 120.0
Told = Callable[[str, int, int], None]
"""What is done, how far, of how much."""


@dataclass(frozen=True, slots=True)
class Got:
    """One record as a permitted reader opened it. ``size``: bytes of its body as the broker stores it."""

    number: int
    phase: int
    content: str = field(repr=False)
    size: int


def send(stack: Stack, messages: Sequence[Say], phase: int, told: Told) -> None:
    """Publish ``messages``; each says its number. Raises what ``publish`` raises."""
    agents = {each.place[0] for each in messages}
    buses = {agent: Bus(agent, settings=stack.settings) for agent in agents}
    try:
        sent = []
        for number, each in enumerate(messages):
            agent, domain, kind = each.place
            payload = {
                "number": number,
                "phase": phase,
                "from": each.source,
                "to": each.target,
                "content": each.content,
            }
            sent.append(
                buses[agent].publish(
                    domain, payload, kind=Kind(kind), correlation=each.session, purpose="probe", confirm="queued"
                )
            )
            told("published", number + 1, len(messages))
        for made in sent:
            made.wait_stored(WAIT_S)
    finally:
        for bus in buses.values():
            bus.close()


def bare(stack: Stack, messages: Sequence[Say]) -> None:
    """The same over TLS and nothing else: what an agent without this bus would write."""
    connection = stack.admin_connection()
    admin = AdminClient(connection.config())
    admin.create_topics([NewTopic(CONTROL, 1, 1)])[CONTROL].result(30)
    producer = Producer(connection.config(acks="all"))
    for each in messages:
        producer.produce(CONTROL, f"{each.source} to {each.target}: {each.content}".encode())
        producer.poll(0)
    if producer.flush(WAIT_S):
        raise StackError("the control's messages were not stored")


def received(stack: Stack, agent: str, count: int, phase: int, told: Told) -> list[Got]:
    """What ``agent`` opens of both domains in this phase, once ``count`` records are there."""
    values = stored_values(stack)
    sizes = {
        (domain, partition, offset, index): len(body)
        for domain, partition, offset, value, _ in values
        for index, (_, _, _, body) in enumerate(derived.parse(value).entries)
    }
    found: list[Got] = []
    with Bus(agent, settings=stack.settings) as reader:
        inboxes = {domain: reader.subscribe(domain, observe=True) for domain in DOMAINS}
        until = time.monotonic() + WAIT_S
        for domain in itertools.cycle(DOMAINS):
            if time.monotonic() > until:
                break
            delivery = inboxes[domain].get(0.02)
            if delivery is not None and (value := delivery.value()).get("phase") == phase:
                size = sizes.get((domain, *delivery.place), 0)
                found.append(Got(value["number"], phase, value["content"], size))
                until = time.monotonic() + WAIT_S
                told("read", len(found), count)
            if len(found) >= count:
                return found
    raise StackError(f"{len(found)} of {count} records came to {agent} of phase {phase}")


def opened_by(stack: Stack, agent: str) -> list[Delivery]:
    """What the keys of ``agent``, all together, open of both domains' bundles, whatever ACLs let it read."""
    layout, trust = stack.layout, read_trust(stack.layout.trust)
    store = KeyStore(layout.agent(agent) / "keys", AgentId(agent), trust.anchor, trust.deployment)
    store.refresh(force=True)
    keys: list[ReadingKey] = []
    for name in stack.load_policy().domains:
        keys += [key for held in store.all_reading(name).values() for key in held]
    found: list[Delivery] = []
    for domain, partition, offset, value, at in stored_values(stack):
        opened = open_bundle(
            value,
            domain=DomainName(domain),
            topic=domain_topics(DomainName(domain)).outbound,
            partition=partition,
            offset=offset,
            append_time=at,
            trust=trust.trust(),
            tier=None,
            highest=lambda _: -1,
            reading=lambda _: tuple(keys),
            profiles=Profiles(),
        )
        found += [delivery for _, delivery in opened.deliveries]
    return found


def stored_values(stack: Stack) -> list[tuple[str, int, int, bytes, int]]:
    """(domain, partition, offset, value, append time) of both output topics, up to their present end."""
    consumer = Consumer(
        stack.admin_connection().config(
            group_id="bus-admin", enable_auto_commit=False, enable_partition_eof=True, isolation_level="read_committed"
        )
    )
    found = []
    try:
        for domain in DOMAINS:
            topic = domain_topics(DomainName(domain)).outbound
            reading = set(consumer.list_topics(topic, WAIT_S).topics[topic].partitions)
            consumer.assign([TopicPartition(topic, number, 0) for number in reading])
            while reading:
                for message in consumer.consume(1000, 1.0):
                    error, partition = message.error(), message.partition() or 0
                    if error is None:
                        place = (domain, partition, message.offset() or 0)
                        found.append((*place, message.value() or b"", message.timestamp()[1]))
                    elif error.code() == KafkaError._PARTITION_EOF:
                        reading.discard(partition)
    finally:
        consumer.close()
    return found


def data_folder(stack: Stack) -> Path:
    """Where the broker keeps its logs."""
    return stack.layout.state / "kafka" / "data"
