"""What looks from outside: readers of topics and ledger with plain consumers, and of the services' endpoints.

They share no code with the product's record path: they see bytes, offsets, metrics and what `bus audit search` prints.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from bus.stack.local import Stack

T = TypeVar("T")


ASKED_S = 0.2
"""Between two questions to the ledger: each is a process."""


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
        time.sleep(ASKED_S)


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A zig-zag varint that is not negative, and what follows it."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value >> 1, at


def leaves(value: bytes) -> list[str]:
    """Leaf hashes (hex) of the records in a bundle, by docs/wire-format.md, section 5: no code of the product."""
    head = value[10:103]
    size, at = varint(value, 103)
    count, at = varint(value, at + size)
    found = []
    for _ in range(count):
        fixed = value[at : at + 26]
        size, start = varint(value, at + 26)
        at = start + size
        found.append(hashlib.sha256(b"\0" + head + fixed + value[start:at]).hexdigest())
    assert value[at : at + 1] == b"\0"
    assert len(value) == at + 65
    return found


def account(stack: Stack, domain: str, *, timeout: float = 60) -> dict[str, dict]:
    """Hops by origin digest, once every input of ``domain`` has one; each input has exactly one hop and one outcome.

    Outcomes are read from the topics with plain consumers: a leaf of a bundle for ALLOW, a dead letter for DENY.
    """
    inputs = Counter(hashlib.sha256(value).hexdigest() for _, _, value in read_topic(stack, f"{domain}.in"))
    deadline = time.monotonic() + timeout
    while True:
        told = [each for each in hops(stack, "--domain", domain) if each["decision"] != "RETRY"]
        if len(told) >= inputs.total() or time.monotonic() > deadline:
            break
        time.sleep(ASKED_S)
    assert Counter(each["origin_digest"] for each in told) == inputs
    assert len({(each["topic"], each["partition"], each["offset"]) for each in told}) == len(told)
    out = Counter(leaf for _, _, value in read_topic(stack, f"{domain}.out") for leaf in leaves(value))
    dead = Counter(hashlib.sha256(b"\0" + value).hexdigest() for _, _, value in read_topic(stack, f"{domain}.dead"))
    assert Counter(each["output_digest"] for each in told if each["decision"] == "ALLOW") == out
    assert Counter(each["output_digest"] for each in told if each["decision"] == "DENY") == dead
    return {each["origin_digest"]: each for each in told}


def verified(stack: Stack) -> dict:
    """What `bus audit verify` says of the whole ledger, with the key from outside."""
    key = bus_command(stack, "audit", "key").stdout.strip()
    return json.loads(bus_command(stack, "audit", "verify", "--key", key, "--json", check=False).stdout)


def get(stack: Stack, service: str, path: str) -> tuple[int, str]:
    """(status, text) of a service's endpoint."""
    base = (stack.layout.run / f"{service}.http").read_text().strip()
    try:
        with urllib.request.urlopen(base + path, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def metrics(stack: Stack, *services: str) -> dict[tuple, float]:
    """Samples by name and sorted (label, value) pairs, added up over ``services``."""
    found: Counter[tuple] = Counter()
    for service in services:
        for family in text_string_to_metric_families(get(stack, service, "/metrics")[1]):
            for sample in family.samples:
                found[(sample.name, *sorted(sample.labels.items()))] += sample.value
    return dict(found)


def until(holds: Callable[[], T], timeout: float = 90) -> T:
    """Ask again until it holds, and what it says then; fails after ``timeout`` s."""
    deadline = time.monotonic() + timeout
    while not (found := holds()):
        assert time.monotonic() < deadline, holds
        time.sleep(0.02)
    return found
