"""`python -m tests.pii`: recall and precision of guardrails by type on every labelled set; `--wrong` shows faults."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable

from bus.guardrails.presidio import PresidioEngine
from bus.guardrails.scanner import default_scanner
from bus.guardrails.types import TYPES
from tests.pii.made import SEED, generated
from tests.pii.measure import Sample, Score, measure, published

COLUMNS = ("set", "type", "labelled", "recall", "found", "precision")


def show(name: str, scores: dict[str, Score]) -> Iterable[tuple[str, ...]]:
    """Rows of one set; of a type that it does not label, only what was found by mistake."""
    for kind, score in scores.items():
        if score.labelled or score.found:
            recall = f"{score.recall:.3f}" if score.labelled else "-"
            precision = f"{score.precision:.3f}" if score.found else "-"
            yield (name, kind, str(score.labelled), recall, str(score.found), precision)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.pii", description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED, help="of the set that is made (default: %(default)s)")
    parser.add_argument("--wrong", action="store_true", help="print what was missed and what was found by mistake")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--model", help="a spaCy model: with presidio, what PERSON is looked for by, too")
    asked = parser.parse_args()
    scanner = PresidioEngine(asked.model).scanner(TYPES) if asked.model else default_scanner(TYPES)
    sets: dict[str, list[Sample]] = {
        "published, even": published(0),
        "published, odd": published(1),
        "made": generated(asked.seed),
    }
    scores = {name: measure(samples, scanner) for name, samples in sets.items()}
    if asked.json:
        told = {name: {kind: score.row for kind, score in each.items()} for name, each in scores.items()}
        print(json.dumps(told, indent=2))
        return 0
    rows = [COLUMNS, *(row for name, each in scores.items() for row in show(name, each))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    for row in rows:
        texts = [
            text.ljust(width) if at < 2 else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(texts).rstrip())
    if asked.wrong:
        for name, each in scores.items():
            for kind, score in each.items():
                for told, texts in (("missed", score.missed), ("wrong", score.wrong)):
                    print(*(f"{name} {kind} {told}: {text}" for text in texts), sep="\n", end="\n" if texts else "")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
