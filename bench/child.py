"""One measured process: `python -m bench.child relay|enforcer COUNT`. Prints one JSON line; settings by BUS_CONFIG.

The clock and the CPU account run from the assignment of the (already written) input to the last commit.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time

from confluent_kafka import Consumer, TopicPartition

from bus import settings as settings_module
from bus.files import Layout
from bus.kafka.config import Connection, read_identity
from bus.kafka.loop import POLL_BATCH, consumer_config
from bus.kafka.transaction import Place, Staged, Transactor
from bus.settings import Settings
from bus.stack.broker import ADMIN
from consumers.enforcer.app import Enforcer
from consumers.tuning import tune_process

SOURCE, TARGET = "agent_memory.in", "bench.relay"


class Meter:
    """Counts committed records; tells rate and CPU of this process."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._done = 0
        self._began = (0.0, 0.0)
        self.transactions = 0
        self.result: dict[str, float] = {}
        self.stop = threading.Event()

    def start(self) -> None:
        """The input is assigned."""
        self._began = (time.perf_counter(), _cpu())

    def add(self, records: int) -> None:
        """So many records more are durable."""
        self._done += records
        self.transactions += 1
        if self._done >= self._count and not self.result:
            seconds, cpu = time.perf_counter() - self._began[0], _cpu() - self._began[1]
            self.result = {
                "records": self._done,
                "records_s": self._done / seconds,
                "cpu_us": cpu / self._done * 1e6,
                "transactions": self.transactions,
            }
            self.stop.set()


def _cpu() -> float:
    told = resource.getrusage(resource.RUSAGE_SELF)
    return told.ru_utime + told.ru_stime


def relay(settings: Settings, meter: Meter, starts: dict[int, int]) -> None:
    """Read, write the same bytes, commit: exactly once, the enforcer's client settings and transaction sizes."""
    layout = Layout(settings.state)
    connection = Connection(settings.bootstrap, layout.ca, read_identity(layout.service(ADMIN), ADMIN))
    transactor = Transactor(connection, "bench-relay")
    group = f"bench-relay-{os.getpid()}"
    consumer = Consumer(consumer_config(connection, group, group))
    joined = threading.Event()

    def assigned(consumer: Consumer, partitions: list[TopicPartition]) -> None:
        consumer.assign([TopicPartition(SOURCE, each.partition, starts[each.partition]) for each in partitions])
        meter.start()
        joined.set()

    consumer.subscribe([SOURCE], on_assign=assigned)
    held: dict[int, list[bytes]] = {}
    positions: dict[Place, tuple[int, str]] = {}
    size = records = in_flight = 0
    while not meter.stop.is_set():
        messages = consumer.consume(POLL_BATCH, settings.transaction_ms / 1000 if joined.is_set() else 0.2)
        for message in messages:
            value = message.value() or b""
            held.setdefault(message.partition() or 0, []).append(value)
            positions[SOURCE, message.partition() or 0] = ((message.offset() or 0) + 1, "")
            size += len(value) + 64
        records += len(messages)
        if size >= settings.transaction_bytes or (size and (transactor.idle or not messages)):
            transactor.wait()
            if in_flight:
                meter.add(in_flight)
            writes: list[tuple[Place, list[bytes]]] = [((TARGET, number), values) for number, values in held.items()]
            staged = Staged(writes=writes, offsets=dict(positions), group=consumer.consumer_group_metadata())
            transactor.submit(staged)
            in_flight, held, positions, size, records = records, {}, {}, 0, 0
        elif in_flight and transactor.idle:
            transactor.wait()
            meter.add(in_flight)
            in_flight = 0
    consumer.close()
    transactor.close()


def main() -> None:
    """Run one child."""
    kind, count = sys.argv[1], int(sys.argv[2])
    settings = settings_module.load()
    meter = Meter(count)
    tune_process()
    if kind == "relay":
        relay(settings, meter, {int(k): v for k, v in json.loads(sys.argv[3]).items()})
    else:
        Enforcer(settings, observe=lambda staged: meter.add(staged.records), on_ready=meter.start).run(meter.stop)
    print(json.dumps(meter.result))


if __name__ == "__main__":
    main()
