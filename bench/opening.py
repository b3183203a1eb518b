"""What a reader can take: bundles verified and opened, alone and behind ``subscribe``."""

from __future__ import annotations

import functools
from time import perf_counter, process_time
from typing import Final

from confluent_kafka import Consumer, Message, TopicPartition

from bench.load import DOMAIN, OTHER, PARTITIONS, load
from bench.rows import Figures, finish, start
from bus.authority.trust import read_trust
from bus.client.keystore import KeyStore
from bus.client.opening import Profiles, open_bundle
from bus.client.source import Opened
from bus.stack.local import Stack
from bus.wire.names import AgentId, DomainName

TURNS: Final = 5


def measure(stack: Stack, records: int) -> dict[str, Figures]:
    """Records/s and CPU us a record of ``open_bundle`` over full bundles, best of five; then end to end."""
    load(stack, records, 1024)()
    finish(start(stack, "enforcer", {"records": records}))
    reader = Reader(stack, OTHER, DOMAIN, records)
    alone = best([reader.turn() for _ in range(TURNS)])
    return {"open": alone, "subscribe": finish(start(stack, "subscribe", {"records": records, "agent": OTHER}))}


class Reader:
    """An agent's keys and the newest full bundles of a domain, to be opened again and again."""

    def __init__(self, stack: Stack, agent: str, domain: str, records: int, *, at_source: bool = False) -> None:
        """``at_source``: payloads were protected at their source, and are opened as well."""
        trust = read_trust(stack.layout.trust)
        self._domain = DomainName(domain)
        self._trust, self._profiles = trust.trust(), Profiles()
        self._keys = KeyStore(stack.layout.agent(agent) / "keys", AgentId(agent), trust.anchor, trust.deployment)
        self._opened = Opened(self._keys, trust.deployment, self._domain) if at_source else None
        found = _bundles(stack, f"{domain}.out", records)
        self._bundles = [each for each in found if int.from_bytes((each.value() or b"")[101:103], "big") == 32]
        if not self._bundles:
            raise RuntimeError(f"{domain}: no full bundle")

    def turn(self) -> tuple[float, float]:
        """Seconds and CPU seconds a record of opening all of them once."""
        unwrap = functools.partial(self._opened.payload, required=True) if self._opened is not None else None
        began, used, count = perf_counter(), process_time(), 0
        for message in self._bundles:
            opened = open_bundle(
                message.value() or b"",
                domain=self._domain,
                topic=f"{self._domain}.out",
                partition=message.partition() or 0,
                offset=message.offset() or 0,
                append_time=message.timestamp()[1],
                trust=self._trust,
                tier=None,
                highest=lambda _: -1,
                reading=lambda epoch: self._keys.reading(self._domain, epoch),
                profiles=self._profiles,
                unwrap=unwrap,
            )
            count += len(opened.deliveries)
        return (perf_counter() - began) / count, (process_time() - used) / count


def best(turns: list[tuple[float, float]]) -> Figures:
    """Records/s and CPU us a record of the fastest."""
    seconds, used = min(turns)
    return {"records_s": 1 / seconds, "cpu_us": used * 1e6}


def _bundles(stack: Stack, topic: str, records: int) -> list[Message]:
    """The newest bundles, of some ``records`` records."""
    config = stack.admin_connection().config(group_id="bus-admin", isolation_level="read_committed")
    consumer = Consumer(config)
    try:
        places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        ends = [consumer.get_watermark_offsets(place, timeout=10, cached=False)[1] for place in places]
        back = records // 32 // PARTITIONS
        for place, end in zip(places, ends, strict=True):
            place.offset = max(end - back, 0)
        consumer.assign(places)
        found: list[Message] = []
        while len(found) < back * PARTITIONS // 2 and (some := consumer.consume(1000, 5)):
            found += [message for message in some if message.error() is None]
        return found
    finally:
        consumer.close()
