"""`bus policy test | explain | who | graph`: what they print, their exit codes, and a place in every failure."""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ET

import pytest

from tests.unit.law_files import EXAMPLE, FIRST, HEAD, LAW, POLICIES, changed, line_of, with_cases

DIGEST = LAW.digest.hex()
MORNING = ("--time", "2026-03-02T10:00:00Z")


# bus policy test


def test_the_examples_cases_hold(run):
    ran = run("policy", "test", EXAMPLE)
    assert (ran.code, ran.err) == (0, "")
    count = int(re.fullmatch(r"(\d+) cases, 0 failed\n", ran.out)[1])
    told = run("policy", "test", EXAMPLE, "--json")
    document = told.document()
    assert (told.code, document["format"]) == (0, "bus.policy-test/1")
    assert len(document["cases"]) == count > 0
    assert document["cases"][0] == {
        "name": "retriever stores a note",
        "location": line_of("retriever stores", file="cases.yaml"),
        "failure": "",
        "rule": "agent_memory.produce",
    }
    assert (document["uncovered"], document["mutants"], document["survivors"]) == ([], 0, [])


def test_each_failing_case_is_told_with_its_place_and_the_rest_is_counted(run, tmp_path):
    folder = changed(
        tmp_path / "law",
        ("name: executor may not write memory, do: produce", "name: '[red]wrong[/]', do: consume"),
        ("rule: agent_memory.produce}", "rule: tenants}"),
        ("do: [consume agent_memory], expect: ALLOW", "do: [consume agent_memory], expect: DENY"),
        file="cases.yaml",
    )
    ran = run("policy", "test", folder)
    assert ran.code == 1
    *failures, last = ran.out.splitlines()
    assert last.endswith(" cases, 3 failed")
    wrong, cells = line_of("[red]wrong", folder, "cases.yaml"), line_of("name: memory is read", folder, "cases.yaml")
    where = line_of("name: agent_memory")
    cell = f"expected DENY, found ALLOW by agent_memory.consume ({where})"
    refused = f"found DENY by agent_memory.consume ({where}): EXECUTOR not in [ORCHESTRATOR, RETRIEVER]"
    assert failures == [
        f"FAIL [red]wrong[/] ({wrong}): expected rule tenants, {refused}",
        f"FAIL memory is read: ret, consume agent_memory ({cells}): {cell}",
        f"FAIL memory is read: orc, consume agent_memory ({cells}): {cell}",
    ]
    told = run("policy", "test", folder, "--json")
    failed = [each for each in told.document()["cases"] if each["failure"]]
    assert told.code == 1
    assert [(each["location"], each["rule"]) for each in failed] == [
        (wrong, "agent_memory.consume"),
        (cells, "agent_memory.consume"),
        (cells, "agent_memory.consume"),
    ]


def test_a_counterexample_is_told_as_a_failure(run, tmp_path):
    folder = with_cases(tmp_path / "law", HEAD + "never:\n  - {name: pii goes nowhere, labels: [pii]}\n")
    ran = run("policy", "test", folder)
    assert ran.code == 1
    assert ran.out.startswith(f"FAIL pii goes nowhere (cases.yaml:{FIRST}): exe may produce coordination as MESSAGE: ")


def test_only_chooses_by_name_and_nothing_chosen_is_a_failure(run):
    ran = run("policy", "test", EXAMPLE, "--only", "other tenant")
    assert (ran.code, ran.out, ran.err) == (0, "1 cases, 0 failed\n", "")
    told = run("policy", "test", EXAMPLE, "--only", "memory", "--json").document()
    assert all("memory" in each["name"] for each in told["cases"])
    nothing = run("policy", "test", EXAMPLE, "--only", "[no] such")
    assert (nothing.code, nothing.out) == (1, "0 cases, 0 failed\n")
    assert nothing.err == "no case has '[no] such' in its name\n"


def test_a_file_without_cases_is_a_failure(run, tmp_path):
    ran = run("policy", "test", with_cases(tmp_path / "law", "cases: []\n"))
    assert (ran.code, ran.err) == (1, "no case stands in cases.yaml\n")
    assert run("policy", "test", tmp_path / "law", "--json").code == 1


def test_rules_that_decide_no_case_are_told_and_are_no_failure(run, tmp_path):
    folder = changed(tmp_path / "law", file="cases.yaml")
    lines = (folder / "cases.yaml").read_text().splitlines(keepends=True)
    (folder / "cases.yaml").write_text("".join(line for line in lines if "rule: office-hours" not in line))
    ran = run("policy", "test", folder)
    assert (ran.code, ran.out.splitlines()[0]) == (0, "no case is decided by: office-hours")
    assert run("policy", "test", folder, "--json").document()["uncovered"] == ["office-hours"]
    assert "no case is decided by" not in run("policy", "test", folder, "--only", "memory").out


def test_no_mutant_of_the_example_survives(run):
    told = run("policy", "test", EXAMPLE, "--mutate", "--json")
    document = told.document()
    assert (told.code, document["survivors"]) == (0, [])
    assert document["mutants"] > 0


def test_a_mutant_that_no_case_notices_is_told_with_its_place(run, tmp_path):
    folder = changed(tmp_path / "law", file="cases.yaml")
    lines = (folder / "cases.yaml").read_text().splitlines(keepends=True)
    (folder / "cases.yaml").write_text("".join(line for line in lines if "name: mail is nobody's" not in line))
    ran = run("policy", "test", folder, "--mutate")
    assert ran.code == 1
    survivor = f"SURVIVES pii_inference: mail.send for EXECUTOR ({line_of('mail.send')}): no case notices"
    assert ran.out.splitlines()[0] == survivor
    assert re.fullmatch(r"\d+ cases, 0 failed, \d+ mutants, 1 survive", ran.out.splitlines()[-1])
    assert run("policy", "test", folder).code == 0


def test_survivors_stand_in_the_document(run, tmp_path):
    folder = with_cases(
        tmp_path / "law",
        HEAD
        + "matrix: [{name: all, do: [produce agent_memory, consume agent_memory], expect: DENY, except: [ret, orc]}]",
    )
    told = run("policy", "test", folder, "--mutate", "--json")
    document = told.document()
    assert told.code == 1
    assert {"what": "without tenants", "location": line_of("tenants: [")} in document["survivors"]
    assert "agent_memory: produce with EXECUTOR" not in [each["what"] for each in document["survivors"]]
    assert 0 < len(document["survivors"]) < document["mutants"]


# cases.yaml that does not hold together

CASE = "do: produce coordination, expect: ALLOW"
OF_EXE = "cases: [{name: a, who: exe, do: consume coordination, expect: DENY}]"
NO_PLACE = "agents: {exe: {role: EXECUTOR, tenant: hr, zone: us}}\n"
MALFORMED = {
    "unknown key": (
        f"cases: [{{name: a, {CASE}, rul: x}}]",
        "rul",
        "unknown key 'rul'; expected one of delegated_by, do, expect, ",
    ),
    "unknown key of a double": (
        "agents: {exe: {rol: EXECUTOR}}",
        "rol:",
        "unknown key 'rol'; expected one of attested",
    ),
    "unknown key of the base": (
        "base: {wo: exe}",
        "wo:",
        "unknown key 'wo'; expected one of delegated_by, kind, labels, ",
    ),
    "unknown list": ("case: []", "case:", "unknown key 'case'; expected one of agents, base, cases, matrix, never"),
    "unknown agent": (
        f"{HEAD}cases: [{{name: a, who: nobody, {CASE}}}]",
        "nobody",
        "who: expected an agent, found 'nobody'",
    ),
    "no agent": (f"cases: [{{name: a, {CASE}}}]", "{name", "who: expected an agent, found None"),
    "unknown agent of a matrix": (
        f"{HEAD}matrix: [{{name: a, who: [nobody], do: [produce coordination], expect: DENY}}]",
        "[nobody]",
        "who: expected an agent, found 'nobody'",
    ),
    "unknown agent that is excepted": (
        f"{HEAD}matrix: [{{name: a, except: [nobody, ret, orc], do: [consume agent_memory], expect: DENY}}]",
        "nobody",
        "except: expected",
    ),
    "unknown agent of a search": (f"{HEAD}never: [{{name: a, who: [nobody]}}]", "nobody", "who: expected an agent"),
    "one agent for many": (
        f"{HEAD}matrix: [{{name: a, who: exe, do: [produce coordination], expect: ALLOW}}]",
        "exe, do",
        "who: expected ",
    ),
    "bad time": (f"{HEAD}cases: [{{name: a, time: noon, {CASE}}}]", "noon", "time: expected ISO 8601, found 'noon'"),
    "bad time of the base": (
        f"{NO_PLACE}base: {{who: exe, time: noon}}\ncases: [{{name: a, {CASE}}}]",
        "noon",
        "time: expected ISO 8601, found 'noon'",
    ),
    "a date": (
        f"{HEAD}cases: [{{name: a, time: 2026-03-02T10:00:00Z, {CASE}}}]",
        "2026-03-02T10:00:00Z, do",
        "time: expected text",
    ),
    "a time out of range": (
        f"{HEAD}cases: [{{name: a, time: '9999-12-31T23:59:59-14:00', {CASE}}}]",
        "'9999",
        "time: expected",
    ),
    "bad question": (
        f"{HEAD}cases: [{{name: a, do: write coordination, expect: ALLOW}}]",
        "write",
        "do: expected .*produce.*consume.*, found 'write coordination'",
    ),
    "question without a domain": (
        f"{HEAD}cases: [{{name: a, do: produce, expect: ALLOW}}]",
        "produce, expect",
        "do: expected",
    ),
    "unknown domain": (
        f"{HEAD}cases: [{{name: a, do: produce nowhere, expect: DENY}}]",
        "produce nowhere",
        "do: .*nowhere",
    ),
    "unknown domain with a label": (
        f"{HEAD}cases: [{{name: a, do: produce nowhere, expect: DENY, label: [pii]}}]",
        "produce nowhere",
        "do: .*nowhere",
    ),
    "unknown domain of a matrix": (
        f"{HEAD}matrix: [{{name: a, do: [produce nowhere], expect: DENY}}]",
        "produce nowhere",
        "do: .*nowhere",
    ),
    "unknown domain of a search": (
        f"{HEAD}never: [{{name: a, do: [produce nowhere]}}]",
        "produce nowhere",
        "do: .*nowhere",
    ),
    "unknown label of a search": (
        f"{HEAD}never: [{{name: a, labels: [secret]}}]",
        "[secret]",
        re.escape("labels: expected the policy's, found ['secret']"),
    ),
    "unknown role of a double": (
        f"agents: {{exe: {{role: EXECUTER, tenant: hr, zone: us}}}}\n{OF_EXE}",
        "EXECUTER",
        "role: expected .*EXECUTOR.*, found 'EXECUTER'",
    ),
    **{
        f"unknown {key}": (
            f"{HEAD}cases: [{{name: a, {key}: nowhere, do: produce pii_inference, expect: DENY}}]",
            "nowhere",
            key,
        )
        for key in ("tenant", "zone", "to")
    },
    **{
        f"unknown {key} of a double": (
            f"agents: {{exe: {{role: EXECUTOR, {key}: nowhere}}}}\n{OF_EXE}",
            "nowhere",
            key,
        )
        for key in ("tenant", "zone")
    },
    "unknown decision": (
        "cases: [{name: a, do: produce coordination, expect: MAYBE}]",
        "MAYBE",
        "expect: expected 'ALLOW' or 'DENY', found 'MAYBE'",
    ),
    "unknown kind": (f"cases: [{{name: a, kind: MEMRY, {CASE}}}]", "MEMRY", "kind: expected 'MESSAGE', "),
    "unknown border": (
        "never: [{name: a, crosses: seas}]",
        "seas",
        "crosses: expected 'zones' or 'tenants', found 'seas'",
    ),
    "text for a number": (f"cases: [{{name: a, load: high, {CASE}}}]", "high", "load: "),
    "a number for text": (f"cases: [{{name: 7, {CASE}}}]", "7", "name: expected text"),
    "no decision": ("cases: [{name: a, do: produce coordination}]", "{name", "expected key 'expect', found none"),
    "no name": (f"cases: [{{{CASE}}}]", "{do", "expected key 'name', found none"),
    "no list": ("cases: {}", "{}", "cases: expected a list, found 'dict'"),
    "no question": ("matrix: [{name: a, do: [], expect: DENY}]", "[]", "do: expected at least 1, found 'list'"),
    "no mapping": ("[]", "[]", "file: expected a mapping, found 'list'"),
    "a payload that JSON does not have": (
        f"{HEAD}cases: [{{name: a, payload: {{born: 1980-01-01}}, {CASE}}}]",
        "1980-01-01",
        "payload|born",
    ),
}


@pytest.mark.parametrize(("text", "at", "told"), MALFORMED.values(), ids=MALFORMED)
def test_cases_that_do_not_hold_together_are_refused_once_at_their_place(run, tmp_path, text, at, told):
    before = text[: text.index(at)]
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    ran = run("policy", "test", with_cases(tmp_path / "law", text + "\n"))
    assert (ran.code, ran.out) == (1, "")
    (error,) = [each for each in ran.err.splitlines() if not each.startswith("bus: hint: ")]
    place = f"bus: error: cases.yaml:{line}:{column}: "
    assert error.startswith(place)
    assert re.match(told, error.removeprefix(place))


def test_the_nearest_key_and_value_are_named(run, tmp_path):
    for text, near in (
        (f"cases: [{{name: a, {CASE}, rul: x}}]\n", "rule"),
        (f"cases: [{{name: a, kind: MEMRY, {CASE}}}]\n", "MEMORY"),
        ("agents: {exe: {rol: EXECUTOR}}\n", "role"),
    ):
        assert run("policy", "test", with_cases(tmp_path / "law", text)).err.endswith(
            f"bus: hint: did you mean {near}?\n"
        )


# Files that are not there or are no YAML, for all four.

COMMANDS = {
    "test": ("policy", "test"),
    "explain": ("policy", "explain", "--agent", "executor-1", "--produce", "coordination"),
    "who": ("policy", "who"),
    "graph": ("policy", "graph"),
}


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_folder_without_a_policy_ends_with_2(run, tmp_path, words):
    for arguments in ((), (tmp_path,)):
        ran = run(*words, *arguments)
        assert (ran.code, ran.out) == (2, "")
        assert "mesh.yaml: cannot be read: No such file or directory" in ran.err


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_a_policy_that_is_no_yaml_ends_with_2_and_one_that_is_refused_with_1(run, tmp_path, words):
    folder = changed(tmp_path / "law", ("  zones:", "  zones: ["))
    ran = run(*words, folder)
    assert (ran.code, ran.out) == (2, "")
    assert re.match(r"bus: error: mesh\.yaml:\d+:\d+: cannot be parsed: ", ran.err)
    folder = changed(tmp_path / "other", ("tier: FHE", "tier: FH"))
    ran = run(*words, folder)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"bus: error: {line_of('tier: FH', folder)}:")


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_the_folder_is_the_settings_where_none_is_named(run, tmp_path, words):
    shutil.copytree(EXAMPLE, tmp_path / "cwd" / "policies")
    assert run(*words) == run(*words, EXAMPLE)
    assert run(*words).code == 0


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
@pytest.mark.parametrize("wrong", ["--nothing", "--agent"])
def test_wrong_usage_ends_with_2(run, words, wrong):
    ran = run(*words, EXAMPLE, wrong)
    assert (ran.code, ran.out) == (2, "")
    assert re.search(f"No such option.*{wrong}|Option '{wrong}' requires an argument", ran.err)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "expected cases.yaml beside mesh.yaml, found none"),
        (b"\xff\xfe\x00", "expected UTF-8"),
        (b"", "expected a mapping, found an empty file"),
        (b"cases: [", "cannot be parsed"),
        (b"cases: &x []\nmatrix: *x\n", "anchors and aliases are not allowed"),
        (b"cases: []\n---\ncases: []\n", "cannot be parsed"),
        (b" " * (1024 * 1024 + 1), "expected at most"),
    ],
    ids=["absent", "no text", "empty", "open", "alias", "two documents", "too large"],
)
def test_cases_that_cannot_be_read_or_parsed_end_with_2(run, tmp_path, content, told):
    folder = changed(tmp_path / "law")
    (folder / "cases.yaml").unlink()
    if content is not None:
        (folder / "cases.yaml").write_bytes(content)
    ran = run("policy", "test", folder)
    assert (ran.code, ran.out) == (2, "")
    assert re.match(r"bus: error: \S*cases\.yaml(:\d+:\d+)?: ", ran.err)
    assert told in ran.err


def test_a_folder_in_the_place_of_cases_ends_with_2(run, tmp_path):
    folder = changed(tmp_path / "law")
    (folder / "cases.yaml").unlink()
    (folder / "cases.yaml").mkdir()
    ran = run("policy", "test", folder)
    assert (ran.code, ran.out) == (2, "")
    assert "cases.yaml: cannot be read: " in ran.err


# bus policy explain


def test_an_allowed_record_is_explained_rule_by_rule_with_its_obligations(run):
    asked = ("policy", "explain", EXAMPLE, "--agent", "executor-1", "--produce", "coordination")
    ran = run(*asked)
    assert (ran.code, ran.err) == (0, "")
    first, *rules, last = ran.out.splitlines()
    assert first == f"ALLOW by coordination.produce ({line_of('name: coordination')})   draft {DIGEST[:12]}"
    condition = 'context.load < 0.9 || context.task_type == "incident"'
    assert rules == [
        f"  yes  tenants               hr = hr ({line_of('tenants: [')})",
        f"  yes  zones                 us -> us, no flow needed ({line_of('zones:  ')})",
        f"  yes  coordination.produce  EXECUTOR in [EXECUTOR, ORCHESTRATOR] ({line_of('name: coordination')})",
        f"  yes  coordination.label    confidential+pii: EXECUTOR ({line_of('label: [internal]')})",
        f"  yes  not-overloaded        {condition} ({line_of('not-overloaded: context')})",
        f"  yes  coordination.tier     RETRIEVAL ({line_of('name: coordination')})",
    ]
    assert last == "obligations: tier:RETRIEVAL, roles:EXECUTOR@hr/us, label:confidential+pii, no-pii, no-keys"
    told = run(*asked, "--json")
    document = told.document()
    assert told.code == 0
    assert (document["format"], document["digest"]) == ("bus.policy-explain/1", DIGEST)
    assert (document["decision"], document["code"], document["rule"]) == ("ALLOW", "", "coordination.produce")
    assert document["obligations"] == last.removeprefix("obligations: ").split(", ")
    assert [each["passes"] for each in document["rules"]] == [True] * 6
    assert (document["roles_that_allow"], document["purposes_that_allow"], document["sharing"]) == ([], [], [])


def test_a_refusal_is_explained_with_what_would_allow_and_who_shares_it(run):
    asked = ("policy", "explain", EXAMPLE, "--agent", "executor-1", "--produce", "agent_memory", "--purpose", "care")
    ran = run(*asked)
    assert (ran.code, ran.err) == (1, "")
    where = line_of("produce: [RETRIEVER]")
    assert ran.out.splitlines()[0] == f"DENY by agent_memory.produce ({where})   draft {DIGEST[:12]}"
    assert f"  NO   agent_memory.produce  EXECUTOR not in [RETRIEVER] ({where})" in ran.out.splitlines()
    assert ran.out.splitlines()[-3:] == [
        "ALLOW if executor-1 also held RETRIEVER",
        "3 other agents share this refusal: analyst-1, executor-2, orchestrator-1",
        "(All rules are shown; the enforcer stops at the first NO.)",
    ]
    told = run(*asked, "--json")
    document = told.document()
    assert told.code == 1
    assert (document["decision"], document["code"], document["obligations"]) == ("DENY", "produce", [])
    assert (document["rule"], document["location"]) == ("agent_memory.produce", where)
    assert document["why"] == "EXECUTOR not in [RETRIEVER]"
    assert document["roles_that_allow"] == ["RETRIEVER"]
    assert document["sharing"] == ["analyst-1", "executor-2", "orchestrator-1"]
    (refused,) = [each for each in document["rules"] if not each["passes"]]
    assert refused == {"rule": "agent_memory.produce", "passes": False, "why": document["why"], "location": where}


@pytest.mark.parametrize(
    ("arguments", "verdict", "rule"),
    [
        (("executor-1", "--produce", "coordination", "--load", "0.95"), "DENY", "not-overloaded"),
        (
            ("executor-1", "--produce", "coordination", "--load", "0.95", "--task-type", "incident"),
            "ALLOW",
            "coordination.produce",
        ),
        (("executor-1", "--produce", "coordination", "--label", "pci", "--label", "pii"), "DENY", "coordination.label"),
        (("executor-1", "--produce", "coordination", "--label", "nothing"), "DENY", "coordination.label"),
        (("executor-1", "--produce", "coordination", "--kind", "RPC_REQUEST"), "DENY", "coordination.consume"),
        (
            ("executor-1", "--produce", "coordination", "--kind", "RPC_REQUEST", "--target", "orchestrator-1"),
            "DENY",
            "coordination.label",
        ),
        (("executor-1", "--produce", "coordination", "--target", "executor-2"), "DENY", "zones"),
        (("executor-2", "--produce", "coordination", "--target", "executor-1"), "DENY", "eu-status.forbid"),
        (("executor-1", "--produce", "pii_inference", *MORNING), "DENY", "stated-purpose"),
        (
            ("executor-1", "--produce", "pii_inference", "--purpose", "care", "--time", "2026-03-02T03:00:00"),
            "DENY",
            "office-hours",
        ),
        (
            ("executor-1", "--produce", "pii_inference", "--purpose", "care", *MORNING),
            "ALLOW",
            "pii_inference.produce",
        ),
        (("analyst-1", "--consume", "financial_models"), "DENY", "financial_models.tier"),
        (("executor-1", "--produce", "pii_inference", "--tool", "mail.send", *MORNING), "DENY", "pii_inference.tools"),
        (("orchestrator-1", "--consume", "agent_memory"), "ALLOW", "agent_memory.consume"),
        (("orchestrator-1", "--consume", "agent_memory", "--label", "pii"), "DENY", "agent_memory.label"),
        (("stranger-1", "--consume", "agent_memory"), "DENY", "agent_memory.consume"),
        (("executor-1", "--produce", "nowhere"), "DENY", "nowhere.produce"),
        (("executor-1", "--produce", "[/] no [where]"), "DENY", "[/] no [where].produce"),
    ],
)
def test_each_option_is_part_of_the_question(run, arguments, verdict, rule):
    ran = run("policy", "explain", EXAMPLE, "--agent", *arguments)
    assert ran.err == ""
    assert ran.out.startswith(f"{verdict} by {rule} (" if "where" not in rule else f"{verdict} by {rule} ")
    assert ran.code == (0 if verdict == "ALLOW" else 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--agent", "executor-1"), "expected one of --produce and --consume"),
        (("--agent", "e", "--produce", "a", "--consume", "b"), "expected one of --produce and --consume"),
        (("--produce", "coordination"), "--agent"),
        (("--agent", "e", "--produce", "a", "--kind", "LETTER"), "LETTER"),
        (("--agent", "e", "--produce", "a", "--time", "noon"), "--time: expected ISO 8601, found 'noon'"),
        (("--agent", "e", "--produce", "a", "--load", "much"), "--load"),
        (("--agent", "e", "--produce", "a", "--size", "1.5"), "--size"),
        (("--agent", "executor-1", "--produce", "coordination", "--time", "9999-12-31T23:59:59-14:00"), "--time"),
    ],
)
def test_a_question_that_is_none_is_wrong_usage(run, arguments, told):
    ran = run("policy", "explain", EXAMPLE, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err


def test_purposes_that_would_allow_are_named_as_plain_text(run, tmp_path):
    condition = ('["care", "billing", "fraud"]', '["care", "[/] of [red]"]')
    open_tier = (("tier: COMPUTATION", "tier: RETRIEVAL"), ("attestation_required: true, tools", "tools"))
    folder = changed(tmp_path / "law", condition, *open_tier)
    ran = run("policy", "explain", folder, "--agent", "executor-1", "--produce", "pii_inference", *MORNING)
    assert (ran.code, ran.err) == (1, "")
    assert "ALLOW with purpose [/] of [red] or care" in ran.out.splitlines()


FLOORS = """\
security_mesh:
  global: {tls_min_version: "1.3", credential_rotation_interval_ms: 600000, audit_scope: FULL_MESH}
  roles:
    HIGH: {clearance: secret}
    LOW: {clearance: internal}
    READER: {clearance: internal}
  labels: {levels: [public, internal, secret], propagate: session}
  domains:
    - {name: notes, tier: RETRIEVAL, allowed_roles: [HIGH, LOW, READER], metadata_masking: true, audit_level: FULL_MESH,
       produce: [HIGH, LOW], consume: [READER, HIGH]}
    - {name: news, tier: RETRIEVAL, allowed_roles: [LOW, READER], metadata_masking: true, audit_level: FULL_MESH}
    - {name: secrets, tier: RETRIEVAL, allowed_roles: [HIGH], metadata_masking: true, audit_level: FULL_MESH,
       label: [secret]}
"""


@pytest.fixture
def floors(tmp_path):
    """A mesh in which HIGH reads secrets, so that all it writes counts as built on them, and LOW does not."""
    (tmp_path / "mesh.yaml").write_text(FLOORS.replace("[READER, HIGH]", "[READER]"))
    (tmp_path / "agents.yaml").write_text(
        "agents:\n  high-1: {role: HIGH}\n  low-1: {role: LOW}\n  reader-1: {role: READER}\n"
    )
    return tmp_path


def explained(run, folder, agent, domain):
    return run("policy", "explain", folder, "--agent", agent, "--produce", domain, "--json").document()


def test_a_writer_counts_as_building_on_what_it_could_have_read(run, floors):
    high = explained(run, floors, "high-1", "notes")
    assert (high["decision"], high["rule"]) == ("DENY", "notes.label")
    assert explained(run, floors, "low-1", "notes")["decision"] == "ALLOW"


def test_agents_that_are_said_to_share_a_refusal_are_refused_when_they_are_asked(run, floors):
    shared = explained(run, floors, "high-1", "notes")
    for other in shared["sharing"]:
        asked = explained(run, floors, other, "notes")
        assert (other, asked["decision"], asked["rule"]) == (other, "DENY", shared["rule"])


def test_a_role_that_is_said_to_allow_does_once_agents_yaml_gives_it(run, floors):
    told = explained(run, floors, "reader-1", "notes")
    assert told["decision"] == "DENY"
    assert told["roles_that_allow"]
    given = (floors / "agents.yaml").read_text()
    for role in told["roles_that_allow"]:
        (floors / "agents.yaml").write_text(
            given.replace("reader-1: {role: READER}", f"reader-1: {{roles: [READER, {role}]}}")
        )
        assert (role, explained(run, floors, "reader-1", "notes")["decision"]) == (role, "ALLOW")


# bus policy who

WHO = {
    "agent_memory": ("RETRIEVAL", ["retriever-1"], ["orchestrator-1", "retriever-1"]),
    "coordination": (
        "RETRIEVAL",
        ["executor-1", "executor-2", "orchestrator-1"],
        ["executor-1", "executor-2", "orchestrator-1"],
    ),
    "financial_models": ("FHE", [], ["analyst-1"]),
    "pii_inference": ("COMPUTATION", *[["analyst-1", "executor-1", "executor-2"]] * 2),
}


def test_writers_and_readers_are_told_by_domain(run):
    ran = run("policy", "who", EXAMPLE)
    assert (ran.code, ran.err) == (0, "")
    lines = []
    for domain, (tier, writers, readers) in WHO.items():
        lines += [
            f"{domain} ({tier})",
            f"  may write: {', '.join(writers) or 'nobody'}",
            f"  may read:  {', '.join(readers)}",
        ]
    assert ran.out.splitlines() == lines
    document = run("policy", "who", EXAMPLE, "--json").document()
    assert (document["format"], document["digest"]) == ("bus.policy-who/1", DIGEST)
    assert {d["domain"]: (d["tier"], d["produce"], d["consume"]) for d in document["domains"]} == WHO


def test_one_agent_or_one_domain_can_be_asked_for(run):
    domain = run("policy", "who", EXAMPLE, "--domain", "agent_memory")
    assert (
        domain.out == "agent_memory (RETRIEVAL)\n  may write: retriever-1\n  may read:  orchestrator-1, retriever-1\n"
    )
    agent = run("policy", "who", EXAMPLE, "--agent", "analyst-1", "--json").document()["domains"]
    assert [(each["domain"], each["produce"], each["consume"]) for each in agent] == [
        ("financial_models", [], ["analyst-1"]),
        ("pii_inference", ["analyst-1"], ["analyst-1"]),
    ]
    both = run("policy", "who", EXAMPLE, "--agent", "orchestrator-1", "--domain", "agent_memory")
    assert (both.code, both.out) == (0, "agent_memory (RETRIEVAL)\n  may write: nobody\n  may read:  orchestrator-1\n")


@pytest.mark.parametrize(
    "arguments",
    [("--agent", "stranger-1"), ("--domain", "nowhere"), ("--agent", "retriever-1", "--domain", "coordination")],
)
def test_nobody_and_nothing_of_a_name_ends_with_1(run, arguments):
    ran = run("policy", "who", EXAMPLE, *arguments)
    assert (ran.code, ran.out, ran.err) == (1, "", "nobody and nothing of that name in the policy\n")
    told = run("policy", "who", EXAMPLE, *arguments, "--json")
    assert (told.code, told.document()["domains"]) == (1, [])


# bus policy graph


@pytest.mark.parametrize("folder", [EXAMPLE, POLICIES], ids=["example", "bundled"])
def test_a_picture_goes_to_stdout_and_nothing_else(run, folder):
    mermaid = run("policy", "graph", folder)
    assert (mermaid.code, mermaid.err) == (0, "")
    assert mermaid.out.startswith("flowchart LR\n")
    assert run("policy", "graph", folder, "--as", "mermaid") == mermaid
    assert run("policy", "graph", folder, "--as", "dot").out.startswith("digraph mesh {\n")
    svg = run("policy", "graph", folder, "--as", "svg")
    assert (svg.code, svg.err) == (0, "")
    assert ET.fromstring(svg.out).tag == "{http://www.w3.org/2000/svg}svg"


def test_a_picture_of_another_kind_is_wrong_usage(run):
    ran = run("policy", "graph", EXAMPLE, "--as", "png")
    assert (ran.code, ran.out) == (2, "")
    assert "png" in ran.err
