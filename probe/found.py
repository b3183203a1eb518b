"""One attack as it went: what was expected, what was found and how that was seen, and what its control did."""

from __future__ import annotations

import dataclasses
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaException

from bus.errors import BusError

TAKEN: Final = "taken"
"""What is found where nothing was refused."""
CLOSED: Final = "closed"


@dataclass(frozen=True, slots=True)
class Row:
    """``by``: whose credential it was tried with. ``control`` says what was tried beside it, ``answer`` what came of
    that, and ``holds`` whether it went as it must: else that the attack was refused says nothing."""

    attack: str
    by: str
    expected: str
    found: str
    seen: str
    ms: int
    control: str
    answer: str
    holds: bool
    problems: tuple[str, ...] = ()

    def faults(self) -> list[str]:
        """What of it is not as it must be."""
        wrong = [] if self.found == self.expected else [f"expected {self.expected}, found {self.found}"]
        lost = [] if self.holds else [f"its control failed ({self.control}): {self.answer}"]
        return [f"{self.attack}: {text}" for text in (*wrong, *self.problems, *lost)]

    def document(self) -> dict[str, Any]:
        """It as JSON."""
        return {**dataclasses.asdict(self), "ok": not self.faults()}


def tried(attempt: Callable[[], str]) -> tuple[str, str, int]:
    """(code, words, ms) of an attempt: of its error, or ``TAKEN`` and what it returned."""
    began = time.monotonic()
    try:
        code, words = TAKEN, attempt()
    except BusError as error:
        code, words = str(error.code), str(error)
    except KafkaException as error:
        code, words = error.args[0].name(), error.args[0].str()
    except ssl.SSLError as error:
        code, words = error.reason or "TLS", error.strerror or str(error)
    except ConnectionError as error:
        code, words = CLOSED, str(error)
    return code, words, round((time.monotonic() - began) * 1000)


def text(rows: Sequence[Row], skipped: dict[str, str]) -> str:
    """A table for the terminal."""
    lines = []
    for row in rows:
        mark = "FAILED" if row.faults() else "ok"
        lines.append(f"{mark:6} {row.attack:46} {row.found:30} {row.ms:5} ms  {row.seen}")
        lines.append(f"       by {row.by}; control: {row.control}: {row.answer}")
    lines += [f"-      {attack:46} not tried: {why}" for attack, why in skipped.items()]
    return "\n".join(lines)
