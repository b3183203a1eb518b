"""`python -m tests.chaos`: so many rounds from a seed; exit 1 and a kept state folder when something was lost."""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.faults import KINDS
from tests.chaos.rounds import Chaos, Round
from tests.chaos.site import Site

VERIFY_EVERY = 10
TOTALS = ("published", "unknown", "inputs", "delivered", "dead", "repeats")
COUNTS = ("lost", "doubled", "unaudited", "refused_honest", "passed_dishonest", "unreadable")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument(
        "--seed", type=int, default=int(os.environ.get("CHAOS_SEED", "0")) or time.time_ns() % 1_000_000
    )
    names = sorted(each.name for each in KINDS)
    parser.add_argument("--only", action="append", default=[], choices=names, help="draw from these kinds of fault")
    parser.add_argument("--without", action="append", default=[], choices=names, help="leave these kinds out")
    parser.add_argument("--state", type=Path, help="a folder that does not exist; default: a temporary one")
    parser.add_argument("--keep", action="store_true", help="keep the state folder of a clean run too")
    parser.add_argument("--json", action="store_true", help="the summary as JSON on stdout; progress goes to stderr")
    return parser.parse_args(words)


def line(each: Round, seed: int) -> str:
    """Progress: one line a round."""
    found = each.findings
    wrong = " ".join(f"{name} {getattr(found, name)}" for name in COUNTS)
    counts = " ".join(f"{name} {getattr(found, name)}" for name in TOTALS)
    told = "; ".join([*each.faults, *each.errors])
    return f"round {each.number} seed {seed} {each.seconds:.1f} s: {counts} {wrong} | {told}"


def main(words: list[str] | None = None) -> int:
    asked = arguments(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # whoever ends it leaves no process behind
    progress = sys.stderr if asked.json else sys.stdout
    folder = asked.state or Path(tempfile.mkdtemp(prefix="sealbus-chaos-"))
    kinds = [each for each in KINDS if each.name in (asked.only or [each.name]) and each.name not in asked.without]
    began = time.monotonic()
    rounds: list[Round] = []
    problems: list[str] = []
    print(f"seed {asked.seed}, {asked.rounds} rounds, state in {folder}", file=progress, flush=True)
    with Site(folder) as site:
        chaos = Chaos(site, asked.seed, kinds=kinds)
        try:
            for number in range(1, asked.rounds + 1):
                each = chaos.round(number)
                rounds.append(each)
                print(line(each, asked.seed), file=progress, flush=True)
                problems += [f"round {number}: {told}" for told in (*each.findings.reasons, *each.errors)]
                if number % VERIFY_EVERY == 0 or number == asked.rounds:
                    problems += [f"ledger: {told}" for told in chaos.verify()]
                if problems:
                    break
        finally:
            chaos.close()
    summary = {"rounds": len(rounds), "seed": asked.seed, "seconds": round(time.monotonic() - began, 1)}
    if rounds:
        last = rounds[-1].findings
        summary |= {name: getattr(last, name) for name in (*TOTALS, *COUNTS)}
    summary |= {"ended_by_themselves": dict(site.ended), "broker_once_more": chaos.restarts, "problems": problems}
    print(json.dumps(summary) if asked.json else _text(summary), flush=True)
    if problems or asked.keep:
        print(f"kept: {folder}", file=progress)
    else:
        shutil.rmtree(folder)
    return 1 if problems else 0


def _text(summary: dict) -> str:
    problems = summary.pop("problems")
    return "\n".join([*(f"{name:>20}  {value}" for name, value in summary.items()), *problems[:50]])


if __name__ == "__main__":
    sys.exit(main())
