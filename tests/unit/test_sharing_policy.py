"""`mpc` in policy files: what it comes to, what is refused at its place, what `plan` says of a change."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bus.errors import PolicyError
from bus.policy.diff import access_changes
from bus.policy.rekeying import opening_digest
from bus.wire.names import DomainName
from tests.unit.law_build import from_text

KEYS = [X25519PrivateKey.from_private_bytes(bytes((n,)) * 32).public_key().public_bytes_raw().hex() for n in (1, 2)]
AGENTS = """
agents:
  bank-1: {role: EXECUTOR, zone: eu}
  party-eu: {role: PARTY, zone: eu}
  party-us: {role: PARTY, zone: us}
"""
MESH = f"""
security_mesh:
  global: {{tls_min_version: "1.3", credential_rotation_interval_ms: 600000, audit_scope: FULL_MESH}}
  zones: {{eu: {{}}, us: {{}}}}
  domains:
    - name: stats
      tier: COMPUTATION
      computation: mpc
      protect_at: source
      allowed_roles: [EXECUTOR, PARTY]
      metadata_masking: true
      audit_level: FULL_MESH
      mpc:
        parties:
          party-eu: {{key: "{KEYS[0]}"}}
          party-us: {{key: "{KEYS[1]}"}}
        fields: {{amount: {{min: 0, max: 10.5, bins: 4}}}}
        groups: {{country: [de, fr]}}
        minimum_cohort: 50
        release_to: [PARTY]
"""


def test_what_is_written_is_what_holds():
    domain = from_text(MESH, AGENTS).domains[DomainName("stats")]
    rule = domain.sharing
    assert domain.protectable
    assert [each.name for each in rule.parties] == ["party-eu", "party-us"]
    assert (rule.columns, rule.width, rule.minimum_cohort) == (("amount", "country"), 9, 50)
    assert rule.place("party-us") == 1
    assert rule.place("bank-1") is None
    assert not replace(domain, sharing=None).protectable


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("computation: mpc", "computation: tee", "mpc: expected a domain of tier COMPUTATION with computation: mpc"),
        (KEYS[1], KEYS[0], "key: party-eu has the same"),
        (KEYS[1], "00" * 32, "key: expected an X25519 public key"),
        (KEYS[1], "zz", "key: "),
        ("party-us:", "party-x:", "parties: expected an agent of agents.yaml, or a peer that has it; found 'party-x'"),
        ("party-us:", "bank-1:", "parties: expected another zone than that of party-eu, found"),
        ("max: 10.5", "max: 0", "max: expected more than min (0), found 0"),
        ("max: 10.5", "max: .nan", "max"),
        ("[de, fr]", "[de, de]", "country: a value is given twice"),
        ("country: [de, fr]", "amount: [de, fr]", "groups: amount is a field, too"),
        ("release_to: [PARTY]", "release_to: [NOBODY]", "release_to: expected roles that may consume stats"),
        ("minimum_cohort: 50", "minimum_cohort: 1", "minimum_cohort"),
        ("allowed_roles: [EXECUTOR, PARTY]", "allowed_roles: [EXECUTOR]", "parties: expected one that may consume"),
    ],
)
def test_what_cannot_be_is_refused_at_its_place(before, after, why):
    text = MESH.replace(before, after, 1)
    assert text != MESH
    with pytest.raises(PolicyError) as refused:
        from_text(text, AGENTS)
    assert why in "\n".join([str(refused.value), *getattr(refused.value, "__notes__", [])])
    assert refused.value.line > 0


def test_a_party_of_a_peer_need_not_be_an_agent_here():
    text = MESH.replace(f'party-us: {{key: "{KEYS[1]}"', f'party-x: {{peer: us, key: "{KEYS[1]}"')
    assert from_text(text, AGENTS).domains[DomainName("stats")].sharing.parties[1].peer == "us"


def test_a_change_of_what_is_added_up_widens_and_re_keys():
    live, draft = from_text(MESH, AGENTS), from_text(MESH.replace("minimum_cohort: 50", "minimum_cohort: 40"), AGENTS)
    changes = [each for each in access_changes(live, draft) if " mpc " in each.text]
    assert len(changes) == 1
    assert changes[0].widens
    assert opening_digest(live, DomainName("stats")) != opening_digest(draft, DomainName("stats"))
