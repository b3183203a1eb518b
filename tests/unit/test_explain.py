"""Explanations: every rule's answer, the first refusal decides, and what is said to allow does allow when tried."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from bus.policy.decide import decide
from bus.policy.explain import explain
from bus.policy.loader import load_policy
from bus.policy.model import Policy
from bus.policy.question import Action, Context
from bus.wire.envelope import Kind
from bus.wire.names import AgentId, DomainName, RoleName
from tests.unit.law_files import LAW, POLICIES, changed, line_of

NIGHT, DAY = 1_772_420_400_000, 1_772_445_600_000  # 03:00 and 10:00 UTC
CONTEXTS = {
    "nothing told": Context(),
    "by day with a purpose": Context(purpose="care", time_ms=DAY),
    "at night": Context(purpose="care", time_ms=NIGHT),
    "overloaded": Context(load=0.95, time_ms=DAY),
    "a forbidden tool": Context(purpose="care", time_ms=DAY, tool="mail.send"),
    "to another zone": Context(target="executor-2"),
    "to another tenant": Context(target="analyst-1"),
    "a target is missing": Context(kind=Kind.RPC_REQUEST),
    "built on card data": Context(labels=("pci",)),
    "built on pii": Context(labels=("confidential", "pii")),
    "an unknown label": Context(labels=("secret",)),
}


@pytest.fixture(scope="module")
def open_law(tmp_path_factory) -> Policy:
    """The example with every domain in a tier that this release has: nothing is refused for that."""
    folder = changed(
        tmp_path_factory.mktemp("open") / "law",
        ("tier: COMPUTATION", "tier: RETRIEVAL"),
        ("tier: FHE", "tier: RETRIEVAL"),
        ("attestation_required: true, tools", "tools"),
        ("attestation_required: true, produce", "produce"),
    )
    return load_policy(folder)


def questions(policy: Policy) -> list[tuple[AgentId, Action, DomainName, Context]]:
    """Every agent and a stranger, every domain and none, both actions, every context."""
    agents = [*policy.agents, AgentId("stranger-1")]
    domains = [*policy.domains, DomainName("nowhere")]
    return list(itertools.product(agents, Action, domains, CONTEXTS.values()))


def with_role(policy: Policy, agent: AgentId, role: RoleName) -> Policy:
    held = policy.agents[agent]
    given = replace(held, roles=held.roles | policy.inherited(role))
    return replace(policy, agents={**policy.agents, agent: given})


@pytest.fixture(params=["example", "open", "published"])
def policy(request, open_law) -> Policy:
    return {"example": LAW, "open": open_law, "published": load_policy(POLICIES)}[request.param]


def test_the_first_refusal_among_the_rules_is_the_decision(policy):
    seen = set()
    for question in questions(policy):
        told = explain(*question, policy)
        assert told.decision == decide(*question, policy)
        refusals = [each for each in told.findings if each.refusal is not None]
        assert told.decision.allowed is (not refusals)
        if refusals:
            first = refusals[0]
            assert (told.decision.rule, told.decision.location, told.decision.why, told.decision.code) == (
                first.rule,
                first.location,
                first.why,
                first.refusal,
            )
        seen.add(told.decision.rule if refusals else "ALLOW")
    assert "ALLOW" in seen
    if policy is LAW:
        assert {"tenants", "zones", "stated-purpose", "not-overloaded", "office-hours"} <= seen
        assert {"agent_memory.produce", "agent_memory.label", "pii_inference.tools", "financial_models.tier"} <= seen


def test_roles_that_allow_do_when_they_are_given_and_no_other_does(policy):
    told_of = 0
    every = {role for each in policy.domains.values() for role in each.produce | each.consume} | set(policy.clearances)
    for question in questions(policy):
        agent = question[0]
        told = explain(*question, policy)
        if told.decision.allowed or agent not in policy.agents:
            assert told.roles == ()
            continue
        missing = every - policy.agents[agent].roles
        allowing = {role for role in missing if decide(*question, with_role(policy, agent, role)).allowed}
        assert set(told.roles) == allowing
        assert list(told.roles) == sorted(told.roles)
        told_of += bool(allowing)
    assert told_of > 0


def test_a_role_is_said_to_allow_with_what_it_inherits(open_law):
    told = explain(AgentId("executor-1"), Action.CONSUME, DomainName("financial_models"), Context(), open_law)
    assert told.roles == ("ANALYST", "LEAD_ANALYST")
    told = explain(AgentId("executor-1"), Action.PRODUCE, DomainName("financial_models"), Context(), open_law)
    assert told.roles == ("LEAD_ANALYST",)


def test_agents_that_share_a_refusal_are_refused_by_the_same_rule_and_the_others_are_not(policy):
    told_of = 0
    for agent, *question in questions(policy):
        told = explain(agent, *question, policy)
        decisions = {other: decide(other, *question, policy) for other in policy.agents if other != agent}
        rule = told.decision.rule
        same = {other for other, each in decisions.items() if not each.allowed and each.rule == rule}
        assert set(told.sharing) == (set() if told.decision.allowed else same)
        told_of += bool(told.sharing)
    assert told_of > 0


def test_purposes_that_allow_do_when_they_are_named_and_no_other_does(open_law):
    question = (AgentId("executor-1"), Action.PRODUCE, DomainName("pii_inference"))
    told = explain(*question, Context(time_ms=DAY, purpose="sales"), open_law)
    assert told.decision.rule == "stated-purpose"
    assert told.purposes == ("billing", "care", "fraud")
    for purpose in told.purposes:
        assert decide(*question, Context(time_ms=DAY, purpose=purpose), open_law).allowed
    assert explain(*question, Context(time_ms=DAY, purpose="care"), open_law).purposes == ()


def test_no_purpose_is_named_where_none_would_help(open_law):
    question = (AgentId("executor-1"), Action.PRODUCE)
    at_night = explain(*question, DomainName("pii_inference"), Context(time_ms=NIGHT), open_law)
    assert (at_night.decision.rule, at_night.purposes) == ("stated-purpose", ())
    no_role = explain(*question, DomainName("agent_memory"), Context(), open_law)
    assert no_role.purposes == ()
    overloaded = explain(*question, DomainName("coordination"), Context(load=1.0, task_type="none"), open_law)
    assert (overloaded.decision.rule, overloaded.purposes) == ("not-overloaded", ())


def test_purposes_are_found_in_single_quotes_too(tmp_path):
    folder = changed(
        tmp_path / "law", ('context.load < 0.9 || context.task_type == "incident"', "context.purpose == 'status'")
    )
    told = explain(
        AgentId("executor-1"), Action.PRODUCE, DomainName("coordination"), Context(purpose="x"), load_policy(folder)
    )
    assert told.decision.rule == "not-overloaded"
    assert told.purposes == ("status",)


def test_rules_are_told_behind_the_first_refusal_too():
    told = explain(
        AgentId("executor-1"),
        Action.PRODUCE,
        DomainName("pii_inference"),
        Context(tool="mail.send", time_ms=NIGHT),
        LAW,
    )
    assert [(each.rule, each.refusal is None) for each in told.findings] == [
        ("tenants", True),
        ("zones", True),
        ("pii_inference.produce", True),
        ("pii_inference.tools", False),
        ("pii_inference.label", True),
        ("stated-purpose", False),
        ("office-hours", False),
        ("pii_inference.tier", True),
    ]
    assert [each.location for each in told.findings] == [
        line_of("tenants: ["),
        line_of("zones:  "),
        line_of("name: pii_inference"),
        line_of("mail.send"),
        line_of("label: [confidential, pii]"),
        line_of("stated-purpose: context"),
        line_of("office-hours: context"),
        line_of("tier: COMPUTATION"),
    ]
    assert all(each.why for each in told.findings)


@pytest.mark.parametrize(("agent", "domain"), [("stranger-1", "agent_memory"), ("executor-1", "nowhere")])
def test_of_a_stranger_or_an_unknown_domain_there_is_one_thing_to_say(agent, domain):
    told = explain(AgentId(agent), Action.PRODUCE, DomainName(domain), Context(), LAW)
    assert [each.rule for each in told.findings] == [f"{domain}.produce"]
    assert (told.decision.allowed, told.roles, told.purposes) == (False, (), ())
