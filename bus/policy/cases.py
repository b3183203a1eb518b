"""Cases are run: the same PDP as the enforcer's is asked each question of cases.yaml. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bus.guardrails.scanner import Scanners, default_scanner
from bus.policy.acting import record_label
from bus.policy.casechecks import parse_time
from bus.policy.casefile import Case, CasesFile, Double, Never
from bus.policy.decide import Decision, decide, findings
from bus.policy.guarding import Guarded, Guardrails
from bus.policy.model import AgentPolicy, DomainPolicy, Policy
from bus.policy.question import Action, Context
from bus.policy.yamldoc import Document, Path_
from bus.wire.envelope import Kind
from bus.wire.names import AgentId, DomainName, RoleName, Tier


@dataclass(frozen=True, slots=True)
class Result:
    """One case that was run. ``failure`` is "" where it holds; ``decision`` None for what was searched in vain."""

    name: str
    location: str
    failure: str
    decision: Decision | None = None


def run_cases(
    policy: Policy, document: Document, file: CasesFile, only: str = "", *, scanners: Scanners = default_scanner
) -> list[Result]:
    """Every case whose name holds ``only``, in the order of the file; the file must hold together with the policy.
    ``scanners`` are the enforcer's."""
    return [each for each in each_case(policy, document, file, scanners) if only in each.name]


def each_case(
    policy: Policy, document: Document, file: CasesFile, scanners: Scanners = default_scanner
) -> Iterator[Result]:
    """Cases one by one, run as they are asked for."""
    return _Runner(policy, document, file, scanners).run()


def seen_conditions(
    policy: Policy, document: Document, file: CasesFile, scanners: Scanners = default_scanner
) -> dict[str, set[bool]]:
    """What each condition was over the cases of the domains that ask it."""
    runner = _Runner(policy, document, file, scanners)
    for _ in runner.run():
        pass
    return runner.conditions


def rules_of(policy: Policy) -> frozenset[str]:
    """Names of the rules that a case can be decided by."""
    names = {f"{domain}.{action}" for domain in policy.domains for action in Action}
    names |= {f"{each.name}.tools" for each in policy.domains.values() if each.tools is not None}
    names |= {f"{each.name}.delegates" for each in policy.domains.values() if each.delegates}
    names |= {f"{each.name}.user" for each in policy.domains.values() if each.user_required}
    names |= {f"{each.name}.kinds" for each in policy.domains.values() if each.kinds is not None}
    names |= {condition.name for each in policy.domains.values() for condition in each.when}
    names |= {rule.name for each in policy.domains.values() for rule in each.guardrails if rule.then == "deny"}
    names |= {f"{flow.id}.forbid" for flow in policy.flows if flow.forbid}
    names |= {f"{flow.id}.max_label" for flow in policy.flows if flow.ceiling is not None}
    return frozenset(names | ({"tenants"} if policy.tenants else set()) | ({"zones"} if policy.zones else set()))


class _Runner:
    def __init__(self, policy: Policy, document: Document, file: CasesFile, scanners: Scanners) -> None:
        doubles = {
            AgentId(name): AgentPolicy(AgentId(name), _roles(policy, each), each.tenant, each.zone)
            for name, each in file.agents.items()
        }
        self._policy = replace(policy, agents={**policy.agents, **doubles})
        self._names = sorted(doubles) or sorted(policy.agents)
        self._document = document
        self._file = file
        self._scanners = scanners
        self.conditions: dict[str, set[bool]] = {}

    def run(self) -> Iterator[Result]:
        for index, case in enumerate(self._file.cases):
            yield self._case(case, case.name, case.do, ("cases", index))
        for index, matrix in enumerate(self._file.matrix):
            chosen = self._names if matrix.who == "all" else matrix.who
            for name in chosen:
                for question in matrix.do:
                    if name not in matrix.except_:
                        facts = {**matrix.model_dump(by_alias=True, exclude={"who", "except_", "do"}), "who": name}
                        case = Case(**{key: value for key, value in facts.items() if value is not None}, do=question)
                        yield self._case(case, f"{matrix.name}: {name}, {question}", question, ("matrix", index))
        for index, never in enumerate(self._file.never):
            yield self._never(never, ("never", index))

    def _where(self, path: Path_) -> str:
        return f"{self._document.file}:{self._document.at(path)[0]}"

    def _case(self, case: Case, name: str, question: str, path: Path_) -> Result:
        facts = {**self._file.base.model_dump(exclude_none=True), **case.model_dump(exclude_none=True)}
        who = AgentId(facts["who"])
        action, domain = Action(question.split()[0]), DomainName(question.split()[1])
        policy = self._policy
        if "zone" in facts:
            agent = replace(policy.agents[who], zone=facts["zone"])
            policy = replace(policy, agents={**policy.agents, who: agent})
        context = _context(facts)
        decision, found = decide(who, action, domain, context, policy), frozenset[str]()
        if decision.allowed and action is Action.PRODUCE:
            decision, found = _guarded(decision, policy.domains[domain], facts, policy, self._scanners)
        for finding in findings(who, action, domain, context, policy):
            if finding.rule in {each.name for each in policy.domains[domain].when}:
                self.conditions.setdefault(finding.rule, set()).add(finding.refusal is None)
        label = policy.scheme.names(record_label(policy.agents[who], action, policy.domains[domain], context, policy))
        return Result(name, self._where(path), _failure(case, decision, found, label), decision)

    def _never(self, never: Never, path: Path_) -> Result:
        # Conditions and tiers are taken to hold: what is not possible then is never possible.
        domains = {name: replace(each, when=(), tier=Tier.RETRIEVAL) for name, each in self._policy.domains.items()}
        policy = replace(self._policy, domains=domains)
        for name in never.who or self._names:
            for question in never.do or [f"produce {each}" for each in sorted(domains)]:
                action, domain = question.split()
                for context in self._contexts(never, Action(action)):
                    decision = decide(AgentId(name), Action(action), DomainName(domain), context, policy)
                    told = _crossing(never, policy.agents[AgentId(name)], decision, policy)
                    if told:
                        target = f" to {context.target}" if context.target else ""
                        found = f"{name} may {question} as {context.kind}{target}: {told}"
                        return Result(never.name, self._where(path), found, decision)
        return Result(never.name, self._where(path), "")

    def _contexts(self, never: Never, action: Action) -> Iterator[Context]:
        if action is Action.CONSUME:
            yield Context(labels=tuple(never.labels))
            return
        tools = sorted({tool for each in self._policy.domains.values() for tool in each.tools or {}})
        for kind in Kind:
            for target in [*([] if kind.targeted else [""]), *self._names]:
                for tool in ["", *tools]:
                    yield Context(kind=kind, target=target, tool=tool, labels=tuple(never.labels))


def _context(facts: Mapping[str, Any]) -> Context:
    return Context(
        kind=Kind(facts.get("kind", "MESSAGE")),
        target=facts.get("target", ""),
        tool=facts.get("tool", ""),
        task_type=facts.get("task_type", ""),
        purpose=facts.get("purpose", ""),
        user=facts.get("user", ""),
        labels=tuple(facts.get("labels", ())),
        tenant=facts.get("tenant", ""),
        to=facts.get("to", ""),
        delegated_by=tuple(map(AgentId, facts.get("delegated_by", ()))),
        time_ms=parse_time(facts["time"]) if facts.get("time") else 0,
        load=facts.get("load", 0.0),
        size=facts.get("size", 0),
    )


def _roles(policy: Policy, double: Double) -> frozenset[RoleName]:
    """The double's roles with what they inherit."""
    given = map(RoleName, ([double.role] if double.role else []) + (double.roles or []))
    return frozenset().union(*(policy.inherited(role) for role in given))


def _guarded(
    decision: Decision, domain: DomainPolicy, facts: Mapping[str, Any], policy: Policy, scanners: Scanners
) -> tuple[Decision, frozenset[str]]:
    """What guardrails make of the case's metadata and payload, in the enforcer's order."""
    guardrails, found = Guardrails(domain, policy, scanners), set[str]()
    for told in _guards(guardrails, facts):
        found |= {kind for _, kind, _ in told.findings}
        if told.refusal is not None:
            return told.refusal, frozenset(found)
    return decision, frozenset(found)


def _guards(guardrails: Guardrails, facts: Mapping[str, Any]) -> Iterator[Guarded[Any]]:
    if facts.get("metadata") is not None:
        yield guardrails.metadata(facts["metadata"])
    if facts.get("payload") is not None:
        yield guardrails.payload(json.dumps(facts["payload"]).encode(), "application/json")


def _failure(case: Case, decision: Decision, found: frozenset[str], label: tuple[str, ...]) -> str:
    verdict = "ALLOW" if decision.allowed else "DENY"
    told = f"{verdict} by {decision.rule} ({decision.location or '-'})" + (f": {decision.why}" if decision.why else "")
    if verdict != case.expect:
        return f"expected {case.expect}, found {told}"
    if case.rule is not None and decision.rule != case.rule:
        return f"expected rule {case.rule}, found {told}"
    names = decision.obligations.names() if decision.obligations is not None else ()
    missing = [each for each in case.obligations if each not in names]
    if missing:
        return f"expected obligations {missing}, found {list(names)}"
    absent = [each for each in case.redacts if each not in found]
    if absent:
        return f"expected findings {absent}, found {sorted(found)}"
    wrong = case.label is not None and set(case.label) != set(label)
    return f"expected label {case.label}, found {list(label)}" if wrong else ""


def _crossing(never: Never, agent: AgentPolicy, decision: Decision, policy: Policy) -> str:
    """How an allowed action is what must never be; "" where it is not."""
    obligations = decision.obligations
    if obligations is None:
        return ""
    if never.crosses is None:
        return f"ALLOW by {decision.rule}"
    if obligations.target:
        other = policy.agents[AgentId(obligations.target)]
        here, there = (agent.zone, other.zone) if never.crosses == "zones" else (agent.tenant, other.tenant)
        return f"{here} -> {there}" if here != there else ""
    for group in obligations.roles:
        name, _, zone = group.partition("/")
        tenant = name.partition("@")[2]
        here, there = (agent.zone, zone) if never.crosses == "zones" else (agent.tenant, tenant)
        if here != there:
            return f"{here} -> {there} ({group})"
    return ""
