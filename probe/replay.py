"""Sends messages over a stack and reads them back as each observer may: all readers, one role, the broker's disks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from bus.authority.trust import read_trust
from bus.client.bus import Bus
from bus.client.delivery import Delivery
from bus.client.keystore import KeyStore
from bus.client.opening import Profiles, open_bundle
from bus.errors import StackError
from bus.kafka.whole import whole
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
                    domain,
                    payload,
                    kind=Kind(kind),
                    target=each.reader,
                    tool=each.tool,
                    correlation=each.session,
                    purpose="probe",
                    confirm="queued",
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
    sizes: dict[tuple[str, int, int, int], int] = {
        (each.domain, each.partition, each.offset, index): len(body)
        for each in stored_values(stack)
        for index, (_, _, _, body) in enumerate(derived.parse(each.value).entries)
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
                found.append(Got(value["number"], value["content"], sizes.get((domain, *delivery.place), 0)))
                until = time.monotonic() + WAIT_S
                told("read", len(found), count)
            if len(found) >= count:
                return found
    raise StackError(f"{len(found)} of {count} records came to {agent} of phase {phase}")


@dataclass(frozen=True, slots=True)
class Stored:
    """A bundle as it stands in a domain's output topic."""

    domain: DomainName
    partition: int
    offset: int
    value: bytes = field(repr=False)
    append_time: int


def stored(domain: DomainName, message: Message) -> Stored:
    """A record of the output topic of ``domain``."""
    return Stored(
        domain, message.partition() or 0, message.offset() or 0, message.value() or b"", message.timestamp()[1]
    )


def stored_values(stack: Stack) -> list[Stored]:
    """Both output topics, up to their present end."""
    connection = stack.admin_connection()
    return [
        stored(domain, message)
        for domain in map(DomainName, DOMAINS)
        for message in whole(connection, domain_topics(domain).outbound, connection.identity.principal, WAIT_S)
    ]


def opened_by(stack: Stack, agent: str, values: Iterable[Stored]) -> list[Delivery]:
    """What the keys of ``agent``, all together, open of ``values``, whatever ACLs let it read."""
    layout, file = stack.layout, read_trust(stack.layout.trust)
    store = KeyStore(layout.agent(agent) / "keys", AgentId(agent), file.anchor, file.deployment)
    held = [store.all_reading(name).values() for name in stack.load_policy().domains]
    keys = tuple(key for epochs in held for each in epochs for key in each)
    trust, profiles = file.trust(), Profiles()
    found: list[Delivery] = []
    for each in values:
        opened = open_bundle(
            each.value,
            domain=each.domain,
            topic=domain_topics(each.domain).outbound,
            partition=each.partition,
            offset=each.offset,
            append_time=each.append_time,
            trust=trust,
            tier=None,
            highest=lambda _: -1,
            reading=lambda _: keys,
            profiles=profiles,
        )
        found += [delivery for _, delivery in opened.deliveries]
    return found


def data_folder(stack: Stack) -> Path:
    """Where the broker keeps its logs."""
    return stack.layout.state / "kafka" / "data"
