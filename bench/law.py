"""What a decision costs: 1,000 rules, 100 domains, 1,000 agents; and a guarded record; no broker.

Beside it, where `cedarpy` is installed, Cedar answers the role rules of the same policy; both must decide alike.
"""

from __future__ import annotations

import importlib.util
import json
import random
import statistics
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter_ns
from typing import Any, Final

from bench.rows import Figures
from bus.guardrails.inspect import Inspection
from bus.kafka.limits import PartitionLimits
from bus.policy.compiling import FORMAT, canonical, compile_policy
from bus.policy.decide import decide, decide_constant
from bus.policy.model import BreakerRule, GuardrailRule, Policy, RateRule
from bus.policy.moments import Moments
from bus.policy.question import Action, Context
from bus.wire.names import AgentId, DomainName
from consumers.enforcer.decided import DecidedProfile
from consumers.enforcer.inspector import Inspector

ROLES: Final = 50
DOMAINS: Final = 100
AGENTS: Final = 1000
CONDITIONS: Final = 300
QUESTIONS: Final = 4000
CONTEXT: Final = Context(purpose="care", time_ms=1_772_445_600_000, load=0.2, size=1000, labels=("internal",))
TEXTS: Final = (
    'context.purpose in ["care", "billing", "fraud"]',
    'principal.clearance == "restricted" || context.task_type == "incident"',
    "context.time.getHours() >= 6 && context.load < 0.9",
)
Question = tuple[AgentId, DomainName]


def large_document(seed: int = 1) -> bytes:
    """300 conditions, 700 lists of roles, of 100 domains with labels and tools, over 1,000 agents."""
    chance = random.Random(seed)
    roles, levels = [f"ROLE_{n}" for n in range(ROLES)], ["public", "internal", "confidential", "restricted"]
    conditions = {f"c{n}": TEXTS[0 if n % 10 < 6 else 1 if n % 10 < 9 else 2] for n in range(CONDITIONS)}
    domains = {
        f"d{n}": {
            "tier": "RETRIEVAL",
            "produce": chance.sample(roles, 12),
            "consume": chance.sample(roles, 12),
            "metadata_masking": True,
            "audit_level": "FULL_MESH",
            "attestation_required": False,
            "label": [levels[n % 3]],
            "when": [f"c{3 * n + k}" for k in range(3)],
            "tools": {tool: chance.sample(roles, 4) for tool in ("sql.read", "mail.send", "web.get", "file.put")},
            "locations": {"name": "mesh.yaml:1"},
        }
        for n in range(DOMAINS)
    }
    agents = {f"a{n}": {"roles": chance.sample(roles, 3), "tenant": "t", "zone": "z"} for n in range(AGENTS)}
    return canonical({
        "format": FORMAT,
        "global": {"credential_rotation_interval_ms": 600_000},
        "topics": {"partitions": 4, "replication": 1, "retention_ms": 10**9, "backlog_horizon_ms": 10**8},
        "tenants": ["t"],
        "zones": {"z": {}},
        "labels": {"levels": levels, "categories": ["pii"], "declassify": []},
        "clearances": {role: ["restricted", "pii"] for role in roles},
        "conditions": conditions,
        "domains": domains,
        "agents": agents,
    })  # fmt: skip


def measure() -> dict[str, Figures]:
    """Answers a second and median us of each kind of question."""
    document = large_document()
    began = perf_counter_ns()
    policy = compile_policy(document)
    took = (perf_counter_ns() - began) / 1000
    chance = random.Random(2)
    questions = [
        (AgentId(f"a{chance.randrange(AGENTS)}"), DomainName(f"d{chance.randrange(DOMAINS)}")) for _ in range(QUESTIONS)
    ]
    allowed = [each for each in questions if decide(each[0], Action.PRODUCE, each[1], CONTEXT, policy).allowed]
    moment = [each for each in allowed if policy.domains[each[1]].moment]
    known = {each: _remembered(each, policy) for each in allowed}
    limited = {each: _enforced(each, policy) for each in moment}

    def again(each: Question) -> object:
        return known[each].at(CONTEXT.time_ms, CONTEXT.load, CONTEXT.size)

    for each in moment:
        again(each)

    def anew(each: Question) -> object:
        return _remembered(each, policy).at(CONTEXT.time_ms, CONTEXT.load, CONTEXT.size)

    made = {
        "compiling 1,000 rules": {"records_s": 1e6 / took, "cpu_us": took},
        "decision, any": _median(lambda each: decide(each[0], Action.PRODUCE, each[1], CONTEXT, policy), questions),
        "decision, ALLOW": _median(lambda each: decide(each[0], Action.PRODUCE, each[1], CONTEXT, policy), allowed),
        "a condition of the moment, first": _median(anew, moment),
        "a condition of the moment, again": _median(again, moment),
        "conditions, labels and limits, again": _median(lambda each: limited[each](), moment),
        "guarded record, 1 KiB": _guarded(),
    }
    if importlib.util.find_spec("cedarpy") is not None:
        made["cedar, role rules alone"] = _cedar(policy, questions[:50])
    return made


def _remembered(each: Question, policy: Policy) -> Moments:
    asked = each[0], Action.PRODUCE, each[1]
    return Moments(decide_constant(*asked, CONTEXT, policy), *asked, CONTEXT, policy)


def _enforced(each: Question, policy: Policy) -> Callable[[], None]:
    """The enforcer's answer for one more record of a known profile: conditions, labels, a rate and a breaker."""
    domain = replace(
        policy.domains[each[1]],
        rate=RateRule("normal", "agent", 3_600_000_000, 1_000_000, None),
        breaker=BreakerRule("worker", "agent", 5, 30_000, 60_000),
    )
    inspector, limits, moments = Inspector(domain, policy), PartitionLimits(), _remembered(each, policy)
    decision = moments.at(CONTEXT.time_ms, CONTEXT.load, CONTEXT.size)
    decided = DecidedProfile(b"", None, decision, b"", b"", (), policy.digest, moments)

    def ask() -> None:
        inspector.judge(decided, CONTEXT.time_ms, CONTEXT.size, CONTEXT.load)
        inspector.admit(each[0], CONTEXT.size, CONTEXT.time_ms, limits)
        inspector.settle(decision, each[0], CONTEXT.time_ms, limits)

    ask()
    return ask


def _median(ask: Callable[[Question], object], questions: list[Question]) -> Figures:
    times = []
    for each in questions:
        began = perf_counter_ns()
        ask(each)
        times.append((perf_counter_ns() - began) / 1000)
    median = statistics.median(times)
    return {"records_s": 1e6 / median, "cpu_us": median}


def _guarded() -> Figures:
    rules = [
        GuardrailRule("no-pii", frozenset({"PERSON", "EMAIL", "PHONE", "SSN"}), True, False, "redact"),
        GuardrailRule("no-keys", frozenset({"API_KEY", "PRIVATE_KEY"}), True, True, "deny"),
    ]
    inspection = Inspection(rules)
    text = "a note of an agent to another about something ordinary, with no name in it; "
    items = [{"id": number, "value": f"value {number}"} for number in range(12)]
    payload = json.dumps({"items": items, "text": (text * 12)[: 1024 - 12 * 34]}).encode()
    asked = [(AgentId(""), DomainName(""))] * 2000
    return _median(lambda _: inspection.payload(payload, "application/json"), asked) | {"bytes": len(payload)}


def _cedar(policy: Policy, questions: list[Question]) -> Figures:
    """Cedar's answers to who may produce where; raises AssertionError where it decides otherwise."""
    import cedarpy

    text = "\n".join(
        f'permit(principal in Role::"{role}", action == Action::"produce", resource == Domain::"{name}");'
        for name, domain in policy.domains.items()
        for role in sorted(domain.produce)
    )
    entities: list[Any] = [
        {
            "uid": {"type": "Agent", "id": name},
            "attrs": {},
            "parents": [{"type": "Role", "id": role} for role in sorted(agent.roles)],
        }
        for name, agent in policy.agents.items()
    ]
    entities += [{"uid": {"type": "Role", "id": f"ROLE_{n}"}, "attrs": {}, "parents": []} for n in range(ROLES)]
    law, held = cedarpy.PolicySet.from_str(text), cedarpy.Entities.from_json_str(json.dumps(entities))

    def ask(each: Question) -> bool:
        agent, domain = each
        request = {
            "principal": f'Agent::"{agent}"',
            "action": 'Action::"produce"',
            "resource": f'Domain::"{domain}"',
            "context": {},
        }
        told: bool = cedarpy.is_authorized(request, law, held).allowed
        return told

    for each in questions:
        ours = bool(policy.domains[each[1]].produce & policy.agents[each[0]].roles)
        if ask(each) is not ours:
            raise AssertionError(f"{each}: Cedar and sealbus decide otherwise")
    return _median(ask, questions)
