"""The key `delegates` of a domain: what loads, who writes by it, what a plan says of it, cases that ask for it."""

from __future__ import annotations

import pytest

from bus.admin.desired import desired_state
from bus.codes import Code
from bus.errors import PolicyError
from bus.policy.cases import rules_of
from bus.policy.diff import access_changes
from bus.policy.explain import explain
from bus.policy.mutants import mutants
from bus.policy.question import Action, Context
from bus.wire.names import AgentId, DomainName
from tests.unit.law_build import allows, denies, domain, loaded

STAFF = {"planner": "PLANNER", "worker": "WORKER", "lead": "LEAD"}
ROLES = ("PLANNER", "WORKER")


def law(staff=STAFF, *, allowed=ROLES, sections=None, **keys):
    other = domain("side", "LEAD")
    return loaded([domain("desk", *allowed, **keys), other], staff, **(sections or {}))


def test_without_produce_the_other_allowed_roles_may_produce_and_all_may_read():
    policy = law(delegates=["WORKER"])
    desk = policy.domains[DomainName("desk")]
    assert (desk.produce, desk.delegates, desk.consume) == ({"PLANNER"}, {"WORKER"}, {*ROLES})
    assert policy.writers(desk) == ["planner", "worker"]
    assert allows(policy, "planner", "produce desk")
    assert denies(policy, "worker", "produce desk") == (Code.DELEGATES, "desk.delegates")
    assert allows(policy, "worker", "produce desk", delegated_by=("planner",))
    assert denies(policy, "lead", "produce desk", delegated_by=("planner",)) == (Code.DELEGATES, "desk.delegates")
    assert denies(policy, "lead", "produce desk") == (Code.PRODUCE, "desk.produce")


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"delegates": ["LEAD"]}, "delegates: expected one of allowed_roles"),
        ({"delegates": ["WORKER", "WORKER"]}, "given twice"),
        ({"delegates": ["WORKER"], "produce": ["WORKER"]}, "WORKER may produce by itself"),
        (
            {"delegates": ["WORKER"], "sections": {"roles": {"WORKER": {"inherits": ["PLANNER"]}}}},
            "WORKER may produce by itself",
        ),
    ],
)
def test_a_delegate_is_allowed_and_no_producer(keys, told):
    with pytest.raises(PolicyError, match=told):
        law(**keys)


def test_a_delegate_carries_labels_down_as_a_producer_does():
    labels = {"levels": ["public", "secret"], "categories": [], "propagate": "none"}
    high = domain("vault", "PLANNER", "WORKER", label=["secret"])
    roles = {role: {"clearance": "secret"} for role in ROLES}
    for delegates in ([], ["WORKER"]):
        low = domain("board", "LEAD", "WORKER", produce=["LEAD"], label=["public"], delegates=delegates)
        staff = {"worker": "WORKER", "lead": "LEAD", "planner": "PLANNER"}
        if delegates:
            with pytest.raises(PolicyError, match="WORKER may read vault"):
                loaded([high, low], staff, labels=labels, roles=roles)
        else:
            loaded([high, low], staff, labels=labels, roles=roles)


def test_delegates_get_the_acl_of_writers():
    def writing(policy):
        acls = desired_state(policy, 1).acls
        return {each.principal for each in acls if each.name == "desk.in" and each.operation == "WRITE"}

    assert writing(law(delegates=["WORKER"])) == {"User:planner", "User:worker"}
    assert writing(law(produce=["PLANNER"])) == {"User:planner"}


def test_a_plan_says_who_may_act_for_others_from_now_on():
    without, with_ = law(produce=["PLANNER"]), law(delegates=["WORKER"])
    (change,) = access_changes(without, with_)
    assert (change.text, change.widens) == ("may produce desk under a delegation: worker", True)
    (change,) = access_changes(with_, without)
    assert (change.text, change.widens) == ("may not produce desk under a delegation any more: worker", False)


def test_explain_names_the_chain_and_the_role_that_would_allow():
    policy = law(delegates=["WORKER"])
    asked = (AgentId("worker"), Action.PRODUCE, DomainName("desk"))
    told = explain(*asked, Context(delegated_by=(AgentId("planner"),)), policy)
    assert told.decision.allowed
    assert ("desk.delegates", "planner > worker") in [(each.rule, each.why) for each in told.findings]
    told = explain(*asked, Context(), policy)
    assert told.roles == ("PLANNER",)
    assert "worker may write only under a delegation" in [each.why for each in told.findings]


def test_a_policy_without_delegates_asks_nothing_of_them():
    assert "desk.delegates" not in rules_of(law())
    assert "desk.delegates" in rules_of(law(delegates=["WORKER"]))
    assert any(each.what == "desk: delegates without WORKER" for each in mutants(law(delegates=["WORKER"])))
    assert b"delegates" not in law().document
