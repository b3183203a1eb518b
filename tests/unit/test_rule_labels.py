"""Labels in the PDP: clearance of readers and targets, floors of what an agent writes, declassifiers."""

from __future__ import annotations

from typing import Any

import pytest

from bus.codes import Code
from bus.policy.labels import Label, Scheme
from bus.policy.model import Policy
from bus.wire.names import AgentId, DomainName
from tests.unit.law_build import allows, asked, denies, domain, loaded

LABELS: dict[str, Any] = {
    "levels": ["public", "internal", "secret"],
    "categories": ["pii", "pci"],
    "propagate": "session",
}
ROLES = {
    "CLERK": {"clearance": "internal"},
    "DOCTOR": {"clearance": "secret", "categories": ["pii"]},
    "CHIEF": {"inherits": ["DOCTOR"], "categories": ["pci"]},
    "GUEST": {},
}
STAFF = {"cat": "CLERK", "dan": "DOCTOR", "cho": "CHIEF", "gus": "GUEST"}
EVERYONE = ("CLERK", "DOCTOR", "CHIEF", "GUEST")
LOWERED = {"after": ["no-pii"], "drop": ["pii"]}


def labelled(*label: str, declassify: list[dict[str, Any]] | None = None, **keys: Any) -> Policy:
    """One domain, `notes`, of all four roles with this label, and `desk`, in which the guardrail stands."""
    return loaded(
        [
            domain("notes", *EVERYONE, **{"label": list(label), **keys}),
            domain("desk", *EVERYONE, **{"guardrails": ["no-pii"], **keys}),
        ],
        STAFF,
        labels={**LABELS, "declassify": declassify or []},
        roles=ROLES,
        guardrails={
            "no-pii": {"detect": ["EMAIL"], "then": "redact"},
            "no-keys": {"detect": ["API_KEY"], "then": "deny"},
        },
    )


def readers(policy: Policy, who: str, what: str = "produce notes", **context: Any) -> tuple[str, ...]:
    return asked(policy, who, what, **context).obligations.roles


# Clearance.


@pytest.mark.parametrize(
    ("labels", "roles"),
    [
        ((), ("CHIEF", "CLERK", "DOCTOR", "GUEST")),
        (("public",), ("CHIEF", "CLERK", "DOCTOR", "GUEST")),
        (("internal",), ("CHIEF", "CLERK", "DOCTOR")),
        (("secret",), ("CHIEF", "DOCTOR")),
        (("internal", "secret", "public"), ("CHIEF", "DOCTOR")),
        (("pii",), ("CHIEF", "DOCTOR")),
        (("pci",), ("CHIEF",)),
        (("pii", "pci", "secret"), ("CHIEF",)),
    ],
)
def test_a_record_is_sealed_to_the_roles_that_are_cleared(labels, roles):
    """Whether the domain has the label, the record, or each a part of it."""
    assert readers(labelled(), "gus", labels=labels) == roles
    assert readers(labelled(*labels), "gus") == roles
    assert readers(labelled(*labels[:1]), "gus", labels=labels[1:]) == roles
    for who, role in (("cat", "CLERK"), ("dan", "DOCTOR"), ("cho", "CHIEF"), ("gus", "GUEST")):
        if role in roles:
            assert allows(labelled(), who, "consume notes", labels=labels)
            assert allows(labelled(), "gus", "produce notes", labels=labels, target=who)
        else:
            assert denies(labelled(), who, "consume notes", labels=labels) == (Code.LABELS, "notes.label")
            told = denies(labelled(), "gus", "produce notes", labels=labels, target=who)
            assert told == (Code.LABELS, "notes.label")


def test_a_label_for_which_nobody_is_cleared_is_refused():
    policy = labelled(consume=["CLERK", "GUEST"])
    assert readers(policy, "dan", labels=("internal",)) == ("CLERK",)
    assert denies(policy, "dan", "produce notes", labels=("secret",)) == (Code.LABELS, "notes.label")


def test_clearances_of_two_roles_are_not_added_up():
    """A key belongs to a role: whoever holds two roles can open what one of them is cleared for, not their sum."""
    policy = loaded(
        [domain("notes", "HIGH", "WIDE", "BOTH")],
        {"ann": "HIGH,WIDE", "bob": "BOTH"},
        labels=LABELS,
        roles={
            "HIGH": {"clearance": "secret"},
            "WIDE": {"categories": ["pii"]},
            "BOTH": {"clearance": "secret", "categories": ["pii"]},
        },
    )
    assert allows(policy, "ann", "consume notes", labels=("secret",))
    assert allows(policy, "ann", "consume notes", labels=("pii",))
    assert denies(policy, "ann", "consume notes", labels=("secret", "pii")) == (Code.LABELS, "notes.label")
    assert readers(policy, "bob", labels=("secret", "pii")) == ("BOTH",)


def test_a_label_that_is_not_the_policys_is_refused_for_writers_and_readers():
    policy = labelled()
    for what in ("produce notes", "consume notes"):
        assert allows(policy, "cho", what, labels=("secret", "pci"))
        for labels in (("topsecret",), ("secret", "PII"), ("",), ("pii\n",)):
            assert denies(policy, "cho", what, labels=labels) == (Code.LABELS, "notes.label")


def test_a_policy_without_labels_asks_for_no_clearance():
    policy = loaded([domain("notes", "CLERK")], {"cat": "CLERK"})
    decision = asked(policy, "cat", "produce notes", labels=("secret",))
    assert (decision.obligations.roles, decision.obligations.label) == (("CLERK",), ())
    assert allows(policy, "cat", "consume notes", labels=("secret",))


def test_the_obligation_names_the_join_of_domain_and_record():
    policy = labelled("internal", "pii")
    assert asked(policy, "gus", "produce notes").obligations.label == ("internal", "pii")
    told = asked(policy, "gus", "produce notes", labels=("public", "pci")).obligations
    assert told.label == ("internal", "pci", "pii")
    assert asked(policy, "gus", "produce notes", labels=("secret",)).obligations.label == ("secret", "pii")


def test_a_domain_is_in_reach_of_who_is_cleared_for_its_label():
    policy = labelled("secret")
    assert [each.name for each in policy.may_consume(AgentId("dan"))] == ["desk", "notes"]
    assert [each.name for each in policy.may_consume(AgentId("cat"))] == ["desk"]
    notes = policy.domains[DomainName("notes")]
    assert policy.groups(AgentId("cho"), notes) == ["CHIEF", "DOCTOR"]
    assert policy.groups(AgentId("cat"), notes) == []


# The floor: what is written where nothing proves what it builds on.


def test_the_floor_is_the_highest_that_an_agent_could_have_read():
    policy = labelled()
    assert policy.floor(AgentId("gus")) == ("public",)
    assert policy.floor(AgentId("cat")) == ("internal",)
    assert policy.floor(AgentId("dan")) == ("secret", "pii")
    assert policy.floor(AgentId("cho")) == ("secret", "pci", "pii")


def test_who_reads_nothing_has_no_floor():
    assert labelled(consume=["CLERK"]).floor(AgentId("dan")) == ()
    assert labelled(consume=["DOCTOR"]).floor(AgentId("dan")) == ("secret", "pii")


def test_labels_that_do_not_follow_the_data_have_no_floor():
    told = {**LABELS, "propagate": "none"}
    policy = loaded([domain("notes", *EVERYONE)], STAFF, labels=told, roles=ROLES)
    assert [policy.floor(AgentId(name)) for name in STAFF] == [()] * len(STAFF)
    assert loaded([domain("notes", "CLERK")], {"cat": "CLERK"}).floor(AgentId("cat")) == ()


def test_with_its_floor_an_agent_writes_to_those_who_may_read_as_much_as_it():
    policy = labelled()
    for who, roles in (
        ("gus", ("CHIEF", "CLERK", "DOCTOR", "GUEST")),
        ("cat", ("CHIEF", "CLERK", "DOCTOR")),
        ("dan", ("CHIEF", "DOCTOR")),
        ("cho", ("CHIEF",)),
    ):
        assert readers(policy, who, labels=policy.floor(AgentId(who))) == roles
    low = loaded(
        [domain("notes", *EVERYONE), domain("board", *EVERYONE, consume=["CLERK", "GUEST"])],
        STAFF,
        labels=LABELS,
        roles=ROLES,
    )
    assert readers(low, "cat", "produce board", labels=low.floor(AgentId("cat"))) == ("CLERK",)
    told = denies(low, "dan", "produce board", labels=low.floor(AgentId("dan")))
    assert told == (Code.LABELS, "board.label")


# Declassifiers.


def lowering(**keys: Any) -> dict[str, Any]:
    return {"id": "redacted", "role": "DOCTOR", "from": "secret", "to": "internal", **LOWERED, **keys}


def test_a_declassifier_lowers_level_and_category_behind_its_guardrail_only():
    policy = labelled(declassify=[lowering()])
    told = asked(policy, "dan", "produce desk", labels=("secret", "pii")).obligations
    assert (told.label, told.roles) == (("internal",), ("CHIEF", "CLERK", "DOCTOR"))
    told = asked(policy, "dan", "produce notes", labels=("secret", "pii")).obligations
    assert (told.label, told.roles) == (("secret", "pii"), ("CHIEF", "DOCTOR"))


def test_nobody_else_lowers_what_they_write():
    policy = labelled(declassify=[lowering()])
    for who in ("cat", "gus"):
        assert asked(policy, who, "produce desk", labels=("secret", "pii")).obligations.label == ("secret", "pii")
    without = labelled()
    assert asked(without, "dan", "produce desk", labels=("secret", "pii")).obligations.label == ("secret", "pii")


def test_an_heir_of_a_declassifier_is_one():
    policy = labelled(declassify=[lowering()])
    assert asked(policy, "cho", "produce desk", labels=("secret", "pii")).obligations.label == ("internal",)


def test_a_declassifier_lowers_nothing_above_its_level_and_raises_nothing():
    policy = labelled(declassify=[lowering(**{"from": "internal", "to": "internal"})])
    for labels, left in (
        (("internal", "pii"), ("internal",)),
        (("pii",), ("public",)),
        (("secret", "pii"), ("secret", "pii")),
    ):
        assert asked(policy, "dan", "produce desk", labels=labels).obligations.label == left


def test_a_declassifier_drops_the_categories_that_it_names_only():
    policy = labelled(declassify=[lowering()])
    told = asked(policy, "dan", "produce desk", labels=("secret", "pii", "pci")).obligations
    assert (told.label, told.roles) == (("internal", "pci"), ("CHIEF",))


def test_a_declassifier_needs_every_guardrail_that_it_names():
    rule = lowering(after=["no-pii", "no-keys"])
    assert asked(labelled(declassify=[rule]), "dan", "produce desk", labels=("secret",)).obligations.label == (
        "secret",
    )
    both = labelled(declassify=[rule], guardrails=["no-keys", "no-pii"])
    assert asked(both, "dan", "produce notes", labels=("secret",)).obligations.label == ("internal",)


def test_the_label_of_a_domain_is_never_lowered():
    policy = labelled("secret", "pii", declassify=[lowering(after=[])])
    told = asked(policy, "dan", "produce notes", labels=("secret", "pii", "pci")).obligations
    assert told.label == ("secret", "pci", "pii")
    assert asked(labelled(declassify=[lowering(after=[])]), "dan", "produce notes", labels=("secret",)).allowed


def test_two_declassifiers_are_two_steps():
    steps = [lowering(drop=[]), lowering(id="published", role="CHIEF", **{"from": "internal", "to": "public"})]
    policy = labelled(declassify=steps)
    assert asked(policy, "cho", "produce desk", labels=("secret", "pii")).obligations.label == ("public",)
    assert asked(policy, "dan", "produce desk", labels=("secret", "pii")).obligations.label == ("internal", "pii")


def test_a_declassifier_opens_a_way_that_its_label_would_bar():
    """From a zone in which it reads secrets, behind its guardrail, what it writes may leave."""
    policy = loaded(
        [domain("desk", "DOCTOR", "CLERK", guardrails=["no-pii"])],
        {"dan": "DOCTOR/eu", "cat": "CLERK/eu", "uma": "CLERK/us"},
        labels={**LABELS, "declassify": [lowering()]},
        roles=ROLES,
        guardrails={"no-pii": {"detect": ["EMAIL"], "then": "redact"}},
        zones={"eu": {}, "us": {}},
        flows=[
            {"id": "out", "from": "eu", "to": "us", "domains": ["desk"], "max_label": "internal", "forbid": ["pii"]}
        ],
    )
    floor = policy.floor(AgentId("dan"))
    assert floor == ("secret", "pii")
    assert asked(policy, "dan", "produce desk", to="us", labels=floor).obligations.label == ("internal",)
    assert denies(policy, "cat", "produce desk", to="us", labels=floor) == (Code.ZONES, "out.forbid")


def test_a_declassifier_reads_no_more_than_it_is_cleared_for():
    """Lowering is for what it writes; the label of what it reads was decided by who wrote it."""
    rule = lowering(role="CLERK")
    policy = labelled(declassify=[rule])
    assert allows(policy, "cat", "consume desk", labels=("internal",))
    assert denies(policy, "cat", "consume desk", labels=("secret",)) == (Code.LABELS, "desk.label")
    assert denies(policy, "cat", "consume desk", labels=("pii",)) == (Code.LABELS, "desk.label")
    assert "CLERK" not in readers(policy, "gus", "produce desk", labels=("secret",))


# The lattice as it is written.


def test_names_of_a_label_are_its_level_and_its_categories():
    scheme = Scheme(("public", "secret"), frozenset({"pii", "pci"}))
    assert scheme.names(Label(1, frozenset({"pii", "pci"}))) == ("secret", "pci", "pii")
    assert scheme.names(Label()) == ("public",)
    assert scheme.parse(["pii", "secret", "public"]) == Label(1, frozenset({"pii"}))
    assert scheme.parse([]) == Label()
    assert scheme.parse(["pii", "nothing"]) is None
    assert Scheme().parse(["pii"]) == Label()
    assert Scheme().names(Label()) == ()
