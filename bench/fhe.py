"""Rows of eight numbers under homomorphic encryption: published in batches, and what each step costs by itself."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from time import process_time
from typing import Any, Final

from bench.meter import Meter
from bus.client.bus import Bus
from bus.settings import Settings
from bus.tiers.fhe import MAX_ROWS, Context, digest_of, make_contexts
from bus.tiers.fheframe import Scheme

COLUMNS: Final = 8
WEIGHTS: Final = {f"column-{number}": 0.1 * (number + 1) for number in range(COLUMNS)}
BIAS: Final = 0.1
TURNS: Final = 7
Columns = dict[str, list[float]]


def columns(rows: int, seed: int = 1) -> Columns:
    """Numbers within 1."""
    made = random.Random(seed)
    return {name: [made.uniform(-1, 1) for _ in range(rows)] for name in WEIGHTS}


def publish(settings: Settings, meter: Meter, options: dict[str, Any]) -> None:
    """A measured process: encrypts and publishes a batch for each number of rows in ``batches``."""
    tables = [columns(rows, seed) for seed, rows in enumerate(options["batches"])]
    with Bus(options["agent"], settings=settings) as me:
        me.fhe.context(bytes.fromhex(options["context"]))  # loaded once a process
        meter.start()
        sent = [me.publish(options["domain"], table, confirm="queued") for table in tables]
        me.flush(120)
        meter.add(sum(rows for each, rows in zip(sent, options["batches"], strict=True) if each.stored))


def measure() -> dict[str, float]:
    """CPU by step (medians of seven turns), at the tier: without a broker, envelopes or sessions.

    ``alone`` is a record that is not gathered: what its source encrypts and serializes, and nothing else.
    """
    public, _ = make_contexts(Scheme.CKKS)
    context = Context(public, digest_of(public))
    full, row = columns(MAX_ROWS), columns(1)
    one = {"column-0": full["column-0"]}
    batch = context.encrypt(full)
    data, values = batch.encode(), MAX_ROWS * COLUMNS
    alone = context.encrypt(row, small=True).encode()
    linear, logistic = cpu_us(lambda: batch.linear(WEIGHTS, BIAS)), cpu_us(lambda: batch.logistic(WEIGHTS, BIAS))
    return {
        "rows": MAX_ROWS,
        "columns": COLUMNS,
        "encrypt_column_ms": cpu_us(lambda: context.encrypt(one)) / 1000,
        "load_ms": cpu_us(lambda: context.load(data)) / 1000,
        "linear_ms": linear / 1000,
        "logistic_ms": logistic / 1000,
        "linear_us_a_value": linear / values,
        "logistic_us_a_value": logistic / values,
        "batch_bytes": len(data),
        "alone_us": cpu_us(lambda: context.encrypt(row, small=True).encode()),
        "alone_bytes": len(alone),
    }


def cpu_us(step: Callable[[], object]) -> float:
    """CPU us of a step, median of ``TURNS``."""
    times = []
    for _ in range(TURNS):
        began = process_time()
        step()
        times.append(process_time() - began)
    return statistics.median(times) * 1e6
