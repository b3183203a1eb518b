"""Latency of one hop: from `produce` to the reader at a steady rate, over the enforcer or over the bare relay."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

from confluent_kafka import Consumer, Producer, TopicPartition

from bench.load import AGENT, DOMAIN, PARTITIONS, SOURCE, TARGET, ends, plaintexts
from bench.rows import Figures, finish, start
from bus.stack.local import Stack
from bus.wire import derived
from demo.raw import RawClient

RATE: Final = 2000
"""Records a second."""
WARM_S: Final = 3.0
OUT: Final = {"relay": TARGET, "enforcer": f"{DOMAIN}.out"}
Times = list[list[float]]
"""By partition, in order, s."""


def latency(stack: Stack, kind: str, seconds: float) -> Figures:
    """Percentiles in ms over ``seconds``, after a start that is not counted."""
    count = int(RATE * (seconds + WARM_S))
    starts = {str(number): offset for number, offset in ends(stack).items()}
    reader = _reader(stack, OUT[kind])
    child = start(stack, kind, {"records": count, "starts": starts})
    try:
        figures = _drive(stack, reader, count)
        finish(child)
        if kind == "relay":  # what it left in the input is not the next enforcer's to answer for
            finish(start(stack, "enforcer", {"records": count}))
        return figures
    finally:
        reader.close()
        child.kill()
        child.wait()


def rolling(stack: Stack, seconds: float) -> Figures:
    """Percentiles in ms while two enforcers are restarted one after the other."""
    names = ["bus-enforcer-1", "bus-enforcer-2"]
    for name in names:
        stack.start_service(name)
    took: list[float] = []

    def restart() -> None:
        for name in names:
            began = time.perf_counter()
            stack.restart_service(name)
            took.append(time.perf_counter() - began)

    reader = _reader(stack, OUT["enforcer"])
    timer = threading.Timer(WARM_S + 2, restart)
    timer.start()
    try:
        figures = _drive(stack, reader, int(RATE * (seconds + WARM_S)))
        timer.join()
        return {**figures, "restart_s": max(took)}
    finally:
        reader.close()
        for name in names:
            stack.stop_service(name)


def _drive(stack: Stack, reader: Consumer, count: int) -> Figures:
    raw = RawClient(stack)
    sealer, texts = raw.sealer(AGENT, DOMAIN), plaintexts(AGENT, 1024)
    values = [sealer.seal(number % PARTITIONS, next(texts))[1] for number in range(count)]
    producer = Producer(raw.connection.config(acks="all", linger_ms=1))
    sent: Times = [[] for _ in range(PARTITIONS)]
    seen: Times = [[] for _ in range(PARTITIONS)]
    # One record a partition first: when it is through, the process is at work.
    begun, done, deadline = 0.0, 0, time.perf_counter() + 60 + count / RATE
    while sum(map(len, seen)) < count:
        now = time.perf_counter()
        if not begun and sum(map(len, seen)) == PARTITIONS:
            begun = now
        due = min(count, PARTITIONS + int((now - begun) * RATE)) if begun else PARTITIONS
        for number in range(done, due):
            producer.produce(SOURCE, values[number], partition=number % PARTITIONS)
            sent[number % PARTITIONS].append(time.perf_counter())
        done = max(done, due)
        producer.poll(0)
        _take(reader, seen)
        time.sleep(0.0005)  # a busy loop would take the core that broker and measured process share
        if now > deadline:
            raise RuntimeError(f"{count - sum(map(len, seen))} records did not come through")
    return _percentiles(sent, seen)


def _reader(stack: Stack, topic: str) -> Consumer:
    config = stack.admin_connection().config(
        group_id="bus-admin", isolation_level="read_committed", fetch_wait_max_ms=5
    )
    consumer = Consumer(config)
    consumer.assign([TopicPartition(topic, number, offset) for number, offset in ends(stack, topic).items()])
    return consumer


def _take(reader: Consumer, seen: Times) -> None:
    """Note when records arrived: output partition and order are the input's."""
    for message in reader.consume(500, 0):
        if message.error() is None:
            value: Any = message.value()
            count = int.from_bytes(value[101:103], "big") if value.startswith(derived.MARK) else 1
            seen[message.partition() or 0] += [time.perf_counter()] * count


def _percentiles(sent: Times, seen: Times) -> Figures:
    warm = int(RATE * WARM_S) // PARTITIONS
    pairs = [zip(out[warm:], arrived[warm:], strict=True) for out, arrived in zip(sent, seen, strict=True)]
    delays = sorted((there - here) * 1000 for pair in pairs for here, there in pair)
    return {f"p{name}": delays[min(len(delays) * name // 100, len(delays) - 1)] for name in (50, 90, 99)} | {
        "max": delays[-1]
    }
