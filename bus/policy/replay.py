"""Recorded decisions under a draft: each hop is decided again from the facts that it keeps; nothing is invented. Pure.

A flip is a decision that would be another than the one that was made; or, where the live policy is given, than the one
that it would make of the same facts: then what older policies decided is no flip of the draft's.

What a hop does not keep is not guessed: hops of OUTPUT_ONLY domains, and records that were refused before they were
decided, are counted and left out. Guardrail, mask, rate and breaker verdicts are recorded, not computed again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Final

from bus.codes import Code
from bus.policy.decide import Decision, decide
from bus.policy.labels import Propagate
from bus.policy.model import Policy
from bus.policy.question import Action, Context
from bus.wire.delegation import parse_told
from bus.wire.envelope import Kind
from bus.wire.hop import Hop, Verdict
from bus.wire.names import AgentId, DomainName, Tier

RECORDED = frozenset({Code.GUARDRAIL, Code.MASK, Code.THROTTLED, Code.BREAKER_OPEN, Code.TOO_LARGE})
"""Refusals behind the decision: they stand, whatever the draft decides."""

MAX_REMEMBERED: Final = 4096


@dataclass(frozen=True, slots=True)
class Flip:
    """Decisions that would be others: from whom to where, by which rule of the draft."""

    agent: str
    domain: str
    before: str
    after: str
    rule: str
    location: str


@dataclass(slots=True)
class Replay:
    """``decided`` again, of which ``flips`` by kind; ``unknown`` have no facts; ``example``: a decision id of each."""

    decided: int = 0
    unknown: int = 0
    flips: Counter[Flip] = field(default_factory=Counter)
    example: dict[Flip, str] = field(default_factory=dict)


def replay(hops: Iterable[Hop], draft: Policy, live: Policy | None = None) -> Replay:
    """Decide ``hops`` again under ``draft``; what differs from ``live``, or without it from what was decided."""
    made, by_draft, by_live = Replay(), _again(draft), _again(live) if live is not None else None
    for hop in hops:
        tail = hop.tail
        if tail.decision is Verdict.RETRY:
            continue
        decision = by_draft(hop)
        if decision is None:
            made.unknown += 1
            continue
        made.decided += 1
        after = _verdict(hop, decision)
        before = tail.decision if by_live is None else _verdict(hop, by_live(hop))
        if after is not before:
            flip = Flip(tail.agent, tail.domain, before.value, after.value, decision.rule, decision.location)
            made.flips[flip] += 1
            made.example.setdefault(flip, hop.decision_id)
    return made


def _built_on(hop: Hop, draft: Policy) -> tuple[str, ...]:
    """What the tickets of the record proved, where the draft asks for tickets; else its agent's floor."""
    shown = hop.tail.facts.get("tickets")
    if shown is None or draft.propagate is not Propagate.TICKETS:
        return draft.floor(AgentId(hop.tail.agent))
    names = tuple(shown.split(","))
    return names if draft.scheme.parse(names) is not None else draft.floor(AgentId(hop.tail.agent))


def _again(policy: Policy) -> Callable[[Hop], Decision | None]:
    """What ``policy`` decides on a hop's facts; None where it keeps too little. The same is decided once."""

    @lru_cache(MAX_REMEMBERED)
    def remembered(agent: AgentId, domain: DomainName, context: Context) -> Decision:
        return decide(agent, Action.PRODUCE, domain, context, policy)

    def again(hop: Hop) -> Decision | None:
        context, name = context_of(hop, policy), DomainName(hop.tail.domain)
        if context is None:
            return None
        domain = policy.domains.get(name)
        if domain is None or not domain.moment:  # time, load and size decide nothing
            context = replace(context, time_ms=0, load=0.0, size=0)
        return remembered(AgentId(hop.tail.agent), name, context)

    return again


def _verdict(hop: Hop, decision: Decision | None) -> Verdict:
    allowed = decision is not None and decision.allowed and hop.tail.code not in RECORDED
    return Verdict.ALLOW if allowed else Verdict.DENY


def context_of(hop: Hop, draft: Policy) -> Context | None:
    """What a hop's record was decided on, its agent's floor under ``draft`` with it.

    None where it keeps too little, or what this release does not know.
    """
    tail, facts = hop.tail, hop.tail.facts
    if "roles" not in facts or not tail.kind or tail.code is Code.DELEGATION or tail.rule.startswith("user."):
        return None
    chain = parse_told(tail.delegation)
    if chain is None and tail.delegation:
        return None
    claimed = tuple(facts["labels"].split(",")) if facts.get("labels") else ()
    try:
        kind, load = Kind(tail.kind), float(facts.get("load", "0"))
        tier_floor = Tier[facts["tier_floor"]] if facts.get("tier_floor") else None
    except (ValueError, KeyError):
        return None
    return Context(
        kind=kind,
        target=tail.target,
        tier_floor=tier_floor,
        tool=tail.tool,
        task_type=facts.get("task_type", ""),
        purpose=tail.purpose,
        user=facts.get("user", ""),
        labels=(*claimed, *_built_on(hop, draft)),
        delegated_by=chain.agents[:-1] if chain is not None else (),
        time_ms=hop.append_time,
        load=load,
        size=hop.size,
    )
