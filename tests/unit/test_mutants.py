"""Mutants: each changes one thing that a rule says; one that no case notices is named with its place."""

from __future__ import annotations

import json
import re

import pytest

from bus.policy.cases import run_cases
from bus.policy.loader import load_policy
from bus.policy.mutants import Mutant, mutants, survivors
from tests.unit.law_files import EXAMPLE, HEAD, LAW, POLICIES, changed, line_of, read

MADE = {each.what: each for each in mutants(LAW)}


def test_every_mutant_is_another_policy_and_each_change_is_made_once():
    assert len({each.policy.digest for each in MADE.values()} | {LAW.digest}) == len(MADE) + 1
    assert len(list(mutants(LAW))) == len(MADE) > 0


@pytest.mark.parametrize(
    ("what", "word"),
    [
        ("agent_memory: produce without RETRIEVER", "produce: [RETRIEVER]"),
        ("agent_memory: consume without ORCHESTRATOR", "name: agent_memory"),
        ("coordination: when without not-overloaded", "when: [not-overloaded]"),
        ("agent_memory: masks without topology", "masks: [topology, contact]"),
        ("coordination: guardrails without no-pii", "guardrails: [no-pii, no-keys]"),
        ("financial_models: label without pci", "label: [restricted, pci]"),
        ("agent_memory: produce with ORCHESTRATOR", "produce: [RETRIEVER]"),
        ("coordination: consume with RETRIEVER", "name: coordination"),
        ("pii_inference: mail.send for EXECUTOR", "mail.send: []"),
        ("eu-status: without max_label", "id: eu-status"),
        ("eu-status: without forbid", "id: eu-status"),
        ("eu-status: without domains", "id: eu-status"),
        ("without tenants", "tenants: [hr, accounting]"),
        ("without zones", "zones:  "),
        ("stated-purpose: always true", "stated-purpose:"),
    ],
)
def test_each_kind_of_mutant_has_its_place(what, word):
    assert MADE[what].location == line_of(word)


def test_a_mutant_of_a_clearance_has_its_place_too():
    assert MADE["ORCHESTRATOR: cleared for everything"].location == line_of("ORCHESTRATOR: {clearance")


def test_a_kind_of_message_can_be_missing(tmp_path):
    folder = changed(tmp_path / "law", ("label: [internal], g", "kinds: [MEMORY, ARTIFACT], label: [internal], g"))
    made = {each.what: each for each in mutants(load_policy(folder))}
    assert made["coordination: kinds without MEMORY"].location == line_of("kinds:", folder)
    (domain,) = [
        each
        for name, each in made["coordination: kinds without MEMORY"].policy.domains.items()
        if name == "coordination"
    ]
    assert domain.kinds == {"ARTIFACT"}


def test_a_mutant_changes_what_it_says_and_nothing_else():
    origin = json.loads(LAW.document)
    for what, change in {
        "agent_memory: produce with ORCHESTRATOR": lambda d: d["domains"]["agent_memory"]["produce"].append(
            "ORCHESTRATOR"
        ),
        "eu-status: without forbid": lambda d: d["flows"][0].pop("forbid"),
        "without tenants": lambda d: d.pop("tenants"),
        "stated-purpose: always true": lambda d: d["conditions"].update({"stated-purpose": "true"}),
        "pii_inference: mail.send for EXECUTOR": lambda d: d["domains"]["pii_inference"]["tools"]["mail.send"].append(
            "EXECUTOR"
        ),
        "coordination: when without not-overloaded": lambda d: d["domains"]["coordination"].pop("when"),
    }.items():
        expected = json.loads(LAW.document)
        change(expected)
        assert expected != origin
        assert json.loads(MADE[what].policy.document) == expected


def test_nobody_is_added_who_was_let_in_before_or_whose_tools_could_not_count():
    assert "financial_models: consume with LEAD_ANALYST" not in MADE  # inherits ANALYST
    assert "agent_memory: produce with RETRIEVER" not in MADE
    assert "ANALYST: cleared for everything" not in MADE  # it is
    assert "pii_inference: mail.send for RETRIEVER" not in MADE
    assert "agent_memory: masks with topology" not in MADE


def test_a_published_policy_has_mutants_of_its_roles_alone():
    made = [each.what for each in mutants(load_policy(POLICIES))]
    assert made
    assert all(re.fullmatch(r"[a-z_]+: (produce|consume) (with|without) [A-Z]+", each) for each in made)


CASES = (
    HEAD
    + """\
cases:
  - {name: no purpose, purpose: "", do: produce pii_inference, expect: DENY, rule: stated-purpose}
  - {name: mail, tool: mail.send, do: produce pii_inference, expect: DENY, rule: pii_inference.tools}
  - {name: pii stays, zone: eu, to: us, labels: [pii], do: produce coordination, expect: DENY, rule: eu-status.forbid}
"""
)
NOTICED = {
    "no purpose": {"stated-purpose: always true", "pii_inference: when without stated-purpose"},
    "mail": {"pii_inference: mail.send for EXECUTOR"},
    "pii stays": {"eu-status: without forbid", "without zones"},
}
"""What each of CASES notices alone, beside what two of them do."""


def left(text: str) -> dict[str, Mutant]:
    found, count = survivors(LAW, *read(text))
    assert count == len(MADE)
    return {each.what: each for each in found}


def test_mutants_survive_but_for_those_that_a_case_notices():
    assert set(MADE) - set(left(CASES)) == {*set().union(*NOTICED.values()), "pii_inference: produce without EXECUTOR"}


@pytest.mark.parametrize("name", NOTICED)
def test_without_its_case_a_rules_mutants_survive_with_their_places(name):
    fewer = left("".join(line for line in CASES.splitlines(keepends=True) if f"name: {name}," not in line))
    assert set(fewer) - set(left(CASES)) == NOTICED[name]
    for what in NOTICED[name]:
        file, line = fewer[what].location.split(":")
        text = (EXAMPLE / file).read_text().splitlines()[int(line) - 1]
        assert re.search("stated-purpose|mail.send|eu-status|zones:", text)


def test_no_case_at_all_notices_nothing():
    assert set(left(HEAD)) == set(MADE)


def test_a_case_that_fails_anyway_notices_nothing():
    failing = HEAD + "cases: [{name: wrong, do: produce coordination, expect: DENY}]\n"
    assert run_cases(LAW, *read(failing))[0].failure
    assert "without tenants" in left(failing)
