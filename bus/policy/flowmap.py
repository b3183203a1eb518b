"""Declared flows beside those that the ledger saw: grants that nobody uses, and attempts at what nobody declared. Pure.

A flow is an agent that writes a domain: reading leaves no hop. Attempts are those whose sender is proven.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bus.policy.graph import COLOURS, node_id
from bus.policy.model import Policy
from bus.wire.hop import Hop, Verdict
from bus.wire.names import DomainName

_ROW: Final = 40
_WIDTH: Final = 190
_COLUMNS: Final = (20, 430)
_STROKES: Final = {"used": "#38761d", "unused": "#999999", "undeclared": "#cc0000"}


@dataclass(frozen=True, slots=True)
class Way:
    """One agent and one domain. ``last``: when it was seen last (ms since 1970), or 0. ``location``: of its grant."""

    agent: str
    domain: str
    declared: bool
    allowed: int
    denied: int
    last: int
    location: str

    @property
    def state(self) -> str:
        """ "used", "unused" (declared, and nothing went), or "undeclared" (tried, and no grant)."""
        if not self.declared:
            return "undeclared"
        return "used" if self.allowed else "unused"


def ways(policy: Policy, hops: Iterable[Hop]) -> list[Way]:
    """Every declared way and every one that was tried, by agent and domain."""
    allowed: dict[tuple[str, str], int] = {}
    denied: dict[tuple[str, str], int] = {}
    last: dict[tuple[str, str], int] = {}
    for hop in hops:
        tail = hop.tail
        if not tail.agent or not tail.domain or tail.decision is Verdict.RETRY:
            continue
        way = tail.agent, tail.domain
        counts = allowed if tail.decision is Verdict.ALLOW else denied
        counts[way] = counts.get(way, 0) + 1
        last[way] = max(last.get(way, 0), hop.decided_at)
    declared: dict[tuple[str, str], str] = {}
    for agent in policy.agents:
        declared |= {(agent, each.name): each.location("produce") for each in policy.may_produce(agent)}
    return [
        Way(*way, way in declared, allowed.get(way, 0), denied.get(way, 0), last.get(way, 0), declared.get(way, ""))
        for way in sorted({*declared, *allowed, *denied})
    ]


def mermaid(policy: Policy, found: Iterable[Way]) -> str:
    """A flowchart: thick what is used, dotted what is not, a cross where there is no grant."""
    lines = ["flowchart LR"]
    arrows = {"used": "==>", "unused": "-.->", "undeclared": "--x"}
    held = list(found)
    for name in sorted({each.agent for each in held}):
        lines.append(f'  a_{node_id(name)}["{name}"]')
    for name in sorted({each.domain for each in held} | set(map(str, policy.domains))):
        lines.append(f'  d_{node_id(name)}[("{name}")]')
    for each in held:
        told = f"{each.allowed} allowed, {each.denied} denied" if each.last else "never seen"
        lines.append(f'  a_{node_id(each.agent)} {arrows[each.state]}|"{told}"| d_{node_id(each.domain)}')
    return "\n".join(lines) + "\n"


def svg(policy: Policy, found: Iterable[Way]) -> str:
    """A picture without any tool: agents on the left, domains on the right; a line is as thick as its use."""
    held = list(found)
    agents = sorted({each.agent for each in held})
    domains = sorted({each.domain for each in held} | set(map(str, policy.domains)))
    rows = max(len(agents), len(domains), 1)
    height = 90 + _ROW * rows
    left = {name: 50 + _ROW * place for place, name in enumerate(agents)}
    right = {name: 50 + (rows - len(domains)) * _ROW // 2 + _ROW * place for place, name in enumerate(domains)}
    size = f'width="{_COLUMNS[1] + _WIDTH + 20}" height="{height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="Helvetica, Arial, sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="{_COLUMNS[0]}" y="30" font-weight="bold">writes</text>',
        f'<text x="{_COLUMNS[1]}" y="30" font-weight="bold">domain</text>',
    ]
    for each in held:
        dashes = ' stroke-dasharray="6 4"' if each.state == "unused" else ""
        width = 1 + math.log10(1 + each.allowed + each.denied)
        title = f"{each.agent} to {each.domain}: {each.allowed} allowed, {each.denied} denied, {each.state}"
        parts.append(
            f'<line x1="{_COLUMNS[0] + _WIDTH}" y1="{left[each.agent] + 14}" x2="{_COLUMNS[1]}" '
            f'y2="{right[each.domain] + 14}" stroke="{_STROKES[each.state]}" stroke-width="{width:.1f}"{dashes}>'
            f"<title>{html.escape(title)}</title></line>"
        )
    for x, boxes, in_policy in ((_COLUMNS[0], left, policy.agents), (_COLUMNS[1], right, policy.domains)):
        for name, y in boxes.items():
            known = name in in_policy
            fill = COLOURS[policy.domains[DomainName(name)].tier.name] if boxes is right and known else "#f5f5f5"
            edge = "#555" if known else _STROKES["undeclared"]
            parts.append(f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="28" rx="4" fill="{fill}" stroke="{edge}"/>')
            parts.append(f'<text x="{x + 8}" y="{y + 18}">{html.escape(name)}</text>')
    legend = "   ".join(f"{state}: {colour}" for state, colour in (("used", "green"), ("unused", "grey, dashed")))
    parts.append(f'<text x="20" y="{height - 14}" fill="#555">{legend}   undeclared: red</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


FORMATS: Final = {"mermaid": mermaid, "svg": svg}
