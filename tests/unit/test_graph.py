"""Pictures of a policy: every agent, domain, permitted way and flow is there, no forbidden one; each is well-formed.

What is drawn is read back out of the text of each kind and compared with ways that are written out by hand.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field, replace

import pytest
from pydantic import ValidationError

from bus.policy.document import AgentsFile, MeshFile
from bus.policy.graph import COLOURS, FORMATS, edges
from bus.policy.loader import load_policy
from bus.policy.model import AgentPolicy, Policy
from bus.policy.yamldoc import read
from bus.wire.names import AgentId, DomainName, RoleName, Tier
from tests.unit.build import domain_policy, make_policy
from tests.unit.law_files import EXAMPLE, LAW, POLICIES, changed

PUBLISHED = load_policy(POLICIES)
SVG = "{http://www.w3.org/2000/svg}"


def ways(text: str) -> set[tuple[str, str, str]]:
    """(agent, "produce" or "consume", domain) of lines `agent: > written, < read`."""
    found = set()
    for line in text.split("\n"):
        agent, _, told = line.strip().partition(": ")
        for each in told.split():
            found.add((agent, "produce" if each[0] == ">" else "consume", each[1:]))
    return found


WAYS = {
    "published": ways(
        """orchestrator-1: >agent_memory <agent_memory >coordination <coordination
        retriever-1: >agent_memory <agent_memory
        executor-1: >pii_inference <pii_inference >coordination <coordination
        analyst-1: >pii_inference <pii_inference >financial_models <financial_models"""
    ),
    "example": ways(
        """orchestrator-1: <agent_memory >coordination <coordination
        retriever-1: >agent_memory <agent_memory
        executor-1: >pii_inference <pii_inference >coordination <coordination
        executor-2: >pii_inference <pii_inference >coordination <coordination
        analyst-1: >pii_inference <pii_inference <financial_models"""
    ),
}
TIERS = {
    "agent_memory": "RETRIEVAL",
    "pii_inference": "COMPUTATION",
    "financial_models": "FHE",
    "coordination": "RETRIEVAL",
}
LABELS = {
    "agent_memory": " confidential",
    "pii_inference": " confidential+pii",
    "financial_models": " restricted+pci",
    "coordination": " internal",
}
PLACES = {
    "orchestrator-1": "hr us",
    "retriever-1": "hr us",
    "executor-1": "hr us",
    "executor-2": "hr eu",
    "analyst-1": "accounting us",
}


@dataclass
class Drawn:
    """What a picture shows: agents with their places, domains with what is told of them, ways, flows."""

    agents: dict[str, str] = field(default_factory=dict)
    domains: dict[str, tuple[str, str]] = field(default_factory=dict)
    ways: list[tuple[str, str, str]] = field(default_factory=list)
    flows: list[tuple[str, str, str]] = field(default_factory=list)


def read_mermaid(text: str) -> Drawn:
    first, *lines = text.splitlines()
    assert first == "flowchart LR"
    drawn, ids, colours = Drawn(), {}, {}
    for line in map(str.strip, lines):
        if match := re.fullmatch(r'(d_\w+)\[\("([^"<]+)<br/>([^"<]+)"\)\]', line):
            ids[match[1]] = match[2]
            drawn.domains[match[2]] = ("", match[3])
        elif match := re.fullmatch(r"style (d_\w+) fill:(#\w{6})", line):
            colours[match[1]] = match[2]
        elif match := re.fullmatch(r'(a_\w+)\["([^"<]+)(?:<br/>([^"<]+))?"\]', line):
            ids[match[1]] = match[2]
            drawn.agents[match[2]] = match[3] or ""
        elif match := re.fullmatch(r"(a_\w+) --> (d_\w+)", line):
            drawn.ways.append((ids[match[1]], "produce", ids[match[2]]))
        elif match := re.fullmatch(r"(d_\w+) -\.-> (a_\w+)", line):
            drawn.ways.append((ids[match[2]], "consume", ids[match[1]]))
        elif match := re.fullmatch(r'z_\w+\(\("(\S+)"\)\) == "(\S+)" ==> z_\w+\(\("(\S+)"\)\)', line):
            drawn.flows.append((match[2], match[1], match[3]))
        else:
            raise AssertionError(line)
    assert len(ids) == len(drawn.agents) + len(drawn.domains)
    drawn.domains = {name: (colours[key], drawn.domains[name][1]) for key, name in ids.items() if key.startswith("d_")}
    return drawn


def read_dot(text: str) -> Drawn:
    first, settings, *lines, last = text.splitlines()
    assert (first, last) == ("digraph mesh {", "}")
    assert settings.endswith(";")
    drawn = Drawn()
    for line in map(str.strip, lines):
        if match := re.fullmatch(r'"domain (\S+)" \[label="(\S+)\\n([^"]+)", .*fillcolor="(#\w{6})"\];', line):
            assert match[1] == match[2]
            drawn.domains[match[1]] = (match[4], match[3])
        elif match := re.fullmatch(r'"(\S+)" \[label="(\S+)\\n([^"]*)"\];', line):
            assert match[1] == match[2]
            drawn.agents[match[1]] = match[3]
        elif match := re.fullmatch(r'"(\S+)" -> "domain (\S+)";', line):
            drawn.ways.append((match[1], "produce", match[2]))
        elif match := re.fullmatch(r'"domain (\S+)" -> "(\S+)" \[style=dashed\];', line):
            drawn.ways.append((match[2], "consume", match[1]))
        elif match := re.fullmatch(r'"zone (\S+)" -> "zone (\S+)" \[label="(\S+)", penwidth=2\];', line):
            drawn.flows.append((match[3], match[1], match[2]))
        else:
            raise AssertionError(line)
    return drawn


def read_svg(text: str) -> Drawn:
    """By where things stand: a line begins and ends at the edges of two boxes."""
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    width, height = int(root.get("width")), int(root.get("height"))
    texts = [(int(each.get("x")), int(each.get("y")), each.text) for each in root.iter(f"{SVG}text")]
    drawn, left, right = Drawn(), {}, {}
    for box in root.iter(f"{SVG}rect"):
        if box.get("width") == "100%":
            continue
        x, y, wide, high = (int(box.get(key)) for key in ("x", "y", "width", "height"))
        assert 0 <= x < x + wide <= width
        assert 0 <= y < y + high <= height
        inside = [told for tx, ty, told in texts if x <= tx < x + wide and y <= ty <= y + high]
        name, told = inside
        if box.get("fill") in COLOURS.values():
            drawn.domains[name] = (box.get("fill"), told)
        else:
            drawn.agents[name] = told or ""
        left[x, y + 15], right[x + wide, y + 15] = name, name
    for line in root.iter(f"{SVG}line"):
        x1, y1, x2, y2 = (int(line.get(key)) for key in ("x1", "y1", "x2", "y2"))
        start, end = right[x1, y1], left[x2, y2]
        drawn.ways.append((start, "produce", end) if end in drawn.domains else (end, "consume", start))
    for _, y, told in texts:
        if match := re.fullmatch(r"flow (\S+): (\S+) -> (\S+), (.+)", told or ""):
            assert y <= height
            drawn.flows.append((match[1], match[2], match[3]))
    return drawn


READERS = {"mermaid": read_mermaid, "dot": read_dot, "svg": read_svg}


def drawn_as(kind: str, policy: Policy) -> Drawn:
    return READERS[kind](FORMATS[kind](policy))


def test_there_is_a_reader_here_for_every_kind_of_picture():
    assert set(READERS) == set(FORMATS)
    assert set(COLOURS) == {tier.name for tier in Tier}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", WAYS)
def test_a_picture_has_every_permitted_way_once_and_no_other(kind, name):
    drawn = drawn_as(kind, {"published": PUBLISHED, "example": LAW}[name])
    assert len(drawn.ways) == len(set(drawn.ways))
    assert set(drawn.ways) == WAYS[name]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_picture_has_every_agent_with_its_place_and_every_domain_with_tier_and_label(kind):
    drawn = drawn_as(kind, LAW)
    assert drawn.agents == PLACES
    assert drawn.domains == {name: (COLOURS[tier], tier + LABELS[name]) for name, tier in TIERS.items()}
    assert drawn.flows == [("eu-status", "eu", "us")]
    plain = drawn_as(kind, PUBLISHED)
    assert plain.agents == dict.fromkeys(PLACES.keys() - {"executor-2"}, "")
    assert plain.domains == {name: (COLOURS[tier], tier) for name, tier in TIERS.items()}
    assert plain.flows == []


def test_edges_are_the_ways_in_the_order_of_agents():
    for policy, name in ((LAW, "example"), (PUBLISHED, "published")):
        told = [(each.agent, each.kind, each.domain) for each in edges(policy)]
        assert set(told) == WAYS[name]
        assert [agent for agent, _, _ in told] == sorted(agent for agent, _, _ in told)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_reader_who_is_not_cleared_has_no_way(kind, tmp_path):
    folder = changed(
        tmp_path / "law", ("ORCHESTRATOR: {clearance: confidential}", "ORCHESTRATOR: {clearance: internal}")
    )
    drawn = drawn_as(kind, load_policy(folder))
    assert WAYS["example"] - set(drawn.ways) == {("orchestrator-1", "consume", "agent_memory")}
    assert set(drawn.ways) < WAYS["example"]


@pytest.mark.parametrize("kind", FORMATS)
def test_agents_without_a_way_and_domains_without_agents_are_shown_nevertheless(kind):
    policy = replace(LAW, agents={AgentId("lone-1"): AgentPolicy(AgentId("lone-1"), frozenset(), "hr", "us")})
    drawn = drawn_as(kind, policy)
    assert (drawn.agents, set(drawn.domains), drawn.ways) == ({"lone-1": "hr us"}, set(TIERS), [])


def test_the_svg_says_which_domains_a_flow_has():
    told = [each.text for each in ET.fromstring(FORMATS["svg"](LAW)).iter(f"{SVG}text")]
    assert "flow eu-status: eu -> us, coordination" in told


@pytest.mark.parametrize("kind", FORMATS)
def test_many_of_a_kind_stand_apart(kind):
    domains = [domain_policy(f"notes-{number}", tier) for number, tier in enumerate([*Tier] * 3)]
    agents = {AgentId(f"writer-{number}"): "WRITER" for number in range(40)}
    drawn = drawn_as(kind, make_policy(*domains, roles=agents))
    assert len(drawn.agents) == 40
    assert {told for told, _ in drawn.domains.values()} == set(COLOURS.values())
    assert len(set(drawn.ways)) == len(drawn.ways) == 40 * 12


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("zones", [("us-east", "us_east"), ("eu", "us")])
def test_zones_of_two_names_are_two_nodes(kind, zones):
    one, other = zones
    flow = replace(LAW.flows[0], source=one, target=other)
    text = FORMATS[kind](replace(LAW, zones=frozenset(zones), flows=(flow,)))
    nodes = {
        "mermaid": lambda: re.findall(r"(z_\w+)\(", text),
        "dot": lambda: re.findall(r'"(zone \S+)"', text),
        "svg": lambda: re.search(r"flow \S+: (\S+) -&gt; (\S+),", text).groups(),
    }[kind]()
    assert len(set(nodes)) == 2


def test_names_are_escaped_in_the_svg():
    odd = "<script>\"&'</script>"
    policy = make_policy(domain_policy(odd), roles={AgentId(f"{odd}-1"): "WRITER"})
    agent = AgentPolicy(AgentId(f"{odd}-1"), frozenset({RoleName("WRITER")}), odd, odd)
    flow = replace(LAW.flows[0], id=odd, source=odd, target=odd, domains=frozenset({DomainName(odd)}))
    text = FORMATS["svg"](replace(policy, agents={agent.name: agent}, flows=(flow,)))
    assert "<script>" not in text
    told = [each.text for each in ET.fromstring(text).iter(f"{SVG}text")]
    assert told.count(odd) == 1
    assert told.count(f"{odd}-1") == 2
    assert told.count(f"{odd} {odd}") == 2
    assert f"flow {odd}: {odd} -> {odd}, {odd}" in told


@pytest.mark.parametrize("name", ['a"b', "a<b", "a\\n", "a]b", "a;b", "a b", "A", "a\nb", "a\n", 'a"];x[label="', ""])
def test_no_name_that_would_need_quoting_gets_into_a_policy(name):
    mesh = read(EXAMPLE / "mesh.yaml").value
    agents = read(EXAMPLE / "agents.yaml").value
    law = mesh["security_mesh"]
    law["domains"][3]["name"] = law["flows"][0]["id"] = law["flows"][0]["from"] = law["labels"]["levels"][0] = name
    agents["agents"]["executor-1"].update(tenant=name, zone=name)
    agents["agents"][name] = agents["agents"].pop("executor-2")
    with pytest.raises(ValidationError) as refused:
        MeshFile.model_validate(mesh)
    assert {each["loc"][1:] for each in refused.value.errors()} == {
        ("domains", 3, "name"),
        ("flows", 0, "id"),
        ("flows", 0, "from"),
        ("labels", "levels", 0),
    }
    with pytest.raises(ValidationError) as refused:
        AgentsFile.model_validate(agents)
    assert {each["loc"][1:] for each in refused.value.errors()} == {
        ("executor-1", "tenant"),
        ("executor-1", "zone"),
        (name, "[key]"),
    }
