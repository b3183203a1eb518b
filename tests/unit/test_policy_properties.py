"""Properties of the policy language over generated laws: narrowing only narrows, labels are a lattice, decisions total.

A law is drawn as the values of mesh.yaml and agents.yaml and built by the product. What of a decision is wider is said
in one place (``wider``): an ALLOW where there was a DENY, a reader more, a lower label, or an obligation less.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bus.codes import Code
from bus.policy.compiling import compile_policy
from bus.policy.decide import Decision, decide, decide_constant, decide_moment, findings
from bus.policy.labels import BOTTOM, Label, Scheme, joined
from bus.policy.model import Policy
from bus.policy.question import Action, Context
from bus.wire.envelope import Kind
from bus.wire.names import AgentId, DomainName, Tier
from tests.unit.build import WRITER
from tests.unit.law_build import domain, loaded

assert WRITER  # importing tests.unit.build lifts hypothesis's deadline
pytestmark = pytest.mark.timeout(600)  # a law that fails is made small for up to five minutes

LEVELS, CATEGORIES = ["low", "mid", "high"], ["pci", "pii"]
ROLES, TENANTS, ZONES = ["A", "B", "C", "D"], ["north", "south"], ["eu", "us"]
AGENTS, DOMAINS, TOOLS = ["ann", "bob", "cat", "dan"], ["files", "notes", "plans"], ["mail.send", "sql.read"]
KINDS = [kind.value for kind in Kind]
GUARDRAILS = {"keys": {"detect": ["API_KEY"], "then": "deny"}, "mails": {"detect": ["EMAIL"], "then": "redact"}}
# None of them looks at roles or labels: what these properties change must not reach a decision by a condition.
CONDITIONS = {
    "stated": 'context.purpose != ""',
    "numbered": 'context.purpose == "purpose" || int(context.purpose) > 3',
    "small": "context.size <= 1024",
    "morning": "context.time.getHours() < 12",
    "idle": "context.load < 0.9",
}
DAY = 86_400_000


def subsets(of: list[str], least: int = 0) -> st.SearchStrategy[list[str]]:
    if not of:
        return st.just([])
    return st.lists(st.sampled_from(of), unique=True, min_size=least, max_size=len(of)).map(sorted)


def mostly(usual: Any, others: list[Any]) -> st.SearchStrategy[Any]:
    """``usual`` or, once in four, another: a question in which all is odd is refused by the first rule."""
    return st.sampled_from([usual] * 3 * len(others) + others)


@dataclass(frozen=True)
class Law:
    """Values of the two files. ``built`` is the policy that they make."""

    domains: list[dict[str, Any]]
    agents: dict[str, str]
    sections: dict[str, Any]

    def built(self) -> Policy:
        return loaded(self.domains, self.agents, **self.sections)


@st.composite
def domain_values(draw: st.DrawFn, name: str) -> dict[str, Any]:
    roles = draw(subsets(ROLES, 2))
    optional = {
        "produce": subsets(roles),
        "consume": subsets(roles),
        "kinds": subsets(KINDS, 1),
        "tools": st.dictionaries(st.sampled_from(TOOLS), subsets(roles)),
    }
    keys = {key: draw(values) for key, values in optional.items() if draw(st.integers(0, 2)) == 0}
    keys["tier"] = draw(mostly("RETRIEVAL", ["PLAINTEXT", "FHE"]))
    keys["label"] = draw(subsets([*LEVELS[:2], *CATEGORIES[:1]]))
    keys["when"] = draw(st.sampled_from([[], [], ["stated"], ["numbered", "small"], ["morning", "idle"]]))
    keys["guardrails"] = draw(subsets(sorted(GUARDRAILS)))
    return domain(name, *roles, **keys)


def rows(
    fields: Mapping[str, st.SearchStrategy[Any]], most: int, least: int = 0
) -> st.SearchStrategy[list[dict[str, Any]]]:
    """``least`` to ``most`` rows, each with an id."""
    drawn = st.lists(st.fixed_dictionaries(dict(fields)), min_size=least, max_size=most)
    return drawn.map(lambda found: [{"id": f"r{place}", **each} for place, each in enumerate(found)])


@st.composite
def laws(draw: st.DrawFn, *, flows: int = 0) -> Law:
    """Any law; with at least so many ``flows``, one with zones."""
    names = draw(subsets(DOMAINS, 1))
    tenants, zones = draw(mostly(False, [True])), flows > 0 or draw(st.booleans())
    clearances = {"clearance": st.sampled_from(LEVELS), "categories": subsets(CATEGORIES)}
    roles = draw(st.fixed_dictionaries({role: st.fixed_dictionaries(clearances) for role in ROLES}))
    for heir, parent in itertools.combinations(ROLES, 2):  # downwards in the alphabet only: no cycle
        if draw(st.integers(0, 5)) == 0:
            roles[heir].setdefault("inherits", []).append(parent)
    ways = {
        "way": st.permutations(ZONES),
        "domains": subsets(names, 1),
        "max_label": st.sampled_from(LEVELS),
        "forbid": subsets(CATEGORIES),
    }
    lower = {
        "role": st.sampled_from(ROLES),
        "from": st.sampled_from(LEVELS),
        "to": st.sampled_from(LEVELS),
        "drop": subsets(CATEGORIES),
        "after": st.sampled_from([[], [], ["keys"], ["keys", "mails"]]),
    }
    sections: dict[str, Any] = {
        "roles": roles,
        "labels": {
            "levels": LEVELS,
            "categories": CATEGORIES,
            "propagate": "session",
            "declassify": draw(rows(lower, 2)),
        },
        "conditions": CONDITIONS,
        "guardrails": GUARDRAILS,
        **({"tenants": TENANTS} if tenants else {}),
    }
    if zones:
        found = draw(rows(ways, 4, flows))
        for each in found:
            each["from"], each["to"] = each.pop("way")
        sections |= {"zones": {zone: {} for zone in ZONES}, "flows": found}
    agents = {
        name: ",".join(draw(subsets(ROLES, 2)))
        + (f"@{draw(st.sampled_from(TENANTS))}" if tenants else "")
        + (f"/{draw(st.sampled_from(ZONES))}" if zones else "")
        for name in draw(subsets(AGENTS, 1))
    }
    return Law([draw(domain_values(name)) for name in names], agents, sections)


CONTEXTS = st.builds(
    Context,
    kind=mostly(Kind.MESSAGE, list(Kind)),
    target=mostly("", [*AGENTS, "new"]),
    tier_floor=mostly(None, [Tier.RETRIEVAL]),
    tool=mostly("", TOOLS),
    purpose=mostly("7", ["2", "care", ""]),
    labels=st.one_of(st.just(()), subsets([*LEVELS, *CATEGORIES]).map(tuple)),
    tenant=mostly("", TENANTS),
    to=mostly("", ZONES),
    time_ms=st.integers(0, DAY),
    load=mostly(0.1, [0.95]),
    size=mostly(10, [5000]),
)
SOME = st.lists(CONTEXTS, min_size=2, max_size=6)

Question = tuple[AgentId, Action, DomainName, Context]


def questions(policy: Policy, contexts: list[Context]) -> Iterator[Question]:
    return itertools.product(sorted(policy.agents), Action, sorted(policy.domains), contexts)


def wider(before: Decision, after: Decision, scheme: Scheme) -> bool:
    """Whether ``after`` lets more go than ``before``."""
    if not after.allowed:
        return False
    if not before.allowed:
        return True
    old, new = before.obligations, after.obligations
    assert old is not None
    assert new is not None
    return not (
        set(new.roles) <= set(old.roles)
        and new.target == old.target
        and scheme.parse(new.label).covers(scheme.parse(old.label))
        and new.tier >= old.tier
        and set(new.masks) >= set(old.masks)
        and set(new.guardrails) >= set(old.guardrails)
        and new.mask_metadata >= old.mask_metadata
    )


def assert_no_wider(before: Policy, after: Policy, contexts: list[Context]) -> None:
    """No question of ``before`` has a wider answer in ``after``."""
    for question in questions(before, contexts):
        old, new = decide(*question, before), decide(*question, after)
        assert not wider(old, new, before.scheme), f"{question}: {old} became {new}"


def changed(law: Law, **changes: Any) -> Law:
    return replace(copy.deepcopy(law), **changes)


def with_role(law: Law, **changes: Any) -> Law:
    """``law`` with a role that nothing names."""
    return changed(law, sections={**law.sections, "roles": {**law.sections["roles"], "IDLE": {}}}, **changes)


# What changes without granting.


@settings(max_examples=60)
@given(laws(), SOME, st.data())
def test_an_agent_without_grants_widens_nobodys_decisions(law, contexts, data):
    place = data.draw(st.sampled_from(sorted(law.agents.values()))).lstrip("ABCD,")
    before = law.built()
    after = with_role(law, agents={**law.agents, "new": f"IDLE{place}"}).built()
    assert_no_wider(before, after, [*contexts, *(replace(each, target="new") for each in contexts)])
    for _, action, name, context in questions(before, contexts):
        assert not decide(AgentId("new"), action, name, context, after).allowed


@settings(max_examples=60)
@given(laws(), SOME, st.data())
def test_a_role_without_grants_changes_nothing(law, contexts, data):
    holder = data.draw(st.sampled_from(sorted(law.agents)))
    before = law.built()
    for agents in (law.agents, {**law.agents, holder: f"IDLE,{law.agents[holder]}"}):
        after = with_role(law, agents=agents).built()
        for question in questions(before, contexts):
            old, new = decide(*question, before), decide(*question, after)
            assert (new.code, new.rule, new.obligations) == (old.code, old.rule, old.obligations)


# What takes away.


@settings(max_examples=60)
@given(laws(), SOME, st.data())
def test_narrowing_what_a_domain_grants_never_widens(law, contexts, data):
    narrow = changed(law)
    for each in narrow.domains:  # one list a domain: what another takes away would hide what this one lets through
        key = data.draw(st.sampled_from(["produce", "consume", "kinds", "tools"]))
        if key == "kinds":
            each[key] = data.draw(subsets(each.get(key, KINDS), 1))
        elif key == "tools":
            tools = each.get(key, dict.fromkeys(TOOLS, each["allowed_roles"]))
            each[key] = {tool: data.draw(subsets(tools[tool])) for tool in data.draw(subsets(sorted(tools)))}
        else:
            each[key] = data.draw(subsets(each.get(key, each["allowed_roles"])))
    assert_no_wider(law.built(), narrow.built(), contexts)


@settings(max_examples=60)
@given(laws(flows=2), SOME)
def test_a_flow_taken_away_never_widens(law, contexts):
    before, flows = law.built(), law.sections["flows"]
    crossing = [replace(each, to=zone, tenant="", target="") for each in contexts for zone in ZONES]
    for gone in flows:  # each alone: what holds for every one holds for any number of them, one after the other
        sections = {**law.sections, "flows": [each for each in flows if each is not gone]}
        assert_no_wider(before, changed(law, sections=sections).built(), [*contexts, *crossing])


@settings(max_examples=60)
@given(laws(), SOME, st.data())
def test_a_clearance_a_declassifier_or_a_parent_taken_away_never_widens(law, contexts, data):
    narrow = changed(law)
    for role in narrow.sections["roles"].values():
        role["categories"] = data.draw(subsets(role["categories"]))
        role["clearance"] = LEVELS[data.draw(st.integers(0, LEVELS.index(role["clearance"])))]
        if "inherits" in role:
            role["inherits"] = data.draw(subsets(role["inherits"]))
    labels = narrow.sections["labels"]
    labels["declassify"] = [each for each in labels["declassify"] if data.draw(st.booleans())]
    # Who loses a parent may lose the right to be named where the parent is allowed: then the law is refused.
    for each in narrow.domains:
        each.pop("produce", None)
        each.pop("consume", None)
    wide = changed(law, domains=copy.deepcopy(narrow.domains))
    assert_no_wider(wide.built(), narrow.built(), contexts)


@settings(max_examples=60)
@given(laws(), SOME, st.data())
def test_a_condition_or_a_label_more_never_widens(law, contexts, data):
    narrow = changed(law)
    for each in narrow.domains:
        each["when"] = sorted({*each["when"], *data.draw(subsets(sorted(CONDITIONS)))})
        each["label"] = sorted({*each["label"], *data.draw(subsets([*LEVELS, *CATEGORIES]))})
    assert_no_wider(law.built(), narrow.built(), contexts)


# Labels.

SCHEME = Scheme(tuple(LEVELS), frozenset(CATEGORIES))
ALL_LABELS = [
    Label(level, frozenset(chosen))
    for level in range(len(LEVELS))
    for size in range(len(CATEGORIES) + 1)
    for chosen in itertools.combinations(CATEGORIES, size)
]
LABEL = st.builds(Label, st.integers(0, 15), st.frozensets(st.sampled_from("abcdef")))


@given(LABEL, LABEL, LABEL)
def test_the_join_is_commutative_associative_and_idempotent(a, b, c):
    assert a.join(b) == b.join(a)
    assert a.join(b).join(c) == a.join(b.join(c)) == joined([a, b, c])
    assert a.join(a) == a.join(BOTTOM) == a


@given(LABEL, LABEL, LABEL)
def test_covers_is_a_partial_order_with_a_lowest_label(a, b, c):
    assert a.covers(a)
    assert a.covers(BOTTOM)
    assert not (a.covers(b) and b.covers(a)) or a == b
    assert not (a.covers(b) and b.covers(c)) or a.covers(c)
    assert BOTTOM.covers(a) is (a == BOTTOM)


@given(LABEL, LABEL, LABEL)
def test_the_join_is_the_least_that_covers_both_and_monotone(a, b, c):
    join = a.join(b)
    assert join.covers(a)
    assert join.covers(b)
    assert c.covers(join) is (c.covers(a) and c.covers(b))
    assert a.covers(b) is (join == a)
    assert not a.covers(b) or a.join(c).covers(b.join(c))


def test_some_labels_cover_neither_each_other():
    pairs = list(itertools.combinations(ALL_LABELS, 2))
    incomparable = [(a, b) for a, b in pairs if not a.covers(b) and not b.covers(a)]
    assert (len(ALL_LABELS), len(pairs), len(incomparable)) == (12, 66, 24)
    assert (Label(0, frozenset({"pii"})), Label(1)) in incomparable


@given(subsets([*LEVELS, *CATEGORIES]), subsets([*LEVELS, *CATEGORIES]))
def test_what_is_parsed_together_is_the_join_and_names_bring_it_back(some, others):
    first, second = SCHEME.parse(some), SCHEME.parse(others)
    assert SCHEME.parse([*some, *others]) == first.join(second)
    assert SCHEME.parse(SCHEME.names(first)) == first
    assert SCHEME.parse([*some, "nothing"]) is None


@settings(max_examples=60)
@given(laws(), SOME, st.data())
def test_a_higher_label_is_read_by_no_more(law, contexts, data):
    policy = law.built()
    more = tuple(data.draw(subsets([*LEVELS, *CATEGORIES, "nothing"], 1)))
    for question in questions(policy, contexts):
        *asking, context = question
        raised = replace(context, labels=context.labels + more)
        old, new = decide(*question, policy), decide(*asking, raised, policy)
        assert not wider(old, new, policy.scheme), f"{question} with {more}: {old} became {new}"


@settings(max_examples=90)
@given(laws())
def test_a_record_is_sealed_to_exactly_those_who_may_read_it(law):
    """The groups of a record, and who holds their keys, say the same as the decision on reading it."""
    for each in law.domains:
        each["when"] = []
    policy = law.built()
    for writer, domain_name, label in itertools.product(policy.agents, policy.domains, ALL_LABELS):
        labels = policy.scheme.names(label)
        decision = decide(writer, Action.PRODUCE, domain_name, Context(labels=labels), policy)
        if decision.obligations is None:
            continue
        wrote = policy.agents[writer]
        come = Context(labels=decision.obligations.label, tenant=wrote.tenant, to=wrote.zone)
        for reader in policy.agents:
            holds = policy.groups(reader, policy.domains[domain_name])
            sealed = bool(set(holds) & set(decision.obligations.roles))
            read = decide(reader, Action.CONSUME, domain_name, come, policy)
            assert read.allowed is sealed, f"{reader} of {decision}: {read}"
            target = Context(labels=labels, target=reader)
            told = decide(writer, Action.PRODUCE, domain_name, target, policy)
            assert told.allowed is sealed, f"{writer} to {reader}: {told}"


@settings(max_examples=60)
@given(laws())
def test_the_floor_covers_whatever_an_agent_may_read(law):
    policy = law.built()
    for reader, name, label in itertools.product(policy.agents, policy.domains, ALL_LABELS):
        context = Context(labels=policy.scheme.names(label), purpose="7", size=1)
        decision = decide(reader, Action.CONSUME, name, context, policy)
        if decision.obligations is not None:
            floor = policy.scheme.parse(policy.floor(reader))
            assert policy.floor(reader)
            assert floor.covers(label), f"{reader} may read {label} of {name}, its floor is {floor}"


# Totality.

NAMES = st.one_of(st.sampled_from([*AGENTS, *DOMAINS, ""]), st.text(max_size=8))
WILD = st.builds(
    Context,
    kind=st.sampled_from(Kind),
    target=NAMES,
    tier_floor=st.one_of(st.none(), st.sampled_from(Tier)),
    tool=st.one_of(st.sampled_from(TOOLS), st.text(max_size=8)),
    task_type=st.text(max_size=8),
    purpose=st.text(max_size=8),
    user=st.text(max_size=8),
    labels=st.lists(st.one_of(st.sampled_from([*LEVELS, *CATEGORIES]), st.text(max_size=4)), max_size=4).map(tuple),
    tenant=st.one_of(st.sampled_from(TENANTS), NAMES),
    to=st.one_of(st.sampled_from(ZONES), NAMES),
    time_ms=st.integers(-(2**63), 2**63 - 1),
    load=st.floats(),
    size=st.integers(-1, 2**64),
)
TIMED = Law([domain("notes", "A", when=["morning"])], {"ann": "A"}, {"conditions": CONDITIONS})


def assert_told_by_findings(question: Question, policy: Policy) -> Decision:
    """The decision, of which the first refusal of ``findings`` says the same."""
    decision = decide(*question, policy)
    refusals = [each for each in findings(*question, policy) if each.refusal is not None]
    assert decision.allowed is (decision.code is Code.ALLOW) is (refusals == [])
    assert decision.rule
    if not decision.allowed:
        first = refusals[0]
        assert decision.why
        assert (decision.code, decision.rule) == (first.refusal, first.rule)
        assert (decision.location, decision.why) == (first.location, first.why)
    return decision


@settings(max_examples=90)
@given(laws(), NAMES, st.sampled_from(Action), NAMES, WILD)
@example(TIMED, "ann", Action.PRODUCE, "notes", Context(time_ms=2**63 - 1))
@example(TIMED, "ann", Action.PRODUCE, "notes", Context(time_ms=DAY // 4))
def test_every_question_has_one_answer_with_its_rule(law, who, action, name, context):
    policy = law.built()
    asking = (AgentId(who), action, DomainName(name), context)
    decision = assert_told_by_findings(asking, policy)
    assert decision.location or name not in policy.domains
    assert decision == decide(*asking, policy)
    if decision.obligations is not None:
        assert decision.rule == f"{name}.{action}"
        assert bool(decision.obligations.roles) is not bool(decision.obligations.target)


@settings(max_examples=60)
@given(laws(), SOME)
def test_findings_say_what_the_decision_says(law, contexts):
    policy = law.built()
    for question in questions(policy, contexts):
        assert_told_by_findings(question, policy)


@settings(max_examples=60)
@given(laws(), SOME, SOME)
def test_a_remembered_decision_and_its_moment_say_what_decide_says(law, contexts, moments):
    policy = law.built()
    for question in questions(policy, contexts):
        *asking, context = question
        remembered = decide_constant(*question, policy)
        for each in moments:
            now = replace(context, time_ms=each.time_ms, load=each.load, size=each.size)
            assert decide_moment(remembered, *asking, now, policy) == decide(*asking, now, policy)


@settings(max_examples=60)
@given(laws(), SOME)
def test_whoever_reads_the_document_decides_the_same(law, contexts):
    policy = law.built()
    read = compile_policy(policy.document)
    assert (read.document, read.digest) == (policy.document, policy.digest)
    turned = changed(law, domains=law.domains[::-1], agents=dict(reversed(law.agents.items()))).built()
    for question in questions(policy, contexts):
        assert decide(*question, read) == decide(*question, policy) == decide(*question, turned)
