"""Declared flows beside seen ones: used, unused, undeclared; drawn and told."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bus.policy.flowmap import FORMATS, mermaid, svg, ways
from bus.policy.loader import load_policy
from bus.wire.hop import Verdict
from tests.unit.test_reconcile import hop

POLICY = load_policy(Path(__file__).parents[2] / "policies", development=True)


def said(agent, domain, verdict=Verdict.ALLOW, at=2000):
    made = hop(0, verdict)
    tail = type(made.tail)(**{**_fields(made.tail), "agent": agent, "domain": domain})
    return type(made)(**{**_fields(made), "tail": tail, "decided_at": at})


def _fields(value):
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


SEEN = [
    said("retriever-1", "agent_memory"),
    said("retriever-1", "agent_memory", at=5000),
    said("executor-1", "agent_memory", Verdict.DENY),
    said("executor-1", "coordination", Verdict.DENY),
    said("gone-1", "coordination"),
    said("", "agent_memory", Verdict.DENY),
    said("executor-1", "", Verdict.DENY),
    said("orchestrator-1", "coordination", Verdict.RETRY),
]


@pytest.fixture(scope="module")
def found():
    return {(each.agent, each.domain): each for each in ways(POLICY, SEEN)}


def test_what_went_is_used_and_what_never_did_is_not(found):
    used = found["retriever-1", "agent_memory"]
    assert (used.state, used.allowed, used.denied, used.last) == ("used", 2, 0, 5000)
    assert re.match(r"mesh\.yaml:\d+", used.location)
    unused = found["orchestrator-1", "coordination"]
    assert (unused.state, unused.allowed, unused.last) == ("unused", 0, 0)
    assert (found["executor-1", "coordination"].state, found["executor-1", "coordination"].denied) == ("unused", 1)


def test_what_was_tried_and_not_declared_is_told_also_of_agents_that_are_gone(found):
    assert {way for way, each in found.items() if each.state == "undeclared"} == {
        ("executor-1", "agent_memory"),
        ("gone-1", "coordination"),
    }


def test_senders_that_nobody_proved_and_events_are_no_flows(found):
    assert all(agent and domain for agent, domain in found)


def test_every_grant_is_there(found):
    assert {way for way, each in found.items() if each.declared} == {
        (agent, each.name) for agent in POLICY.agents for each in POLICY.may_produce(agent)
    }


def test_pictures_have_every_way_and_are_well_formed(found):
    drawn = svg(POLICY, found.values())
    root = ET.fromstring(drawn)
    lines = [each for each in root if each.tag.endswith("line")]
    assert len(lines) == len(found)
    assert sum("stroke-dasharray" in each.attrib for each in lines) == sum(
        each.state == "unused" for each in found.values()
    )
    chart = mermaid(POLICY, found.values())
    assert chart.startswith("flowchart LR\n")
    assert chart.count("--x") == 2
    assert set(FORMATS) == {"mermaid", "svg"}
    ET.fromstring(svg(POLICY, []))
