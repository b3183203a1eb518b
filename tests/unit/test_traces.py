"""The recorded traces: whole, said by agents that the example policy knows, with private items to look for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bus.policy.decide import decide
from bus.policy.loader import load_policy
from bus.policy.question import Action, Context
from bus.wire.names import AgentId, DomainName
from demo.observer import encodings
from demo.traces import AGENTS, DATA, Say, Trace, _trace, load_traces

POLICIES = Path(__file__).parents[2] / "policies"


@pytest.fixture(scope="module")
def traces() -> list[Trace]:
    return load_traces()


def document(**changes) -> dict:
    return {
        "trace_id": "t-1",
        "request": "Write to Ann Example",
        "vault": {"name": "Ann Example", "ssn": "078-05-1120", "unsaid": "never said", "age": 41, "short": "abc"},
        "messages": [
            {"source": "coordinator", "target": "worker", "content": "ssn 078-05-1120, Ann Example, abc, 41"},
            {"source": "worker", "target": "memory", "content": "done"},
        ],
    } | changes


def test_all_recorded_traces_are_there(traces):
    assert len(traces) == 20
    assert all(trace.messages for trace in traces)
    assert sum(len(trace.private) for trace in traces) > 50
    assert [trace for trace in traces if not trace.private] == []


def test_the_example_policy_lets_every_message_through(traces):
    policy = load_policy(POLICIES)
    assert set(AGENTS.values()) <= set(policy.agents)
    said = {(say.agent, say.domain) for trace in traces for say in trace.messages}
    assert len(said) >= 2
    for agent, domain in said:
        assert decide(AgentId(agent), Action.PRODUCE, DomainName(domain), Context(), policy).allowed, (agent, domain)


def test_every_private_item_is_said_and_can_be_looked_for(traces):
    for trace in traces:
        said = " ".join(say.payload["content"] for say in trace.messages).casefold()
        for item in trace.private:
            assert len(item) > 3
            assert item.casefold() in said
            assert item.encode() in encodings(item)


def test_messages_are_those_of_the_file(traces):
    documents = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    assert [len(each["messages"]) for each in documents] == [len(trace.messages) for trace in traces]
    assert len({say.session for trace in traces for say in trace.messages}) == 20


def test_what_goes_to_memory_is_stored_by_the_memory_agent():
    first, second = _trace(document()).messages
    assert (first.agent, first.domain) == ("orchestrator-1", "coordination")
    payload = {"from": "worker", "to": "memory", "content": "done"}
    assert second == Say("retriever-1", "agent_memory", "t-1", payload)


def test_private_is_what_the_vault_holds_the_messages_say_and_the_request_does_not():
    assert _trace(document()).private == {"078-05-1120"}
    assert _trace(document(request="")).private == {"078-05-1120", "Ann Example"}
    silent = [{"source": "worker", "target": "coordinator", "content": "nothing"}]
    assert _trace(document(messages=silent)).private == frozenset()
