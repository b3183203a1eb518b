"""The books: everything on the topics and in the ledger, read from outside and compared.

It shares no code with the product: plain read_committed consumers, bundles and dead letters parsed by
docs/wire-format.md, hops by ``hops``. Reading goes on from where the last count ended; judging looks at everything.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from bus.stack.local import Stack
from tests.chaos.hops import Hop, LedgerFile, leaf_hash, string
from tests.integration.oracle import leaves

MAX_DELAY_MS = 60_000
"""A reader refuses a bundle whose decided_at and append time differ by more (section 5.6)."""
READ_S = 60.0
Place = tuple[str, int, int]
"""Input topic, partition, offset."""


@dataclass(slots=True)
class Published:
    """What the harness knows of what it sent. Message ids are 16 bytes; ``refusals`` is code by input digest."""

    stored: dict[bytes, str] = field(default_factory=dict)
    unknown: set[bytes] = field(default_factory=set)
    refusals: dict[bytes, str] = field(default_factory=dict)


@dataclass(slots=True)
class Findings:
    """The count. ``reasons`` says what is wrong, in words; it is empty where nothing is."""

    published: int = 0
    unknown: int = 0
    inputs: int = 0
    delivered: int = 0
    dead: int = 0
    repeats: int = 0
    lost: int = 0
    doubled: int = 0
    unaudited: int = 0
    refused_honest: int = 0
    passed_dishonest: int = 0
    unreadable: int = 0
    reasons: list[str] = field(default_factory=list)

    def check(self) -> None:
        """Raise AssertionError with the reasons."""
        assert not self.reasons, "; ".join(self.reasons[:10])


class Oracle:
    """Counts ``domains`` of a stack."""

    def __init__(self, stack: Stack, domains: list[str]) -> None:
        self._stack = stack
        self._domains = domains
        self._next: dict[tuple[str, int], int] = {}
        self._ledger = LedgerFile(stack.layout.state, stack.settings.deployment_id)
        self.inputs: dict[Place, bytes] = {}
        self.hops: dict[Place, list[Hop]] = {}
        self._out: Counter[tuple[str, bytes]] = Counter()
        self._dead: Counter[tuple[str, bytes]] = Counter()
        self._letters: dict[tuple[str, bytes], tuple[int, int, bytes, str]] = {}
        self._sequences: dict[tuple[str, int, bytes], int] = {}
        self._unreadable: list[str] = []

    def count(self, published: Published, timeout: float, nudge: Callable[[], None] = lambda: None) -> Findings:
        """Read what is new, wait up to ``timeout`` s until every input has its hop, and judge everything so far.

        ``nudge`` is called while waiting: whoever supervises services starts again what has ended.
        """
        self._read([f"{each}.in" for each in self._domains])
        deadline = time.monotonic() + timeout
        while True:
            for hop in self._ledger.new_hops():
                if hop.decision != "RETRY" and hop.topic.removesuffix(".in") in self._domains:
                    self.hops.setdefault((hop.topic, hop.partition, hop.offset), []).append(hop)
            if all(place in self.hops for place in self.inputs) or time.monotonic() > deadline:
                break
            nudge()
            time.sleep(0.05)
        self._read([f"{each}.{kind}" for each in self._domains for kind in ("out", "dead")])
        return self._judge(published)

    def forget(self) -> None:
        """Begin here: what is on the topics and in the ledger now, at rest, is not counted any more."""
        self._read([f"{each}.{kind}" for each in self._domains for kind in ("in", "out", "dead")])
        self._ledger.new_hops()
        for held in (self.inputs, self.hops, self._out, self._dead, self._letters, self._unreadable):
            held.clear()

    def _read(self, topics: list[str]) -> None:
        """Take everything of ``topics`` up to their present ends, an open transaction's included once it has ended."""
        connection = self._stack.admin_connection()
        consumer = Consumer(
            connection.config(
                group_id="bus-admin",
                enable_partition_eof=True,
                enable_auto_commit=False,
                isolation_level="read_committed",
                fetch_wait_max_ms=20,
            )
        )
        try:
            told = consumer.list_topics(timeout=20).topics
            places = [(topic, number) for topic in topics for number in told[topic].partitions]
            admin = AdminClient(connection.config())
            asked = {TopicPartition(*place): OffsetSpec.latest() for place in places}
            futures = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_UNCOMMITTED, request_timeout=20)
            ends = {(each.topic, each.partition): future.result(20).offset for each, future in futures.items()}
            waiting = {place for place in places if ends[place] > self._next.get(place, 0)}
            consumer.assign([TopicPartition(*place, self._next.get(place, 0)) for place in waiting])
            deadline = time.monotonic() + READ_S
            while waiting:
                assert time.monotonic() < deadline, f"{sorted(waiting)} could not be read to their ends {ends}"
                message = consumer.poll(1)
                if message is None:
                    continue
                place = message.topic(), message.partition()
                if message.error() is None:
                    self._take(*place, message.offset(), message.timestamp()[1], message.value() or b"")
                    self._next[place] = message.offset() + 1
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    self._next[place] = message.offset()
                    if message.offset() >= ends[place]:
                        waiting.discard(place)
                elif not message.error().retriable():
                    raise KafkaException(message.error())
        finally:
            consumer.close()

    def _take(self, topic: str, partition: int, offset: int, append_time: int, value: bytes) -> None:
        domain, _, kind = topic.rpartition(".")
        if kind == "in":
            self.inputs[topic, partition, offset] = sha256(value).digest()
        elif kind == "out":
            self._out.update((domain, bytes.fromhex(leaf)) for leaf in leaves(value))
            self._as_a_reader(topic, partition, offset, append_time, value)
        else:
            key = domain, leaf_hash(value)
            self._dead[key] += 1
            code, _ = string(value, 60)
            self._letters[key] = (partition, int.from_bytes(value[12:20], "big"), value[28:60], code)

    def _as_a_reader(self, topic: str, partition: int, offset: int, append_time: int, value: bytes) -> None:
        """What a reader refuses by section 5.6 was not delivered, whatever the ledger says."""
        decided, instance = int.from_bytes(value[93:101], "big"), value[69:85]
        sequence = int.from_bytes(value[85:93], "big")
        why = ""
        if abs(decided - append_time) > MAX_DELAY_MS:
            why = f"decided {append_time - decided} ms before its append"
        elif sequence <= self._sequences.get((topic, partition, instance), -1):
            why = f"sequence {sequence} does not rise"
        self._sequences[topic, partition, instance] = sequence
        if why:
            self._unreadable.append(f"{topic}/{partition} at {offset}: every reader refuses the bundle: {why}")

    def _judge(self, published: Published) -> Findings:
        told = Findings(
            published=len(published.stored),
            unknown=len(published.unknown),
            inputs=len(self.inputs),
            delivered=self._out.total(),
            dead=self._dead.total(),
        )
        first: set[bytes] = set()
        allowed: Counter[bytes] = Counter()
        missing: dict[tuple[str, int], list[int]] = {}
        explained: dict[str, Counter] = {"ALLOW": Counter(), "DENY": Counter()}
        for place in sorted(self.inputs):
            digest = self.inputs[place]
            hops = self.hops.get(place, [])
            repeated = digest in first
            first.add(digest)
            told.repeats += repeated
            if not hops:
                missing.setdefault(place[:2], []).append(place[2])
                continue
            if len(hops) > 1:
                told.doubled += 1
                told.reasons.append(f"{place}: {len(hops)} hops")
            for hop in hops:
                if hop.origin != digest:
                    told.reasons.append(f"{place}: the hop is of another record")
                explained[hop.decision][hop.topic.removesuffix(".in"), hop.output] += 1
                if hop.decision == "ALLOW":
                    allowed[hop.message_id] += 1
                self._judge_code(told, place, hop, "replay" if repeated else published.refusals.get(digest, ""))
        for (topic, partition), offsets in missing.items():
            told.unaudited += len(offsets)
            told.reasons.append(f"{topic}/{partition}: no hop of {len(offsets)}, from {offsets[0]} to {offsets[-1]}")
        for place in self.hops.keys() - self.inputs.keys():
            told.reasons.append(f"{place}: a hop of no input")
        self._judge_outcomes(told, explained["ALLOW"], self._out, "output")
        self._judge_outcomes(told, explained["DENY"], self._dead, "dead letter")
        self._judge_letters(told)
        self._judge_messages(told, published, allowed)
        told.unreadable = len(self._unreadable)
        told.reasons += self._unreadable
        return told

    def _judge_code(self, told: Findings, place: Place, hop: Hop, expected: str) -> None:
        if hop.code == expected:
            return
        told.reasons.append(f"{place}: expected {expected or 'ALLOW'}, found {hop.code or 'ALLOW'}")
        if not expected:
            told.refused_honest += 1
        elif hop.decision == "ALLOW":
            told.passed_dishonest += 1

    def _judge_outcomes(self, told: Findings, explained: Counter, found: Counter, name: str) -> None:
        """Each hop's output once where it says, and nothing that no hop names."""
        missing, unnamed = explained - found, found - explained
        again = {key: count - 1 for key, count in found.items() if count > 1}
        without_hop = sum(count for key, count in unnamed.items() if key not in explained)
        told.lost += missing.total()
        told.doubled += sum(again.values())
        told.unaudited += without_hop
        for count, what in ((missing.total(), "lost"), (sum(again.values()), "doubled"), (without_hop, "unaudited")):
            if count:
                told.reasons.append(f"{count} {name}s {what}")

    def _judge_letters(self, told: Findings) -> None:
        """A dead letter says of its input what the hop says."""
        for (domain, _), (partition, offset, origin, code) in self._letters.items():
            place = f"{domain}.in", partition, offset
            hops = self.hops.get(place, [])
            if hops and (hops[0].origin, hops[0].code) != (origin, code):
                told.reasons.append(f"{place}: the dead letter says {code}, the hop {hops[0].code}")

    def _judge_messages(self, told: Findings, published: Published, allowed: Counter[bytes]) -> None:
        """Every message that the broker acknowledged was let through once; nothing that nobody published."""
        gone = Counter(domain for message_id, domain in published.stored.items() if not allowed[message_id])
        for domain, count in gone.items():
            told.lost += count
            told.reasons.append(f"{count} messages of {domain}: acknowledged and not delivered")
        for message_id, count in allowed.items():
            if count > 1:
                told.doubled += 1
                told.reasons.append(f"message {message_id.hex()}: delivered {count} times")
            if message_id not in published.stored and message_id not in published.unknown:
                told.passed_dishonest += 1
                told.reasons.append(f"message {message_id.hex()}: delivered and published by nobody")
