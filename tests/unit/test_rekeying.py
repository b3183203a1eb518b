"""Re-keying: what decides who may open a domain changes its digest alone; what does not leaves all as they are."""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.policy.decide import decide
from bus.policy.model import Policy
from bus.policy.question import Action, Context
from bus.policy.rekeying import opening_digest, rekeyed
from bus.wire.names import AgentId, DomainName
from tests.unit.build import WRITER
from tests.unit.law_build import changed, from_text
from tests.unit.test_policy_properties import ALL_LABELS, Law, laws

assert WRITER  # importing tests.unit.build lifts hypothesis's deadline

MESH = """\
security_mesh:
  version: 1
  global: {tls_min_version: "1.3", credential_rotation_interval_ms: 600000, audit_scope: FULL_MESH}
  roles:
    WRITER: {clearance: secret, categories: [pii]}
    READER: {clearance: internal}
    HEAD: {clearance: secret, categories: [pii]}
    IDLE: {clearance: public}
  tenants: [hr, it]
  zones: {eu: {}, us: {}}
  flows:
    - {id: out, from: eu, to: us, domains: [notes], max_label: internal, forbid: [pii]}
  labels: {levels: [public, internal, secret], categories: [pii], propagate: session}
  conditions: {small: context.size < 100}
  masks: {plain: {keep: [locale]}}
  guardrails: {keys: {detect: [API_KEY], on: [payload], then: deny}}
  rate_limits: {slow: {per: agent, rate: 10/h, burst: 5}}
  circuit_breakers: {trip: {per: agent, open_after: 5 refusals in 10m, half_open_after: 5m}}
  domains:
    - {name: notes, tier: RETRIEVAL, allowed_roles: [WRITER, READER, HEAD, IDLE], audit_level: FULL_MESH,
       metadata_masking: true, produce: [WRITER], consume: [READER, HEAD, IDLE], label: [internal]}
    - {name: plans, tier: RETRIEVAL, allowed_roles: [HEAD, WRITER], metadata_masking: true, audit_level: FULL_MESH,
       produce: [HEAD], consume: [WRITER], label: [secret]}
    - {name: board, tier: RETRIEVAL, allowed_roles: [HEAD], metadata_masking: true, audit_level: FULL_MESH}
"""
AGENTS = """\
agents:
  wr-eu: {role: WRITER, tenant: hr, zone: eu}
  re-us: {role: READER, tenant: hr, zone: us}
  re-eu: {role: READER, tenant: hr, zone: eu}
  he-eu: {role: HEAD, tenant: hr, zone: eu}
  id-us: {role: IDLE, tenant: hr, zone: us}
"""
LIVE = from_text(MESH, AGENTS)


def redone(piece: tuple[str, str]) -> list[str]:
    """What is re-keyed where a piece of the law is another."""
    draft = from_text(changed(MESH, *piece), AGENTS)
    assert draft.digest != LIVE.digest
    return list(map(str, rekeyed(LIVE, draft)))


HEADS = "consume: [WRITER], label: [secret]"
NO_KEY_CHANGE = {
    "a rate limit of a domain": (HEADS, f"{HEADS}, rate_limit: slow"),
    "a circuit breaker": (HEADS, f"{HEADS}, circuit_breaker: trip"),
    "a guardrail": (HEADS, f"{HEADS}, guardrails: [keys]"),
    "a mask": (HEADS, f"{HEADS}, masks: [plain]"),
    "a condition": (HEADS, f"{HEADS}, when: [small]"),
    "a kind": (HEADS, f"{HEADS}, kinds: [MESSAGE]"),
    "a tool": (HEADS, f"{HEADS}, tools: {{sql.read: [HEAD]}}"),
    "metadata masking": ("metadata_masking: true", "metadata_masking: false"),
    "the audit level": ("audit_level: FULL_MESH", "audit_level: OUTPUT_ONLY"),
    "a condition's text": ("size < 100", "size < 200"),
    "another line": ("  tenants:", "\n\n  tenants:"),
    "a role that nobody holds": ("    IDLE:", "    NEW: {clearance: secret}\n    IDLE:"),
    "a role that nobody holds, allowed": ("allowed_roles: [HEAD]", "allowed_roles: [HEAD, NEW]"),
    "the clearance of who opens nothing": ("IDLE: {clearance: public}", "IDLE: {clearance: public, categories: [pii]}"),
    "a flow's name": ("id: out", "id: away"),
    "a flow into a zone without readers": (
        "  labels:",
        "    - {id: on, from: eu, to: us, domains: [board]}\n  labels:",
    ),
    "a level above all": ("secret], categories", "secret, highest], categories"),
    "the rotation": ("interval_ms: 600000", "interval_ms: 300000"),
}


@pytest.mark.parametrize("piece", NO_KEY_CHANGE.values(), ids=NO_KEY_CHANGE)
def test_what_decides_on_records_and_not_on_readers_rekeys_nothing(piece):
    assert redone(piece) == []


MESH_CHANGES: dict[str, tuple[tuple[str, str], list[str]]] = {
    "a role may not read": (("consume: [READER, HEAD, IDLE]", "consume: [HEAD, IDLE]"), ["notes"]),
    "a role may read": (("consume: [WRITER], label", "consume: [WRITER, HEAD], label"), ["plans"]),
    "a role may not write": (("produce: [HEAD]", "produce: []"), ["plans"]),
    "a role may write": (("produce: [WRITER]", "produce: [WRITER, HEAD]"), ["notes"]),
    "a tier": (("name: board, tier: RETRIEVAL", "name: board, tier: COMPUTATION"), ["board"]),
    "attestation": (("name: board,", "name: board, attestation_required: true,"), ["board"]),
    "a lower clearance that keeps some out": (
        ("READER: {clearance: internal}", "READER: {clearance: public}"),
        ["notes"],
    ),
    "a higher clearance": (("READER: {clearance: internal}", "READER: {clearance: secret}"), ["notes"]),
    "a category": (("READER: {clearance: internal}", "READER: {clearance: internal, categories: [pii]}"), ["notes"]),
    "a clearance of who reads two": (
        ("HEAD: {clearance: secret, cat", "HEAD: {clearance: internal, cat"),
        ["board", "notes"],
    ),
    "a label": (("label: [internal]", "label: [public]"), ["notes"]),
    "a flow that goes": (("domains: [notes]", "domains: [board]"), ["notes"]),
    "a flow that leads higher": (("max_label: internal", "max_label: secret"), ["notes"]),
    "a flow that forbids less": (("forbid: [pii]", "forbid: []"), ["notes"]),
    "the order of levels": (("[public, internal, secret]", "[internal, public, secret]"), ["board", "notes"]),
}


@pytest.mark.parametrize(("piece", "expected"), MESH_CHANGES.values(), ids=MESH_CHANGES)
def test_what_decides_who_opens_rekeys_the_domains_that_it_is_about(piece, expected):
    assert redone(piece) == expected


AGENT_CHANGES = {
    "a reader is revoked": ("re-us", None, ["notes"]),
    "a reader comes": ("re-2", "{role: READER, tenant: hr, zone: eu}", ["notes"]),
    "who opens nothing comes": ("id-2", "{role: IDLE, tenant: hr, zone: us}", []),
    "who opens nothing is revoked": ("id-us", None, []),
    "a role is taken": ("wr-eu", "{role: READER, tenant: hr, zone: eu}", ["notes", "plans"]),
    "a role is given": ("re-us", "{roles: [READER, HEAD], tenant: hr, zone: us}", ["board", "notes", "plans"]),
    "a tenant": ("re-us", "{role: READER, tenant: it, zone: us}", ["notes"]),
    "a reader's zone": ("re-eu", "{role: READER, tenant: hr, zone: us}", ["notes"]),
    "a writer's zone": ("wr-eu", "{role: WRITER, tenant: hr, zone: us}", ["notes", "plans"]),
}


@pytest.mark.parametrize(("agent", "entry", "expected"), AGENT_CHANGES.values(), ids=AGENT_CHANGES)
def test_an_agents_change_rekeys_the_domains_that_it_holds_keys_of(agent, entry, expected):
    lines = [line for line in AGENTS.splitlines() if not line.startswith(f"  {agent}:")]
    draft = from_text(MESH, "\n".join([*lines, *([f"  {agent}: {entry}"] if entry else [])]))
    assert draft.digest != LIVE.digest
    assert list(rekeyed(LIVE, draft)) == expected


def test_domains_that_come_and_go_are_not_rekeyed():
    less = from_text(MESH[: MESH.index("    - {name: board")], AGENTS)
    assert (rekeyed(LIVE, less), rekeyed(less, LIVE)) == ((), ())
    with pytest.raises(KeyError):
        opening_digest(less, DomainName("board"))


def test_the_digest_is_the_same_bytes_on_every_machine():
    policy = from_text(
        'security_mesh: {global: {tls_min_version: "1.3", credential_rotation_interval_ms: 600000, '
        "audit_scope: FULL_MESH}, domains: [{name: notes, tier: RETRIEVAL, allowed_roles: [R, W], produce: [W], "
        "metadata_masking: true, audit_level: FULL_MESH}]}",
        "agents: {b: {role: R}, a: {role: R}, w: {roles: [W, R]}}",
    )
    expected = (
        b'{"attested":false,"cleared":{"R":[],"W":[]},"flows":[],"groups":{"R":["a","b","w"],"W":["w"]},"label":[],'
        b'"tier":"RETRIEVAL","writers":["w"]}'
    )
    assert opening_digest(policy, DomainName("notes")) == hashlib.sha256(expected).digest()


def holders(policy: Policy, name: DomainName) -> dict[AgentId, Any]:
    """Which keys of a domain each agent gets."""
    found = {}
    for agent in sorted(policy.agents):
        own = policy.domains[name] in policy.may_produce(agent)
        groups = policy.groups(agent, policy.domains[name])
        if own or groups:
            found[agent] = (own, groups)
    return found


def opened(policy: Policy, name: DomainName) -> dict[Any, set[AgentId]]:
    """By writer and label of its record: which agents hold a key that opens it."""
    found = {}
    domain = policy.domains[name]
    for writer, label in itertools.product(policy.agents, ALL_LABELS):
        decision = decide(writer, Action.PRODUCE, name, Context(labels=policy.scheme.names(label)), policy)
        if decision.obligations is not None:
            groups = set(decision.obligations.roles)
            readers = {agent for agent in policy.agents if groups & set(policy.groups(agent, domain))}
            found[writer, decision.obligations.label] = readers
    return found


@settings(max_examples=150)
@given(laws(), laws(), st.data())
def test_who_may_open_is_the_same_wherever_the_digest_is(law, other, data):
    """One thing of a law is taken from another one; a domain that is not re-keyed opens to the same agents."""
    agents, sections, domains = dict(law.agents), dict(law.sections), list(law.domains)
    match data.draw(st.sampled_from(["agent", "gone", "roles", "flows", "domain"])):
        case "agent":
            name, roles = data.draw(st.sampled_from(sorted(agents))), data.draw(st.sampled_from(["A", "B", "C,D"]))
            agents[name] = re.sub("^[A-Z,]+", roles, agents[name])
        case "gone":
            agents = dict(sorted(agents.items())[1:]) or agents
        case "roles":
            sections["roles"] = other.sections["roles"]
        case "flows" if sections.get("flows"):
            sections["flows"] = sections["flows"][1:]
        case _:
            domains[0] = {**other.domains[0], "name": domains[0]["name"]}
    live = law.built()
    draft = Law(domains, agents, sections).built()
    redone = rekeyed(live, draft)
    for name in {*live.domains} & {*draft.domains}:
        if name not in redone:
            assert holders(live, name) == holders(draft, name)
            before, after = opened(live, name), opened(draft, name)
            for record in {*before} & {*after}:
                assert before[record] == after[record], (name, record)


@settings(max_examples=100)
@given(laws(), st.data())
def test_revoking_an_agent_rekeys_exactly_the_domains_of_which_it_held_keys(law, data):
    live = law.built()
    gone = data.draw(st.sampled_from(sorted(live.agents)))
    draft = replace(live, agents={name: each for name, each in live.agents.items() if name != gone})
    expected = tuple(name for name in sorted(live.domains) if gone in holders(live, name))
    assert rekeyed(live, draft) == rekeyed(draft, live) == expected


@settings(max_examples=100)
@given(laws(), laws())
def test_what_decides_on_single_records_never_rekeys(law, other):
    keys = ("when", "guardrails", "kinds", "tools")
    given = {key: value for key, value in other.domains[0].items() if key in keys and key != "tools"}
    domains = [{**{k: v for k, v in each.items() if k not in keys}, **given} for each in law.domains]
    live, draft = law.built(), Law(domains, dict(reversed(law.agents.items())), law.sections).built()
    assert rekeyed(live, draft) == ()
