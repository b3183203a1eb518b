"""Recorded traces as messages of this deployment's agents, with the private items in each. Pure but for reading files.

The label rule is the data set's own (AgentLeak): a value of the vault of more than three characters, that neither the
allowed fields nor the request name, found in a message without regard to case.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bus.codes import Code
from bus.errors import Refused
from demo.traces import inside, private

OUTPUT: Final = "C1"
"""The channel of final outputs: all that an output-only audit sees."""
TOOL_CALL: Final = "C3"
KEEPER: Final = "orchestrator-1"
"""Who keeps the tools here: a call of one is for it alone."""
_PLACES: Final = {
    "C1": ("orchestrator-1", "coordination", "ARTIFACT"),
    TOOL_CALL: ("executor-1", "coordination", "TOOL_CALL"),
    "C5": ("retriever-1", "agent_memory", "MEMORY"),
    "C6": ("executor-1", "coordination", "REASONING"),
}
"""Who writes a channel where, as what: outputs, tool calls, memory, logs. The rest is what agents tell each other."""
_TOOL: Final = re.compile(r'"tool"\s*:\s*"([^"\\]{1,63})"')
_SUFFIXES: Final = (".json", ".jsonl", ".gz")

_CHANNELS: Final = {"user": "C1", "memory": "C5"}


@dataclass(frozen=True, slots=True)
class Say:
    """One message of a trace. ``items`` are the private ones in it, as the vault writes them."""

    session: str
    channel: str
    source: str
    target: str
    content: str = field(repr=False)
    items: frozenset[str] = field(repr=False)

    @property
    def place(self) -> tuple[str, str, str]:
        """Agent, domain and kind that it goes by here."""
        agent = "orchestrator-1" if self.source == "coordinator" else "executor-1"
        return _PLACES.get(self.channel, (agent, "coordination", "MESSAGE"))

    @property
    def reader(self) -> str:
        """The one agent that it is for; empty where it is for roles."""
        return KEEPER if self.channel == TOOL_CALL else ""

    @property
    def tool(self) -> str:
        """The tool that it calls, as its JSON names it; empty where it calls none."""
        found = _TOOL.search(self.content) if self.channel == TOOL_CALL else None
        return found[1] if found is not None else ""


def spelled(item: str, text: str) -> str:
    """``item`` as it first stands in ``text``, where it does."""
    at = text.lower().find(item.lower())
    return text[at : at + len(item)]


def read(path: Path) -> list[Say]:
    """Messages of every trace in ``path``: JSON lines, perhaps gzipped, one JSON document, or all of these in a folder.

    Raises Refused (schema) with the file and line of what is none.
    """
    if path.is_dir():
        files = (each for each in sorted(path.rglob("*")) if each.suffix in _SUFFIXES and each.is_file())
        return [say for each in files for say in read(each)]
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = [data] if path.suffix == ".json" else data.splitlines()
    except OSError as error:
        raise Refused(f"{path}: cannot be read: {type(error).__name__}", code=Code.SCHEMA) from None
    found: list[Say] = []
    for number, line in enumerate(lines, 1):
        try:
            found += _trace(json.loads(line))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            message = f"{path}:{number}: expected a trace, found {type(error).__name__}"
            raise Refused(message, code=Code.SCHEMA) from None
    return found


def _trace(document: Mapping[str, Any]) -> Iterator[Say]:
    told = document.get("input", document)
    allowed = frozenset(told.get("allowed_set", {}).get("fields", ()))
    items = private(told["vault"], allowed, told["request"])
    for each in document.get("channel_messages") or document["messages"]:
        source, target, content = (str(each[key]) for key in ("source", "target", "content"))
        channel = str(each.get("channel") or _CHANNELS.get(target, "C2"))
        yield Say(str(document["trace_id"]), channel, source, target, content, inside(items, content))
