"""The enforcer beside a bare exactly-once relay on the same broker, in interleaved pairs; ratios are what counts."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from rich.table import Table

from bench.child import SOURCE, TARGET
from bus.cli.output import emit, out, say
from bus.settings import Settings
from bus.stack.local import BUNDLED_POLICIES, Stack, prepare
from bus.wire import envelope
from demo.raw import RawClient

PARTITIONS = 4
CHILD_TIMEOUT_S = 300
SESSION = "bench-session-0001"


def run(*, pairs: int, records: int, size: int, as_json: bool) -> None:
    """Measure and print. The stack is made for this run and removed."""
    home = Path(tempfile.mkdtemp(prefix="sealbus-bench-"))
    settings = dataclasses.replace(Settings(), state=home / "state", policies=BUNDLED_POLICIES)
    stack = Stack(prepare(settings))
    try:
        say("bench  starting a broker")
        stack.up(lambda _: None, services=False)
        stack.start_service("issuer")
        _make_topic(stack)
        rows = _measure(stack, pairs, records, size)
        _report(stack.settings, rows, records, size, as_json=as_json)
    finally:
        stack.down(lambda _: None, purge=True)
        shutil.rmtree(home, ignore_errors=True)


def _make_topic(stack: Stack) -> None:
    admin = AdminClient(stack.admin_connection().config())
    topic = NewTopic(TARGET, PARTITIONS, 1, config={"message.timestamp.type": "LogAppendTime"})
    for future in admin.create_topics([topic]).values():
        future.result(30)


def _load(stack: Stack, records: int, size: int) -> dict[int, int]:
    """Write sealed records; returns the offset at which each partition's new records begin."""
    raw = RawClient(stack)
    sealer = raw.sealer("retriever-1", "agent_memory")
    starts = _ends(stack)
    now = time.time_ns() // 1_000_000
    profile = envelope.encode_profile(
        envelope.Profile(
            source="retriever-1",  # type: ignore[arg-type]
            domain="agent_memory",  # type: ignore[arg-type]
            purpose="care",
            metadata={"sender_ip": "10.0.0.1", "routing_path": "a>b", "locale": "en"},
        )
    )
    producer = Producer(raw.connection.config(acks="all", linger_ms=20, queue_buffering_max_messages=1_000_000))
    for number in range(records):
        message = envelope.Message(os.urandom(16), now, now + 3_600_000, SESSION)
        plain = envelope.encode_plaintext(profile, envelope.encode_message(message), os.urandom(size))
        _, value = sealer.seal(number % PARTITIONS, plain)
        producer.produce(SOURCE, value, partition=number % PARTITIONS)
        if number % 1000 == 0:
            producer.poll(0)
    producer.flush(60)
    return starts


def _ends(stack: Stack) -> dict[int, int]:
    consumer = Consumer(stack.admin_connection().config(group_id="bus-admin"))
    try:
        return {
            number: consumer.get_watermark_offsets(TopicPartition(SOURCE, number), timeout=10, cached=False)[1]
            for number in range(PARTITIONS)
        }
    finally:
        consumer.close()


def _child(stack: Stack, kind: str, records: int, starts: dict[int, int]) -> dict[str, float]:
    environ = {**os.environ, "BUS_CONFIG": str(stack.layout.settings), "BUS_INSTANCE": "bus-enforcer-1"}
    command = [sys.executable, "-m", "bench.child", kind, str(records), json.dumps(starts)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=CHILD_TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{kind}: {done.stderr[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _measure(stack: Stack, pairs: int, records: int, size: int) -> list[dict[str, dict[str, float]]]:
    rows = []
    for number in range(pairs):
        starts = _load(stack, records, size)
        order = ("relay", "enforcer") if number % 2 == 0 else ("enforcer", "relay")
        row = {kind: _child(stack, kind, records, starts) for kind in order}
        rows.append(row)
        say(
            f"bench  pair {number + 1} of {pairs}: relay {row['relay']['records_s']:,.0f}/s, "
            f"enforcer {row['enforcer']['records_s']:,.0f}/s"
        )
    return rows


def _summary(rows: list[dict[str, dict[str, float]]], kind: str, figure: str) -> dict[str, float]:
    values = [row[kind][figure] for row in rows]
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _report(
    settings: Settings, rows: list[dict[str, dict[str, float]]], records: int, size: int, *, as_json: bool
) -> None:
    ratios = [row["enforcer"]["records_s"] / row["relay"]["records_s"] for row in rows]
    document: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "pairs": len(rows),
        "records": records,
        "payload_bytes": size,
        "transaction_ms": settings.transaction_ms,
        "transaction_bytes": settings.transaction_bytes,
        "relay": {key: _summary(rows, "relay", key) for key in ("records_s", "cpu_us", "transactions")},
        "enforcer": {key: _summary(rows, "enforcer", key) for key in ("records_s", "cpu_us", "transactions")},
        "ratio": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
    }
    if as_json:
        emit("bench", document)
        return
    out.print(f"{document['machine']}; {len(rows)} pairs of {records:,} records, {size} B payload, exactly once,")
    out.print(f"transactions of at most {settings.transaction_ms} ms idle or {settings.transaction_bytes:,} B")
    table = Table("", "records/s", "CPU us/record", "transactions")
    for kind in ("relay", "enforcer"):
        cells = [f"{t['median']:,.1f}  ({t['min']:,.1f} to {t['max']:,.1f})" for t in document[kind].values()]
        table.add_row(kind, *cells)
    out.print(table)
    ratio = document["ratio"]
    out.print(f"enforcer / relay: {ratio['median']:.0%}  ({ratio['min']:.0%} to {ratio['max']:.0%})")
