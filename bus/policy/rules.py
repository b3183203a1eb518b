"""The rules of the PDP, one function each: a case in, findings out. ``RULES`` holds them in their order.

A rule that has nothing to say of a case yields nothing. Rules of what differs from record to record (time, load, size)
are asked apart (``moment_conditions``), so that the others may be remembered per profile.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from typing import Any, Final

from bus.codes import Code
from bus.policy.acting import delegation
from bus.policy.conditions import prepared
from bus.policy.model import AgentPolicy, DomainPolicy, FlowRule, reader_group
from bus.policy.question import Action, Case, Finding
from bus.wire.envelope import Kind
from bus.wire.names import AgentId, Tier


def readers(case: Case) -> tuple[str, ...]:
    """Groups that a record for roles is sealed to: cleared, in its tenant, in its zone or where a flow leads."""
    policy, domain = case.policy, case.domain
    zones = [""]
    if policy.zones:
        there = {flow.target for flow in _flows(case, case.agent.zone) if not flow.forbids(case.label)}
        zones = sorted({case.agent.zone} | there)
    return tuple(
        reader_group(role, case.tenant if policy.tenants else "", zone)
        for role in sorted(policy.readers(domain, case.label))
        for zone in zones
    )


def _reader(case: Case) -> AgentPolicy | None:
    """The agent that a written record is for, where it is for one and there is such an agent."""
    return case.policy.agents.get(AgentId(case.context.target)) if case.action is Action.PRODUCE else None


def _tenants(case: Case) -> Iterator[Finding]:
    if not case.policy.tenants:
        return
    where = case.policy.locations.get("tenants", "")
    other = _reader(case)
    tenant = case.tenant if other is None else other.tenant
    if not case.agent.tenant or case.agent.tenant != tenant:
        yield Finding("tenants", f"{case.agent.tenant or 'no tenant'} is not {tenant}", where, Code.TENANTS)
    else:
        yield Finding("tenants", f"{tenant} = {tenant}", where)


def _flows(case: Case, source: str) -> list[FlowRule]:
    return [each for each in case.policy.flows if each.source == source and case.domain.name in each.domains]


def _zones(case: Case) -> Iterator[Finding]:
    policy = case.policy
    if not policy.zones:
        return
    where = policy.locations.get("zones", "")
    other = _reader(case)
    here, there = case.agent.zone, case.to if other is None else other.zone
    if case.action is Action.CONSUME:
        here, there = there, here
    if not here or not there:
        yield Finding("zones", f"{case.agent.name} has no zone", where, Code.ZONES)
    elif here == there:
        yield Finding("zones", f"{here} -> {there}, no flow needed", where)
    else:
        leading = [each for each in _flows(case, here) if each.target == there]
        if not leading:
            yield Finding("zones", f"no flow leads {case.domain.name} from {here} to {there}", where, Code.ZONES)
            return
        barred = [(each, each.forbids(case.label)) for each in leading]
        flow, part = min(barred, key=lambda pair: bool(pair[1]))
        rule = f"{flow.id}.{part}" if part else flow.id
        label = "+".join(policy.scheme.names(case.label))
        verb = "may not go" if part else "goes"
        yield Finding(rule, f"{label} {verb} from {here} to {there}", flow.location, Code.ZONES if part else None)


def _roles(case: Case) -> Iterator[Finding]:
    domain, action = case.domain, case.action
    granted = domain.produce if action is Action.PRODUCE else domain.consume
    held = granted & case.agent.roles
    rule, where = f"{domain.name}.{action}", domain.location(action)
    if held:
        yield Finding(rule, f"{', '.join(sorted(held))} in [{', '.join(sorted(granted))}]", where)
        return
    why = f"{', '.join(sorted(case.agent.roles))} not in [{', '.join(sorted(granted))}]"
    yield Finding(rule, why, where, Code.PRODUCE if action is Action.PRODUCE else Code.CONSUME)


def _kinds(case: Case) -> Iterator[Finding]:
    domain, context = case.domain, case.context
    if case.action is not Action.PRODUCE:
        return
    if context.kind.targeted and not context.target:
        where = domain.location("consume")
        yield Finding(f"{domain.name}.consume", f"{context.kind} needs a target", where, Code.CONSUME)
    if domain.kinds is not None and context.kind not in domain.kinds:
        why = f"{context.kind} not in [{', '.join(sorted(domain.kinds))}]"
        yield Finding(f"{domain.name}.kinds", why, domain.location("kinds"), Code.KINDS)
    if not context.tool and (context.kind is not Kind.TOOL_CALL or domain.tools is None):
        return
    rule, where = f"{domain.name}.tools", domain.location("tools")
    granted = (domain.tools or {}).get(context.tool)
    if domain.tools is None:
        yield Finding(rule, f"{domain.name} names no tools: {context.tool} as any", where)
    elif granted is None or not granted & case.agent.roles:
        why = f"{', '.join(sorted(case.agent.roles))} may not call {context.tool or 'without naming a tool'}"
        yield Finding(rule, why, where, Code.TOOLS)
    else:
        yield Finding(rule, f"{', '.join(sorted(granted & case.agent.roles))} may call {context.tool}", where)


def _labels(case: Case) -> Iterator[Finding]:
    domain, context, policy = case.domain, case.context, case.policy
    where = domain.location("label")
    rule = f"{domain.name}.label"
    if policy.scheme.parse(context.labels) is None:
        yield Finding(rule, f"labels {list(context.labels)} are not the policy's", where, Code.LABELS)
        return
    text = "+".join(policy.scheme.names(case.label))
    if case.action is Action.CONSUME:
        held = case.agent.roles & policy.readers(domain, case.label)
        refusal = None if held else Code.LABELS
        yield Finding(rule, f"{case.agent.name} is {'' if held else 'not '}cleared for {text or 'it'}", where, refusal)
        return
    cleared = policy.readers(domain, case.label)
    if not cleared:
        if domain.consume:
            yield Finding(rule, f"nobody who may read {domain.name} is cleared for {text}", where, Code.LABELS)
        else:
            why, where = f"nobody may read {domain.name}", domain.location("consume")
            yield Finding(f"{domain.name}.consume", why, where, Code.CONSUME)
        return
    if context.target:
        reader = _reader(case)
        if reader is None or not reader.roles & domain.consume:
            why = f"target {context.target!r} may not read {domain.name}"
            yield Finding(f"{domain.name}.consume", why, domain.location("consume"), Code.CONSUME)
            return
        if not reader.roles & cleared:
            yield Finding(rule, f"target {context.target!r} is not cleared for {text}", where, Code.LABELS)
            return
    if text:
        yield Finding(rule, f"{text}: {', '.join(sorted(cleared))}", where)


def facts(case: Case) -> dict[str, Any]:
    """What conditions see: the names of ``bus.policy.conditions.SAMPLE``."""
    agent, context, scheme = case.agent, case.context, case.policy.scheme
    clearance = case.policy.cleared(agent)
    return {
        "principal": {
            "id": agent.name,
            "roles": sorted(agent.roles),
            "tenant": agent.tenant,
            "zone": agent.zone,
            "clearance": scheme.levels[clearance.level] if scheme.levels else "",
            "categories": sorted(clearance.categories),
        },
        "action": case.action.value,
        "resource": {
            "domain": case.domain.name,
            "tier": case.domain.tier.name,
            "label": list(scheme.names(case.domain.label)),
        },
        "context": {
            "kind": context.kind.value,
            "target": context.target,
            "tool": context.tool,
            "task_type": context.task_type,
            "purpose": context.purpose,
            "user": context.user,
            "labels": list(scheme.names(case.label)),
            "time": _moment(context.time_ms),
            "load": float(context.load),
            "size": context.size,
        },
    }


def _moment(time_ms: int) -> dt.datetime | None:
    """None beyond the calendar: a condition on it cannot be evaluated then."""
    try:
        return dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _conditions(case: Case, *, moment: bool) -> Iterator[Finding]:
    wanted = [each for each in case.domain.when if each.moment is moment]
    if not wanted or case.action is not Action.PRODUCE:  # they are about a record; who reads has none yet
        return
    known = prepared(facts(case))
    for each in wanted:
        holds = each.holds(known)
        text = each.text if holds is not None else f"{each.text}: cannot be evaluated"
        where = case.policy.locations.get(f"conditions:{each.name}", "")
        yield Finding(each.name, text, where, None if holds else Code.CONDITION)


def _user(case: Case) -> Iterator[Finding]:
    domain, user = case.domain, case.context.user
    if domain.user_required and case.action is Action.PRODUCE:
        why = f"on behalf of {user}" if user else "expected a verified user, on whose behalf it is written"
        yield Finding(f"{domain.name}.user", why, domain.location("user_required"), None if user else Code.USER)


def _constant_conditions(case: Case) -> Iterator[Finding]:
    return _conditions(case, moment=False)


def moment_conditions(case: Case) -> Iterator[Finding]:
    """Conditions that look at the time, the load or the record's size."""
    return _conditions(case, moment=True)


def _tier(case: Case) -> Iterator[Finding]:
    domain, floor = case.domain, case.context.tier_floor
    rule = f"{domain.name}.tier"
    # The loader refuses PLAINTEXT with attestation: its records have no keys that could be withheld.
    if not domain.protectable or (domain.attestation_required and domain.tier is Tier.PLAINTEXT):
        yield Finding(rule, _lacks(domain), domain.location("tier"), Code.TIER_UNAVAILABLE)
    elif case.action is Action.PRODUCE and case.context.at_source not in (None, domain.at_source):
        at = "at its source" if domain.at_source else "by the enforcer"
        yield Finding(rule, f"its payload is protected {at}", domain.location("protect_at"), Code.TIER_FLOOR)
    elif floor is not None and domain.tier < floor:
        why = f"{domain.tier.name} is below the envelope's floor {floor.name}"
        yield Finding(rule, why, domain.location("tier"), Code.TIER_FLOOR)
    else:
        yield Finding(rule, domain.tier.name, domain.location("tier"))


def _lacks(domain: DomainPolicy) -> str:
    tier = f"{domain.tier.name} by {domain.computation}" if domain.tier is Tier.COMPUTATION else domain.tier.name
    attested = " with attestation" if domain.attestation_required else ""
    if domain.tier is Tier.PLAINTEXT:
        return f"{tier}{attested} is not available"
    needs = "protect_at: source"
    if domain.tier is Tier.FHE:
        needs = "protect_at: source and an fhe_context"
    elif domain.computation == "mpc":
        needs = "protect_at: source, and what mpc adds up by which parties"
    return f"{tier}{attested} is available with {needs}"


Rule = Callable[[Case], Iterator[Finding]]
RULES: Final[tuple[Rule, ...]] = (
    delegation,
    _tenants,
    _zones,
    _roles,
    _kinds,
    _labels,
    _user,
    _constant_conditions,
    _tier,
)
