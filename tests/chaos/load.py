"""Load: agents that publish with the SDK all the time, and someone who slips dishonest records in between.

The record of what was published is kept here: an honest message counts when the broker has acknowledged it, a
dishonest one is known by its bytes and the code that must refuse it.
"""

import os
import random
import threading
import time
import uuid
from hashlib import sha256

from confluent_kafka import Producer

from bus import Bus, RetryLater
from bus.codes import Code
from bus.settings import Settings
from demo.raw import RawClient, plaintext
from tests.chaos.oracle import Published

LANES = [
    ("retriever-1", "agent_memory"),
    ("orchestrator-1", "agent_memory"),
    ("executor-1", "coordination"),
    ("orchestrator-1", "coordination"),
]
PROXIED = "executor-1"
PARTITIONS = 4
PACE_S = 0.02
SETTLE_S = 120.0


class Lane(threading.Thread):
    """One agent's messages to one domain, while ``going`` is set."""

    def __init__(self, settings: Settings, agent: str, domain: str, seed: int) -> None:
        super().__init__(name=f"{agent} to {domain}", daemon=True)
        self._bus = Bus(agent, settings=settings)
        self._domain = domain
        self._rng = random.Random(seed)
        self._sent = []
        self._idle = threading.Event()
        self.going = threading.Event()
        self.ended = threading.Event()
        self.failure: BaseException | None = None
        self.later = 0

    def run(self) -> None:
        while not self.ended.is_set():
            if not self.going.is_set():
                self._idle.set()
                self.going.wait(0.05)
                continue
            self._idle.clear()
            try:
                size = self._rng.choice((10, 10, 200, 200, 3000))
                payload = {"n": len(self._sent), "fill": "x" * size}
                key = str(self._rng.randrange(32))
                self._sent.append(self._bus.publish(self._domain, payload, partition_key=key, confirm="queued"))
            except RetryLater:
                self.later += 1  # nothing was sealed
            except BaseException as error:
                self.failure = error
                self._idle.set()
                return
            self.ended.wait(self._rng.uniform(0.2, 1.8) * PACE_S)

    def settle(self, into: Published) -> None:
        """Wait until the broker has answered for everything, and book it."""
        assert self._idle.wait(SETTLE_S), f"{self.name} does not come to rest"
        if self.failure is not None:
            raise AssertionError(f"{self.name}: publishing failed: {self.failure!r}") from self.failure
        deadline = time.monotonic() + SETTLE_S
        sent, self._sent = self._sent, []
        for each in sent:
            try:
                each.wait_stored(max(0.1, deadline - time.monotonic()))
                into.stored[each.id.bytes] = self._domain
            except RetryLater as error:
                assert error.code is Code.UNKNOWN, f"{self.name}: {error}"
                into.unknown.add(each.id.bytes)

    def close(self) -> None:
        """End."""
        self.ended.set()
        self.going.set()
        self.join(10)
        self._bus.close()


class Mischief:
    """Writes past the SDK: replays and forgeries, each with the code that must refuse it."""

    def __init__(self, raw: RawClient, rng: random.Random) -> None:
        self._raw = raw
        self._rng = rng
        self._producer = Producer(raw.connection.config(acks="all", enable_idempotence=True, message_timeout_ms=15_000))
        self._stored: list[tuple[bytes, str]] = []
        self._unknown: list[bytes] = []

    def act(self, into: Published, count: int) -> None:
        """Some records at random places; they are on their way when this returns."""
        lanes = {lane: self._raw.sealer(*lane) for lane in LANES}
        for _ in range(count):
            agent, domain = lane = self._rng.choice(LANES)
            partition = self._rng.randrange(PARTITIONS)
            kind = self._rng.choice(("replay", "mac", "noise", "key", "partition", "name", "expired", "cut"))
            message_id = uuid.uuid4().bytes
            plain = plaintext(agent, domain, message_id=message_id)
            if kind == "name":
                plain = plaintext("nobody-1", domain)
            elif kind == "expired":
                plain = plaintext(agent, domain, now=time.time_ns() // 1_000_000 - 900_000)
            value = lanes[lane].seal(partition, plain)[1]
            if kind == "replay":
                self._send(domain, value, partition, message_id)
                for _ in range(self._rng.randrange(1, 4)):
                    self._send(domain, value, partition)
                continue
            value, partition, code = {
                "mac": (value[:-1] + bytes((value[-1] ^ 1,)), partition, "mac"),
                "noise": (os.urandom(200), partition, "version"),
                "key": (value[:12] + os.urandom(16) + value[28:], partition, "unknown-key"),
                "partition": (value, (partition + 1) % PARTITIONS, "mac"),
                "name": (value, partition, "unverified"),
                "expired": (value, partition, "expired"),
                "cut": (value[:-1], partition, "bounds"),
            }[kind]
            into.refusals[sha256(value).digest()] = code
            self._send(domain, value, partition)

    def _send(self, domain: str, value: bytes, partition: int, message_id: bytes = b"") -> None:
        def delivered(error, _message):
            if message_id and error is None:
                self._stored.append((message_id, domain))
            elif message_id:
                self._unknown.append(message_id)

        self._producer.produce(f"{domain}.in", value, partition=partition, on_delivery=delivered)

    def settle(self, into: Published) -> None:
        """Wait for the broker's answers and book the honest half of each replay."""
        assert self._producer.flush(SETTLE_S) == 0
        into.stored.update(self._stored)
        into.unknown.update(self._unknown)
        self._stored.clear()
        self._unknown.clear()
