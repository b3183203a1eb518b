"""The long form: mutated inputs in two processes, then coverage-guided ones where atheris is installed."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Final

from tests.fuzz import guided
from tests.fuzz.keep import shrunk
from tests.fuzz.target import CORPUS, CRASH, Target
from tests.fuzz.worker import HELD, Job, Tally, in_hand, serve

PROCESSES: Final = 2
CHUNK: Final = 2000
"""Inputs of one job: some seconds of the slowest target."""
SILENCE_S: Final = 300.0
"""A process from which nothing came for so long hangs where Python cannot interrupt it."""
GUIDED_PART: Final = 4
"""One input in so many is coverage-guided."""
GUIDED_DEADLINE_S: Final = 1800.0


def shares(targets: Iterable[Target], inputs: int) -> dict[str, int]:
    """``inputs`` over ``targets``, by their shares; each has one at least."""
    held = list(targets)
    total = sum(each.share for each in held)
    return {each.name: max(1, inputs * each.share // total) for each in held}


def jobs(counts: dict[str, int]) -> list[Job]:
    """Jobs of all targets, the first of each target first."""
    made = [
        Job(name, number, min(CHUNK, count - at))
        for name, count in counts.items()
        for number, at in enumerate(range(0, count, CHUNK))
    ]
    return sorted(made, key=lambda each: each.number)


class Process:
    """A worker process and the job that it has."""

    def __init__(self, folder: Path, number: int, seed: int) -> None:
        self.held = folder / f"input-{number}"
        with self.held.open("wb") as file:
            file.truncate(HELD)
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.job: Job | None = None
        self.since = time.monotonic()
        self.process = context.Process(target=serve, args=(other, self.held, seed), daemon=True)
        self.process.start()
        other.close()

    def give(self, job: Job) -> None:
        """The next job."""
        self.job = job
        self.since = time.monotonic()
        self.connection.send(job)

    def told(self) -> Tally | None:
        """What came, after waiting for it. Of a process that died, the input that it was at."""
        try:
            return self.connection.recv()
        except (EOFError, OSError) as error:
            self.process.join()
            why = f"the process ended with {self.process.exitcode}"
            if self.job is None:
                raise RuntimeError(f"a worker cannot start: {why}") from error
            return Tally(self.job.target, faults={why: in_hand(self.held)})

    def end(self) -> None:
        """Stop it, whatever it does."""
        self.process.kill()
        self.process.join()


def mutate_all(waiting: list[Job], seed: int, folder: Path) -> Iterator[Tally]:
    """Tallies of all jobs, as they come."""
    running: dict[Connection, Process] = {}
    started = 0
    try:
        while waiting or running:
            while waiting and len(running) < PROCESSES:
                made = Process(folder, started, seed)
                started += 1
                running[made.connection] = made
            for connection in wait(list(running), timeout=5):
                each = running[connection]
                tally = each.told()
                if tally is not None:
                    yield tally
                if each.process.exitcode is not None or not waiting:
                    running.pop(connection).end()
                else:
                    each.give(waiting.pop(0))
            for each in running.values():
                if time.monotonic() - each.since > SILENCE_S:
                    each.end()  # its connection tells the rest
    finally:
        for each in running.values():
            each.end()


def guide(name: str, runs: int, seed: int, folder: Path) -> Tally:
    """Coverage-guided inputs of one target, in a process of its own; what reached something new stays in ``folder``."""
    options = [f"-runs={runs}", f"-seed={seed}", "-timeout=20", "-rss_limit_mb=2048", "-print_final_stats=1"]
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.guided",
        name,
        str(folder),
        *options,
        f"-artifact_prefix={folder}/died-",
    ]
    tally = Tally(name)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GUIDED_DEADLINE_S, check=False)
    except subprocess.TimeoutExpired:
        tally.faults[f"guided: not done after {GUIDED_DEADLINE_S:.0f} s"] = b""
        return tally
    for line in done.stdout.splitlines():
        with suppress(ValueError):
            told = json.loads(line)
            tally.faults[told["fault"]] = bytes.fromhex(told["input"])
    for path in folder.glob("died-*"):
        tally.faults[f"guided: {path.name.split('-')[1]}"] = path.read_bytes()
    counted = [line for line in done.stderr.splitlines() if line.startswith("stat::number_of_executed_units")]
    tally.guided = int(counted[0].split()[-1]) if counted else 0
    if done.returncode and not tally.faults:
        tally.faults[f"guided: the process ended with {done.returncode}"] = b""
    return tally


def guide_all(counts: dict[str, int], seed: int, folder: Path) -> Iterator[Tally]:
    """Tallies of the coverage-guided part, as they come."""
    with ThreadPoolExecutor(PROCESSES) as pool:
        waiting = [pool.submit(guide, name, count, seed, folder / name) for name, count in counts.items()]
        yield from (each.result() for each in as_completed(waiting))


def fuzz(targets: dict[str, Target], inputs: int, seed: int, folder: Path) -> dict[str, Tally]:
    """Both parts; progress goes to stderr. What the guided part found stays in ``folder``."""
    with_guide = guided.available()
    tallies = {name: Tally(name) for name in targets}
    part = inputs // GUIDED_PART if with_guide else 0
    plain, by_coverage = shares(targets.values(), inputs - part), shares(targets.values(), part)
    begin = shown = time.monotonic()

    def take(coming: Iterator[Tally]) -> None:
        nonlocal shown
        for tally in coming:
            tallies[tally.target].add(tally)
            if time.monotonic() - shown > 5:
                shown = time.monotonic()
                done = sum(each.inputs + each.guided for each in tallies.values())
                faults = sum(len(each.faults) for each in tallies.values())
                rate = done / (shown - begin)
                print(f"{done:,} of {inputs:,} inputs, {rate:,.0f}/s, {faults} faults", file=sys.stderr, flush=True)

    take(mutate_all(jobs(plain), seed, folder))
    if with_guide:
        take(guide_all(by_coverage, seed, folder))
    else:
        print("atheris is not installed: only mutated inputs, none guided by coverage", file=sys.stderr)
    return tallies


def save(target: Target, tally: Tally) -> None:
    """Inputs at fault go to the corpus, as small as they can be made."""
    for told, data in tally.faults.items():
        if data:
            data = tally.faults[told] = shrunk(target, data, told)
            path = CORPUS / target.name / f"{CRASH}{hashlib.sha256(data).hexdigest()[:16]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
