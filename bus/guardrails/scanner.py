"""Texts to spans: where in a text something of the wanted types stands. Pure; time grows with the length of the text.

One RE2 set says which patterns match at all; only those look for their places, and only what passes its check counts.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, NamedTuple, Protocol

import re2

from bus.errors import PolicyError
from bus.guardrails.types import CONTEXT, DETECTORS, TYPES, Detector

HALVES: Final = re.compile("[\ud800-\udfff]")
"""Half characters: what is no UTF-8 in bytes, and escapes in JSON that stand alone."""
_GROUP: Final = re.compile(r"[^ -]+")
_BETWEEN: Final = "\n\0"
"""Stands between texts that are scanned together: no pattern reaches over it but to the end of all."""


class Span(NamedTuple):
    """``text[start:end]`` is of ``type``."""

    start: int
    end: int
    type: str


class Scanner(Protocol):
    """What finds spans: the default one here, or one that a deployment plugs in."""

    def scan(self, text: str) -> list[Span]:
        """Spans in order, none over another."""
        ...

    def scan_each(self, texts: Collection[str]) -> dict[str, list[Span]]:
        """What ``scan`` says of each text, without those in which nothing is."""
        ...


Scanners = Callable[[frozenset[str]], Scanner]
"""Makes the scanner of some types. Raises PolicyError for one that it does not know."""


class PatternScanner:
    """The default detectors for some types; needs no model. Raises PolicyError for a type that has no pattern."""

    def __init__(self, types: Iterable[str]) -> None:
        wanted = frozenset(types)
        refuse_types(wanted - TYPES)
        self._detectors = [each for each in DETECTORS if each.type in wanted]
        self._patterns = [re2.compile(each.pattern) for each in self._detectors]
        self._set = re2.Set.SearchSet()
        for each in self._detectors:
            self._set.Add(each.pattern)
        self._set.Compile()

    def scan(self, text: str) -> list[Span]:
        """See ``Scanner``."""
        return self._scan(text, lambda start: text[max(0, start - CONTEXT) : start])

    def scan_each(self, texts: Collection[str]) -> dict[str, list[Span]]:
        """See ``Scanner``. All texts are scanned as one: what stands before a match ends where its own text begins."""
        joined = _BETWEEN.join(texts)
        if joined.count("\0") != max(len(texts) - 1, 0):  # a text that looks like two
            return {text: spans for text in texts if (spans := self.scan(text))}
        spans = self._scan(joined, lambda start: joined[max(0, start - CONTEXT) : start].rpartition(_BETWEEN)[2])
        if not spans:
            return {}
        found: dict[str, list[Span]] = {}
        place, start = 0, 0
        for text in texts:
            end = start + len(text)
            while place < len(spans) and spans[place].start < end:
                span = spans[place]
                if span.end > end:  # to the end of all, where it should have ended with its text
                    return {text: spans for text in texts if (spans := self.scan(text))}
                found.setdefault(text, []).append(Span(span.start - start, span.end - start, span.type))
                place += 1
            if place == len(spans):
                break
            start = end + len(_BETWEEN)
        return found

    def _scan(self, text: str, before: Callable[[int], str]) -> list[Span]:
        """Spans in order; ``before`` says what stands before a place."""
        text = whole(text)
        found: list[Span] = []
        for index in sorted(self._set.Match(text) or ()):
            detector = self._detectors[index]
            for match in self._patterns[index].finditer(text):
                for start, end in _parts(text, *match.span(detector.group), detector=detector):
                    place = bisect.bisect_left(found, (start, end, ""))
                    if (place and found[place - 1].end > start) or (place < len(found) and found[place].start < end):
                        continue
                    if detector.accepts(text[start:end], before(start)):
                        found.insert(place, Span(start, end, detector.type))
                        break
        return found


def refuse_types(unknown: Collection[str]) -> None:
    """Raises PolicyError where there are any: what nothing here finds must not pass for looked at."""
    if unknown:
        raise PolicyError(
            f"guardrails: nothing here detects {', '.join(sorted(unknown))}",
            hint="see guardrail_engine and guardrail_model in docs/policy.md",
        )


def whole(text: str) -> str:
    """``text`` as UTF-8 can hold it; every place stays where it is."""
    return text if text.isascii() else HALVES.sub("\ufffd", text)


def _parts(text: str, start: int, end: int, *, detector: Detector) -> Iterator[tuple[int, int]]:
    """A match, then where groups count the longest runs of its: a date behind a card belongs to the match alone."""
    yield start, end
    if not detector.groups:
        return
    places = [(start + each.start(), start + each.end()) for each in _GROUP.finditer(text[start:end])]
    upto = [0, *itertools.accumulate(last - first for first, last in places)]
    for size in range(len(places) - 1, 0, -1):
        for first in range(len(places) - size + 1):
            if upto[first + size] - upto[first] >= detector.least:
                yield places[first][0], places[first + size - 1][1]


@functools.lru_cache(64)
def default_scanner(types: frozenset[str]) -> PatternScanner:
    """One scanner per set of types; compiling its patterns takes some milliseconds."""
    return PatternScanner(types)
