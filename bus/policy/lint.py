"""What is allowed in a policy and is probably not meant: warnings, each at its place. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bus.guardrails.scanner import Scanners, default_scanner
from bus.policy.casefile import CasesFile
from bus.policy.cases import rules_of, run_cases, seen_conditions
from bus.policy.model import DomainPolicy, Policy
from bus.policy.yamldoc import Document
from bus.wire.names import Tier

FHE_PER_HOUR: Final = 3600
"""Records an hour and partition above which homomorphic encryption of single records is a mistake."""

FHE_ROWS: Final = 4096
FHE_COLUMN: Final = 410_000
"""Bytes of one encrypted column of that many rows (docs/tiers.md)."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """One thing to look at."""

    text: str
    location: str

    def __str__(self) -> str:
        return f"{self.location}: {self.text}" if self.location else self.text


def lint(policy: Policy) -> Iterator[Doubt]:
    """Warnings that the policy alone gives."""
    for _, domain in sorted(policy.domains.items()):
        yield from _domain(policy, domain)
    used = {role for domain in policy.domains.values() for role in domain.writing | domain.consume}
    for role in sorted(policy.clearances):
        if not policy.inherited(role) & used:
            yield Doubt(f"role {role} may do nothing anywhere", policy.locations.get(f"roles:{role}", ""))
    for section, names in (
        ("conditions", {each.name for domain in policy.domains.values() for each in domain.when}),
        ("guardrails", {each.name for domain in policy.domains.values() for each in domain.guardrails}),
        ("masks", {each.name for domain in policy.domains.values() for each in domain.masks}),
        ("rate_limits", {each.rate.name for each in policy.domains.values() if each.rate}),
        ("circuit_breakers", {each.breaker.name for each in policy.domains.values() if each.breaker}),
    ):
        for place, where in sorted(policy.locations.items()):
            kind, _, name = place.partition(":")
            if kind == section and name not in names:
                yield Doubt(f"{name} is in {section} and no domain names it", where)


def lint_cases(
    policy: Policy, document: Document, file: CasesFile, scanners: Scanners = default_scanner
) -> Iterator[Doubt]:
    """Warnings that only its cases give: rules that decide none, conditions that never differ."""
    decided = {
        each.decision.rule for each in run_cases(policy, document, file, scanners=scanners) if each.decision is not None
    }
    for rule in sorted(rules_of(policy) - decided):
        yield Doubt(f"no case is decided by {rule}", "")
    for name, held in sorted(seen_conditions(policy, document, file, scanners).items()):
        if len(held) == 1:
            always = "true" if True in held else "false"
            yield Doubt(f"{name} is {always} in every case", policy.locations.get(f"conditions:{name}", ""))


def _domain(policy: Policy, domain: DomainPolicy) -> Iterator[Doubt]:
    for action, agents in (
        ("read", policy.openers(domain)),
        ("write", policy.writers(domain)),
    ):
        if not agents:
            where = domain.location("consume" if action == "read" else "produce")
            yield Doubt(f"no agent may {action} {domain.name}", where)
    if domain.tier is Tier.FHE and (domain.rate is None or domain.rate.per_hour > FHE_PER_HOUR):
        yield Doubt(f"{domain.name} is FHE and has no rate limit of at most one a second", domain.location("tier"))
    if domain.tier is Tier.FHE:
        single = sorted(each for each in domain.kinds or () if each.startswith(("RPC_", "TOOL_", "REASONING")))
        if single:
            text = f"{domain.name} is FHE and takes {', '.join(single)}: single values cost as much as {FHE_ROWS} rows"
            yield Doubt(text, domain.location("kinds"))
        if domain.rate is not None and (most := domain.rate.max_bytes or FHE_COLUMN) < FHE_COLUMN:
            text = f"{domain.name} is FHE and takes {most} bytes: one encrypted column has {FHE_COLUMN}"
            yield Doubt(text, domain.location("rate_limit"))
    if not domain.audit_full:
        text = f"{domain.name} is OUTPUT_ONLY: its ALLOW hops keep no purpose, causation, labels or facts"
        yield Doubt(text, domain.location("name"))
