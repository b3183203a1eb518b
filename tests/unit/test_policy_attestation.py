"""Domains whose keys wait for attestation: who needs them, and the refusal where keys are files."""

from __future__ import annotations

import json
import shutil

import pytest

from bus.errors import PolicyError
from bus.policy.attestation import check_issuing, gated, implied, needed
from bus.policy.loader import load_policy
from bus.settings import Issuing, Settings
from bus.stack.local import Stack
from bus.wire.names import AgentId
from tests.unit.law_build import from_text
from tests.unit.law_files import POLICIES
from tests.unit.test_policy_measurements import CODE, law

VAULT = ["vault"]


@pytest.fixture
def folder(tmp_path):
    """The bundled law, with attestation for a domain that has keys."""
    made = tmp_path / "law"
    shutil.copytree(POLICIES, made)
    text = (made / "mesh.yaml").read_text()
    wanted = 'allowed_roles: ["RETRIEVER", "ORCHESTRATOR"]\n'
    assert wanted in text
    (made / "mesh.yaml").write_text(text.replace(wanted, wanted + "      attestation_required: true\n"))
    return made


def test_who_may_write_or_read_a_gated_domain_needs_to_attest():
    policy = law(CODE)
    assert [each.name for each in gated(policy)] == VAULT
    assert needed(policy, AgentId("ana")) == needed(policy, AgentId("wim")) == VAULT
    assert needed(policy, AgentId("nobody")) == []


def test_files_for_a_gated_domain_are_refused_with_place_and_remedy():
    check_issuing(law(CODE), files=False)
    with pytest.raises(PolicyError) as error:
        check_issuing(law(CODE), files=True)
    assert (error.value.file, error.value.hint.split(",")[0]) == ("mesh.yaml:5", 'issuing = "authority" in bus.toml')


COMPUTING = """\
security_mesh:
  global: {tls_min_version: "1.3", credential_rotation_interval_ms: 600000, audit_scope: FULL_MESH}
  domains:
    - {name: vault, tier: COMPUTATION, allowed_roles: [W], metadata_masking: true, audit_level: FULL_MESH,
       attestation_required: true}
"""
WHO = "agents:\n  wim: {role: W}\n"


def test_files_are_taken_where_its_tier_alone_protects_at_the_source_and_refused_where_that_is_written():
    bare = from_text(COMPUTING, WHO)
    assert ([each.name for each in gated(bare)], implied(bare.domains[VAULT[0]])) == (VAULT, True)
    told = from_text(COMPUTING.replace("COMPUTATION,", "COMPUTATION, protect_at: source,"), WHO)
    assert ([each.name for each in gated(told)], implied(told.domains[VAULT[0]])) == (VAULT, False)
    for policy in (bare, told):
        check_issuing(policy, files=False)
    check_issuing(bare, files=True)
    with pytest.raises(PolicyError, match='vault: expected issuing = "authority"') as error:
        check_issuing(told, files=True)
    assert error.value.file == "mesh.yaml:5"


def test_a_domain_behind_one_that_is_let_by_is_looked_at_too():
    other = COMPUTING[COMPUTING.index("    - ") :].replace("vault, tier: COMPUTATION", "zoo, tier: RETRIEVAL")
    with pytest.raises(PolicyError, match="zoo: expected issuing"):
        check_issuing(from_text(COMPUTING + other, WHO), files=True)


def test_policy_check_refuses_it_and_takes_it_from_an_authority(run, folder, monkeypatch):
    ran = run("policy", "check", folder)
    assert (ran.code, ran.out) == (1, "")
    assert 'mesh.yaml:12: attestation_required: agent_memory: expected issuing = "authority"' in ran.err
    monkeypatch.setenv("BUS_ISSUING", "authority")
    ran = run("policy", "check", folder, "--json")
    assert (ran.code, "agent_memory" in json.loads(ran.out)["domains"]) == (0, True)


def test_the_bundled_law_loads_with_files_and_nobody_has_keys_of_its_gated_domain(run):
    assert run("policy", "check", POLICIES).code == 0
    assert [each.name for each in gated(load_policy(POLICIES))] == ["pii_inference"]


def test_plan_refuses_it_before_it_looks_at_a_broker(tmp_path, folder):
    stack = Stack(Settings(state=tmp_path, policies=folder))
    with pytest.raises(PolicyError, match="attestation_required: agent_memory"):
        stack.plan(stack.load_policy())
    served = Stack(Settings(state=tmp_path, policies=folder, issuing=Issuing.AUTHORITY))
    with pytest.raises(Exception, match="admin") as error:
        served.plan(served.load_policy())
    assert not isinstance(error.value, PolicyError)
