"""What a draft changes for agents: who gains and loses what, which rules weaken. Pure.

*Widens* means that something could go on, or be read, that the live policy would have stopped. Where a change cannot be
judged (a condition's text, a guardrail's detectors swapped) it counts as widening: somebody has to look.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bus.policy.labels import Propagate
from bus.policy.model import DomainPolicy, GuardrailRule, MaskRule, Policy, RateRule
from bus.wire.names import AgentId, DomainName

_STRICTER = (Propagate.NONE, Propagate.TICKETS, Propagate.SESSION)
_THEN = ("flag", "redact", "deny")


@dataclass(frozen=True, slots=True)
class AccessChange:
    """One line: ``sign`` + - or ~, what, where it is written in the draft, and whether it widens."""

    sign: str
    text: str
    location: str
    widens: bool

    def __str__(self) -> str:
        place = f"  {self.location}" if self.location else ""
        return f"{self.sign} {self.text}{place}{'  WIDENS' if self.widens else ''}"


def access_changes(live: Policy, draft: Policy) -> list[AccessChange]:
    """Every change of access or of a rule, by domain."""
    return [*_access(live, draft), *_domains(live, draft), *_measurements(live, draft), *_policy(live, draft)]


def _access(live: Policy, draft: Policy) -> Iterator[AccessChange]:
    for action in ("produce", "delegates", "consume"):
        for name in sorted({*live.domains, *draft.domains}):
            before, after = _allowed(live, name, action), _allowed(draft, name, action)
            where = draft.domains[name].location(action) if name in draft.domains else ""
            told = f"produce {name} under a delegation" if action == "delegates" else f"{action} {name}"
            if after - before:
                yield AccessChange("+", f"may {told}: {', '.join(sorted(after - before))}", where, widens=True)
            if before - after:
                text = f"may not {told} any more: {', '.join(sorted(before - after))}"
                yield AccessChange("-", text, where, widens=False)


def _allowed(policy: Policy, name: DomainName, action: str) -> set[AgentId]:
    domain = policy.domains.get(name)
    if domain is None:
        return set()
    if action == "consume":
        return set(policy.openers(domain))
    roles = domain.delegates if action == "delegates" else domain.produce
    return {agent for agent, each in policy.agents.items() if each.roles & roles}


def _domains(live: Policy, draft: Policy) -> Iterator[AccessChange]:
    for name in sorted({*live.domains} & {*draft.domains}):
        before, after = live.domains[name], draft.domains[name]
        for key in ("guardrails", "when", "masks"):
            old, new = ([each.name for each in getattr(domain, key)] for domain in (before, after))
            if old != new:
                text = f"{name} {key} [{', '.join(old)}] -> [{', '.join(new)}]"
                yield AccessChange("~", text, after.location(key), widens=not set(old) <= set(new))
        yield from _scalars(name, before, after, live, draft)
        if before.kinds != after.kinds:
            old, new = (sorted(each) if each is not None else ["any"] for each in (before.kinds, after.kinds))
            widens = before.kinds is not None and (after.kinds is None or not after.kinds <= before.kinds)
            text = f"{name} kinds [{', '.join(old)}] -> [{', '.join(new)}]"
            yield AccessChange("~", text, after.location("kinds"), widens=widens)
        if before.tools != after.tools:
            widens = before.tools is not None and (
                after.tools is None
                or any(not roles <= before.tools.get(tool, set()) for tool, roles in after.tools.items())
            )
            yield AccessChange("~", f"{name} tools", after.location("tools"), widens=widens)


def _scalars(
    name: DomainName, before: DomainPolicy, after: DomainPolicy, live: Policy, draft: Policy
) -> Iterator[AccessChange]:
    rows = [
        ("tier", before.tier.name, after.tier.name, after.tier < before.tier),
        ("metadata_masking", before.metadata_masking, after.metadata_masking, before.metadata_masking),
        ("audit in full", before.audit_full, after.audit_full, before.audit_full),
        # On: what the ledger keeps outlives its topic, and an operator may open it. Off: what happened is not kept.
        ("audit_payload", _audited(before), _audited(after), True),
        ("attestation_required", before.attestation_required, after.attestation_required, before.attestation_required),
        ("rate_limit", _rate(before.rate), _rate(after.rate), _wider(before.rate, after.rate)),
        ("padding", before.padding, after.padding, after.padding < before.padding),
        ("max_token_age_ms", *_ages(name, live, draft)),
        ("user_required", before.user_required, after.user_required, before.user_required),
        ("constant_size", before.constant_size, after.constant_size, before.constant_size),
        (
            "sealed_fields",
            _fields(before),
            _fields(after),
            not before.sealed_fields.items() <= after.sealed_fields.items(),
        ),
        ("blind_index", *_indexed(before, after)),
        ("computation", before.computation, after.computation, True),
        ("protect_at", _at(before), _at(after), before.at_source and not after.at_source),
        ("fhe_context", before.fhe_context.hex()[:12], after.fhe_context.hex()[:12], True),
        ("mpc", _sharing(before), _sharing(after), True),
        ("circuit_breaker", str(before.breaker), str(after.breaker), before.breaker is not None),
        (
            "label",
            "+".join(live.scheme.names(before.label)),
            "+".join(draft.scheme.names(after.label)),
            live.scheme != draft.scheme or not after.label.covers(before.label),
        ),
    ]
    for key, old, new, widens in rows:
        if old != new:
            yield AccessChange("~", f"{name} {key} {old} -> {new}", after.location(key), widens=widens)


def _ages(name: DomainName, live: Policy, draft: Policy) -> tuple[int, int, bool]:
    before, after = live.interval_ms(name), draft.interval_ms(name)
    return before, after, after > before


def _indexed(before: DomainPolicy, after: DomainPolicy) -> tuple[str, str, bool]:
    """More fields widen: whoever reads the topic learns which records have the same value there."""
    old, new = (f"[{', '.join(each.blind_index)}]" for each in (before, after))
    return old, new, not set(after.blind_index) <= set(before.blind_index)


def _audited(domain: DomainPolicy) -> str:
    return "sealed" if domain.payload_kept else "digest"


def _fields(domain: DomainPolicy) -> str:
    told = sorted(f"{'.'.join(path)}: {target}" for path, target in domain.sealed_fields.items())
    return f"[{', '.join(told)}]"


def _sharing(domain: DomainPolicy) -> str:
    return domain.sharing.digest.hex()[:12] if domain.sharing is not None else ""


def _at(domain: DomainPolicy) -> str:
    return "source" if domain.at_source else "enforcer"


def _rate(rate: RateRule | None) -> str:
    return "none" if rate is None else f"{rate.per_hour}/h per {rate.per} and partition, burst {rate.burst}"


def _wider(before: RateRule | None, after: RateRule | None) -> bool:
    if before is None:
        return False
    return after is None or after.per != before.per or after.per_hour > before.per_hour or after.burst > before.burst


def _measurements(live: Policy, draft: Policy) -> Iterator[AccessChange]:
    """What attestation may find of an agent: one more widens, whatever the others are."""
    for name in sorted(draft.agents):
        before = live.agents[name].measurements if name in live.agents else frozenset()
        after = draft.agents[name].measurements
        for each in sorted(after - before):
            yield AccessChange("+", f"{name} may attest {each}", "", widens=True)
        for each in sorted(before - after):
            yield AccessChange("-", f"{name} may not attest {each} any more", "", widens=False)


def _policy(live: Policy, draft: Policy) -> Iterator[AccessChange]:
    yield from _named("condition", _conditions(live), _conditions(draft), draft, "conditions")
    yield from _guardrails(live, draft)
    yield from _named("mask", _masks(live), _masks(draft), draft, "masks")
    for role in sorted({*live.clearances, *draft.clearances}):
        old, new = live.clearance(role), draft.clearance(role)
        if old != new or (live.scheme != draft.scheme and draft.scheme.levels):
            names = "+".join(live.scheme.names(old)) or "nothing", "+".join(draft.scheme.names(new)) or "nothing"
            text = f"{role} is cleared for {names[0]} -> {names[1]}"
            falls = draft.propagate is not Propagate.NONE and not new.covers(old)
            if falls:  # what counts is what it may read now
                text += "; what its agents have read may go on at the lower label"
            yield AccessChange("~", text, "", widens=falls or not old.covers(new))
    flows = {each.id: each for each in live.flows}
    for flow in draft.flows:
        if flows.get(flow.id) != flow:
            sign = "~" if flow.id in flows else "+"
            yield AccessChange(sign, f"flow {flow.id} from {flow.source} to {flow.target}", flow.location, widens=True)
    for gone in sorted({*flows} - {each.id for each in draft.flows}):
        yield AccessChange("-", f"flow {gone}", "", widens=False)
    for key in ("tenants", "zones"):
        old_names, new_names = getattr(live, key), getattr(draft, key)
        if old_names != new_names:
            text = f"{key} [{', '.join(sorted(old_names))}] -> [{', '.join(sorted(new_names))}]"
            yield AccessChange("~", text, draft.locations.get(key, ""), widens=bool(old_names) and not new_names)
    if live.declassify != draft.declassify:
        yield AccessChange("~", "declassifiers", "", widens=not set(draft.declassify) <= set(live.declassify))
    if live.propagate != draft.propagate:
        text = f"labels follow the data: {live.propagate.value} -> {draft.propagate.value}"
        yield AccessChange("~", text, "", widens=_STRICTER.index(draft.propagate) < _STRICTER.index(live.propagate))


def _conditions(policy: Policy) -> dict[str, str]:
    return {each.name: each.text for domain in policy.domains.values() for each in domain.when}


def _masks(policy: Policy) -> dict[str, MaskRule]:
    return {mask.name: mask for domain in policy.domains.values() for mask in domain.masks}


def _named(
    what: str, old: Mapping[str, object], new: Mapping[str, object], draft: Policy, section: str
) -> Iterator[AccessChange]:
    """A definition that changed under its name; whoever stopped using it is told by domain."""
    for name in sorted({*old} & {*new}):
        if old[name] != new[name]:
            yield AccessChange(
                "~", f"{what} {name} reads otherwise", draft.locations.get(f"{section}:{name}", ""), True
            )


def _guardrails(live: Policy, draft: Policy) -> Iterator[AccessChange]:
    old, new = ({each.name: each for d in policy.domains.values() for each in d.guardrails} for policy in (live, draft))
    for name in sorted({*old} & {*new}):
        if old[name] != new[name]:
            where = draft.locations.get(f"guardrails:{name}", "")
            yield AccessChange(
                "~", f"guardrail {name}: {_told(new[name])}", where, widens=_weaker(old[name], new[name])
            )


def _told(rule: GuardrailRule) -> str:
    return f"{', '.join(sorted(rule.detect))} then {rule.then}"


def _weaker(old: GuardrailRule, new: GuardrailRule) -> bool:
    less = not old.detect <= new.detect or (old.payload and not new.payload) or (old.metadata and not new.metadata)
    return less or _THEN.index(new.then) < _THEN.index(old.then)
