"""Labelled texts and the scanner's spans to recall and precision per type.

Strict where it matters: a labelled span counts as found only where every letter and digit of it would be redacted as
its type. A found span is right where it lies on a labelled one of its type.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bus.guardrails.scanner import Scanner, default_scanner
from bus.guardrails.types import TYPES

DATA = Path(__file__).parents[1] / "data" / "pii" / "presidio.json"


@dataclass(frozen=True, slots=True)
class Sample:
    """A text with what stands in it: (start, end, type). ``group`` says which rule of wording made it."""

    text: str
    spans: tuple[tuple[int, int, str], ...] = ()
    group: int = 0


@dataclass(slots=True)
class Score:
    """Of one type: labelled spans and those found whole, found spans and those that are right."""

    labelled: int = 0
    hit: int = 0
    found: int = 0
    right: int = 0
    missed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def recall(self) -> float:
        """Share of the labelled spans that are found whole; 1 where there are none."""
        return self.hit / self.labelled if self.labelled else 1.0

    @property
    def precision(self) -> float:
        """Share of the found spans that are right; 1 where there are none."""
        return self.right / self.found if self.found else 1.0

    @property
    def row(self) -> dict[str, Any]:
        """For one JSON document."""
        numbers = {"labelled": self.labelled, "hit": self.hit, "found": self.found, "right": self.right}
        return {**numbers, "recall": round(self.recall, 4), "precision": round(self.precision, 4)}


def published(half: int) -> list[Sample]:
    """The half of the published set whose template ids are even (0) or odd (1)."""
    rows = json.loads(DATA.read_text(encoding="utf-8"))
    made = [Sample(text, tuple((start, end, kind) for start, end, kind in spans), group) for group, text, spans in rows]
    return [each for each in made if each.group % 2 == half]


def measure(samples: Iterable[Sample], scanner: Scanner | None = None) -> dict[str, Score]:
    """Scores by type, of one scanner that looks for all of them."""
    asked = scanner or default_scanner(TYPES)
    scores = {kind: Score() for kind in sorted(TYPES)}
    for sample in samples:
        spans = asked.scan(sample.text)
        for start, end, kind in sample.spans:
            score = scores[kind]
            inside = {place for span in spans if span.type == kind for place in range(span.start, span.end)}
            whole = all(place in inside for place in range(start, end) if sample.text[place].isalnum())
            score.labelled += 1
            score.hit += whole
            if not whole:
                score.missed.append(_shown(sample.text, start, end))
        for span in spans:
            score = scores[span.type]
            right = any(k == span.type and span.start < end and start < span.end for start, end, k in sample.spans)
            score.found += 1
            score.right += right
            if not right:
                score.wrong.append(_shown(sample.text, span.start, span.end))
    return scores


def _shown(text: str, start: int, end: int) -> str:
    return f"{text[max(0, start - 40) : start]}<<{text[start:end]}>>{text[end : end + 20]}".replace("\n", " ")
