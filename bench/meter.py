"""Counts what one measured process has done, and tells rate, CPU and memory."""

from __future__ import annotations

import resource
import threading
import time
from pathlib import Path


class Meter:
    """From ``start`` to the ``count``th record. ``result`` is empty until then."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._done = 0
        self._began = (0.0, 0.0)
        self._resident: list[int] = []
        self._transactions = 0
        self.result: dict[str, float] = {}
        self.stop = threading.Event()

    def start(self) -> None:
        """What is measured can begin."""
        self._began = (time.time(), cpu())

    def add(self, records: int) -> None:
        """So many records more are done."""
        if not self._done:
            self._first = (time.time(), cpu())
        self._done += records
        self._transactions += 1
        quarters = 4 * self._done // self._count
        if quarters > len(self._resident):
            self._resident += [resident()] * (quarters - len(self._resident))
        if self._done >= self._count and not self.result:
            ended, used = time.time(), cpu()
            seconds = ended - self._began[0]
            self.result = {
                "records": self._done,
                "records_s": self._done / seconds,
                "cpu_us": (used - self._began[1]) / self._done * 1e6,
                "transactions": self._transactions,
                "began": self._began[0],
                "ended": ended,
                "cpu_s": used - self._began[1],
                "resident_mib": max(self._resident),
                **{f"resident_{n}_mib": each for n, each in enumerate(self._resident[:4], 1)},
            }
            self.stop.set()


def cpu() -> float:
    """CPU seconds of this process so far, user and system, all threads."""
    told = resource.getrusage(resource.RUSAGE_SELF)
    return told.ru_utime + told.ru_stime


def resident() -> int:
    """Resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 2**20
