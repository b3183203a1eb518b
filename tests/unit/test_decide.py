"""The PDP: the published policy cell by cell, targeted kinds, tiers; total, default deny, and every DENY names a rule.

The table is written out by hand from the published document; it is not computed from the policy under test.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.codes import Code
from bus.policy.decide import Decision, decide
from bus.policy.loader import load_policy
from bus.policy.model import AgentPolicy, Policy
from bus.policy.question import Action, Context
from bus.wire.envelope import Kind
from bus.wire.names import AgentId, DomainName, RoleName, Tier
from tests.unit.build import MEMORY, OUTSIDER, READER, VAULT, WRITER, domain_policy, make_policy

POLICIES = Path(__file__).parents[2] / "policies"
PUBLISHED = load_policy(POLICIES)
ORCHESTRATOR, RETRIEVER, EXECUTOR, ANALYST = (
    f"{role}-1" for role in ("orchestrator", "retriever", "executor", "analyst")
)
TARGETED = [Kind.RPC_REQUEST, Kind.RPC_REPLY, Kind.TOOL_CALL, Kind.TOOL_RESULT]
BROADCAST = [kind for kind in Kind if kind not in TARGETED]

MAY, NOT, TIER = "allow", "deny", "tier-unavailable"
TABLE = {
    "agent_memory": {ORCHESTRATOR: MAY, RETRIEVER: MAY, EXECUTOR: NOT, ANALYST: NOT},
    "pii_inference": {ORCHESTRATOR: NOT, RETRIEVER: NOT, EXECUTOR: MAY, ANALYST: MAY},
    "financial_models": {ORCHESTRATOR: NOT, RETRIEVER: NOT, EXECUTOR: NOT, ANALYST: TIER},
    "coordination": {ORCHESTRATOR: MAY, RETRIEVER: NOT, EXECUTOR: MAY, ANALYST: NOT},
}
READERS = {
    "agent_memory": ("ORCHESTRATOR", "RETRIEVER"),
    "pii_inference": ("ANALYST", "EXECUTOR"),
    "coordination": ("EXECUTOR", "ORCHESTRATOR"),
}
TIERS = {"agent_memory": Tier.RETRIEVAL, "pii_inference": Tier.COMPUTATION, "coordination": Tier.RETRIEVAL}


def asked(agent: str, domain: str, policy: Policy, action: Action = Action.PRODUCE, **context: object) -> Decision:
    return decide(AgentId(agent), action, DomainName(domain), Context(**context), policy)


def test_the_table_is_whole():
    assert set(TABLE) == set(PUBLISHED.domains)
    assert all(set(row) == set(PUBLISHED.agents) for row in TABLE.values())


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize(("domain", "agent"), [(domain, agent) for domain in TABLE for agent in TABLE[domain]])
def test_a_cell_of_the_published_policy(domain, agent, action):
    decision, expected = asked(agent, domain, PUBLISHED, action), TABLE[domain][agent]
    if expected is MAY:
        assert decision.allowed
        assert decision.code is Code.ALLOW
        assert decision.rule == f"{domain}.{action}"
        assert decision.obligations.roles == READERS[domain]
        assert decision.obligations.tier is TIERS[domain]
        assert decision.obligations.mask_metadata is (domain != "coordination")
        assert decision.obligations.audit_full is (domain != "coordination")
    elif expected is NOT:
        assert not decision.allowed
        assert (decision.code, decision.rule) == (Code(action.value), f"{domain}.{action}")
    else:
        assert not decision.allowed
        assert (decision.code, decision.rule) == (Code.TIER_UNAVAILABLE, f"{domain}.tier")
    file, line = decision.location.split(":")
    assert file.endswith("mesh.yaml")
    text = (POLICIES / "mesh.yaml").read_text().splitlines()[int(line) - 1]
    assert ("attestation_required" in text or "tier" in text) if expected is TIER else "allowed_roles" in text


@pytest.mark.parametrize(("shown", "allowed"), [(None, True), (True, True), (False, False)])
def test_a_record_of_the_published_inference_is_protected_at_its_source(shown, allowed):
    decision = asked(EXECUTOR, "pii_inference", PUBLISHED, at_source=shown)
    assert decision.allowed is allowed
    assert allowed or (decision.code, decision.rule) == (Code.TIER_FLOOR, "pii_inference.tier")


@pytest.mark.parametrize("action", list(Action))
@pytest.mark.parametrize(
    ("agent", "domain"),
    [("nobody-1", "agent_memory"), (ORCHESTRATOR, "nothing"), ("nobody-1", "nothing"), ("", ""), ("agent_memory", "")],
)
def test_an_unknown_agent_or_domain_is_denied(agent, domain, action):
    decision = asked(agent, domain, PUBLISHED, action)
    assert not decision.allowed
    assert (decision.code, decision.rule) == (Code(action.value), f"{domain}.{action}")


POLICY = make_policy()


@pytest.mark.parametrize("kind", TARGETED)
def test_a_targeted_kind_needs_a_target_that_may_read(kind):
    allowed = asked(WRITER, MEMORY, POLICY, kind=kind, target=READER)
    assert allowed.allowed
    assert (allowed.obligations.target, allowed.obligations.roles) == (READER, ())
    for target in ("", WRITER, OUTSIDER, "nobody-1"):
        denied = asked(WRITER, MEMORY, POLICY, kind=kind, target=target)
        assert not denied.allowed
        assert (denied.code, denied.rule) == (Code.CONSUME, "memory.consume")
        assert denied.location == "mesh.yaml:4"


@pytest.mark.parametrize("kind", BROADCAST)
def test_another_kind_goes_to_roles_and_with_a_target_to_it_alone(kind):
    roles = asked(WRITER, MEMORY, POLICY, kind=kind)
    assert (roles.obligations.roles, roles.obligations.target) == (("ARCHIVIST", "READER"), "")
    target = asked(WRITER, MEMORY, POLICY, kind=kind, target=READER)
    assert (target.obligations.roles, target.obligations.target) == ((), READER)
    assert not asked(WRITER, MEMORY, POLICY, kind=kind, target=OUTSIDER).allowed


def test_the_right_to_write_is_asked_before_the_targets_right_to_read():
    decision = asked(OUTSIDER, MEMORY, POLICY, kind=Kind.RPC_REQUEST)
    assert (decision.code, decision.rule) == (Code.PRODUCE, "memory.produce")


def test_who_may_read_is_asked_before_the_tier():
    decision = asked(WRITER, VAULT, POLICY, target=OUTSIDER)
    assert (decision.code, decision.rule) == (Code.CONSUME, "vault.consume")


@pytest.mark.parametrize("tier", list(Tier))
@pytest.mark.parametrize("attested", [False, True])
def test_a_tier_that_cannot_be_had_is_refused_and_never_weakened(tier, attested):
    policy = make_policy(domain_policy(MEMORY, tier, attestation_required=attested))
    decision = asked(WRITER, MEMORY, policy)
    if tier is Tier.RETRIEVAL or (tier is Tier.PLAINTEXT and not attested):
        assert decision.obligations.tier is tier
    else:
        assert (decision.code, decision.rule) == (Code.TIER_UNAVAILABLE, "memory.tier")
        assert decision.location == "mesh.yaml:2"


@pytest.mark.parametrize(
    ("tier", "changes"),
    [
        (Tier.RETRIEVAL, {"at_source": True}),
        (Tier.COMPUTATION, {"at_source": True}),
        (Tier.FHE, {"at_source": True, "fhe_context": bytes(32)}),
    ],
)
def test_what_is_protected_at_its_source_says_so_and_nothing_else_does(tier, changes):
    policy, plain = make_policy(domain_policy(MEMORY, tier, **changes)), make_policy(domain_policy(MEMORY))
    for shown, law, allowed in (
        (None, policy, True),
        (True, policy, True),
        (False, policy, False),
        (None, plain, True),
        (True, plain, False),
    ):
        decision = decide(WRITER, Action.PRODUCE, MEMORY, Context(at_source=shown), law)
        assert decision.allowed is allowed
        assert allowed or (decision.code, decision.rule) == (Code.TIER_FLOOR, "memory.tier")


@pytest.mark.parametrize(
    ("tier", "changes", "why"),
    [
        (Tier.COMPUTATION, {}, "COMPUTATION by tee is available with protect_at: source"),
        (
            Tier.COMPUTATION,
            {"at_source": True, "computation": "mpc"},
            "COMPUTATION by mpc is available with protect_at: source, and what mpc adds up by which parties",
        ),
        (Tier.FHE, {"at_source": True}, "FHE is available with protect_at: source and an fhe_context"),
        (Tier.FHE, {"fhe_context": bytes(32)}, "FHE is available with protect_at: source and an fhe_context"),
    ],
)
def test_what_a_domain_lacks_for_its_tier_is_told(tier, changes, why):
    decision = asked(WRITER, MEMORY, make_policy(domain_policy(MEMORY, tier, **changes)))
    assert (decision.code, decision.why) == (Code.TIER_UNAVAILABLE, why)


@pytest.mark.parametrize("tier", [Tier.PLAINTEXT, Tier.RETRIEVAL])
@pytest.mark.parametrize("floor", [None, *Tier])
def test_an_envelopes_floor_is_kept_or_the_record_is_refused(tier, floor):
    decision = asked(WRITER, MEMORY, make_policy(domain_policy(MEMORY, tier)), tier_floor=floor)
    if floor is None or tier >= floor:
        assert decision.obligations.tier is tier
    else:
        assert (decision.code, decision.rule, decision.location) == (Code.TIER_FLOOR, "memory.tier", "mesh.yaml:2")


# Any policy, any question.
ROLES = st.frozensets(st.sampled_from([RoleName(each) for each in "ABC"]), max_size=3)
NAMES = st.sampled_from(["one", "two", "three", "", "strange\n"])
DOMAINS = st.builds(
    lambda name, tier, produce, consume, masked, full, attested: domain_policy(
        name,
        tier,
        produce=produce,
        consume=consume,
        metadata_masking=masked,
        audit_full=full,
        attestation_required=attested,
    ),
    NAMES,
    st.sampled_from(Tier),
    ROLES,
    ROLES,
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
AGENTS = st.dictionaries(NAMES, ROLES, max_size=4)
CONTEXTS = st.builds(
    Context, kind=st.sampled_from(Kind), target=NAMES, tier_floor=st.one_of(st.none(), st.sampled_from(Tier))
)


def policy_of(domains: list, agents: dict) -> Policy:
    made = {AgentId(name): AgentPolicy(AgentId(name), roles) for name, roles in agents.items()}
    return replace(make_policy(), domains={each.name: each for each in domains}, agents=made)


@settings(max_examples=300)
@given(NAMES, st.sampled_from(Action), NAMES, CONTEXTS, st.lists(DOMAINS, max_size=3), AGENTS)
def test_every_question_has_one_answer_with_a_rule(principal, action, resource, context, domains, agents):
    policy = policy_of(domains, agents)
    decision = decide(AgentId(principal), action, DomainName(resource), context, policy)
    assert decision.allowed is (decision.code is Code.ALLOW)
    assert decision.rule.startswith(f"{resource}.")
    assert decision.location or resource not in policy.domains
    if decision.allowed:
        domain, agent = policy.domains[resource], policy.agents[principal]
        assert agent.roles & (domain.produce if action is Action.PRODUCE else domain.consume)
        assert domain.protectable
        assert decision.obligations.tier is domain.tier
        assert set(decision.obligations.roles) <= domain.consume
    else:
        assert decision.why


@settings(max_examples=200)
@given(st.sampled_from(Action), CONTEXTS, st.lists(DOMAINS, min_size=1, max_size=2), AGENTS, st.data())
def test_a_role_taken_away_never_turns_a_refusal_into_an_allowance(action, context, domains, agents, data):
    domain = data.draw(st.sampled_from(domains))
    name = data.draw(st.sampled_from(sorted(agents) or ["one"]))
    policy = policy_of(domains, agents)
    before = decide(AgentId(name), action, domain.name, context, policy)
    fewer = {each: data.draw(st.sampled_from([roles, frozenset(sorted(roles)[1:])])) for each, roles in agents.items()}
    after = decide(AgentId(name), action, domain.name, context, policy_of(domains, fewer))
    assert before.allowed or not after.allowed


def test_a_record_that_nobody_may_read_is_not_allowed():
    """`consume: []` loads. A DEK cannot be wrapped for nobody: the record must end as a refusal, not in its tier."""
    policy = make_policy(domain_policy(MEMORY, consume=frozenset()))
    for context in ({}, {"target": READER}, {"kind": Kind.RPC_REQUEST, "target": READER}):
        decision = asked(WRITER, MEMORY, policy, **context)
        assert not decision.allowed
        assert decision.rule == "memory.consume"


def test_obligations_are_told_in_short_words():
    told = asked(WRITER, MEMORY, POLICY).obligations.names()
    assert told == ("tier:RETRIEVAL", "roles:ARCHIVIST,READER", "masked")
    told = asked(WRITER, "notes", POLICY, target=READER).obligations.names()
    assert told == ("tier:RETRIEVAL", f"target:{READER}")
