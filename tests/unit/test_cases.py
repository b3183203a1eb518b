"""Cases are run as the file says: base and differences, doubles, cells, searches; a failure says where and why.

Decisions are expected by hand from policies/example/mesh.yaml; the PDP itself is tested elsewhere.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from bus.codes import Code
from bus.errors import PolicyError
from bus.policy.cases import rules_of
from bus.policy.loader import load_policy
from tests.unit.law_files import EXAMPLE, FIRST, HEAD, LAW, POLICIES, changed, line_of, one, results

# Word for word from the design of the language.
DESIGN = """\
agents:                                            # test doubles; the real ones stand in agents.yaml
  ret: {role: RETRIEVER, tenant: hr, zone: us}
  exe: {role: EXECUTOR, tenant: hr, zone: us, attested: true}
  ana: {role: ANALYST, tenant: hr, zone: us, attested: true}
base: {who: exe, tenant: hr, purpose: care, time: "2026-03-02T10:00:00Z", load: 0.2, labels: []}
cases:                                             # a case differs from base only in what it names
  - {name: retriever stores a note, who: ret, do: produce agent_memory, expect: ALLOW, obligations: [topology, contact]}
  - {name: executor may not write memory, do: produce agent_memory, expect: DENY, rule: agent_memory.produce}
  - {name: other tenant, who: ret, tenant: accounting, do: produce agent_memory, expect: DENY, rule: tenants}
  - {name: no purpose, purpose: "", tool: sql.read, do: produce pii_inference, expect: DENY, rule: stated-purpose}
  - {name: mail is nobody's, tool: mail.send, do: produce pii_inference, expect: DENY, rule: pii_inference.tools}
  - {name: pii stays in the EU, zone: eu, to: us, labels: [pii], do: produce coordination, expect: DENY, rule: eu-status.forbid}
matrix:                                            # one case per cell; every failing cell is printed
  - {name: only analysts read models, who: all, except: [ana], do: [consume financial_models], expect: DENY}
never:                                             # searched over agents x kinds x labels x flows; prints a counterexample
  - {name: restricted data leaves no zone, labels: [restricted], crosses: zones}
"""  # noqa: E501


def test_the_cases_of_the_design_hold_on_the_example():
    told = results(DESIGN)
    assert [each.failure for each in told] == [""] * 9
    assert [each.name for each in told[6:]] == [
        "only analysts read models: exe, consume financial_models",
        "only analysts read models: ret, consume financial_models",
        "restricted data leaves no zone",
    ]


def test_the_examples_own_file_has_the_designs_doubles_base_cases_and_search():
    held = (EXAMPLE / "cases.yaml").read_text().splitlines()
    assert [line for line in DESIGN.splitlines() if line not in held] == [
        "  - {name: only analysts read models, who: all, except: [ana], do: [consume financial_models], expect: DENY}"
    ]  # there are more analysts in the file


def test_a_failure_says_what_was_expected_and_which_rule_decided_where():
    told = one("who: ret, do: produce coordination, expect: ALLOW")
    assert told.location == f"cases.yaml:{FIRST}"
    assert told.failure == (
        f"expected ALLOW, found DENY by coordination.produce ({line_of('name: coordination')}): "
        "RETRIEVER not in [EXECUTOR, ORCHESTRATOR]"
    )
    assert one("do: produce coordination, expect: DENY").failure.startswith(
        "expected DENY, found ALLOW by coordination"
    )
    wrong = one("who: ret, do: produce coordination, expect: DENY, rule: tenants").failure
    assert wrong.startswith("expected rule tenants, found DENY by coordination.produce (mesh.yaml:")


# Base and differences.


@pytest.mark.parametrize(
    ("base", "case", "rule"),
    [
        ("load: 0.95", "do: produce coordination, expect: DENY", "not-overloaded"),
        ("load: 0.95", "load: 0.2, do: produce coordination, expect: ALLOW", "coordination.produce"),
        ("load: 0.95", "task_type: incident, do: produce coordination, expect: ALLOW", "coordination.produce"),
        ("labels: [pci]", "do: produce coordination, expect: DENY", "coordination.label"),
        ("labels: [pci]", "labels: [], do: produce coordination, expect: ALLOW", "coordination.produce"),
        ("purpose: care", 'purpose: "", do: produce pii_inference, expect: DENY', "stated-purpose"),
        ("purpose: sales", "do: produce pii_inference, expect: DENY", "stated-purpose"),
        ("tenant: accounting", "do: produce coordination, expect: DENY", "tenants"),
        ("tenant: accounting", "tenant: hr, do: produce coordination, expect: ALLOW", "coordination.produce"),
        ("zone: eu", "do: produce coordination, expect: ALLOW", "coordination.produce"),
        ("who: ret", "do: produce coordination, expect: DENY", "coordination.produce"),
        ("kind: RPC_REQUEST", "do: produce coordination, expect: DENY", "coordination.consume"),
        ("kind: RPC_REQUEST, target: orc", "do: produce coordination, expect: ALLOW", "coordination.produce"),
        ("tool: mail.send", "do: produce pii_inference, expect: DENY", "pii_inference.tools"),
        ("metadata: {a: AKIAIOSFODNN7EXAMPLE}", "do: produce coordination, expect: DENY", "no-keys"),
    ],
)
def test_a_case_has_what_the_base_says_but_for_what_it_names(base, case, rule):
    given = "" if base.startswith("who") else "who: exe, "
    head = HEAD.partition("base:")[0] + f"base: {{{given}{base}}}\n"
    told = one(case, head=head)
    assert (told.failure, told.decision.rule) == ("", rule)


def test_a_label_that_no_policy_has_is_refused_and_that_may_be_a_case():
    assert one("labels: [secret], do: produce coordination, expect: DENY, rule: coordination.label").failure == ""


@pytest.mark.parametrize(
    ("time", "verdict", "rule"),
    [
        ("2026-03-02T10:00:00Z", "ALLOW", "pii_inference.produce"),
        ("2026-03-02T10:00:00", "ALLOW", "pii_inference.produce"),
        ("2026-03-02T21:00:00+02:00", "ALLOW", "pii_inference.produce"),
        ("2026-03-02T22:00:00+02:00", "DENY", "office-hours"),
        ("2026-03-02", "DENY", "office-hours"),
        ("2026-03-02T05:59:59.999Z", "DENY", "office-hours"),
        ("2026-03-02T06:00:00Z", "ALLOW", "pii_inference.produce"),
    ],
)
def test_a_time_is_utc_where_it_names_no_zone(time, verdict, rule):
    told = one(f'time: "{time}", do: produce pii_inference, expect: {verdict}')
    assert (told.failure, told.decision.rule) == ("", rule)


# Doubles.


def test_a_double_has_what_its_roles_inherit():
    head = HEAD.replace("base:", "  lead: {roles: [LEAD_ANALYST], tenant: hr, zone: us}\nbase:")
    for question in ("consume financial_models", "produce financial_models"):
        assert one(f"who: lead, do: {question}, expect: DENY, rule: financial_models.tier", head=head).failure == ""
    assert one("who: lead, do: produce pii_inference, expect: ALLOW", head=head).failure == ""


def test_a_double_may_have_a_role_and_roles_and_stands_in_front_of_an_agent_of_its_name():
    double = "executor-1: {role: RETRIEVER, roles: [ORCHESTRATOR], tenant: hr, zone: us}"
    head = f"agents: {{{double}}}\nbase: {{who: executor-1}}\n"
    assert one("do: produce agent_memory, expect: ALLOW", head=head).failure == ""
    assert one("do: produce coordination, expect: ALLOW", head=head).failure == ""
    assert one("do: produce pii_inference, expect: DENY, rule: pii_inference.produce", head=head).failure == ""


def test_without_doubles_cases_speak_of_the_agents_of_the_policy():
    told = results(
        "cases: [{name: it, who: executor-1, do: produce coordination, expect: ALLOW}]\n"
        "matrix: [{name: all, do: [produce financial_models], expect: DENY}]\n"
    )
    assert [each.failure for each in told] == [""] * 6
    assert [each.name for each in told[1:]] == [f"all: {name}, produce financial_models" for name in sorted(LAW.agents)]


def test_a_double_may_stand_beside_the_agents_of_the_policy():
    assert one("who: ret, target: orchestrator-1, do: produce agent_memory, expect: ALLOW").failure == ""
    assert one("who: retriever-1, do: produce agent_memory, expect: ALLOW").failure == ""


# Cells.


def test_a_matrix_is_a_case_for_every_agent_and_question_but_the_excepted():
    told = results(
        HEAD + "matrix:\n"
        "  - {name: m, who: all, except: [orc], do: [produce coordination, consume coordination], expect: ALLOW}\n"
        "  - {name: n, who: [ret], do: [produce agent_memory], expect: ALLOW, rule: agent_memory.produce}\n"
    )
    assert [(each.name, bool(each.failure), each.location) for each in told] == [
        ("m: exe, produce coordination", False, f"cases.yaml:{FIRST}"),
        ("m: exe, consume coordination", False, f"cases.yaml:{FIRST}"),
        ("m: ret, produce coordination", True, f"cases.yaml:{FIRST}"),
        ("m: ret, consume coordination", True, f"cases.yaml:{FIRST}"),
        ("n: ret, produce agent_memory", False, f"cases.yaml:{FIRST + 1}"),
    ]


def test_a_matrix_differs_from_the_base_too_and_its_rule_is_looked_at():
    told = results(
        HEAD + "matrix:\n"
        "  - {name: m, who: [exe, orc], load: 0.95, do: [produce coordination], expect: DENY, rule: not-overloaded}\n"
        "  - {name: n, who: [exe], load: 0.95, do: [produce coordination], expect: DENY, rule: tenants}\n"
    )
    assert [each.failure for each in told[:2]] == ["", ""]
    assert told[2].failure.startswith("expected rule tenants, found DENY by not-overloaded")


# Obligations, findings, labels.


def test_obligations_that_are_missing_are_named_with_those_there_are():
    asked = "who: ret, do: produce agent_memory, expect: ALLOW, obligations:"
    assert one(f"{asked} [masked, 'tier:RETRIEVAL', topology, contact, no-keys]").failure == ""
    assert one(f"{asked} ['roles:ORCHESTRATOR@hr/us,RETRIEVER@hr/us', 'label:confidential']").failure == ""
    told = one(f"{asked} [topology, no-pii]").failure
    assert told.startswith("expected obligations ['no-pii'], found ['tier:RETRIEVAL', ")
    assert (
        one("who: ret, target: orc, do: produce agent_memory, expect: ALLOW, obligations: ['target:orc']").failure == ""
    )


def test_what_guardrails_find_in_the_payload_is_looked_at():
    asked = "do: produce coordination, expect: ALLOW, redacts:"
    assert one(f"payload: {{to: joe@example.com}}, {asked} [EMAIL]").failure == ""
    assert one(f"payload: [{{deep: [joe@example.com]}}, 078-05-1120], {asked} [EMAIL, SSN]").failure == ""
    absent = one(f"payload: {{to: joe@example.com}}, {asked} [EMAIL, SSN]")
    assert absent.failure == "expected findings ['SSN'], found ['EMAIL']"
    assert one(f"{asked} [EMAIL]").failure == "expected findings ['EMAIL'], found []"


@pytest.mark.parametrize(
    ("case", "rule"),
    [
        ("payload: {env: AKIAIOSFODNN7EXAMPLE}, do: produce coordination, expect: DENY", "no-keys"),
        ("metadata: {via: AKIAIOSFODNN7EXAMPLE}, do: produce coordination, expect: DENY", "no-keys"),
        ("payload: AKIAIOSFODNN7EXAMPLE, who: ret, do: produce agent_memory, expect: DENY", "no-keys"),
        ("payload: {env: AKIAIOSFODNN7EXAMPLE}, do: consume coordination, expect: ALLOW", "coordination.consume"),
        ("payload: {env: nothing}, metadata: {a: b}, do: produce coordination, expect: ALLOW", "coordination.produce"),
        ("payload: AKIAIOSFODNN7EXAMPLE, load: 0.95, do: produce coordination, expect: DENY", "not-overloaded"),
        ('payload: \'{"a": 1, "a": 2}\', do: produce coordination, expect: DENY', "no-pii"),
    ],
)
def test_a_guardrail_refuses_what_was_allowed_until_then(case, rule):
    told = one(case)
    assert (told.failure, told.decision.rule) == ("", rule)
    if rule.startswith("no-"):
        assert told.decision.location == line_of(f"    {rule}:")


def test_the_code_of_a_guardrails_refusal_is_the_guardrails():
    told = one("payload: {env: AKIAIOSFODNN7EXAMPLE}, do: produce coordination, expect: DENY, rule: no-keys")
    assert told.decision.code is Code.GUARDRAIL


def test_guardrails_look_at_the_metadata_first_as_the_enforcer_does(tmp_path):
    policy = load_policy(changed(tmp_path / "law", ("on: [payload], then: redact", "on: [payload], then: deny")))
    case = "payload: joe@example.com, metadata: {a: AKIAIOSFODNN7EXAMPLE}, do: produce coordination, expect: DENY"
    assert one(case, policy).decision.rule == "no-keys"


def test_the_label_of_a_record_is_the_domains_with_what_it_builds_on():
    for labels, expected in (("[]", "[internal]"), ("[pii]", "[pii, internal]"), ("[confidential]", "[confidential]")):
        asked = f"labels: {labels}, do: produce coordination, expect: ALLOW"
        assert one(f"{asked}, label: {expected}").failure == ""
        wrong = one(f"{asked}, label: [public]")
        assert wrong.failure.startswith("expected label ['public'], found ['")
    for more in ("expect: ALLOW", 'purpose: "", expect: DENY'):
        assert one(f"do: produce pii_inference, label: [confidential, pii], {more}").failure == ""


def test_the_label_of_a_record_counts_what_the_base_builds_on():
    head = HEAD.replace("labels: []", "labels: [pii]")
    told = one(
        "do: produce coordination, expect: ALLOW, label: [internal, pii], obligations: ['label:internal+pii']",
        head=head,
    )
    assert told.failure == ""


def test_the_label_of_a_record_is_lowered_by_a_declassifier():
    case = "who: orc, labels: [confidential, pii], do: produce coordination, expect: ALLOW"
    assert one(f"{case}, obligations: ['label:internal']").failure == ""
    assert one(f"{case}, label: [internal]").failure == ""
    assert one("labels: [confidential], do: produce coordination, expect: ALLOW, label: [confidential]").failure == ""


# Zone, tenant, to.


@pytest.mark.parametrize(
    ("case", "verdict", "rule"),
    [
        ("who: exe", "ALLOW", "coordination.produce"),
        ("tenant: accounting", "DENY", "tenants"),
        ("to: us", "ALLOW", "coordination.produce"),
        ("to: eu", "DENY", "zones"),
        ("zone: eu, to: us", "ALLOW", "coordination.produce"),
        ("zone: eu", "ALLOW", "coordination.produce"),
        ("zone: eu, to: eu, labels: [pii]", "ALLOW", "coordination.produce"),
        ("zone: eu, to: us, labels: [pii]", "DENY", "eu-status.forbid"),
        ("zone: eu, to: us, labels: [confidential]", "DENY", "eu-status.max_label"),
        ("zone: eu, target: orc", "ALLOW", "coordination.produce"),
        ("zone: eu, target: orc, labels: [pii]", "DENY", "eu-status.forbid"),
        ("target: executor-2", "DENY", "zones"),
        ("zone: eu, target: executor-2", "ALLOW", "coordination.produce"),
        ('zone: ""', "DENY", "zones"),
    ],
)
def test_where_a_record_goes(case, verdict, rule):
    told = one(f"{case}, do: produce coordination, expect: {verdict}, rule: {rule}")
    assert told.failure == ""


# Never.


def never(text: str, policy=LAW) -> str:
    (told,) = results(f"{HEAD}  # one line\nnever:\n  - {{name: it, {text}}}\n", policy)
    assert told.location == f"cases.yaml:{FIRST + 1}"
    return told.failure


def with_orc(where: str) -> str:
    """HEAD with an orchestrator elsewhere."""
    return HEAD.replace("orc: {role: ORCHESTRATOR, tenant: hr, zone: us}", f"orc: {{role: ORCHESTRATOR, {where}}}")


@pytest.mark.parametrize("label", ["public", "internal"])
def test_what_crosses_zones_is_found_with_who_how_and_where_to(label):
    search = with_orc("tenant: hr, zone: eu") + f"never: [{{name: it, labels: [{label}], crosses: zones}}]\n"
    (told,) = results(search)
    assert told.failure == "orc may produce coordination as MESSAGE: eu -> us (EXECUTOR@hr/us)"
    assert told.decision.allowed
    (narrowed,) = results(search.replace("crosses", "who: [exe, ret], crosses"))
    assert (narrowed.failure, narrowed.decision) == ("", None)


@pytest.mark.parametrize("label", ["confidential", "restricted", "pii"])
def test_what_the_flow_does_not_let_go_is_searched_in_vain(label):
    search = HEAD.replace("tenant: hr, zone: us}\nbase", "tenant: hr, zone: eu}\nbase")
    search = search.replace(
        "exe: {role: EXECUTOR, tenant: hr, zone: us}", "exe: {role: EXECUTOR, tenant: hr, zone: eu}"
    )
    (told,) = results(search + f"never: [{{name: it, who: [exe], labels: [{label}], crosses: zones}}]\n")
    assert (told.failure, told.decision) == ("", None)


@pytest.mark.parametrize(
    ("border", "orc", "told"),
    [("zones", "tenant: hr, zone: eu", "us -> eu"), ("tenants", "tenant: accounting, zone: us", "hr -> accounting")],
)
def test_what_goes_to_one_agent_over_a_border_is_found_where_nothing_keeps_them_apart(tmp_path, border, orc, told):
    folder = changed(tmp_path / "law", ("label: [internal], g", "kinds: [RPC_REQUEST], label: [internal], g"))
    policy = load_policy(folder)
    search = with_orc(orc) + f"never: [{{name: it, who: [exe], do: [produce coordination], crosses: {border}}}]\n"
    assert results(search, policy)[0].failure == ""
    (found,) = results(search, replace(policy, **{border: frozenset()}))
    assert found.failure == f"exe may produce coordination as RPC_REQUEST to orc: {told}"


def test_without_a_border_the_action_itself_must_be_impossible():
    assert never("who: [exe], do: [produce agent_memory, consume agent_memory]") == ""
    assert (
        never("who: [exe], do: [consume coordination]")
        == "exe may consume coordination as MESSAGE: ALLOW by coordination.consume"
    )
    assert never("labels: [restricted], do: [produce agent_memory, produce coordination]") == ""
    assert never("labels: [pii], do: [produce agent_memory]") == (
        "ret may produce agent_memory as MESSAGE: ALLOW by agent_memory.produce"
    )
    assert never("labels: [pii], do: [consume agent_memory], who: [orc]") == ""


def test_a_search_takes_conditions_and_tiers_to_hold():
    told = never("do: [produce pii_inference]")
    assert told == "exe may produce pii_inference as MESSAGE: ALLOW by pii_inference.produce"
    assert one('purpose: "", do: produce pii_inference, expect: DENY, rule: stated-purpose').failure == ""
    lead = "agents: {lead: {role: LEAD_ANALYST, tenant: hr, zone: us}}\n"
    (found,) = results(f"{lead}never: [{{name: it, do: [produce financial_models]}}]\n")
    assert found.failure == "lead may produce financial_models as MESSAGE: ALLOW by financial_models.produce"
    assert (
        one("who: lead, do: produce financial_models, expect: DENY, rule: financial_models.tier", head=lead).failure
        == ""
    )


def test_a_search_tries_kinds_that_need_a_target(tmp_path):
    policy = load_policy(
        changed(
            tmp_path / "law", ("label: [internal], guardrails", "kinds: [RPC_REQUEST], label: [internal], guardrails")
        )
    )
    told = never("who: [orc], do: [produce coordination]", policy)
    assert told == "orc may produce coordination as RPC_REQUEST to exe: ALLOW by coordination.produce"


def test_without_who_every_double_is_tried_and_without_do_writing_everywhere():
    assert never("who: [ret]") == "ret may produce agent_memory as MESSAGE: ALLOW by agent_memory.produce"
    assert never("labels: []").startswith("exe may produce coordination as MESSAGE")


def test_a_label_that_a_search_cannot_have_is_an_error_at_its_place():
    with pytest.raises(PolicyError) as refused:
        never("labels: [internal, secret]")
    error = refused.value
    assert (error.file, error.line, error.column) == ("cases.yaml", FIRST + 1, 24)
    assert str(error).endswith("labels: expected the policy's, found ['internal', 'secret']")


# Selection and coverage.


def test_only_the_cases_whose_name_holds_the_text_are_told():
    text = (EXAMPLE / "cases.yaml").read_text()
    assert [each.name for each in results(text, only="in the EU")] == [
        "pii stays in the EU",
        "confidential stays in the EU",
    ]
    assert len(results(text, only="orc, produce")) == 4
    assert results(text, only="IN THE EU") == []


def test_the_rules_that_a_case_can_be_decided_by():
    ways = {f"{domain}.{action}" for domain in LAW.domains for action in ("produce", "consume")}
    others = {"tenants", "zones", "eu-status.forbid", "eu-status.max_label", "pii_inference.tools", "no-keys"}
    assert rules_of(LAW) == ways | others | {"stated-purpose", "office-hours", "not-overloaded"}
    published = load_policy(POLICIES)
    assert rules_of(published) == {
        f"{domain}.{action}" for domain in published.domains for action in ("produce", "consume")
    }


def test_rules_are_counted_as_far_as_the_policy_has_them(tmp_path):
    with_kinds = changed(
        tmp_path / "law",
        (", forbid: [pii]", ""),
        ("label: [internal], guardrails", "kinds: [MESSAGE], label: [internal], guardrails"),
        ("on: [payload, metadata], then: deny", "on: [payload, metadata], then: flag"),
        (", when: [not-overloaded]", ""),
    )
    gone = {"eu-status.forbid", "no-keys", "not-overloaded"}
    assert rules_of(load_policy(with_kinds)) == (rules_of(LAW) - gone) | {"coordination.kinds"}


def test_the_example_covers_each_of_its_rules():
    told = results((EXAMPLE / "cases.yaml").read_text())
    assert [each.failure for each in told if each.failure] == []
    assert rules_of(LAW) <= {each.decision.rule for each in told if each.decision is not None}
