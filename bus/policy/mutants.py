"""Policies with one rule changed: cases that all pass on each of them do not test that rule. Pure.

Each mutant loosens or drops one thing that a rule says: a name in a list, a condition, a label, a flow's limits.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bus.errors import WireError
from bus.guardrails.scanner import Scanners, default_scanner
from bus.policy.casefile import CasesFile
from bus.policy.cases import each_case, run_cases
from bus.policy.compiling import canonical, compile_policy
from bus.policy.model import Policy
from bus.policy.yamldoc import Document

_LISTS: Final = ("produce", "consume", "delegates", "when", "masks", "guardrails", "label", "kinds")


@dataclass(frozen=True, slots=True)
class Mutant:
    """``what`` was changed, where it is written, and the policy that came of it."""

    what: str
    location: str
    policy: Policy


def mutants(policy: Policy) -> Iterator[Mutant]:
    """Every mutant that is still a policy."""
    origin = json.loads(policy.document)
    for what, location, document in _changed(origin):
        try:
            yield Mutant(what, location, compile_policy(canonical(document)))
        except WireError:
            continue


def survivors(
    policy: Policy, document: Document, file: CasesFile, scanners: Scanners = default_scanner
) -> tuple[list[Mutant], int]:
    """Mutants that no case notices, and how many there were."""
    count, left = 0, []
    failing = {each.name for each in run_cases(policy, document, file, scanners=scanners) if each.failure}
    for mutant in mutants(policy):
        count += 1
        told = each_case(mutant.policy, document, file, scanners)
        if not any(each.failure and each.name not in failing for each in told):
            left.append(mutant)
    return left, count


def _changed(origin: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, domain in origin["domains"].items():
        locations = domain["locations"]
        for key in _LISTS:
            for each in domain.get(key, []):
                made = copy.deepcopy(origin)
                made["domains"][name][key].remove(each)
                if not made["domains"][name][key] and key not in ("produce", "consume"):
                    del made["domains"][name][key]
                yield f"{name}: {key} without {each}", locations.get(key, ""), made
        if domain.get("user_required"):
            made = copy.deepcopy(origin)
            del made["domains"][name]["user_required"]
            yield f"{name}: no user required", locations.get("user_required", ""), made
        for key in ("produce", "consume"):
            for role in _others(origin, domain[key]):
                made = copy.deepcopy(origin)
                made["domains"][name][key].append(role)
                yield f"{name}: {key} with {role}", locations.get(key, ""), made
        for tool, roles in domain.get("tools", {}).items():
            for role in _others(origin, roles):
                if not _held(origin, role) & {*domain["produce"]}:
                    continue  # may not write at all: no tool of it counts
                made = copy.deepcopy(origin)
                made["domains"][name]["tools"][tool].append(role)
                yield f"{name}: {tool} for {role}", locations.get("tools", ""), made
    for index, flow in enumerate(origin.get("flows", [])):
        for key in ("max_label", "forbid", "domains"):
            if flow.get(key):
                made = copy.deepcopy(origin)
                if key == "domains":
                    made["flows"][index]["domains"] = sorted(origin["domains"])
                else:
                    del made["flows"][index][key]
                yield f"{flow['id']}: without {key}", flow["location"], made
    for key in ("tenants", "zones"):
        if key in origin:
            made = copy.deepcopy(origin)
            del made[key]
            yield f"without {key}", origin["locations"].get(key, ""), made
    for role in origin.get("clearances", {}):
        labels = origin["labels"]
        highest = [*sorted(labels["categories"]), labels["levels"][-1]]
        if set(origin["clearances"][role]) != set(highest):
            made = copy.deepcopy(origin)
            made["clearances"][role] = highest
            yield f"{role}: cleared for everything", origin["locations"].get(f"roles:{role}", ""), made
    for name in origin.get("conditions", {}):
        made = copy.deepcopy(origin)
        made["conditions"][name] = "true"
        yield f"{name}: always true", origin["locations"].get(f"conditions:{name}", ""), made


def _held(origin: dict[str, Any], role: str) -> set[str]:
    return set(origin.get("inherits", {}).get(role, [role]))


def _others(origin: dict[str, Any], roles: list[str]) -> list[str]:
    """Roles that ``roles`` do not let in already, by themselves or by what they inherit."""
    every = {role for each in origin["domains"].values() for key in ("produce", "consume") for role in each[key]}
    return sorted(role for role in every if not _held(origin, role) & set(roles))
