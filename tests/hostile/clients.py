"""Attacks that need more than records: compressed batches, transactions, groups, producer ids, connections, requests.

Each is prepared and then run, as in ``attacks``; what the broker answers is counted by its error code.
"""

import contextlib
import os
import socket
import ssl
import struct
import time
from collections import Counter
from dataclasses import dataclass, field

from tests.hostile import records
from tests.hostile.agent import TOPIC
from tests.hostile.measure import PARTITIONS
from tests.hostile.wire import TRANSACTIONAL, batch, connect, record

CONNECTIONS = 200


@dataclass
class Told:
    """What an attack did. ``held`` is closed after the measurement."""

    records: int = 0
    input_bytes: int = 0
    expected: Counter = field(default_factory=Counter)
    answers: Counter = field(default_factory=Counter)
    held: list = field(default_factory=list)

    def sent(self, value, code):
        self.records += 1
        self.input_bytes += len(value)
        self.expected[code] += 1


def compressed_tiny(agent, _seconds):
    """100,000 empty values in batches of a few KB: what a byte quota cannot see."""
    packed = [(number, records.tiny_batch(25_000)) for number in range(PARTITIONS)]

    def run():
        told = Told()
        with agent.raw() as raw:
            for partition, value in packed:
                error, _ = raw.produce(TOPIC, partition, value)
                told.answers[f"produce {error}"] += 1
                if error == 0:
                    told.records += 25_000
                    told.expected["bounds"] += 25_000
        return told

    return run


def transactions(agent, seconds):
    """Transactions that never end: by the client library, by hand, under the enforcer's name and under none."""

    def run():
        told = Told()
        end = time.monotonic() + seconds
        value = batch([record(0, b"x")], producer=(0, 0, 0), attributes=TRANSACTIONAL)
        with agent.raw() as raw:
            while time.monotonic() < end:
                for name in ("bus-enforcer-1", agent.name, "mine"):
                    told.answers[f"init {raw.producer_id(name)[0]}"] += 1
                    told.answers[f"produce {raw.produce(TOPIC, 0, value, name)[0]}"] += 1
                    told.answers[f"add {raw.add_partitions(name, 0, 0, TOPIC)}"] += 1
                    told.answers[f"end {raw.end_transaction(name, 0, 0)}"] += 1
                told.answers[f"produce {raw.produce(TOPIC, 0, value)[0]}"] += 1
        return told

    return run


def groups(agent, seconds):
    """Joining, leaving and moving the groups of others, at the speed of one connection."""

    def run():
        told = Told()
        end = time.monotonic() + seconds
        with agent.raw() as raw:
            while time.monotonic() < end:
                for group in ("bus.enforcer", "orchestrator-1", f"{agent.name}-x", "bus-audit"):
                    told.answers[f"join {raw.join(group)}"] += 1
                    told.answers[f"leave {raw.leave(group, 'bus-enforcer-1')}"] += 1
                    told.answers[f"commit {raw.commit(group, TOPIC, 0)}"] += 1
        return told

    return run


def producer_ids(agent, _seconds):
    """Take the producer ids that other agents have or will get, and write their next sequences first."""

    def run():
        told = Told()
        with agent.raw() as raw:
            _, newest, _ = raw.producer_id()
            for producer in range(newest + 30):
                for partition in range(PARTITIONS):
                    error, _ = raw.produce(TOPIC, partition, batch([record(0, b"")], producer=(producer, 32_000, 0)))
                    told.answers[f"produce {error}"] += 1
                    if error == 0:
                        told.sent(b"", "bounds")
        return told

    return run


def connections(agent, seconds):
    """200 at a time: silent ones, half a TLS handshake, garbage before and inside TLS, authenticated idle ones."""

    def run():
        told = Told()
        address = agent.connection.bootstrap
        context = ssl.create_default_context(cafile=str(agent.connection.ca))
        end = time.monotonic() + seconds
        for number in range(CONNECTIONS):
            try:
                if number % 4 == 3:
                    told.held.append(agent.raw().socket)
                    continue
                plain = connect(address)
                told.held.append(plain)
                if number % 4 == 1:
                    outgoing = ssl.MemoryBIO()
                    with contextlib.suppress(ssl.SSLWantReadError):
                        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1").do_handshake()
                    plain.sendall(outgoing.read()[:100])
                elif number % 4 == 2:
                    plain.sendall(os.urandom(2000))
            except OSError as error:
                told.answers[type(error).__name__] += 1
        told.answers["open at once"] = len(told.held)
        while time.monotonic() < end:  # garbage again and again
            try:
                with socket.create_connection(address.rsplit(":", 1), 5) as one:
                    one.sendall(struct.pack(">i", 2**31 - 1) + os.urandom(1000))
                told.answers["garbage sent"] += 1
            except OSError as error:
                told.answers[type(error).__name__] += 1
            time.sleep(0.01)
        return told

    return run


def announcements(agent, _seconds, *, size=100_000_000, count=30):
    """Connections that each announce a request of ``size`` bytes and send none of it."""

    def run():
        told = Told()
        for _ in range(count):
            try:
                raw = agent.raw()
                raw.socket.sendall(struct.pack(">i", size))
                told.held.append(raw.socket)
            except OSError as error:
                told.answers[type(error).__name__] += 1
                break
        told.answers["announced"] = len(told.held)
        time.sleep(3)
        return told

    return run


def small_announcements(agent, seconds):
    """The same with what an honest producer may announce."""
    return announcements(agent, seconds, size=2 * 1024 * 1024, count=CONNECTIONS)


def gzip_bombs(agent, _seconds):
    """Batches of 150 KB that hold one value of 150 MB each."""
    value = records.gzip_bomb(records.BOMB_BYTES)

    def run():
        told = Told()
        with agent.raw() as raw:
            for partition in range(PARTITIONS):
                error, _ = raw.produce(TOPIC, partition, value)
                told.answers[f"produce {error}"] += 1
                if error == 0:
                    told.records += 1
                    told.input_bytes += records.BOMB_BYTES
                    told.expected["bounds"] += 1
        return told

    return run


def zstd_bombs(agent, _seconds):
    """Batches of 5 KB that hold one value of 150 MB each, more than the enforcer's client will decompress."""
    producer = agent.producer(compression_codec="zstd", message_max_bytes=1_000_000_000, message_timeout_ms=30_000)
    value = bytes(records.BOMB_BYTES)

    def run():
        told = Told()

        def delivered(error, _message):
            if error is None:
                told.sent(value, "bounds")
            else:
                told.answers[error.name()] += 1

        producer.produce(TOPIC, value, partition=0, on_delivery=delivered)
        producer.flush(60)
        return told

    return run
