"""The flow map of a policy: agents, domains with their tiers, zones and flows, as Mermaid, DOT or SVG. Pure.

Who may write stands to the left of a domain, who may read to its right, as a reviewer of threats reads it.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Final

from bus.policy.model import Policy
from bus.wire.names import AgentId, DomainName

COLOURS: Final = {"PLAINTEXT": "#f4cccc", "RETRIEVAL": "#cfe2f3", "COMPUTATION": "#d9ead3", "FHE": "#ead1dc"}
_ROW: Final = 44
_WIDTH: Final = 190
_COLUMNS: Final = (20, 330, 640)


@dataclass(frozen=True, slots=True)
class Edge:
    """From a writer to a domain, or from a domain to a reader. ``kind`` is "produce" or "consume"."""

    agent: str
    domain: str
    kind: str


def edges(policy: Policy) -> list[Edge]:
    """Every permitted way, by agent."""
    made = []
    for agent in sorted(policy.agents):
        made += [Edge(agent, each.name, "produce") for each in policy.may_produce(agent)]
        made += [Edge(agent, each.name, "consume") for each in policy.may_consume(agent)]
    return made


def _place(policy: Policy, agent: str) -> str:
    held = policy.agents[AgentId(agent)]
    return " ".join(each for each in (held.tenant, held.zone) if each)


def _domain(policy: Policy, name: str) -> tuple[str, str]:
    domain = policy.domains[DomainName(name)]
    label = "+".join(policy.scheme.names(domain.label))
    return domain.tier.name, f"{domain.tier.name}{' ' + label if label else ''}"


def mermaid(policy: Policy) -> str:
    """A flowchart for a page of documentation."""
    lines = ["flowchart LR"]
    for name in sorted(map(str, policy.domains)):
        tier, told = _domain(policy, name)
        lines += [f'  d_{node_id(name)}[("{name}<br/>{told}")]', f"  style d_{node_id(name)} fill:{COLOURS[tier]}"]
    for name in sorted(map(str, policy.agents)):
        place = _place(policy, name)
        lines.append(f'  a_{node_id(name)}["{name}{"<br/>" + place if place else ""}"]')
    for each in edges(policy):
        agent, domain = f"a_{node_id(each.agent)}", f"d_{node_id(each.domain)}"
        lines.append(f"  {agent} --> {domain}" if each.kind == "produce" else f"  {domain} -.-> {agent}")
    for flow in policy.flows:
        source, target = (f'z_{node_id(zone)}(("{zone}"))' for zone in (flow.source, flow.target))
        lines.append(f'  {source} == "{flow.id}" ==> {target}')
    return "\n".join(lines) + "\n"


def dot(policy: Policy) -> str:
    """For Graphviz."""
    lines = ["digraph mesh {", "  rankdir=LR; node [fontname=Helvetica, shape=box];"]
    for name in sorted(map(str, policy.domains)):
        tier, told = _domain(policy, name)
        shape = f'shape=cylinder, style=filled, fillcolor="{COLOURS[tier]}"'
        lines.append(f'  "domain {name}" [label="{name}\\n{told}", {shape}];')
    for name in sorted(map(str, policy.agents)):
        lines.append(f'  "{name}" [label="{name}\\n{_place(policy, name)}"];')
    for each in edges(policy):
        pair = (each.agent, f"domain {each.domain}")
        start, end = pair if each.kind == "produce" else pair[::-1]
        lines.append(f'  "{start}" -> "{end}"{" [style=dashed]" if each.kind == "consume" else ""};')
    for flow in policy.flows:
        lines.append(f'  "zone {flow.source}" -> "zone {flow.target}" [label="{flow.id}", penwidth=2];')
    return "\n".join([*lines, "}"]) + "\n"


def svg(policy: Policy) -> str:
    """A picture without any tool: writers, domains, readers in three columns; flows between zones below."""
    agents, domains = sorted(map(str, policy.agents)), sorted(map(str, policy.domains))
    rows = max(len(agents), len(domains))
    height = 60 + _ROW * (rows + len(policy.flows)) + 20
    top = {name: 50 + _ROW * place for place, name in enumerate(agents)}
    spread = (rows - len(domains)) * _ROW // 2
    middle = {name: 50 + spread + _ROW * place for place, name in enumerate(domains)}
    size = f'width="{_COLUMNS[2] + _WIDTH + 20}" height="{height}"'
    font = 'font-family="Helvetica, Arial, sans-serif" font-size="12"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for x, title in zip(_COLUMNS, ("may write", "domain", "may read"), strict=True):
        parts.append(f'<text x="{x}" y="30" font-weight="bold">{title}</text>')
    for each in edges(policy):
        ends = (_COLUMNS[0] + _WIDTH, top[each.agent], _COLUMNS[1], middle[each.domain])
        if each.kind == "consume":
            ends = (_COLUMNS[1] + _WIDTH, middle[each.domain], _COLUMNS[2], top[each.agent])
        x1, y1, x2, y2 = ends
        parts.append(f'<line x1="{x1}" y1="{y1 + 15}" x2="{x2}" y2="{y2 + 15}" stroke="#888"/>')
    for name in agents:
        for x in (_COLUMNS[0], _COLUMNS[2]):
            parts += _box(x, top[name], "#f5f5f5", name, _place(policy, name))
    for name in domains:
        tier, told = _domain(policy, name)
        parts += _box(_COLUMNS[1], middle[name], COLOURS[tier], name, told)
    for place, flow in enumerate(policy.flows):
        y = 70 + _ROW * (rows + place)
        text = f"flow {flow.id}: {flow.source} -> {flow.target}, {', '.join(sorted(flow.domains))}"
        parts.append(f'<text x="{_COLUMNS[0]}" y="{y}">{html.escape(text)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _box(x: int, y: int, fill: str, name: str, told: str) -> list[str]:
    return [
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="32" rx="4" fill="{fill}" stroke="#555"/>',
        f'<text x="{x + 8}" y="{y + 14}">{html.escape(name)}</text>',
        f'<text x="{x + 8}" y="{y + 27}" font-size="10" fill="#555">{html.escape(told)}</text>',
    ]


def node_id(name: str) -> str:
    """A name as Mermaid takes it."""
    return name.replace("_", "_u").replace("-", "_m")


FORMATS: Final = {"mermaid": mermaid, "dot": dot, "svg": svg}
