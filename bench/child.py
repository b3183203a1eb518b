"""One measured process: `python -m bench.child KIND OPTIONS` (options as JSON). Prints one JSON line; settings by
BUS_CONFIG.

The clock and the CPU account run from the assignment of the (already written) input to the last commit; where several
processes share the input, from the moment that it can be seen (the file named by ``gate``).
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from bench import fhe
from bench.load import DOMAIN, PARTITIONS, SOURCE, TARGET
from bench.meter import Meter
from bus import settings as settings_module
from bus.client.bus import Bus
from bus.files import Layout
from bus.kafka.config import Connection, connect
from bus.kafka.identity import read_identity
from bus.kafka.loop import POLL_BATCH, consumer_config
from bus.kafka.transaction import Place, Staged, Transactor
from bus.settings import Settings
from bus.stack.broker import ADMIN
from bus.tiers.fheframe import CONTENT_TYPE
from bus.wire import derived
from consumers.audit.app import Auditor
from consumers.enforcer.app import Enforcer
from consumers.tuning import tune_process

Options = dict[str, Any]


def admin(settings: Settings) -> Connection:
    """The administrator's connection."""
    layout = Layout(settings.state)
    return Connection(settings.bootstrap, layout.ca, read_identity(layout.service(ADMIN), ADMIN))


def relay(settings: Settings, meter: Meter, options: Options) -> None:
    """Read, write the same bytes, commit: exactly once, the enforcer's client settings and transaction sizes."""
    connection = admin(settings)
    name = f"bench-relay-{os.getpid()}"
    transactor = Transactor(connection, name)
    consumer = Consumer(consumer_config(connection, name, name))

    def assigned(consumer: Consumer, _partitions: list[TopicPartition]) -> None:
        starts = options["starts"]
        consumer.assign([TopicPartition(SOURCE, int(number), offset) for number, offset in starts.items()])
        _ready(options)
        meter.start()
        joined.set()

    joined = threading.Event()
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


def enforcer(settings: Settings, meter: Meter, options: Options) -> None:
    """The enforcer as it is, or with bundles of one, or in plain Python."""
    if options.get("bundle"):
        derived.MAX_RECORDS = options["bundle"]  # type: ignore[misc]
    settings = dataclasses.replace(settings, compiled=options.get("compiled", True))

    shown = Enforcer(settings, observe=lambda staged: meter.add(staged.records), on_ready=lambda: ready())

    def ready() -> None:
        # Where several share the input, the last assignment is the one that counts.
        if sum(topic == SOURCE for topic, _ in shown.places()) == options.get("partitions", PARTITIONS):
            _ready(options)
            meter.start()

    shown.run(meter.stop)


def record(settings: Settings, meter: Meter, _options: Options) -> None:
    """The audit consumer, over hops that are already there."""
    meter.start()
    Auditor(settings, observe=meter.add).run(meter.stop)


def produce(settings: Settings, meter: Meter, options: Options) -> None:
    """`produce` with a delivery callback: the client settings of ``publish``, nothing else."""
    connection = connect(settings, options["agent"])
    producer = Producer(
        connection.config(
            acks="all", enable_idempotence=True, linger_ms=2, batch_size=1 << 20,
            queue_buffering_max_messages=200_000, queue_buffering_max_kbytes=256 * 1024,
        )
    )  # fmt: skip
    value = os.urandom(options["size"])
    answers: list[object] = []

    def delivered(error: object, _message: object) -> None:
        answers.append(error)

    producer.produce(SOURCE, value, partition=0, on_delivery=delivered)
    producer.flush(30)
    answers.clear()
    meter.start()
    for number in range(options["records"]):
        while True:
            try:
                producer.produce(SOURCE, value, partition=number % 4, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.01)
        if number % 100 == 0:
            producer.poll(0)
    producer.flush(120)
    meter.add(sum(error is None for error in answers))


def publish(settings: Settings, meter: Meter, options: Options) -> None:
    """``publish`` with ``confirm="queued"``."""
    payload, domain = os.urandom(options["size"]), options.get("domain", DOMAIN)
    with Bus(options["agent"], settings=settings) as me:
        me.publish(domain, payload, confirm="stored")
        meter.start()
        sent = [
            me.publish(domain, payload, partition_key=str(number % 4), confirm="queued")
            for number in range(options["records"])
        ]
        me.flush(120)
        meter.add(sum(each.stored for each in sent))


def subscribe(settings: Settings, meter: Meter, options: Options) -> None:
    """Deliveries of what is already there, one after the other."""
    with Bus(options["agent"], settings=settings) as me:
        deliveries = me.subscribe(DOMAIN, observe=True, max_inflight=10_000)
        meter.start()
        for _ in range(options["records"]):
            deliveries.get(30)
        meter.add(options["records"])


def read(settings: Settings, meter: Meter, options: Options) -> None:
    """An agent's own reading of what is new in a domain; batches of encrypted columns are loaded and scored."""
    with Bus(options["agent"], settings=settings) as me:
        deliveries = me.subscribe(options["domain"])
        deliveries.wait_assigned()
        meter.start()
        while not meter.stop.is_set():
            delivery = deliveries.get(30)
            if delivery is None:
                raise RuntimeError(f"{options['domain']}: no delivery for 30 s")
            if delivery.content_type == CONTENT_TYPE:
                batch = me.fhe.open(delivery)
                batch.linear(fhe.WEIGHTS, fhe.BIAS)
                meter.add(batch.rows)
            else:
                meter.add(1)
        deliveries.get(0)  # the last is done with, too


KINDS: dict[str, Callable[[Settings, Meter, Options], None]] = {
    "relay": relay, "enforcer": enforcer, "record": record, "produce": produce, "publish": publish,
    "subscribe": subscribe, "read": read, "publish-batches": fhe.publish,
}  # fmt: skip


def _ready(options: Options) -> None:
    """Say so, and wait for the gate where there is one."""
    if gate := options.get("gate"):
        Path(f"{gate}.{os.getpid()}").touch()
        if options.get("hold"):
            while not Path(gate).exists():
                time.sleep(0.001)


def main() -> None:
    """Run one child."""
    kind, options = sys.argv[1], json.loads(sys.argv[2])
    settings = settings_module.load()
    meter = Meter(options["records"])
    tune_process()
    KINDS[kind](settings, meter, options)
    print(json.dumps(meter.result))


if __name__ == "__main__":
    main()
