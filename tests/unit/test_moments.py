"""A decision that is remembered by its moment is the one that would be made anew, at every moment."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.policy import moments as module
from bus.policy.conditions import Look, compile_condition
from bus.policy.decide import decide, decide_constant
from bus.policy.moments import MAX_MOMENTS, Moments
from bus.policy.question import Action, Context
from bus.wire.names import AgentId, DomainName
from tests.unit.build import NOW
from tests.unit.law_build import domain, loaded

ANN, NOTES = AgentId("ann"), DomainName("notes")
ASKED = ANN, Action.PRODUCE, NOTES
MINUTE, LOAD, SIZE = Look.MINUTE, Look.LOAD, Look.SIZE
EXACT = (
    "context.time.getSeconds() < 30",
    "context.time.getMilliseconds() % 2 == 0",
    'context.time < timestamp("2026-03-02T10:00:00.500Z")',
    "[context.time].all(t, t.getSeconds() < 30)",
    '(context["size"]) % 2 == 0',
    "context['time'].getHours() < 12",
    "[context].all(c, c.size % 2 == 0)",
    "has(context.time) && context.size < 2",
    "size(context) == 0 || context.size > 2",
)
PLAIN = {
    "context.load < 0.5": {LOAD},
    "context . size % 2 == 0": {SIZE},
    "context.time.getHours() < 12": {MINUTE},
    "context.time.getMinutes() % 2 == 0": {MINUTE},
    "context\n.time\n.getDayOfWeek() != 0 || context.load < 0.5": {MINUTE, LOAD},
    'context.purpose == "care" || context.size < 100 && context.load < 0.5': {SIZE, LOAD},
    'context.purpose == "care"': set(),
}


def law(*texts: str):
    conditions = {f"c{number}": text for number, text in enumerate(texts)}
    return loaded([domain("notes", "A", when=list(conditions))], {"ann": "A"}, conditions=conditions)


def remembered(policy, context: Context) -> Moments:
    return Moments(decide_constant(*ASKED, context, policy), *ASKED, context, policy)


@pytest.mark.parametrize("text", EXACT)
def test_a_condition_whose_way_to_the_moment_is_not_plain_is_asked_for_every_record(text):
    condition = compile_condition("c", text)
    assert condition.looks is None
    assert condition.moment


@pytest.mark.parametrize(("text", "looks"), PLAIN.items())
def test_what_a_condition_looks_at_is_seen_in_its_text(text, looks):
    condition = compile_condition("c", text)
    assert condition.looks == looks
    assert condition.moment is bool(looks)


def test_a_domain_looks_at_what_its_conditions_look_at_and_at_anything_where_one_may():
    assert law(*PLAIN).domains[NOTES].looks == {MINUTE, LOAD, SIZE}
    assert law(*PLAIN, EXACT[0]).domains[NOTES].looks is None


@given(
    texts=st.lists(st.sampled_from([*PLAIN, *EXACT]), min_size=1, max_size=3, unique=True),
    asked=st.lists(
        st.tuples(
            st.integers(NOW - 90_000, NOW + 90_000) | st.integers(0, 4 * NOW),
            st.sampled_from([0.0, 0.1, 0.5, 0.9]),
            st.integers(0, 200),
        ),
        min_size=2,
        max_size=12,
    ),
    purpose=st.sampled_from(["care", ""]),
)
def test_a_remembered_decision_is_the_one_made_anew(texts, asked, purpose):
    policy, context = law(*texts), Context(purpose=purpose)
    known = remembered(policy, context)
    for time_ms, load, size in asked * 2:
        anew = decide(*ASKED, replace(context, time_ms=time_ms, load=load, size=size), policy)
        assert known.at(time_ms, load, size) == anew


def test_moments_that_are_alike_are_asked_about_once_and_no_more_are_kept_than_stated(monkeypatch):
    asked = []
    decide_moment = module.decide_moment
    monkeypatch.setattr(module, "decide_moment", lambda *given: asked.append(given) or decide_moment(*given))
    known = remembered(law("context.size < 100", "context.time.getHours() < 12"), Context())
    minute = NOW - NOW % 60_000
    assert {known.at(minute + ms, 0.1 * ms, 50).code for ms in range(0, 60_000, 10_000)} == {
        known.at(minute, 9.0, 50).code
    }
    assert len(asked) == 1
    known.at(minute + 60_000, 0.0, 50)
    assert len(asked) == 2
    for size in range(3 * MAX_MOMENTS):
        known.at(minute - 60_000, 0.0, size)
        assert len(known._known) <= MAX_MOMENTS
    assert len(asked) == 2 + 3 * MAX_MOMENTS


def test_without_a_domain_the_refusal_stands_at_every_moment():
    policy, context, asked = law("context.load < 0.5"), Context(), (ANN, Action.PRODUCE, DomainName("nowhere"))
    known = Moments(decide_constant(*asked, context, policy), *asked, context, policy)
    assert not known.at(NOW, 0.0, 1).allowed
