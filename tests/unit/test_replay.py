"""Replay: recorded decisions under a draft, beside what was decided or beside the live policy; nothing is invented."""

from __future__ import annotations

import dataclasses
from typing import Any

from bus.codes import Code
from bus.policy.model import Policy
from bus.policy.replay import Flip, replay
from bus.wire.hop import Hop, Verdict, decode_hop
from tests.unit.law_build import domain as law_domain
from tests.unit.law_build import loaded
from tests.unit.ledger_build import NOON, domain, make_hop, make_policy, name_of

FACTS = {"roles": "WRITER", "tier_floor": ""}
LIVE = make_policy()
NARROW = make_policy({"notes": domain(produce=["READER"])})


def hop(number: int = 0, **tail: Any) -> Hop:
    """A hop of writer-1 to notes, with its facts."""
    return decode_hop(make_hop(number, **{"facts": FACTS, **tail}))


def flips(hops: list[Hop], draft: Policy, live: Policy | None = None) -> dict[tuple[str, str], int]:
    """How many flips there are, by what they were and would be."""
    counted: dict[tuple[str, str], int] = {}
    for flip, count in replay(hops, draft, live).flips.items():
        counted[flip.before, flip.after] = counted.get((flip.before, flip.after), 0) + count
    return counted


SMALL = {
    "small": "context.size < 100",
    "early": "context.time.getHours() < 12",
    "care": 'context.purpose == "care"',
}
DENIED = {"decision": Verdict.DENY, "code": Code.PRODUCE}


def test_flips_are_counted_with_the_drafts_rule_and_an_example():
    made = replay([hop(0), hop(1), hop(2, agent="reader-1")], NARROW)
    denied = Flip("writer-1", "notes", "ALLOW", "DENY", "notes.produce", "mesh.yaml:7")
    assert (made.decided, made.unknown) == (3, 0)
    assert made.flips == {denied: 2}
    assert made.example == {denied: name_of(0)}


def test_without_a_live_policy_a_flip_is_another_than_what_was_decided():
    assert flips([hop()], LIVE) == {}
    assert flips([hop(**DENIED)], LIVE) == {("DENY", "ALLOW"): 1}
    assert flips([hop(**DENIED)], NARROW) == {}


def test_with_a_live_policy_what_older_policies_decided_is_no_flip_of_the_drafts():
    assert flips([hop(**DENIED)], LIVE, LIVE) == {}
    assert flips([hop()], NARROW, NARROW) == {}
    assert flips([hop(), hop(1, **DENIED)], NARROW, LIVE) == {("ALLOW", "DENY"): 2}
    assert flips([hop(), hop(1, **DENIED)], LIVE, NARROW) == {("DENY", "ALLOW"): 2}


def test_what_was_refused_behind_the_decision_stays_refused():
    for code in (Code.GUARDRAIL, Code.THROTTLED):
        stopped = hop(decision=Verdict.DENY, code=code)
        assert flips([stopped], LIVE) == flips([stopped], NARROW, LIVE) == flips([stopped], LIVE, NARROW) == {}


def test_hops_without_facts_are_counted_and_events_are_not():
    made = replay([hop(facts={}), hop(1, kind=""), hop(2, decision=Verdict.RETRY), hop(3)], NARROW, LIVE)
    assert (made.decided, made.unknown, sum(made.flips.values())) == (1, 2, 1)


def test_what_differs_from_hop_to_hop_is_asked_of_each_where_a_condition_looks_at_it():
    small = loaded([law_domain("notes", "WRITER", when=["small"])], {"writer-1": "WRITER"}, conditions=SMALL)
    timed = loaded([law_domain("notes", "WRITER", when=["early"])], {"writer-1": "WRITER"}, conditions=SMALL)
    sizes = [dataclasses.replace(hop(number), size=size) for number, size in enumerate((99, 101, 99, 101))]
    assert flips(sizes, small) == {("ALLOW", "DENY"): 2}
    times = [dataclasses.replace(hop(), append_time=at) for at in (NOON - 1, NOON, NOON + 1)]
    assert flips(times, timed) == {("ALLOW", "DENY"): 2}
    other = [hop(), hop(1, purpose="care"), hop(2, purpose="sales"), hop(3)]
    asked = loaded([law_domain("notes", "WRITER", when=["care"])], {"writer-1": "WRITER"}, conditions=SMALL)
    assert flips(other, asked) == {("ALLOW", "DENY"): 3}


def test_an_agent_that_left_is_refused_what_it_wrote():
    gone = dataclasses.replace(LIVE, agents={})
    assert flips([hop()], gone, LIVE) == {("ALLOW", "DENY"): 1}
