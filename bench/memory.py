"""Memory of an enforcer over a million records of a thousand sending processes in two epochs."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Final

from bench.load import AGENT, DOMAIN, OTHER, PARTITIONS, plaintexts, write
from bench.rows import Figures, finish, start
from bus.crypto.seal import Sealer
from bus.stack.local import Stack
from demo.raw import RawClient

INSTANCES: Final = 1000
SIZE: Final = 256


def memory(stack: Stack, records: int, say: Callable[[str], None]) -> Figures:
    """Resident MiB of the enforcer after each quarter of ``records``; the stack rotates its keys every few seconds."""
    child = start(stack, "enforcer", {"records": records})
    try:
        last = 0
        for part in range(2):
            sealers, last = _next_epoch(stack, last)
            say(f"bench  memory: {records // 2:,} records of {len(sealers)} processes in epoch {last} ({part + 1}/2)")
            write(stack, sealers, records // 2, _texts(len(sealers)), partition=_spread(len(sealers)))()
        return finish(child)
    finally:
        child.kill()
        child.wait()


def _next_epoch(stack: Stack, last: int) -> tuple[list[Sealer], int]:
    """Half of the sending processes, under the keys of an epoch after ``last``."""
    raw = RawClient(stack)
    deadline = time.monotonic() + 120
    while (number := raw.keys(AGENT, DOMAIN)[1].epoch) <= last:
        if time.monotonic() > deadline:
            raise RuntimeError("no new epoch began in time")
        time.sleep(0.1)
    return [raw.sealer(agent, DOMAIN) for agent in (AGENT, OTHER) for _ in range(INSTANCES // 4)], number


def _texts(processes: int) -> Iterator[bytes]:
    """Envelopes in the processes' order: half are of one agent, half of the other."""
    one, other = plaintexts(AGENT, SIZE), plaintexts(OTHER, SIZE)
    for number in itertools.count():
        yield next(one if number % processes < processes // 2 else other)


def _spread(processes: int) -> Callable[[int], int]:
    """Each process writes to one partition: an agent may have 64 there in an epoch."""
    return lambda number: number % processes % PARTITIONS
