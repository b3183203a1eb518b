"""Texts to spans: where in a text something of the wanted types stands. Pure; time grows with the length of the text.

One RE2 set says which patterns match at all; only those look for their places, and only what passes its check counts.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple, Protocol

import re2

from bus.guardrails.types import CONTEXT, DETECTORS


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


class PatternScanner:
    """The default detectors for some types; needs no model."""

    def __init__(self, types: Iterable[str]) -> None:
        wanted = frozenset(types)
        self._detectors = [each for each in DETECTORS if each.type in wanted]
        self._patterns = [re2.compile(each.pattern) for each in self._detectors]
        self._set = re2.Set.SearchSet()
        for each in self._detectors:
            self._set.Add(each.pattern)
        self._set.Compile()

    def scan(self, text: str) -> list[Span]:
        """See ``Scanner``."""
        matching = self._set.Match(text)
        if not matching:
            return []
        found: list[Span] = []
        for index in sorted(matching):
            detector = self._detectors[index]
            for match in self._patterns[index].finditer(text):
                start, end = match.span(detector.group)
                if any(start < each.end and each.start < end for each in found):
                    continue
                if detector.accepts(text[start:end], text[max(0, start - CONTEXT) : start]):
                    found.append(Span(start, end, detector.type))
        return sorted(found)


@functools.lru_cache(64)
def default_scanner(types: frozenset[str]) -> Scanner:
    """One scanner per set of types; compiling its patterns takes some milliseconds."""
    return PatternScanner(types)
