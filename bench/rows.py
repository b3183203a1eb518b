"""What is measured: each row pairs two processes over the same records, in turn, so that only ratios are compared."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.load import AGENT, PARTITIONS, SOURCE, TARGET, ends, load
from bus.stack.local import Stack

CHILD_TIMEOUT_S: Final = 300
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Row:
    """``base`` is what ``name`` is measured against. ``options`` go to the measured process alone."""

    name: str
    title: str
    base: str
    kind: str
    size: int = 1024
    changing: bool = False
    processes: int = 1
    share: float = 1.0
    options: dict[str, Any] = field(default_factory=dict)


ROWS: Final = (
    Row("1KiB", "enforcer, 1 KiB", "relay", "enforcer"),
    Row("256B", "enforcer, 256 B", "relay", "enforcer", size=256),
    Row("16KiB", "enforcer, 16 KiB", "relay", "enforcer", size=16 * 1024, share=0.2),
    Row("bundle-1", "enforcer, bundles of 1", "relay", "enforcer", options={"bundle": 1}),
    Row("metadata", "enforcer, a metadata value that changes", "relay", "enforcer", changing=True),
    Row("plain", "enforcer, plain Python", "relay", "enforcer", options={"compiled": False}),
    Row("two", "two enforcers beside two relays", "relay", "enforcer", processes=2),
    Row("publish", "publish, queued, beside raw produce", "produce", "publish"),
)
BY_NAME: Final = {row.name: row for row in ROWS}


@dataclass(frozen=True, slots=True)
class Pair:
    """One pair: rate (records/s) and CPU (us a record) of both."""

    base: Figures
    measured: Figures

    @property
    def ratio(self) -> float:
        """Rate of what is measured over that of its base."""
        return self.measured["records_s"] / self.base["records_s"]


def start(stack: Stack, kind: str, options: dict[str, Any], instance: int = 1) -> subprocess.Popen[str]:
    """A measured process."""
    environ = {
        **os.environ,
        "BUS_CONFIG": str(stack.layout.settings),
        "BUS_INSTANCE": f"bus-enforcer-{instance}",
    }
    command = [sys.executable, "-m", "bench.child", kind, json.dumps(options)]
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> Figures:
    """What it measured. Raises RuntimeError with its last words."""
    out, errors = process.communicate(timeout=CHILD_TIMEOUT_S)
    if process.returncode:
        raise RuntimeError(f"a measured process ended with {process.returncode}: {errors[-2000:]}")
    told: Figures = json.loads(out.splitlines()[-1])
    return told


def quix(stack: Stack, python: Path, records: int) -> Figures:
    """Quix Streams over the oldest records of the input, in an interpreter that has it."""
    admin = stack.admin_connection()
    task = {
        "bootstrap": stack.settings.bootstrap,
        "ca": str(stack.layout.ca),
        "username": admin.identity.principal,
        "password": admin.password.reveal().decode(),
        "source": SOURCE,
        "target": TARGET,
        "records": records,
    }
    done = subprocess.run(
        [str(python), str(Path(__file__).with_name("quix.py"))],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        timeout=CHILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"quix ended with {done.returncode}: {done.stderr[-2000:]}")
    told: Figures = json.loads(done.stdout.splitlines()[-1])
    return told


def together(told: list[Figures]) -> Figures:
    """One account of several processes that shared the records."""
    records = sum(each["records"] for each in told)
    seconds = max(each["ended"] for each in told) - max(each["began"] for each in told)
    return {
        "records": records,
        "records_s": records / seconds,
        "cpu_us": sum(each["cpu_s"] for each in told) / records * 1e6,
        "resident_mib": max(each["resident_mib"] for each in told),
    }


def measure(stack: Stack, row: Row, pairs: int, records: int, say: Callable[[str], None]) -> list[Pair]:
    """``pairs`` interleaved pairs of ``records`` each (fewer where the records are large)."""
    count = max(int(records * row.share), PARTITIONS)
    made = []
    for number in range(pairs):
        base, measured = _pair(stack, row, count, first=number % 2 == 0)
        made.append(Pair(base, measured))
        rate, ratio = measured["records_s"], made[-1].ratio
        say(f"bench  {row.name} {number + 1}/{pairs}: {rate:,.0f}/s, {ratio:.0%} of {row.base}")
    return made


def _pair(stack: Stack, row: Row, count: int, *, first: bool) -> tuple[Figures, Figures]:
    if row.kind == "publish":
        options = {"records": count, "size": row.size, "agent": AGENT}
        order = (row.base, row.kind) if first else (row.kind, row.base)
        told = {kind: finish(start(stack, kind, options)) for kind in order}
        return told[row.base], told[row.kind]
    starts = ends(stack)
    if row.processes > 1:
        return _shared(stack, row, count, starts)
    load(stack, count, row.size, changing=row.changing)()
    plan = {"relay": {"records": count, "starts": starts}, "enforcer": {"records": count, **row.options}}
    order = (row.base, row.kind) if first else (row.kind, row.base)
    told = {kind: finish(start(stack, kind, plan[kind])) for kind in order}
    return told[row.base], told[row.kind]


def _shared(stack: Stack, row: Row, count: int, starts: dict[int, int]) -> tuple[Figures, Figures]:
    """Several processes that share the partitions. They are assigned before the records can be seen."""
    show = load(stack, count, row.size)
    measured = together(shared(stack, row.processes, count, show))
    gate = stack.layout.run / f"gate.{time.time_ns()}"
    each = PARTITIONS // row.processes
    relays = [
        start(
            stack,
            "relay",
            {
                "records": count // row.processes,
                "starts": {str(place): starts[place] for place in range(number * each, number * each + each)},
                "gate": str(gate),
                "hold": True,
            },
        )
        for number in range(row.processes)
    ]
    _wait(gate, row.processes)
    gate.touch()
    return together([finish(process) for process in relays]), measured


def shared(stack: Stack, processes: int, count: int, show: Callable[[], None]) -> list[Figures]:
    """Enforcers that share the input; ``show`` makes it visible once every one of them has its partitions."""
    gate = stack.layout.run / f"gate.{time.time_ns()}"
    options = {"records": count // processes, "gate": str(gate), "partitions": PARTITIONS // processes}
    children = [start(stack, "enforcer", options, number) for number in range(1, processes + 1)]
    _wait(gate, processes)
    show()
    began = time.time()
    return [{**finish(process), "began": began} for process in children]


def _wait(gate: Path, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(list(gate.parent.glob(f"{gate.name}.*"))) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{count} processes were not ready in time")
        time.sleep(0.01)


def spread(values: list[float]) -> Figures:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}
