"""The PDP's rules on places, roles, kinds, tools and conditions; their order; findings. Labels have their own file."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from bus.codes import Code
from bus.policy.decide import decide, decide_constant, decide_moment, findings
from bus.policy.loader import load_policy
from bus.policy.question import Action, Context
from bus.wire.envelope import Kind
from bus.wire.names import AgentId, DomainName, Tier
from tests.unit.law_build import allows, asked, denies, domain, loaded

EXAMPLE = Path(__file__).parents[2] / "policies" / "example"
LABELS = {"levels": ["public", "internal", "secret"], "categories": ["pii"], "propagate": "session"}
CLEARED = {"CLERK": {"clearance": "secret", "categories": ["pii"]}}
ZONES: dict[str, Any] = {"eu": {}, "us": {}, "asia": {}}


def flow(name: str, source: str = "eu", target: str = "us", **keys: object) -> dict[str, Any]:
    return {"id": name, "from": source, "to": target, "domains": ["notes"], **keys}


# Tenants.

TWO_TENANTS = loaded(
    [domain("notes", "CLERK")],
    {"ann": "CLERK@north", "ben": "CLERK@north", "sue": "CLERK@south"},
    tenants=["north", "south"],
)


def test_a_record_stays_with_the_readers_of_its_tenant():
    assert asked(TWO_TENANTS, "ann", "produce notes").obligations.roles == ("CLERK@north",)
    assert asked(TWO_TENANTS, "sue", "produce notes").obligations.roles == ("CLERK@south",)
    assert allows(TWO_TENANTS, "ann", "produce notes", tenant="north")
    for tenant in ("south", "nowhere"):
        assert denies(TWO_TENANTS, "ann", "produce notes", tenant=tenant) == (Code.TENANTS, "tenants")


def test_a_target_in_another_tenant_is_refused_whatever_tenant_is_told():
    told = asked(TWO_TENANTS, "ann", "produce notes", target="ben").obligations
    assert (told.target, told.roles) == ("ben", ())
    for told in ({}, {"tenant": "north"}, {"tenant": "south"}):
        assert denies(TWO_TENANTS, "ann", "produce notes", target="sue", **told) == (Code.TENANTS, "tenants")


def test_a_record_is_read_in_its_own_tenant_only():
    assert allows(TWO_TENANTS, "ann", "consume notes", tenant="north")
    assert denies(TWO_TENANTS, "ann", "consume notes", tenant="south") == (Code.TENANTS, "tenants")


def test_a_policy_without_tenants_asks_for_none():
    policy = loaded([domain("notes", "CLERK")], {"ann": "CLERK"})
    assert asked(policy, "ann", "produce notes", tenant="south").obligations.roles == ("CLERK",)


# Zones and flows.

PEOPLE = {"eva": "CLERK/eu", "uma": "CLERK/us", "abe": "CLERK/asia"}


def zoned(*flows: dict[str, Any], **keys: object) -> Any:
    domains = [domain("notes", "CLERK", **keys), domain("files", "CLERK")]
    return loaded(domains, PEOPLE, zones=ZONES, flows=list(flows), labels=LABELS, roles=CLEARED)


def test_without_a_flow_nothing_leaves_its_zone():
    policy = zoned()
    assert asked(policy, "eva", "produce notes").obligations.roles == ("CLERK/eu",)
    assert allows(policy, "eva", "produce notes", to="eu")
    assert allows(policy, "eva", "produce notes", target="eva")
    for there in ({"to": "us"}, {"to": "nowhere"}, {"target": "uma"}, {"target": "uma", "to": "eu"}):
        assert denies(policy, "eva", "produce notes", **there) == (Code.ZONES, "zones")


def test_a_flow_leads_its_domains_one_way():
    policy = zoned(flow("out"))
    assert allows(policy, "eva", "produce notes", to="us")
    assert allows(policy, "eva", "produce notes", target="uma")
    assert denies(policy, "uma", "produce notes", to="eu") == (Code.ZONES, "zones")
    assert denies(policy, "uma", "produce notes", target="eva") == (Code.ZONES, "zones")
    assert denies(policy, "eva", "produce files", to="us") == (Code.ZONES, "zones")
    assert denies(policy, "eva", "produce notes", to="asia") == (Code.ZONES, "zones")


def test_what_is_read_came_by_a_flow_too():
    policy = zoned(flow("out"))
    assert allows(policy, "uma", "consume notes", to="eu")
    assert allows(policy, "uma", "consume notes", to="us")
    assert denies(policy, "eva", "consume notes", to="us") == (Code.ZONES, "zones")
    assert denies(policy, "uma", "consume files", to="eu") == (Code.ZONES, "zones")


def test_a_flow_bars_what_is_read_as_what_is_written():
    policy = zoned(flow("out", max_label="internal"))
    assert allows(policy, "uma", "consume notes", to="eu", labels=("internal",))
    assert denies(policy, "uma", "consume notes", to="eu", labels=("secret",)) == (Code.ZONES, "out.max_label")


def test_a_targeted_record_comes_by_a_flow_like_any_other():
    policy = zoned(flow("out"))
    assert allows(policy, "uma", "consume notes", to="eu", target="uma")
    assert denies(policy, "eva", "consume notes", to="us", target="eva") == (Code.ZONES, "zones")


def test_two_flows_in_a_row_make_no_way():
    policy = zoned(flow("out"), flow("on", "us", "asia"))
    assert allows(policy, "eva", "produce notes", to="us")
    assert allows(policy, "uma", "produce notes", to="asia")
    assert denies(policy, "eva", "produce notes", to="asia") == (Code.ZONES, "zones")


@pytest.mark.parametrize(
    ("labels", "barred"),
    [
        ((), ""),
        (("internal",), ""),
        (("secret",), "out.max_label"),
        (("pii",), "out.forbid"),
        (("internal", "pii"), "out.forbid"),
        (("secret", "pii"), "out.forbid"),
    ],
)
def test_a_flow_takes_labels_up_to_its_own_and_no_forbidden_category(labels, barred):
    policy = zoned(flow("out", max_label="internal", forbid=["pii"]))
    for there in ({"to": "us"}, {"target": "uma"}):
        if barred:
            assert denies(policy, "eva", "produce notes", labels=labels, **there) == (Code.ZONES, barred)
        else:
            assert allows(policy, "eva", "produce notes", labels=labels, **there)
    assert asked(policy, "eva", "produce notes", labels=labels).obligations.roles == (
        ("CLERK/eu",) if barred else ("CLERK/eu", "CLERK/us")
    )


def test_the_label_of_a_domain_counts_at_its_flows():
    assert allows(zoned(flow("out", max_label="internal"), label=["internal"]), "eva", "produce notes", to="us")
    policy = zoned(flow("out", max_label="internal"), label=["secret"])
    assert denies(policy, "eva", "produce notes", to="us") == (Code.ZONES, "out.max_label")


@pytest.mark.parametrize("turned", [False, True])
def test_of_several_flows_the_most_permissive_holds(turned):
    flows = [flow("low", max_label="internal"), flow("clean", forbid=["pii"])]
    policy = zoned(*(reversed(flows) if turned else flows))
    for labels, way in ((("secret",), "clean"), (("pii",), "low"), (("internal", "pii"), "low")):
        assert allows(policy, "eva", "produce notes", to="us", labels=labels)
        asking = (AgentId("eva"), Action.PRODUCE, DomainName("notes"), Context(to="us", labels=labels))
        assert way in [each.rule for each in findings(*asking, policy)]
        assert asked(policy, "eva", "produce notes", labels=labels).obligations.roles == ("CLERK/eu", "CLERK/us")
    # What neither of them takes does not go, and the first says why.
    barred = "clean.forbid" if turned else "low.max_label"
    assert denies(policy, "eva", "produce notes", to="us", labels=("secret", "pii")) == (Code.ZONES, barred)
    assert asked(policy, "eva", "produce notes", labels=("secret", "pii")).obligations.roles == ("CLERK/eu",)


def test_a_policy_without_zones_asks_for_none():
    policy = loaded([domain("notes", "CLERK")], {"ann": "CLERK"})
    assert asked(policy, "ann", "produce notes", to="us").obligations.roles == ("CLERK",)


def test_groups_are_told_with_tenant_and_zone_and_their_members_are_in_them():
    policy = loaded(
        [domain("notes", "CLERK", "JUDGE")],
        {"ann": "CLERK@north/eu", "jim": "JUDGE,CLERK@north/us", "sue": "CLERK@south/us"},
        tenants=["north", "south"],
        zones=ZONES,
        flows=[flow("out")],
    )
    sealed = asked(policy, "ann", "produce notes").obligations.roles
    assert sealed == ("CLERK@north/eu", "CLERK@north/us", "JUDGE@north/eu", "JUDGE@north/us")
    notes = policy.domains[DomainName("notes")]
    member = {name: policy.groups(AgentId(name), notes) for name in policy.agents}
    assert member["jim"] == ["CLERK@north/us", "JUDGE@north/us"]
    assert member["ann"] == ["CLERK@north/eu"]
    assert not set(member["sue"]) & set(sealed)


# Produce and consume.

RANKS = {"CHIEF": {"inherits": ["DOCTOR"]}, "DOCTOR": {"inherits": ["NURSE"]}}
STAFF = {"cho": "CHIEF", "dan": "DOCTOR", "nia": "NURSE", "tom": "TEMP"}


def staffed(**keys: object) -> Any:
    return loaded([domain("notes", "NURSE", **keys), domain("menu", "TEMP")], STAFF, roles=RANKS)


def test_who_inherits_a_role_may_what_the_role_may():
    policy = staffed()
    for who, action in itertools.product(("cho", "dan", "nia"), Action):
        assert allows(policy, who, f"{action} notes")
    for action in Action:
        assert denies(policy, "tom", f"{action} notes") == (Code(action.value), f"notes.{action}")


@pytest.mark.parametrize("action", list(Action))
def test_a_right_of_the_heir_is_not_its_parents(action):
    policy = staffed(**{action.value: ["DOCTOR"]})
    other = next(each for each in Action if each is not action)
    for who in ("cho", "dan"):
        assert allows(policy, who, f"{action} notes")
    assert denies(policy, "nia", f"{action} notes") == (Code(action.value), f"notes.{action}")
    assert allows(policy, "nia", f"{other} notes")


def test_a_record_for_an_heir_is_not_sealed_to_its_parents():
    assert asked(staffed(consume=["CHIEF"]), "nia", "produce notes").obligations.roles == ("CHIEF",)
    policy = staffed()
    assert asked(policy, "nia", "produce notes").obligations.roles == ("NURSE",)
    notes = policy.domains[DomainName("notes")]
    assert policy.groups(AgentId("cho"), notes) == ["NURSE"]
    assert policy.groups(AgentId("tom"), notes) == []


def test_an_empty_list_gives_nobody_the_right():
    assert denies(staffed(produce=[]), "cho", "produce notes") == (Code.PRODUCE, "notes.produce")
    assert denies(staffed(consume=[]), "cho", "consume notes") == (Code.CONSUME, "notes.consume")


# Kinds and tools.


def test_a_domain_takes_its_own_kinds():
    policy = staffed(kinds=["MEMORY", "TOOL_CALL"])
    for kind in Kind:
        told: dict[str, Any] = {"kind": kind, "target": "dan" if kind.targeted else ""}
        assert allows(staffed(), "nia", "produce notes", **told)
        if kind in (Kind.MEMORY, Kind.TOOL_CALL):
            assert allows(policy, "nia", "produce notes", **told)
        else:
            assert denies(policy, "nia", "produce notes", **told) == (Code.KINDS, "notes.kinds")
        assert allows(policy, "nia", "consume notes", kind=kind)


TOOLS = {"sql.read": ["DOCTOR"], "mail.send": []}
CALL: dict[str, Any] = {"kind": Kind.TOOL_CALL, "target": "dan"}


def test_a_tool_is_called_by_the_roles_that_it_names_and_their_heirs():
    policy = staffed(tools=TOOLS)
    for who in ("cho", "dan"):
        assert allows(policy, who, "produce notes", tool="sql.read", **CALL)
    assert denies(policy, "nia", "produce notes", tool="sql.read", **CALL) == (Code.TOOLS, "notes.tools")
    for who, tool in itertools.product(("cho", "dan", "nia"), ("mail.send", "sql", "SQL.READ", "sql.read.all")):
        assert denies(policy, who, "produce notes", tool=tool, **CALL) == (Code.TOOLS, "notes.tools")


def test_a_tool_is_asked_about_whatever_the_kind():
    policy = staffed(tools=TOOLS)
    for kind in Kind:
        told: dict[str, Any] = {"kind": kind, "target": "dan" if kind.targeted else ""}
        assert allows(policy, "dan", "produce notes", tool="sql.read", **told)
        assert denies(policy, "nia", "produce notes", tool="sql.read", **told) == (Code.TOOLS, "notes.tools")


def test_without_tools_any_may_be_called_and_with_none_in_it_none():
    assert allows(staffed(), "nia", "produce notes", tool="mail.send", **CALL)
    policy = staffed(tools={})
    assert denies(policy, "cho", "produce notes", tool="mail.send", **CALL) == (Code.TOOLS, "notes.tools")
    assert allows(policy, "cho", "produce notes")


def test_a_call_that_names_no_tool_does_not_pass_by_the_tools():
    assert allows(staffed(), "dan", "produce notes", **CALL)
    for tools in (TOOLS, {}):
        assert denies(staffed(tools=tools), "dan", "produce notes", **CALL) == (Code.TOOLS, "notes.tools")


# Conditions.

NOON, NIGHT = 1_772_452_800_000, 1_772_420_400_000  # 2026-03-02, 12:00 and 03:00 UTC


def conditional(**conditions: str) -> Any:
    names = {name.replace("_", "-"): text for name, text in conditions.items()}
    domains = [domain("notes", "CLERK", label=["internal"], when=list(names))]
    return loaded(
        domains,
        {"ann": "CLERK@north/eu", "uma": "CLERK@north/eu"},
        conditions=names,
        labels=LABELS,
        roles=CLEARED,
        tenants=["north"],
        zones={"eu": {}},
    )


TRUTHS = [
    ('principal.id == "ann"', "ann", {}),
    ('principal.roles == ["CLERK"]', "ann", {}),
    ('principal.tenant == "north" && principal.zone == "eu"', "ann", {}),
    ('principal.clearance == "secret" && principal.categories == ["pii"]', "ann", {}),
    ('action == "produce"', "ann", {}),
    ('resource.domain == "notes" && resource.tier == "RETRIEVAL"', "ann", {}),
    ('resource.label == ["internal"]', "ann", {}),
    ('context.kind == "MEMORY"', "ann", {"kind": Kind.MEMORY}),
    ('context.target == "uma"', "ann", {"target": "uma"}),
    ('context.tool.startsWith("sql.")', "ann", {"tool": "sql.read"}),
    ('context.task_type == "incident"', "ann", {"task_type": "incident"}),
    ('context.purpose in ["care", "billing"]', "ann", {"purpose": "billing"}),
    ('context.user == "00ff"', "ann", {"user": "00ff"}),
    ('"pii" in context.labels && "secret" in context.labels', "ann", {"labels": ("pii", "secret")}),
    ("context.time.getHours() >= 6", "ann", {"time_ms": NOON}),
    ("context.load > 0.5", "ann", {"load": 0.75}),
    ("context.size > 1000", "ann", {"size": 1001}),
]


@pytest.mark.parametrize(("text", "who", "context"), TRUTHS, ids=[text for text, _, _ in TRUTHS])
def test_a_condition_sees_what_is_so_and_its_contrary_refuses(text, who, context):
    assert allows(conditional(told=text), who, "produce notes", **context)
    denied = asked(conditional(told=f"!({text})"), who, "produce notes", **context)
    assert (denied.code, denied.rule, denied.why) == (Code.CONDITION, "told", f"!({text})")


@pytest.mark.parametrize(("text", "context"), [(text, context) for text, _, context in TRUTHS if context])
def test_a_condition_refuses_where_the_context_does_not_say_so(text, context):
    assert denies(conditional(told=text), "ann", "produce notes") == (Code.CONDITION, "told")


def test_a_condition_knows_what_is_written_from_what_is_read():
    policy = conditional(told='action == "consume"')
    assert allows(policy, "ann", "consume notes")
    assert denies(policy, "ann", "produce notes") == (Code.CONDITION, "told")


def test_a_condition_that_cannot_be_evaluated_refuses():
    policy = conditional(told='context.purpose == "purpose" || int(context.purpose) > 3')
    assert allows(policy, "ann", "produce notes", purpose="4")
    assert denies(policy, "ann", "produce notes", purpose="3") == (Code.CONDITION, "told")
    assert "cannot be evaluated" not in asked(policy, "ann", "produce notes", purpose="3").why
    for purpose in ("four", "", "9" * 30, "\ud800"):
        assert denies(policy, "ann", "produce notes", purpose=purpose) == (Code.CONDITION, "told")
        assert asked(policy, "ann", "produce notes", purpose=purpose).why.endswith(": cannot be evaluated")


def test_a_condition_that_is_neither_true_nor_false_refuses():
    """One that is boolean over the sample may be something else over what comes."""
    policy = conditional(told='context.purpose == "purpose" ? true : context.user')
    assert allows(policy, "ann", "produce notes", purpose="purpose")
    for user in ("00ff", ""):
        assert denies(policy, "ann", "produce notes", purpose="care", user=user) == (Code.CONDITION, "told")


def test_every_condition_of_a_domain_must_hold():
    policy = conditional(first='context.purpose != "a"', second='context.purpose != "b"')
    assert allows(policy, "ann", "produce notes", purpose="c")
    assert denies(policy, "ann", "produce notes", purpose="a") == (Code.CONDITION, "first")
    assert denies(policy, "ann", "produce notes", purpose="b") == (Code.CONDITION, "second")


MOMENTS = [
    ("context.time.getHours() >= 6 && context.time.getHours() < 20", {"time_ms": NOON}, {"time_ms": NIGHT}),
    ("context.load < 0.9", {"load": 0.8}, {"load": 0.95}),
    ("context.load < 0.9", {"load": 0.8}, {"load": float("nan")}),
    ("context.size <= 1024", {"size": 1024}, {"size": 1025}),
    ('context["ti" + "me"].getHours() > 6', {"time_ms": NOON}, {"time_ms": NIGHT}),
    ('context["\\x6coad"] < 0.9', {"load": 0.8}, {"load": 0.95}),
    ("context.all(name, context[name] != 1025)", {"size": 1024}, {"size": 1025}),
]


@pytest.mark.parametrize(("text", "good", "bad"), MOMENTS)
def test_a_condition_on_the_moment_is_left_to_the_moment(text, good, bad):
    """Whichever way it is written: what is remembered of a profile must not hold an answer about one record."""
    policy = conditional(told=text)
    assert policy.domains[DomainName("notes")].moment
    assert allows(policy, "ann", "produce notes", **good)
    assert denies(policy, "ann", "produce notes", **bad) == (Code.CONDITION, "told")
    asking = (AgentId("ann"), Action.PRODUCE, DomainName("notes"))
    for context in (Context(**good), Context(**bad)):
        constant = decide_constant(*asking, context, policy)
        assert constant.allowed
        assert decide_moment(constant, *asking, context, policy) == decide(*asking, context, policy)


def test_a_condition_without_the_moment_is_decided_once():
    policy = conditional(told='context.purpose == "care"')
    assert not policy.domains[DomainName("notes")].moment
    asking = (AgentId("ann"), Action.PRODUCE, DomainName("notes"))
    for purpose in ("care", ""):
        constant = decide_constant(*asking, Context(purpose=purpose), policy)
        assert constant.allowed is (purpose == "care")
        assert decide_moment(constant, *asking, Context(purpose=purpose), policy) is constant


@pytest.mark.parametrize("time_ms", [2**63 - 1, -(2**63), 253_402_300_800_000])
def test_a_time_beyond_the_calendar_refuses_and_does_not_raise(time_ms):
    policy = conditional(told="context.time.getHours() >= 0")
    assert allows(policy, "ann", "produce notes", time_ms=NOON)
    assert denies(policy, "ann", "produce notes", time_ms=time_ms) == (Code.CONDITION, "told")


# The order of rules.


def test_of_several_refusals_the_first_in_the_rules_order_is_told():
    policy = loaded(
        [
            domain(
                "notes",
                "CLERK",
                "CHIEF",
                tier="FHE",
                produce=["CHIEF"],
                kinds=["TOOL_CALL"],
                tools={"sql.read": ["CHIEF"]},
                label=["internal"],
                when=["early", "stated"],
            )
        ],
        {"ann": "CLERK@north/eu", "cho": "CHIEF@north/eu"},
        tenants=["north", "south"],
        zones=ZONES,
        labels=LABELS,
        roles={"CLERK": {"clearance": "public"}, "CHIEF": {"clearance": "internal"}},
        conditions={"early": "context.time.getHours() < 6", "stated": 'context.purpose != ""'},
    )
    told: dict[str, Any] = {"tenant": "south", "to": "us", "tool": "mail", "labels": ("pii",), "time_ms": NOON}
    mended: list[tuple[str, dict[str, Any]]] = [
        ("tenants", {"tenant": ""}),
        ("zones", {"to": ""}),
        ("notes.produce", {"who": "cho"}),
        ("notes.kinds", {"kind": Kind.TOOL_CALL, "target": "ann"}),
        ("notes.tools", {"tool": "sql.read"}),
        ("notes.label", {"labels": ()}),
        ("notes.label", {"target": "cho"}),
        ("stated", {"purpose": "care"}),
        ("early", {"time_ms": NIGHT}),
        ("notes.tier", {}),
    ]
    who = "ann"
    for rule, mend in mended:
        asking = (AgentId(who), Action.PRODUCE, DomainName("notes"), Context(**told))
        assert decide(*asking, policy).rule == rule
        refusals = [each.rule for each in findings(*asking, policy) if each.refusal is not None]
        assert refusals[0] == rule
        assert refusals[-1] == "notes.tier"
        who, told = mend.pop("who", who), {**told, **mend}


WHERE = [
    ("retriever-1", "produce agent_memory", {"tenant": "accounting"}, "tenants", "tenants:"),
    ("executor-2", "produce pii_inference", {"to": "us"}, "zones", "zones:"),
    ("executor-2", "produce coordination", {"to": "us", "labels": ("pii",)}, "eu-status.forbid", "{id: eu-status"),
    ("orchestrator-1", "produce agent_memory", {}, "agent_memory.produce", "produce: [RETRIEVER]"),
    ("executor-1", "produce pii_inference", {"tool": "mail.send"}, "pii_inference.tools", "mail.send: []"),
    ("retriever-1", "produce agent_memory", {"labels": ("pci",)}, "agent_memory.label", "label: [confidential]"),
    ("executor-1", "produce pii_inference", {}, "stated-purpose", "stated-purpose: context"),
    ("executor-1", "produce coordination", {"load": 0.99}, "not-overloaded", "not-overloaded: context"),
    ("analyst-1", "consume financial_models", {}, "financial_models.tier", "tier: FHE"),
]


@pytest.mark.parametrize(("who", "what", "context", "rule", "line"), WHERE, ids=[each[3] for each in WHERE])
def test_a_refusal_names_the_line_on_which_its_rule_is_written(who, what, context, rule, line):
    decision = asked(load_policy(EXAMPLE), who, what, **context)
    assert (decision.allowed, decision.rule) == (False, rule)
    file, _, number = decision.location.partition(":")
    assert file == "mesh.yaml"
    assert line in (EXAMPLE / file).read_text(encoding="utf-8").splitlines()[int(number) - 1]


def test_findings_and_decision_agree_over_the_example():
    policy = load_policy(EXAMPLE)
    contexts = [
        Context(kind=kind, target=target, tool=tool, labels=labels, to=to, purpose=purpose, time_ms=time_ms, load=0.2)
        for kind, target in ((Kind.MESSAGE, ""), (Kind.TOOL_CALL, ""), (Kind.TOOL_CALL, "executor-2"))
        for tool in ("", "sql.read", "mail.send")
        for labels in ((), ("pii",), ("restricted",), ("unheard-of",))
        for to in ("", "us", "eu")
        for purpose, time_ms in (("care", NOON), ("", NOON), ("care", NIGHT))
    ]
    seen = set()
    for who, action, name, context in itertools.product(policy.agents, Action, policy.domains, contexts):
        decision = decide(who, action, name, context, policy)
        refusals = [each for each in findings(who, action, name, context, policy) if each.refusal is not None]
        seen.add(decision.rule)
        if decision.allowed:
            assert refusals == []
        else:
            first = refusals[0]
            assert (first.refusal, first.rule, first.location, first.why) == (
                (decision.code, decision.rule, decision.location, decision.why)
            )
    assert seen >= {"tenants", "zones", "eu-status.forbid", "eu-status.max_label", "agent_memory.label"}
    assert seen >= {"pii_inference.tools", "stated-purpose", "office-hours", "financial_models.tier"}
    assert seen >= {f"{name}.{action}" for name in policy.domains for action in Action}


@pytest.mark.parametrize(("who", "name"), [("nobody", "notes"), ("ann", "nothing"), ("nobody", "nothing")])
def test_who_or_what_is_unknown_is_the_only_finding(who, name):
    asking = (AgentId(who), Action.PRODUCE, DomainName(name), Context())
    decision = decide(*asking, TWO_TENANTS)
    assert (decision.allowed, decision.code, decision.rule) == (False, Code.PRODUCE, f"{name}.produce")
    assert [(each.refusal, each.rule) for each in findings(*asking, TWO_TENANTS)] == [(decision.code, decision.rule)]
    assert decide_moment(decision, *asking, TWO_TENANTS) is decision


def test_obligations_name_what_the_domain_asks_for():
    policy = loaded(
        [
            domain(
                "notes", "CLERK", metadata_masking=True, masks=["few"], guardrails=["keys"], label=["internal", "pii"]
            )
        ],
        {"ann": "CLERK"},
        labels=LABELS,
        roles=CLEARED,
        masks={"few": {"keep": ["locale"]}},
        guardrails={"keys": {"detect": ["API_KEY"], "then": "deny"}},
    )
    told = asked(policy, "ann", "produce notes", labels=("secret",)).obligations
    assert (told.tier, told.mask_metadata, told.audit_full) == (Tier.RETRIEVAL, True, True)
    assert (told.masks, told.guardrails, told.label) == (("few",), ("keys",), ("secret", "pii"))
    assert told.names() == ("tier:RETRIEVAL", "roles:CLERK", "masked", "label:secret+pii", "few", "keys")
