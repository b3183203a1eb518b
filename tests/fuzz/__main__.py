"""`python -m tests.fuzz --inputs 1000000 --seed 1`: fuzz every reader; exit code 1 where one of them is at fault."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.keep import keep
from tests.fuzz.run import fuzz, save
from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import Tally

COLUMNS = ("target", "inputs", "guided", "accepted", "refused", "slowest ms", "RSS +KiB", "faults")


def row(tally: Tally) -> tuple[str, ...]:
    numbers = (
        tally.inputs,
        tally.guided,
        tally.accepted,
        tally.refused,
        tally.slowest * 1000,
        tally.growth,
        len(tally.faults),
    )
    return (tally.target, *(f"{each:,.1f}" if isinstance(each, float) else f"{each:,}" for each in numbers))


def show(tallies: list[Tally], seconds: float) -> None:
    """The table, then one line a fault."""
    total = Tally("all")
    for each in tallies:
        total.add(each)
    rows = [COLUMNS, *map(row, tallies)]
    widths = [max(len(line[column]) for line in rows) for column in range(len(COLUMNS))]
    for name, *numbers in rows:
        print(name.ljust(widths[0]), *(text.rjust(width) for text, width in zip(numbers, widths[1:], strict=True)))
    done = total.inputs + total.guided
    print(f"{done:,} inputs in {seconds:.0f} s ({done / seconds:,.0f}/s), {total.guided:,} of them guided by coverage")
    for each in tallies:
        for told, data in each.faults.items():
            shown = data.hex() if len(data) <= 100 else f"{data[:100].hex()}... ({len(data)} bytes)"
            print(f"FAULT {each.target}: {told}\n  {shown}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="inputs over all targets (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same mutated inputs")
    parser.add_argument("--target", choices=sorted(TARGETS), help="this one only")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--keep", action="store_true", help="add inputs that reach new lines to the corpus")
    asked = parser.parse_args()
    targets = {asked.target: TARGETS[asked.target]} if asked.target else TARGETS
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sealbus-fuzz-") as folder:
        os.environ["TMPDIR"] = folder  # of the processes too, whichever way they end
        tallies = list(fuzz(targets, asked.inputs, asked.seed, Path(folder)).values())
        if asked.keep:
            for target in targets.values():
                keep(target, Path(folder) / target.name, asked.seed)
    seconds = time.monotonic() - begin
    for each in tallies:
        save(TARGETS[each.target], each)
    if asked.json:
        facts = [
            {
                "target": each.target,
                "inputs": each.inputs,
                "guided": each.guided,
                "accepted": each.accepted,
                "refused": each.refused,
                "slowest_ms": round(each.slowest * 1000, 3),
                "rss_growth_kib": each.growth,
                "faults": {told: data.hex() for told, data in each.faults.items()},
            }
            for each in tallies
        ]
        print(json.dumps({"seed": asked.seed, "seconds": round(seconds, 1), "targets": facts}))
    else:
        show(tallies, seconds)
    return 1 if any(each.faults for each in tallies) else 0


if __name__ == "__main__":
    sys.exit(main())
