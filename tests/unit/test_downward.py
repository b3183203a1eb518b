"""Labels that do not follow the data: who reads above and writes below is refused with the chain, role or agent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.errors import PolicyError
from bus.policy.labels import Scheme
from bus.wire.names import AgentId
from tests.unit.law_build import changed, domain, from_text, loaded, refusal

LADDER = """\
security_mesh:
  global: {tls_min_version: "1.3", credential_rotation_interval_ms: 600000, audit_scope: FULL_MESH}
  roles:
    READER: {clearance: high, categories: [pii]}
    WRITER: {}
  labels:
    levels: [low, high]
    categories: [pii]
    declassify: []
  guardrails:
    checked: {detect: [EMAIL], then: deny}
    other: {detect: [SSN], then: deny}
  domains:
    - name: vault
      tier: RETRIEVAL
      allowed_roles: [READER, WRITER]
      metadata_masking: true
      audit_level: FULL_MESH
      produce: [WRITER]
      consume: [READER]
      label: [high, pii]
    - name: board
      tier: RETRIEVAL
      allowed_roles: [READER, WRITER]
      metadata_masking: true
      audit_level: FULL_MESH
      label: [low]
      guardrails: [checked]
"""
ONE = "agents:\n  rea: {role: READER}\n"
RULE = "declassify: [{id: d, role: READER, from: high, to: low, drop: [pii], after: [checked]}]"


def test_a_role_that_could_carry_labels_down_is_refused_with_its_chain() -> None:
    error = refusal(LADDER, ONE)
    assert str(error) == "mesh.yaml:27:14: label: READER may read vault (high+pii) and write board (low)"
    assert error.hint == (
        "chain vault -> READER -> board; narrow produce or consume, or name a declassifier, or set `propagate: session`"
    )
    assert not hasattr(error, "__notes__")


def test_without_a_label_below_the_refusal_stands_at_the_domain() -> None:
    error = refusal(changed(LADDER, "      label: [low]\n", ""), ONE)
    assert str(error) == "mesh.yaml:22:7: label: READER may read vault (high+pii) and write board (low)"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("declassify: []", "propagate: session"),
        ("label: [low]", "label: [low]\n      produce: [WRITER]"),
        ("consume: [READER]", "consume: []"),
        ("label: [low]", "label: [high, pii]"),
        ("label: [high, pii]", "label: [low]"),
        ("declassify: []", RULE),
        ("declassify: []", RULE.replace(", after: [checked]", "")),
    ],
    ids=["labels follow", "produce narrowed", "consume narrowed", "same above", "same below", "declassifier", "free"],
)
def test_a_chain_that_is_cut_or_allowed_loads(old: str, new: str) -> None:
    assert from_text(changed(LADDER, old, new), ONE).agents


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("role: READER", "role: WRITER"),
        ("from: high", "from: low"),
        ("to: low", "to: high"),
        ("drop: [pii], ", ""),
        ("after: [checked]", "after: [other]"),
        ("after: [checked]", "after: [checked, other]"),
    ],
    ids=["another role", "not from so high", "not so low", "category stays", "another guardrail", "a guardrail more"],
)
def test_a_declassifier_that_does_not_reach_allows_no_chain(old: str, new: str) -> None:
    error = refusal(changed(LADDER, "declassify: []", changed(RULE, old, new)), ONE)
    assert "READER may read vault (high+pii) and write board (low)" in str(error)


def test_an_heir_carries_what_its_parents_read_and_is_the_declassifier_that_they_are() -> None:
    mesh = changed(LADDER, "    WRITER: {}\n", "    WRITER: {}\n    SCRIBE: {inherits: [READER]}\n")
    error = refusal(changed(mesh, "consume: [READER]", "consume: [SCRIBE]"), ONE)
    assert str(error) == "mesh.yaml:28:14: label: SCRIBE may read vault (high+pii) and write board (low)"
    assert from_text(changed(mesh, "declassify: []", RULE), ONE).agents


def test_labels_that_neither_cover_are_chains_both_ways() -> None:
    mesh = changed(LADDER, "label: [high, pii]", "label: [high]\n      when: []")
    mesh = changed(changed(mesh, "label: [low]", "label: [low, pii]"), "produce: [WRITER]", "produce: [READER]")
    error = refusal(mesh, ONE)
    assert str(error) == "mesh.yaml:21:14: label: READER may read board (low+pii) and write vault (high)"
    assert error.__notes__ == ["mesh.yaml:28:14: label: READER may read vault (high) and write board (low+pii)"]


# One agent with several roles, none of which could do it alone.
SPLIT = changed(LADDER, "label: [low]", "label: [low]\n      produce: [WRITER]\n      consume: [READER]")
BOTH = "agents:\n  rea: {role: READER}\n  both: {roles: [READER, WRITER]}\n"
CARRIED = "label: both may read vault (high+pii) by READER and write board (low) by WRITER"
BY_WRITER = RULE.replace("READER", "WRITER")


def test_an_agent_whose_roles_together_carry_labels_down_is_refused_with_its_chain() -> None:
    error = refusal(SPLIT, BOTH)
    assert str(error) == f"agents.yaml:3:17: {CARRIED}"
    assert error.hint == (
        "chain vault -> both -> board; give the roles to two agents, or name a declassifier, "
        "or set `propagate: session`"
    )
    assert not hasattr(error, "__notes__")


def test_the_same_roles_in_two_agents_load() -> None:
    two = "agents:\n  rea: {role: READER}\n  wri: {roles: [WRITER]}\n"
    assert sorted(from_text(SPLIT, two).agents) == ["rea", "wri"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("declassify: []", "propagate: session"),
        ("label: [low]", "label: [high, pii]"),
        ("label: [high, pii]", "label: [low]"),
        ("consume: [READER]", "consume: []"),
        ("declassify: []", RULE),
        ("declassify: []", BY_WRITER),
    ],
    ids=["labels follow", "same above", "same below", "consume narrowed", "its reader lowers", "its writer lowers"],
)
def test_several_roles_that_carry_nothing_down_or_may_load(old: str, new: str) -> None:
    assert AgentId("both") in from_text(changed(SPLIT, old, new), BOTH).agents


@pytest.mark.parametrize(
    ("old", "new"),
    [("role: WRITER", "role: OTHER"), ("from: high", "from: low"), ("after: [checked]", "after: [other]")],
    ids=["a role that it has not", "not from so high", "another guardrail"],
)
def test_a_declassifier_that_does_not_reach_allows_no_agent_either(old: str, new: str) -> None:
    mesh = changed(SPLIT, "    WRITER: {}\n", "    WRITER: {}\n    OTHER: {}\n")
    error = refusal(changed(mesh, "declassify: []", changed(BY_WRITER, old, new)), BOTH)
    assert str(error).endswith(CARRIED)


def test_an_agent_carries_what_its_roles_inherit_and_each_such_agent_is_told() -> None:
    mesh = changed(SPLIT, "    WRITER: {}\n", "    WRITER: {}\n    CHIEF: {inherits: [READER]}\n")
    more = "  chief: {roles: [WRITER, CHIEF]}\n"
    error = refusal(mesh, BOTH + more)
    assert str(error) == f"agents.yaml:3:17: {CARRIED}"
    (note,) = error.__notes__
    assert note == "agents.yaml:4:18: label: chief may read vault (high+pii) by CHIEF and write board (low) by WRITER"


def test_what_one_role_does_alone_is_told_of_the_role_and_not_of_its_holders() -> None:
    error = refusal(LADDER, BOTH)
    assert str(error) == "mesh.yaml:27:14: label: READER may read vault (high+pii) and write board (low)"
    assert not hasattr(error, "__notes__")


def rungs(*labels: str) -> list[dict[str, Any]]:
    """A ladder of domains, the highest first: R0 reads the first; Wn writes the next, which Rn reads."""
    roles = [f"{kind}{number}" for kind in "RW" for number in range(len(labels))]
    return [
        domain(f"d{number}", *roles, consume=[f"R{number}"], produce=[f"W{number}"], label=[label])
        for number, label in enumerate(labels)
    ]


LEVELS3 = {"levels": ["low", "middle", "high"]}


@pytest.mark.parametrize(
    ("labels", "chain"),
    [
        (("high", "high", "low"), "d1 -> b -> d2"),
        (("high", "low", "low"), "d0 -> a -> d1"),
        (("high", "middle", "low"), "d0 -> a -> d1"),
        (("low", "high", "middle"), "d1 -> b -> d2"),
        (("high", "high", "high"), ""),
        (("low", "middle", "high"), ""),
    ],
)
def test_a_way_down_over_several_agents_is_refused_at_its_step_that_goes_down(labels, chain) -> None:
    agents = {"a": "R0,W1", "b": "R1,W2"}
    if not chain:
        assert len(loaded(rungs(*labels), agents, labels=LEVELS3).agents) == 2
        return
    with pytest.raises(PolicyError) as refused:
        loaded(rungs(*labels), agents, labels=LEVELS3)
    assert refused.value.hint.startswith(f"chain {chain}; ")


def test_an_agent_with_several_ways_down_is_refused_once() -> None:
    mesh = changed(SPLIT, "    - name: board", """\
    - name: wall
      tier: RETRIEVAL
      allowed_roles: [READER, WRITER]
      metadata_masking: true
      audit_level: FULL_MESH
      consume: [READER]
      produce: [WRITER]
    - name: board""")  # fmt: skip
    error = refusal(mesh, BOTH)
    assert str(error).endswith("and write wall (low) by WRITER")
    assert not hasattr(error, "__notes__")


@pytest.mark.parametrize(("old", "new", "column"), [("from: high", "from: hihg", 46), ("to: low", "to: lo", 56)])
def test_a_declassifier_of_an_unknown_level_is_refused_where_a_chain_asks_for_it(old, new, column) -> None:
    error = refusal(changed(LADDER, "declassify: []", changed(RULE, old, new)), ONE)
    key, _, level = new.partition(": ")
    assert str(error) == f"mesh.yaml:9:{column}: {key}: expected one of low, high, found {level!r}"


# Any law: what loads lets nothing flow down, over however many agents.
ROLES = ("A", "B", "C", "D")
NAMED = [*LEVELS3["levels"], "pii"]


def some(of: Iterable[str], least: int, most: int) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(list(of)), min_size=least, max_size=most, unique=True)


LAWS = st.lists(
    st.fixed_dictionaries({"consume": some(ROLES, 0, 1), "produce": some(ROLES, 0, 2), "label": some(NAMED, 0, 2)}),
    min_size=2,
    max_size=4,
)


def reached(domains: list[dict[str, Any]], holders: list[set[str]], start: int) -> set[int]:
    """Domains that what stands in one can come to, by any holder and from one to the next."""
    found, waiting = {start}, [start]
    while waiting:
        here = domains[waiting.pop()]
        able = [held for held in holders if held & {*here["consume"]}]
        for number, there in enumerate(domains):
            if number not in found and any(held & {*there["produce"]} for held in able):
                found.add(number)
                waiting.append(number)
    return found


@settings(deadline=None, max_examples=300)
@given(LAWS, st.lists(some(ROLES, 2, 3), min_size=1, max_size=3))
def test_a_law_loads_if_and_only_if_nothing_flows_down_over_any_agents(keys, held):
    domains = [domain(f"d{number}", *ROLES, **each) for number, each in enumerate(keys)]
    scheme = Scheme(tuple(LEVELS3["levels"]), frozenset({"pii"}))
    labels = [scheme.parse(each["label"]) for each in keys]
    holders = [{role} for role in ROLES] + [set(each) for each in held]
    down = {
        (start, end)
        for start in range(len(keys))
        for end in reached(keys, holders, start)
        if not labels[end].covers(labels[start])
    }
    agents = {f"agent-{number}": ",".join(each) for number, each in enumerate(held)}
    sections = {"labels": {**LEVELS3, "categories": ["pii"]}}
    if not down:
        assert len(loaded(domains, agents, **sections).domains) == len(keys)
        return
    with pytest.raises(PolicyError, match="label: ") as refused:
        loaded(domains, agents, **sections)
    chain = refused.value.hint.partition(";")[0].removeprefix("chain ").split(" -> ")
    assert (int(chain[0][1:]), int(chain[2][1:])) in down
    assert chain[1] in {*ROLES, *agents}
