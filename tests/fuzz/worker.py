"""One process of the long form: runs jobs, measures time and memory, and keeps one input of each fault.

A job is a target and a number; its inputs follow from both and the seed alone, whichever process runs it. The first job
of a target begins with its kept and its large inputs. The input in hand always stands in a shared file, so that one
which kills the process is not lost.
"""

from __future__ import annotations

import logging
import mmap
import resource
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from tests.fuzz.bulk import bulk
from tests.fuzz.mutate import mutated
from tests.fuzz.target import Hang, Target, signature
from tests.fuzz.targets import TARGETS

LIMIT_S: Final = 0.05
"""CPU time of one input of up to 64 KiB; a larger one has as much for each 64 KiB."""
HANG_S: Final = 10.0
"""CPU time after which an input is given up."""
MAX_JUMP: Final = 64 * 1024
"""KiB by which one input may raise the process's peak memory."""
MAX_GROWTH: Final = 160 * 1024
"""KiB by which all inputs together may: the large ones stay in the allocator's hands."""
ADDRESS_SPACE: Final = 4 * 1024**3
HELD: Final = 4 * 1024 * 1024
"""Bytes of the shared file: a length, then the input in hand."""


class Job(NamedTuple):
    """``size`` mutated inputs of one target."""

    target: str
    number: int
    size: int


@dataclass(slots=True)
class Tally:
    """What came of inputs of one target. Times in seconds of CPU, memory in KiB; faults by signature."""

    target: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    slowest: float = 0.0
    growth: int = 0
    guided: int = 0
    faults: dict[str, bytes] = field(default_factory=dict)

    def add(self, other: Tally) -> None:
        """Take over what another job counted."""
        self.inputs += other.inputs
        self.accepted += other.accepted
        self.refused += other.refused
        self.guided += other.guided
        self.slowest = max(self.slowest, other.slowest)
        self.growth += other.growth
        self.faults = {**other.faults, **self.faults}


def serve(connection: Connection, held: Path, seed: int) -> None:
    """Run jobs until the process is ended."""
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    signal.signal(signal.SIGPROF, _give_up)
    for target in TARGETS.values():  # schemas and caches are filled before memory is measured
        for sample in target.seeds:
            judge(target, sample, Tally(""))
    with held.open("r+b") as file, mmap.mmap(file.fileno(), HELD) as shared:
        start = peak()
        connection.send(None)
        while True:
            tally = run(connection.recv(), seed, shared)
            if peak() - start > MAX_GROWTH:
                tally.faults.setdefault(f"memory: all inputs together took {MAX_GROWTH} KiB", b"")
            connection.send(tally)


def in_hand(held: Path) -> bytes:
    """The input that a process was at when it ended."""
    data = held.read_bytes()
    return data[8 : 8 + int.from_bytes(data[:8], "big")]


def peak() -> int:
    """KiB of resident memory at the worst moment of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _give_up(_signal: int, _frame: object) -> None:
    raise Hang(f"more than {HANG_S:.0f} s of CPU")


def inputs(target: Target, job: Job, seed: int) -> Iterator[bytes]:
    """The inputs of ``job``."""
    if job.number == 0:
        yield from target.seeds
        yield from (path.read_bytes() for path in target.corpus())
        yield from bulk(target.name)
    random = Random(f"{seed}/{target.name}/{job.number}")
    samples = target.samples()
    for _ in range(job.size):
        yield mutated(random, samples, target.tokens, target.limit)


def run(job: Job, seed: int, shared: mmap.mmap) -> Tally:
    """Check every input of ``job``."""
    target = TARGETS[job.target]
    tally = Tally(target.name)
    before = first = peak()
    for data in inputs(target, job, seed):
        shared[: 8 + len(data)] = len(data).to_bytes(8, "big") + data
        spent = judge(target, data, tally)
        budget = LIMIT_S * max(1, len(data) / 65_536)
        if spent > budget:
            spent = min(spent, *(judge(target, data, Tally("")) for _ in range(3)))
            if spent > budget:
                keep(tally, f"slow: over {LIMIT_S * 1000:.0f} ms of CPU", data)
        tally.slowest = max(tally.slowest, spent)
        after = peak()
        if after - before > MAX_JUMP:
            keep(tally, f"memory: over {MAX_JUMP} KiB", data)
        before = after
    tally.growth = before - first
    return tally


def judge(target: Target, data: bytes, tally: Tally) -> float:
    """CPU seconds that ``data`` took; its outcome goes to ``tally``."""
    signal.setitimer(signal.ITIMER_PROF, HANG_S)
    begin = time.thread_time()
    try:
        if target.check(data):
            tally.accepted += 1
        else:
            tally.refused += 1
    except (Exception, Hang) as error:
        keep(tally, signature(error), data)
    finally:
        spent = time.thread_time() - begin
        signal.setitimer(signal.ITIMER_PROF, 0)
    tally.inputs += 1
    return spent


def keep(tally: Tally, name: str, data: bytes) -> None:
    """Remember the shortest input of a fault."""
    held = tally.faults.get(name)
    if held is None or len(data) < len(held):
        tally.faults[name] = data
