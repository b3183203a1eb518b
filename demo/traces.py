"""The recorded traces, as messages of this deployment's agents, and what in them is private."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("data") / "traces.jsonl"
AGENTS = {"coordinator": "orchestrator-1", "worker": "executor-1", "memory": "retriever-1"}


@dataclass(frozen=True, slots=True)
class Say:
    """One message: who publishes it, where, in which session."""

    agent: str
    domain: str
    session: str
    payload: dict[str, str]


@dataclass(frozen=True, slots=True)
class Trace:
    """One run: its messages and the private items that its vault holds and its messages carry."""

    messages: tuple[Say, ...]
    private: frozenset[str]


def private(vault: Mapping[str, Any], allowed: frozenset[str], request: str) -> frozenset[str]:
    """Items of a vault that nobody asked for, by the data set's own rule: values longer than three characters, neither
    of fields that are ``allowed`` nor in the request."""
    values = {str(value) for name, value in vault.items() if name not in allowed}
    return frozenset(each for each in values if len(each) > 3 and each.lower() not in request.lower())


def inside(items: frozenset[str], text: str) -> frozenset[str]:
    """Those of ``items`` that stand in ``text``."""
    low = text.lower()
    return frozenset(each for each in items if each.lower() in low)


def load_traces() -> list[Trace]:
    """The traces that the project carries."""
    return [_trace(json.loads(line)) for line in DATA.read_text(encoding="utf-8").splitlines()]


def _trace(document: dict[str, Any]) -> Trace:
    messages = []
    for told in document["messages"]:
        if told["target"] == "memory":  # what the worker hands to memory, the memory agent stores
            agent, domain = AGENTS["memory"], "agent_memory"
        else:
            agent, domain = AGENTS[told["source"]], "coordination"
        payload = {"from": told["source"], "to": told["target"], "content": told["content"]}
        messages.append(Say(agent, domain, document["trace_id"], payload))
    said = " ".join(each.payload["content"] for each in messages)
    return Trace(tuple(messages), inside(private(document["vault"], frozenset(), document["request"]), said))
