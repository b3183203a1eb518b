"""The key `audit_payload` in the policy: where it may stand, what it becomes, what a change of it is."""

from __future__ import annotations

from bus.policy.diff import access_changes
from bus.wire.names import DomainName
from tests.unit.law_build import changed, domain, from_text, loaded, refusal

NOTES = DomainName("notes")
AGENTS = {"writer-1": "WRITER"}
MESH = """\
security_mesh:
  global: {tls_min_version: "1.3", credential_rotation_interval_ms: 600000, audit_scope: FULL_MESH}
  domains:
    - name: notes
      tier: RETRIEVAL
      allowed_roles: [WRITER]
      metadata_masking: true
      audit_level: FULL_MESH
      audit_payload: sealed
"""
WHO = "agents: {writer-1: {role: WRITER}}\n"


def law(**keys):
    return loaded([domain("notes", "WRITER", **keys)], AGENTS)


def test_a_digest_is_all_that_is_kept_unless_the_policy_says_sealed():
    assert law(audit_payload="sealed").domains[NOTES].payload_kept
    assert not law().domains[NOTES].payload_kept
    assert law(audit_payload="digest").document == law().document


def test_sealed_needs_the_full_mesh_and_is_refused_at_its_place():
    assert from_text(MESH, WHO).domains[NOTES].payload_kept
    error = refusal(changed(MESH, "audit_level: FULL_MESH", "audit_level: OUTPUT_ONLY"), WHO)
    assert (error.line, str(error).partition("audit_payload: ")[2]) == (
        9,
        "expected audit_level FULL_MESH for sealed, found OUTPUT_ONLY",
    )
    assert from_text(changed(MESH, "FULL_MESH\n      audit_payload: sealed", "OUTPUT_ONLY"), WHO)
    assert "expected 'digest' or 'sealed'" in str(refusal(changed(MESH, "payload: sealed", "payload: all"), WHO))


def test_both_ways_of_a_change_are_looked_at():
    kept, digest = from_text(MESH, WHO), from_text(changed(MESH, "      audit_payload: sealed\n", ""), WHO)
    assert [(each.text, each.widens) for each in access_changes(digest, kept)] == [
        ("notes audit_payload digest -> sealed", True)
    ]
    assert [(each.text, each.widens) for each in access_changes(kept, digest)] == [
        ("notes audit_payload sealed -> digest", True)
    ]
    assert access_changes(kept, kept) == []
