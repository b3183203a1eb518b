"""What a report counts, and for which clause of which framework. Pure.

A figure is the number of hops for which its question is answered with yes. Questions are asked of a hop alone, so that
whoever is shown the hops, with their proofs, can ask them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from bus.codes import Code
from bus.wire.delegation import parse_told
from bus.wire.hop import Hop, Verdict

Question: TypeAlias = Callable[[Hop, Sequence[str]], bool]
"""A hop, and the policy's levels (lowest first) by which labels are compared."""
Row: TypeAlias = tuple[str, ...]


class Framework(StrEnum):
    """Whom a report is for."""

    GDPR = "gdpr"
    HIPAA = "hipaa"
    SOC2 = "soc2"


@dataclass(frozen=True, slots=True)
class Kind:
    """One figure: its question, and by what its hops are told apart in a table."""

    name: str
    title: str
    question: Question
    columns: tuple[str, ...]
    row: Callable[[Hop], Row]


def person(hop: Hop) -> str:
    """On whose behalf: the user's id as the enforcer proved it, or nobody's."""
    return hop.tail.facts.get("user", "")


def authority(hop: Hop) -> str:
    """Under which rule at which line of which policy, and by whom it was passed on."""
    tail = hop.tail
    chain = parse_told(tail.delegation) if tail.delegation and tail.code is not Code.DELEGATION else None
    by = f" delegated by {chain.agents[0]}" if chain is not None else ""
    return f"{tail.rule} ({tail.location}, policy {tail.snapshot}){by}"


def _allowed(hop: Hop, _: Sequence[str]) -> bool:
    return hop.tail.decision is Verdict.ALLOW and bool(hop.tail.agent)


def _denied(hop: Hop, _: Sequence[str]) -> bool:
    return hop.tail.decision is Verdict.DENY


def _for_persons(hop: Hop, levels: Sequence[str]) -> bool:
    return _allowed(hop, levels) and bool(person(hop))


def _delegated(hop: Hop, levels: Sequence[str]) -> bool:
    return _allowed(hop, levels) and bool(hop.tail.delegation)


def _minimised(hop: Hop, _: Sequence[str]) -> bool:
    return any(count for _, _, count in hop.tail.guardrails)


def _declassified(hop: Hop, levels: Sequence[str]) -> bool:
    """Whether the record was let out under a lower level, or fewer categories, than its agent gave it."""
    if hop.tail.decision is not Verdict.ALLOW or not levels:
        return False
    given, out = set(hop.tail.facts.get("labels", "").split(",")) - {""}, set(hop.tail.labels)
    place = {name: number for number, name in enumerate(levels)}
    lower = max((place[each] for each in given if each in place), default=0) > max(
        (place[each] for each in out if each in place), default=0
    )
    return lower or bool({each for each in given if each not in place} - out)


def _key_event(hop: Hop, _: Sequence[str]) -> bool:
    return hop.tail.decision is Verdict.RETRY and hop.tail.rule in ("pause", "resume", "erased")


def _breaker(hop: Hop, _: Sequence[str]) -> bool:
    return bool(hop.tail.breaker)


KINDS: Final[Mapping[str, Kind]] = {
    each.name: each
    for each in (
        Kind(
            "accesses", "Records that were let through, by purpose and authorization", _allowed,
            ("agent", "domain", "purpose", "authorization"),
            lambda hop: (hop.tail.agent, hop.tail.domain, hop.tail.purpose, authority(hop)),
        ),
        Kind(
            "persons", "Records on behalf of a person", _for_persons, ("person", "agent", "domain", "purpose"),
            lambda hop: (person(hop), hop.tail.agent, hop.tail.domain, hop.tail.purpose),
        ),
        Kind(
            "delegations", "Records under a right that another agent passed on", _delegated,
            ("agent", "domain", "authorization"), lambda hop: (hop.tail.agent, hop.tail.domain, authority(hop)),
        ),
        Kind(
            "denials", "Records that were refused", _denied, ("code", "rule", "agent", "domain"),
            lambda hop: (hop.tail.code.value, hop.tail.rule, hop.tail.agent or "unknown", hop.tail.domain),
        ),
        Kind(
            "declassifications", "Records that were let out under a lower label than they came with", _declassified,
            ("agent", "domain", "from", "to"),
            lambda hop: (
                hop.tail.agent, hop.tail.domain, hop.tail.facts.get("labels", ""), ",".join(hop.tail.labels)
            ),
        ),
        Kind(
            "redactions", "Records in which guardrails found something", _minimised, ("domain", "guardrails"),
            lambda hop: (
                hop.tail.domain, ", ".join(sorted({f"{name} ({what})" for name, what, n in hop.tail.guardrails if n}))
            ),
        ),
        Kind(
            "keys", "Key events: waits for keys, and erased keys that enforcers let go of", _key_event,
            ("code", "topic", "facts"),
            lambda hop: (hop.tail.code.value or hop.tail.rule, hop.tail.topic, hop.tail.facts.get("epochs", "")),
        ),
        Kind(
            "breakers", "Circuit breakers that opened", _breaker, ("breaker", "domain"),
            lambda hop: (hop.tail.breaker, hop.tail.domain),
        ),
    )
}  # fmt: skip

CLAUSES: Final[Mapping[Framework, Mapping[str, str]]] = {
    Framework.GDPR: {
        "accesses": "Art. 30 records of processing; Art. 5(1)(b) purpose",
        "persons": "Art. 15 access by the data subject",
        "delegations": "Art. 28, 29 processing under authority",
        "denials": "Art. 32 security of processing",
        "declassifications": "Art. 5(1)(f) confidentiality",
        "redactions": "Art. 5(1)(c) minimisation; Art. 25",
        "keys": "Art. 17 erasure; Art. 32(1)(a)",
        "breakers": "Art. 33 signs of a breach",
        "gaps": "Art. 5(2) accountability",
    },
    Framework.HIPAA: {
        "accesses": "164.308(a)(1)(ii)(D) activity review; 164.312(b) audit controls",
        "persons": "164.528 accounting of disclosures",
        "delegations": "164.308(a)(4) access authorization",
        "denials": "164.312(a)(1) access control; 164.312(d)",
        "declassifications": "164.502(b) minimum necessary",
        "redactions": "164.514 de-identification; 164.502(b)",
        "keys": "164.310(d)(2)(i) disposal; 164.312(e)(2)(ii)",
        "breakers": "164.308(a)(6) security incidents",
        "gaps": "164.312(c)(1) integrity",
    },
    Framework.SOC2: {
        "accesses": "CC6.1, CC6.3 logical access",
        "persons": "P5.1 access by data subjects",
        "delegations": "CC6.3 authorization",
        "denials": "CC6.1; CC7.2 anomalies",
        "declassifications": "C1.1 confidential information; CC6.7",
        "redactions": "CC6.7 transmission; P4.1",
        "keys": "C1.2, CC6.5 disposal",
        "breakers": "CC7.3, CC7.4 incidents",
        "gaps": "CC7.2, PI1.4 complete processing",
    },
}
"""Towards which clause a figure is evidence. That a clause is met is for the auditor to say."""
