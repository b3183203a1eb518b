"""`protect_at` and `fhe_context` in policy files: what goes with them, what does not, what `plan` says of a change."""

from dataclasses import replace

import pytest

from bus.codes import Code
from bus.errors import PolicyError
from bus.policy.diff import access_changes
from bus.wire.names import DomainName, Tier
from tests.unit.law_build import denies, from_text, loaded
from tests.unit.law_build import domain as law_domain
from tests.unit.test_policy_checks import AGENTS, MESH

DIGEST = "ab" * 32
BARE = MESH.replace("      masks: [few]\n      guardrails: [no-pii]\n", "")


def law(more, text=BARE):
    """The law with ``more`` in its one domain, which is of another tier where that is told."""
    tier = more.pop("tier", "RETRIEVAL")
    lines = "".join(f"      {key}: {value}\n" for key, value in more.items())
    return text.replace("      tier: RETRIEVAL\n", f"      tier: {tier}\n{lines}")


def domain(**more):
    return from_text(law(more), AGENTS).domains[DomainName("notes")]


def test_what_is_written_is_what_holds():
    assert not domain().at_source
    assert domain(protect_at="source").at_source
    assert not domain(protect_at="enforcer").at_source
    made = domain(tier="FHE", protect_at="source", fhe_context=DIGEST)
    assert (made.fhe_context.hex(), made.protectable) == (DIGEST, True)
    assert domain(tier="COMPUTATION", protect_at="source").protectable
    for more in ({"protect_at": "enforcer"}, {"protect_at": "source", "computation": "mpc"}, {"computation": "mpc"}):
        assert not domain(tier="COMPUTATION", **more).protectable


@pytest.mark.parametrize(
    ("tier", "at_source", "protectable"),
    [("PLAINTEXT", False, True), ("RETRIEVAL", False, True), ("COMPUTATION", True, True), ("FHE", True, False)],
)
def test_a_tier_that_computes_protects_at_the_source_unless_told(tier, at_source, protectable):
    made = loaded([law_domain("notes", "CLERK", tier=tier)], {"ann": "CLERK"}).domains[DomainName("notes")]
    assert (made.at_source, made.protectable) == (at_source, protectable)
    assert "protect_at" not in made.locations


def test_a_context_is_all_that_fhe_has_to_be_told():
    made = domain(tier="FHE", fhe_context=DIGEST)
    assert (made.at_source, made.protectable) == (True, True)


@pytest.mark.parametrize("more", [{"tier": "COMPUTATION"}, {"tier": "FHE", "fhe_context": DIGEST}])
def test_a_tier_that_computes_is_not_available_at_the_enforcer(more):
    policy = loaded([law_domain("notes", "CLERK", protect_at="enforcer", **more)], {"ann": "CLERK"})
    for what in ("produce notes", "consume notes"):
        assert denies(policy, "ann", what) == (Code.TIER_UNAVAILABLE, "notes.tier")


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"protect_at": "broker"}, "protect_at: expected 'source' or 'enforcer', found 'broker'"),
        ({"fhe_context": DIGEST}, "fhe_context: expected a domain of tier FHE, found RETRIEVAL"),
        ({"tier": "FHE", "fhe_context": "AB" * 32}, "fhe_context: "),
        ({"tier": "FHE", "fhe_context": "ab"}, "fhe_context: "),
        ({"protect_at": "source", "blind_index": "[id]"}, "blind_index: no enforcer sees payloads"),
        ({"tier": "PLAINTEXT", "protect_at": "source"}, "protect_at: a domain of tier PLAINTEXT protects nothing"),
    ],
)
def test_what_does_not_go_together_is_refused_at_its_place(more, why):
    with pytest.raises(PolicyError) as refused:
        from_text(law(more), AGENTS)
    assert why in str(refused.value)
    assert refused.value.line > 0


GUARDED = MESH.replace("      masks: [few]\n", "")


@pytest.mark.parametrize(
    ("more", "text", "why"),
    [
        ({}, GUARDED, None),
        ({}, BARE + "      masks: [few]\n", None),
        ({}, BARE.replace("drop: [note]", "drop: [payload.note]") + "      masks: [few]\n", None),
        ({}, BARE.replace("drop: [note]", "hash: [payload.note]") + "      masks: [few]\n", "masks: few looks into"),
        ({}, GUARDED.replace("then: redact", "then: flag"), "guardrails: no-pii looks into payloads, where a source"),
        ({"tier": "FHE", "fhe_context": DIGEST}, GUARDED, "guardrails: no-pii looks into payloads that are encrypted"),
        (
            {"tier": "FHE", "fhe_context": DIGEST},
            GUARDED.replace("{detect: [EMAIL],", "{detect: [EMAIL], on: [metadata],"),
            None,
        ),
    ],
)
def test_rules_that_look_into_payloads_are_those_that_a_source_can_keep(more, text, why):
    if why is None:
        assert from_text(law({"protect_at": "source", **more}, text), AGENTS).domains[DomainName("notes")].at_source
    else:
        with pytest.raises(PolicyError, match=why):
            from_text(law({"protect_at": "source", **more}, text), AGENTS)


@pytest.mark.parametrize(
    ("more", "text", "why"),
    [
        (
            {"tier": "COMPUTATION"},
            BARE.replace("drop: [note]", "hash: [payload.note]") + "      masks: [few]\n",
            "masks: few looks into",
        ),
        ({"tier": "COMPUTATION"}, GUARDED.replace("then: redact", "then: flag"), "guardrails: no-pii looks into"),
        ({"tier": "FHE", "fhe_context": DIGEST}, GUARDED, "guardrails: no-pii looks into payloads that are encrypted"),
    ],
)
def test_they_are_refused_where_the_source_protects_without_being_told(more, text, why):
    with pytest.raises(PolicyError, match=why):
        from_text(law({**more}, text), AGENTS)
    told = from_text(law({**more, "protect_at": "enforcer"}, text), AGENTS)
    assert not told.domains[DomainName("notes")].protectable


@pytest.mark.parametrize("more", [{"tier": "FHE"}, {"tier": "COMPUTATION", "computation": "mpc"}])
def test_they_may_stand_where_no_payload_gets_to_yet_unless_protection_is_told(more):
    assert not from_text(law({**more}, GUARDED), AGENTS).domains[DomainName("notes")].protectable
    with pytest.raises(PolicyError, match="guardrails: no-pii looks into payloads that are encrypted"):
        from_text(law({**more, "protect_at": "source"}, GUARDED), AGENTS)


@pytest.mark.parametrize(
    ("before", "after", "line", "widens"),
    [
        ({}, {"at_source": True}, "notes protect_at enforcer -> source", False),
        ({"at_source": True}, {}, "notes protect_at source -> enforcer", True),
        (
            {"tier": Tier.FHE, "fhe_context": b"\1" * 32},
            {"tier": Tier.FHE, "fhe_context": b"\2" * 32},
            "notes fhe_context 010101010101 -> 020202020202",
            True,
        ),
    ],
)
def test_a_plan_says_what_changes_and_whether_more_can_be_seen(before, after, line, widens):
    policy = from_text(BARE, AGENTS)
    made = [
        replace(policy, domains={name: replace(each, **changes) for name, each in policy.domains.items()})
        for changes in (before, after)
    ]
    found = {each.text: each.widens for each in access_changes(*made)}
    assert found == {line: widens}
