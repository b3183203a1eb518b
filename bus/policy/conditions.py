"""Conditions in CEL (Common Expression Language) over principal, action, resource and context.

Compiled when the policy is loaded and run once over a complete sample of each kind: a condition that does not compile,
names what does not exist or is not boolean never gets into a snapshot. At run time an error is a refusal.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from bus.wire.envelope import Kind

if TYPE_CHECKING:  # its package brings a command line along, a tenth of a second that only a law with conditions pays
    import cel

MAX_MACROS: Final = 2
"""Calls of all, exists, exists_one, map and filter: what they run over multiplies, and nothing else in CEL loops."""
_MACRO: Final = re.compile(r"\b(?:all|exists|exists_one|existsOne|map|filter)\b")
_CONSTANT: Final = re.compile(r"\bcontext\s*\.\s*(?:kind|target|tool|task_type|purpose|user|labels)\b")
"""What of the context is the same for all records of a profile. Whoever goes another way to it may look at more."""


class Look(Enum):
    """What of a moment a condition looks at; of the time no part finer than the minute."""

    MINUTE = "minute"
    LOAD = "load"
    SIZE = "size"


_LOOKS: Final = {
    Look.MINUTE: re.compile(
        r"\bcontext\s*\.\s*time\s*\.\s*get(?:FullYear|Month|Date|DayOfMonth|DayOfWeek|DayOfYear|Hours|Minutes)\s*\("
    ),
    Look.LOAD: re.compile(r"\bcontext\s*\.\s*load\b"),
    Look.SIZE: re.compile(r"\bcontext\s*\.\s*size\b"),
}

SAMPLE: Final[Mapping[str, Any]] = {
    "principal": {
        "id": "agent-1",
        "roles": ["ROLE"],
        "tenant": "tenant",
        "zone": "zone",
        "clearance": "level",
        "categories": ["category"],
    },
    "action": "produce",
    "resource": {"domain": "domain", "tier": "RETRIEVAL", "label": ["level"]},
    "context": {
        "kind": "MESSAGE",
        "target": "agent-2",
        "tool": "sql.read",
        "task_type": "task",
        "purpose": "purpose",
        "user": "00",
        "labels": ["level"],
        "time": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        "load": 0.5,
        "size": 1024,
    },
}
"""Every name that a condition may use, with a value of its type."""


class Condition:
    """A compiled condition. ``looks``: what of the moment it looks at; None where that is not plain to see."""

    __slots__ = ("_program", "looks", "name", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.looks = _looks(text)
        import cel

        self._program = cel.compile(text)

    def __repr__(self) -> str:
        return f"Condition({self.name})"

    @property
    def moment(self) -> bool:
        """Whether it may look at time, load or size, which differ from record to record."""
        return self.looks is None or bool(self.looks)

    def holds(self, facts: cel.Context | dict[str, Any]) -> bool | None:
        """Whether it is true of ``facts`` (the names of ``SAMPLE``); None where it cannot be evaluated."""
        try:
            found = self._program.execute(facts)
        except Exception:  # the library raises many kinds; all of them mean: no answer, which denies
            return None
        return found if isinstance(found, bool) else None


def _looks(text: str) -> frozenset[Look] | None:
    """Every way to the context must be one of the plain ones: ``context[...]`` and its like may look at anything."""
    rest, seen = _CONSTANT.sub("", text), set()
    for look, way in _LOOKS.items():
        rest, count = way.subn("", rest)
        if count:
            seen.add(look)
    return None if "context" in rest else frozenset(seen)


def prepared(facts: dict[str, Any]) -> cel.Context | dict[str, Any]:
    """``facts`` converted once for several conditions; as they are where they cannot be, so that each says so."""
    import cel

    try:
        return cel.Context(facts)
    except Exception:  # whatever the library does not take, no condition can be evaluated on
        return facts


def compile_condition(name: str, text: str) -> Condition:
    """Compile and run over the sample of each kind. Raises ValueError saying what was expected and found."""
    macros = len(_MACRO.findall(text))
    if macros > MAX_MACROS:
        raise ValueError(f"expected at most {MAX_MACROS} of all, exists, exists_one, map and filter, found {macros}")
    try:
        condition = Condition(name, text)
    except Exception as error:
        raise ValueError(f"expected a CEL expression, found {' '.join(str(error).split())[:200]}") from None
    for kind in Kind:
        facts = {**SAMPLE, "context": {**SAMPLE["context"], "kind": kind.value}}
        try:
            found = condition._program.execute(facts)
        except Exception as error:
            names = "principal, action, resource and context"
            raise ValueError(f"expected names of {names}, found {type(error).__name__} {error}") from None
        if not isinstance(found, bool):
            raise ValueError(f"expected true or false, found {type(found).__name__}")  # noqa: TRY004
    return condition
