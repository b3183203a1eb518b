"""The ledger beside the topics: every input has one hop, every hop its input and its outcome, nothing more. Pure.

Digests are compared, no payload is opened. What retention took from a topic cannot be told and is counted; what was not
recorded when the ledger was read is counted, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from bus.wire.hop import Hop, Verdict

MAX_TOLD: Final = 1000
"""Problems that are named; of more the number is."""
Place = tuple[int, int]
"""Partition and offset."""


@dataclass(frozen=True, slots=True)
class Topic:
    """What stands in a topic: by place the digests of a value, one of an input or a dead letter, one a record of a
    bundle. ``first``: the offset that each partition begins with, ``since`` (ms) the append time of its first record.
    """

    name: str
    digests: Mapping[Place, tuple[bytes, ...]]
    first: Mapping[int, int] = field(default_factory=dict)
    since: Mapping[int, int] = field(default_factory=dict)

    def gone(self, partition: int, append_time: int) -> bool:
        """Whether retention may have taken what was appended then."""
        return self.first.get(partition, 0) > 0 and append_time <= self.since.get(partition, append_time)


@dataclass(slots=True)
class Reconciled:
    """What was compared, and what does not fit."""

    inputs: int = 0
    hops: int = 0
    outputs: int = 0
    dead: int = 0
    later: int = 0
    """Inputs behind what was recorded."""
    gone: int = 0
    """Hops whose input or outcome retention took."""
    more: int = 0
    """Problems beyond those that are named."""
    problems: list[str] = field(default_factory=list)

    def tell(self, problem: str) -> None:
        """Name one."""
        if len(self.problems) < MAX_TOLD:
            self.problems.append(problem)
        else:
            self.more += 1


def reconcile(
    hops: Iterable[Hop], inbound: Topic, outbound: Topic, dead: Topic, recorded: Mapping[int, int]
) -> Reconciled:
    """One domain. ``recorded``: by partition, the offset up to which the ledger has hops."""
    told = Reconciled(inputs=len(inbound.digests))
    told.outputs, told.dead = (sum(map(len, topic.digests.values())) for topic in (outbound, dead))
    seen: dict[Place, Hop] = {}
    accepted: dict[bytes, Hop] = {}
    outcomes = {Verdict.ALLOW: _places(outbound), Verdict.DENY: _places(dead)}
    claimed: dict[Verdict, set[bytes]] = defaultdict(set)
    for hop in hops:
        if hop.tail.decision is Verdict.RETRY:
            continue
        told.hops += 1
        place, name = (hop.partition, hop.offset), f"{inbound.name}/{hop.partition}@{hop.offset}"
        if place in seen:
            told.tell(f"{name}: decided twice ({seen[place].decision_id}, {hop.decision_id})")
            continue
        seen[place] = hop
        _input(hop, name, inbound, told)
        topic = outbound if hop.tail.decision is Verdict.ALLOW else dead
        if hop.output_digest in outcomes[hop.tail.decision]:
            claimed[hop.tail.decision].add(hop.output_digest)
        elif topic.gone(hop.partition, hop.append_time):
            told.gone += 1
        else:
            told.tell(f"{name}: its outcome is not in {topic.name} ({hop.tail.decision}, {hop.decision_id})")
        if hop.tail.decision is Verdict.ALLOW:
            other = accepted.setdefault(hop.origin_digest, hop)
            if other is not hop:
                told.tell(f"{name}: a second accept of what was accepted at {other.partition}@{other.offset}")
    for place in inbound.digests:
        if place[1] >= recorded.get(place[0], 0):
            told.later += 1
        elif place not in seen:
            told.tell(f"{inbound.name}/{place[0]}@{place[1]}: a record without a hop")
    for verdict, topic in ((Verdict.ALLOW, outbound), (Verdict.DENY, dead)):
        for digest, found in outcomes[verdict].items():
            where = ", ".join(f"{topic.name}/{partition}@{offset}" for partition, offset in found)
            if digest not in claimed[verdict]:
                told.tell(f"{where}: no hop says that it was written")
            elif len(found) > 1:
                told.tell(f"{where}: one outcome, written {len(found)} times")
    return told


def _input(hop: Hop, name: str, inbound: Topic, told: Reconciled) -> None:
    found = inbound.digests.get((hop.partition, hop.offset))
    if found is None:
        if hop.offset < inbound.first.get(hop.partition, 0):
            told.gone += 1
        else:
            told.tell(f"{name}: a hop without a record ({hop.decision_id})")
    elif found != (hop.origin_digest,):
        told.tell(f"{name}: another record than its hop names ({hop.decision_id})")


def _places(topic: Topic) -> dict[bytes, list[Place]]:
    found: defaultdict[bytes, list[Place]] = defaultdict(list)
    for place, digests in topic.digests.items():
        for digest in digests:
            found[digest].append(place)
    return found
