"""What a reader can take: bundles verified and opened, alone and behind ``subscribe``."""

from __future__ import annotations

from time import perf_counter, process_time
from typing import Final

from confluent_kafka import Consumer, Message, TopicPartition

from bench.load import DOMAIN, OTHER, PARTITIONS, load
from bench.rows import Figures, finish, start
from bus.authority.trust import read_trust
from bus.client.keystore import KeyStore
from bus.client.opening import Profiles, open_bundle
from bus.stack.local import Stack
from bus.wire.names import AgentId, DomainName

TURNS: Final = 5


def measure(stack: Stack, records: int) -> dict[str, Figures]:
    """Records/s and CPU us a record of ``open_bundle`` over full bundles, best of five; then end to end."""
    load(stack, records, 1024)()
    finish(start(stack, "enforcer", {"records": records}))
    trust = read_trust(stack.layout.trust)
    agent, domain = AgentId(OTHER), DomainName(DOMAIN)
    keys = KeyStore(stack.layout.agent(OTHER) / "keys", agent, trust.anchor, trust.deployment)
    bundles = [each for each in _bundles(stack, records) if int.from_bytes((each.value() or b"")[101:103], "big") == 32]
    found, profiles = trust.trust(), Profiles()
    best = (float("inf"), float("inf"))
    for _ in range(TURNS):
        began, used, count = perf_counter(), process_time(), 0
        for message in bundles:
            opened = open_bundle(
                message.value() or b"",
                domain=domain,
                topic=f"{DOMAIN}.out",
                partition=message.partition() or 0,
                offset=message.offset() or 0,
                append_time=message.timestamp()[1],
                trust=found,
                tier=None,
                highest=lambda _: -1,
                reading=lambda epoch: keys.reading(domain, epoch),
                profiles=profiles,
            )
            count += len(opened.deliveries)
        best = min(best, ((perf_counter() - began) / count, (process_time() - used) / count))
    alone = {"records_s": 1 / best[0], "cpu_us": best[1] * 1e6}
    return {"open": alone, "subscribe": finish(start(stack, "subscribe", {"records": records, "agent": OTHER}))}


def _bundles(stack: Stack, records: int) -> list[Message]:
    """The newest bundles, of some ``records`` records."""
    config = stack.admin_connection().config(group_id="bus-admin", isolation_level="read_committed")
    consumer = Consumer(config)
    try:
        places = [TopicPartition(f"{DOMAIN}.out", number) for number in range(PARTITIONS)]
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
