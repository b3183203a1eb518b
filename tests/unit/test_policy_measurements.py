"""Accepted measurements: from agents.yaml to the compiled policy, what a change of them widens, and what it re-keys."""

from __future__ import annotations

import json

import pytest

from bus.errors import PolicyError, WireError
from bus.policy.compiling import canonical, compile_policy
from bus.policy.diff import access_changes
from bus.policy.model import Policy
from bus.policy.rekeying import rekeyed
from bus.wire.measurement import parse_measurement
from bus.wire.names import AgentId
from tests.unit.law_build import from_text

MESH = """\
security_mesh:
  global: {tls_min_version: "1.3", credential_rotation_interval_ms: 600000, audit_scope: FULL_MESH}
  domains:
    - {name: vault, tier: RETRIEVAL, allowed_roles: [R, W], produce: [W], consume: [R], metadata_masking: true,
       audit_level: FULL_MESH, attestation_required: true}
    - {name: notes, tier: RETRIEVAL, allowed_roles: [R, W], metadata_masking: true, audit_level: FULL_MESH}
"""
TPM, CODE = "tpm:pcr14:" + "a" * 64, "software:sha256:" + "b" * 64


def law(reader: str, writer: str = "") -> Policy:
    def told(texts: str) -> str:
        return f", measurements: [{texts}]" if texts else ""

    return from_text(MESH, f"agents:\n  ana: {{role: R{told(reader)}}}\n  wim: {{role: W{told(writer)}}}\n")


def test_what_is_accepted_of_an_agent_is_in_its_policy():
    policy = law(f"{TPM}, {CODE}")
    assert policy.agents[AgentId("ana")].measurements == {parse_measurement(TPM), parse_measurement(CODE)}
    assert policy.agents[AgentId("wim")].measurements == frozenset()
    document = json.loads(policy.document)["agents"]
    assert document == {"ana": {"measurements": [CODE, TPM], "roles": ["R"]}, "wim": {"roles": ["W"]}}
    assert law(f"{CODE}, {TPM}").digest == policy.digest


@pytest.mark.parametrize(
    ("texts", "column", "message"),
    [
        (f"{TPM}, {TPM}", 109, "given twice"),
        ("tpm:pcr14:ABC", 33, "expected a measurement that is not zeros, as in software:sha256:HEX"),
        ("snp:" + "0" * 96, 33, "expected a measurement that is not zeros"),
        (f"{CODE}, tpm:pcr23:{'a' * 64}", 115, "expected a measurement"),
        ("7", 33, "expected text"),
    ],
)
def test_what_is_no_measurement_is_refused_at_its_place(texts, column, message):
    with pytest.raises(PolicyError, match=message) as error:
        law(texts)
    assert (error.value.file, error.value.line, error.value.column) == ("agents.yaml", 2, column)


def test_a_document_with_another_text_is_refused():
    document = json.loads(law(TPM).document)
    document["agents"]["ana"]["measurements"] = ["tpm:pcr14:" + "0" * 64]
    with pytest.raises(WireError, match="measurement"):
        compile_policy(canonical(document))


def test_a_measurement_more_widens_and_one_less_does_not():
    (more,) = access_changes(law(TPM), law(f"{TPM}, {CODE}"))
    assert (more.sign, more.text, more.widens) == ("+", f"ana may attest {CODE}", True)
    (less,) = access_changes(law(f"{TPM}, {CODE}"), law(TPM))
    assert (less.sign, less.text, less.widens) == ("-", f"ana may not attest {CODE} any more", False)
    assert {each.widens for each in access_changes(law(TPM), law(CODE))} == {True, False}
    assert access_changes(law(TPM), law(TPM)) == []


def test_it_rekeys_the_domains_that_require_attestation():
    for draft in (law(CODE), law(f"{TPM}, {CODE}"), law(""), law(TPM, CODE)):
        assert rekeyed(law(TPM), draft) == ("vault",)
    assert rekeyed(law(TPM), law(TPM)) == ()
