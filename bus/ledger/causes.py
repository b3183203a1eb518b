"""What led to what: the hops of a session as a forest, by the causes that their senders named. Pure.

Causes are the senders' word. A message that names several hangs below the first that is there, the others are told;
one whose causes are not there begins a tree; a record that was sent again hangs beside the first.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from bus.wire.hop import Hop


@dataclass(slots=True)
class Node:
    """A hop, and what followed from its message; ``others``: further causes (message ids as text)."""

    hop: Hop
    others: tuple[str, ...] = ()
    children: list[Node] = field(default_factory=list)


def forest(hops: Iterable[Hop]) -> list[Node]:
    """Trees of ``hops``, which come in the order of their decisions."""
    nodes = [Node(hop) for hop in hops]
    first: dict[bytes, Node] = {}
    for node in nodes:
        if any(node.hop.message_id):
            first.setdefault(node.hop.message_id, node)
    above: dict[int, Node] = {}
    roots = []
    for node in nodes:
        causes = [first[each] for each in node.hop.causation_ids if each in first]
        parent = next((each for each in causes if not _below(each, node, above)), None)
        if parent is None:
            roots.append(node)
            continue
        above[id(node)] = parent
        parent.children.append(node)
        node.others = tuple(str(uuid.UUID(bytes=each.hop.message_id)) for each in causes if each is not parent)
    return roots


def _below(node: Node, top: Node, above: dict[int, Node]) -> bool:
    """Whether ``node`` is ``top`` or hangs below it: senders may name causes in a circle."""
    at: Node | None = node
    while at is not None:
        if at is top:
            return True
        at = above.get(id(at))
    return False


def drawn(roots: Sequence[Node]) -> Iterator[tuple[str, Node, int]]:
    """Every node in the order of a tree: the branches before it, and ms since its tree began."""
    for root in roots:
        yield "", root, 0
        waiting = _branches(root, "")
        while waiting:
            before, node, margin = waiting.pop()
            yield before, node, node.hop.decided_at - root.hop.decided_at
            waiting += _branches(node, margin)


def _branches(node: Node, margin: str) -> list[tuple[str, Node, str]]:
    """Children, the last first, each with its branch and the margin of what hangs below it."""
    last = len(node.children) - 1
    made = [
        (f"{margin}{'└─ ' if place == last else '├─ '}", each, f"{margin}{'   ' if place == last else '│  '}")
        for place, each in enumerate(node.children)
    ]
    return made[::-1]


def mermaid(roots: Sequence[Node]) -> str:
    """A flowchart: agents and what was decided; refusals in red."""
    lines, numbers = ["flowchart TD"], dict[int, int]()
    edges = []
    for number, (_, node, later) in enumerate(drawn(roots)):
        numbers[id(node)] = number
        tail = node.hop.tail
        what = " ".join(each for each in (tail.kind, tail.tool) if each)
        why = f"{tail.decision} {tail.code}".strip()
        text = f"{tail.agent or '?'}<br/>{what} to {tail.domain or tail.topic}<br/>{why} +{later} ms"
        lines.append(f'  n{number}["{text}"]')
        if tail.decision != "ALLOW":
            lines.append(f"  style n{number} stroke:#cc0000")
        edges += [(node, each) for each in node.children]
    lines += [f"  n{numbers[id(one)]} --> n{numbers[id(other)]}" for one, other in edges]
    return "\n".join(lines) + "\n"
