"""Who could carry a label down where labels do not follow the data: read above and write below. Pure.

A role by itself, wherever it is held, and an agent by all its roles together. A way down over several agents needs no
look of its own: labels are partially ordered, so that one of its steps goes down, and that step is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bus.errors import PolicyError
from bus.policy.document import AgentsFile, Domain, SecurityMesh
from bus.policy.labels import Label, Scheme
from bus.policy.roles import agent_roles, closure, known_roles
from bus.policy.yamldoc import Document, Path_


@dataclass(frozen=True, slots=True)
class _Step:
    """From a domain into one whose label does not cover its own. ``at`` is the lower one's label in the law."""

    high: str
    low: str
    at: Path_
    reads: frozenset[str]
    writes: frozenset[str]
    lowering: frozenset[str]
    above: str
    below: str

    def by(self, held: frozenset[str]) -> bool:
        """Whether these roles together go it, and none of them may lower what they carry."""
        return bool(held & self.reads and held & self.writes and not held & self.lowering)


def check_downward(
    mesh: Document, agents: Document, law: SecurityMesh, who: AgentsFile, path: Path_
) -> Iterator[PolicyError]:
    """A refusal for each step down that a role goes, and one for each agent, with its chain.

    ``path`` leads to the law in ``mesh``.
    """
    steps = list(_steps(law, path))
    holds = {role: frozenset(closure(law, [role])) for role in known_roles(law)}
    for step in steps:
        bad = next((role for role, held in holds.items() if step.by(held)), None)
        if bad is not None:
            text = f"label: {bad} may read {step.high} ({step.above}) and write {step.low} ({step.below})"
            yield _refused(mesh, step.at, text, step, bad, "narrow produce or consume")
    reading: dict[str, list[_Step]] = {}
    for step in steps:
        for role in step.reads:
            reading.setdefault(role, []).append(step)
    found: dict[frozenset[str], _Step | None] = {}
    for name, agent in who.agents.items():
        given = frozenset(agent_roles(agent)).intersection(holds)
        if given not in found:
            found[given] = _together(reading, {role: holds[role] for role in sorted(given)})
        if (first := found[given]) is not None:
            reader, writer = (
                min(role for role in given if holds[role] & wanted) for wanted in (first.reads, first.writes)
            )
            text = (
                f"label: {name} may read {first.high} ({first.above}) by {reader} "
                f"and write {first.low} ({first.below}) by {writer}"
            )
            yield _refused(agents, ("agents", name, "roles"), text, first, name, "give the roles to two agents")


def _together(reading: dict[str, list[_Step]], holds: dict[str, frozenset[str]]) -> _Step | None:
    """The first step that roles go together and none goes alone, which is told of the role. Few read each domain, so
    that looking at the steps behind what is read takes no time even with thousands of agents."""
    held = frozenset().union(*holds.values())
    steps = (step for role in sorted(held) for step in reading.get(role, ()))
    return next((step for step in steps if step.by(held) and not any(map(step.by, holds.values()))), None)


def _refused(document: Document, at: Path_, text: str, step: _Step, carrier: str, remedy: str) -> PolicyError:
    error = document.error(at, text)
    error.hint = (
        f"chain {step.high} -> {carrier} -> {step.low}; {remedy}, or name a declassifier, or set `propagate: session`"
    )
    return error


def _steps(law: SecurityMesh, path: Path_) -> Iterator[_Step]:
    labelled = law.labels
    if labelled is None or labelled.propagate == "session":
        return
    scheme = Scheme(tuple(labelled.levels), frozenset(labelled.categories))
    labels = {each.name: scheme.parse(each.label) for each in law.domains}
    for index, low in enumerate(law.domains):
        for high in law.domains:
            above, below = labels[high.name], labels[low.name]
            if above is None or below is None or below.covers(above):
                continue  # an unknown name is refused elsewhere
            yield _Step(
                high=high.name,
                low=low.name,
                at=(*path, "domains", index, "label"),
                reads=frozenset(high.allowed_roles if high.consume is None else high.consume),
                writes=frozenset({*low.producers, *low.delegates}),
                lowering=frozenset(_lowering(law, above, below, scheme, low)),
                above="+".join(scheme.names(above)),
                below="+".join(scheme.names(below)) or "no label",
            )


def _lowering(law: SecurityMesh, above: Label, below: Label, scheme: Scheme, low: Domain) -> Iterator[str]:
    """Roles that may lower ``above`` to what ``below`` covers when they write to ``low``."""
    stopping = {name for name in low.guardrails if name in law.guardrails and law.guardrails[name].then != "flag"}
    for each in law.labels.declassify if law.labels else []:
        if {each.from_, each.to} <= {*scheme.levels} and {*each.after} <= stopping:
            lowered = Label(scheme.levels.index(each.to), above.categories - set(each.drop))
            if scheme.levels.index(each.from_) >= above.level and below.covers(lowered):
                yield each.role
