"""Warnings: each on what deserves it and at its place, none on what does not."""

from __future__ import annotations

import pytest

from bus.policy.casefile import CASES_FILE, CasesFile, read_cases
from bus.policy.lint import lint, lint_cases
from bus.policy.loader import load_policy, validate
from tests.unit.law_files import EXAMPLE, changed, line_of, read

ROW = "RETRIEVAL, allowed_roles: [ORCHESTRATOR, EXECUTOR]"


def told(folder):
    return {str(each) for each in lint(load_policy(folder))}


def test_the_example_is_warned_of_what_it_is_and_of_nothing_else():
    output_only = "coordination is OUTPUT_ONLY: its ALLOW hops keep no purpose, causation, labels or facts"
    assert told(EXAMPLE) == {
        f"{line_of('name: coordination')}: {output_only}",
        f"{line_of('tier: FHE')}: financial_models is FHE and has no rate limit of at most one a second",
        f"{line_of('produce: [LEAD_ANALYST]')}: no agent may write financial_models",
    }


@pytest.mark.parametrize(
    ("change", "warning"),
    [
        ((ROW, "RETRIEVAL, consume: [], allowed_roles: [ORCHESTRATOR, EXECUTOR]"), "no agent may read coordination"),
        (("when: [not-overloaded]", "when: []"), "not-overloaded is in conditions and no domain names it"),
        (("masks: [topology, contact]", "masks: [topology]"), "contact is in masks and no domain names it"),
        (
            ("    LEAD_ANALYST:", "    IDLE: {clearance: restricted}\n    LEAD_ANALYST:"),
            "role IDLE may do nothing anywhere",
        ),
        (
            ("  conditions:", "  rate_limits: {n: {per: agent, rate: 1/s, burst: 4}}\n  conditions:"),
            "n is in rate_limits",
        ),
    ],
    ids=["reader", "condition", "mask", "role", "rate"],
)
def test_what_is_probably_not_meant_is_told_with_its_line(tmp_path, change, warning):
    found = told(changed(tmp_path / "law", change)) - told(EXAMPLE)
    assert len([each for each in found if warning in each and each.startswith("mesh.yaml:")]) == 1


def test_a_rate_makes_fhe_bearable(tmp_path):
    limit = "  rate_limits: {n: {per: agent, rate: 4/s, burst: 4}}\n  conditions:"
    folder = changed(
        tmp_path / "law",
        ("  conditions:", limit),
        ("produce: [LEAD_ANALYST],", "produce: [LEAD_ANALYST], rate_limit: n,"),
    )
    assert not any("FHE" in each for each in told(folder))


@pytest.mark.parametrize(
    ("rate", "more", "warning"),
    [
        ("max_bytes: 256KiB", "", "financial_models is FHE and takes 262144 bytes: one encrypted column has 410000"),
        (
            "max_bytes: 4MiB",
            "kinds: [MESSAGE, RPC_REQUEST],",
            "is FHE and takes RPC_REQUEST: single values cost as much",
        ),
    ],
)
def test_fhe_of_small_batches_is_told(tmp_path, rate, more, warning):
    limit = f"  rate_limits: {{n: {{per: agent, rate: 4/s, burst: 4, {rate}}}}}\n  conditions:"
    told_of = changed(
        tmp_path / "law",
        ("  conditions:", limit),
        ("produce: [LEAD_ANALYST],", f"produce: [LEAD_ANALYST], {more} rate_limit: n,"),
    )
    assert [each for each in told(told_of) if "FHE" in each and warning in each]


def test_cases_are_told_what_they_leave_out():
    policy = load_policy(EXAMPLE)
    document = read_cases(EXAMPLE / CASES_FILE)
    assert list(lint_cases(policy, document, validate(document, CasesFile))) == []
    one = "base: {who: executor-1, load: 0.1}\ncases: [{name: a, do: produce coordination, expect: ALLOW}]\n"
    found = {str(each) for each in lint_cases(policy, *read(one))}
    assert f"{line_of('not-overloaded: context')}: not-overloaded is true in every case" in found
    assert "no case is decided by tenants" in found
    assert "no case is decided by coordination.produce" not in found
