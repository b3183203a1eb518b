"""What must hold between the values of the policy files; every refusal at its place.

Names that collide, names that are used and not given, narrowing that only narrows, cycles, conditions that do not
compile. Labels that a role or an agent could carry down are ``downward``'s.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

from bus.errors import PolicyError
from bus.guardrails.types import TYPES
from bus.policy.conditions import compile_condition
from bus.policy.document import AgentsFile, Domain, SecurityMesh
from bus.policy.downward import check_downward
from bus.policy.masking import NEVER_KEPT
from bus.policy.roles import agent_roles, closure, known_roles
from bus.policy.sharingchecks import check_sharing
from bus.policy.yamldoc import Document, Path_
from bus.wire.names import LOWER_NAME, folded, is_lower_name

LAW = "security_mesh"
MIN_CELL = 1024
"""Bytes of a cell that has room for an envelope and some of a payload."""


def check_files(
    mesh: Document,
    agents: Document,
    law: SecurityMesh,
    who: AgentsFile,
    *,
    development: bool,
    types: frozenset[str] = TYPES,
) -> Iterator[PolicyError]:
    """Every refusal, in no order; ``types`` are those that a guardrail may name."""
    yield from _domains(mesh, law, who, development=development)
    yield from _topics(mesh, law)
    yield from _quotas(mesh, law)
    yield from _roles(mesh, law)
    yield from _zones(mesh, law)
    yield from _labels(mesh, law)
    yield from check_downward(mesh, agents, law, who, (LAW,))
    yield from _conditions(mesh, law)
    yield from _masks(mesh, law)
    yield from _guardrails(mesh, law, types)
    yield from _agents(agents, who, law)


def unknown(
    document: Document, path: Path_, what: str, found: str, known: Sequence[str], *, key: bool = False
) -> PolicyError:
    """A name that is none of ``known``, at its place, with the nearest."""
    near = difflib.get_close_matches(found, known, 1)
    message = f"{what}: expected one of {', '.join(known) or '(none is given)'}, found {found!r}"
    return document.error(path, message, nearest=near[0] if near else "", key=key)


def _each_known(
    document: Document, path: Path_, what: str, names: Sequence[str], known: Sequence[str]
) -> Iterator[PolicyError]:
    for place, name in enumerate(names):
        if name in names[:place]:
            yield document.error((*path, place), f"{what}: {name!r} is given twice")
        elif name not in known:
            yield unknown(document, (*path, place), what, name, known)


def _domains(document: Document, law: SecurityMesh, who: AgentsFile, *, development: bool) -> Iterator[PolicyError]:
    seen: dict[str, str] = {}
    for index, domain in enumerate(law.domains):
        path = (LAW, "domains", index)
        name = domain.name
        if not is_lower_name(name):
            yield document.error((*path, "name"), f"name: expected {LOWER_NAME}, found {name!r}")
        if other := seen.get(folded(name)):
            same = "is given twice" if other == name else f"collides with {other!r}: Kafka folds '.', '-' and '_'"
            yield document.error((*path, "name"), f"domain {name!r} {same}")
        seen[folded(name)] = name
        yield from _narrowing(document, path, domain, law)
        if domain.tier == "PLAINTEXT" and not development:
            yield document.error((*path, "tier"), "tier: PLAINTEXT is for development mode only")
        if domain.tier == "PLAINTEXT" and domain.attestation_required:
            yield document.error((*path, "tier"), "tier: a domain that requires attestation cannot be PLAINTEXT")
        interval = law.global_.credential_rotation_interval_ms
        if domain.max_token_age_ms is not None and domain.max_token_age_ms > interval:
            message = f"max_token_age_ms: expected at most credential_rotation_interval_ms ({interval}), "
            yield document.error((*path, "max_token_age_ms"), f"{message}found {domain.max_token_age_ms}")
        if domain.computation is not None and domain.tier != "COMPUTATION":
            message = f"computation: expected a domain of tier COMPUTATION, found {domain.tier}"
            yield document.error((*path, "computation"), message)
        yield from _protected(document, path, domain, law)
        if domain.mpc is not None:
            yield from check_sharing(document, (*path, "mpc"), domain, domain.mpc, law, who)
        if domain.audit_payload == "sealed" and domain.audit_level != "FULL_MESH":
            message = f"audit_payload: expected audit_level FULL_MESH for sealed, found {domain.audit_level}"
            yield document.error((*path, "audit_payload"), message)
        if domain.blind_index is not None:
            yield from _indexed(document, (*path, "blind_index"), domain)
        levels = law.labels.levels + law.labels.categories if law.labels else []
        for key, known in (
            ("label", levels),
            ("when", list(law.conditions)),
            ("masks", list(law.masks)),
            ("guardrails", list(law.guardrails)),
        ):
            yield from _each_known(document, (*path, key), key, getattr(domain, key), known)
        for key, rule, given in (
            ("rate_limit", domain.rate_limit, list(law.rate_limits)),
            ("circuit_breaker", domain.circuit_breaker, list(law.circuit_breakers)),
        ):
            if rule is not None and rule not in given:
                yield unknown(document, (*path, key), key, rule, given)


def _protected(document: Document, path: Path_, domain: Domain, law: SecurityMesh) -> Iterator[PolicyError]:
    if domain.fhe_context is not None and domain.tier != "FHE":
        message = f"fhe_context: expected a domain of tier FHE, found {domain.tier}"
        yield document.error((*path, "fhe_context"), message)
    if domain.constant_size and domain.padding is None:
        yield document.error((*path, "constant_size"), "constant_size: expected padding, the size of a cell")
    if domain.constant_size and domain.padding is not None and domain.padding < MIN_CELL:
        message = f"padding: expected at least {MIN_CELL} with constant_size, found {domain.padding}"
        yield document.error((*path, "padding"), message)
    if domain.constant_size:
        yield from _growing(document, path, domain, law)
    if domain.sealed_fields is not None:
        yield from _sealed(document, (*path, "sealed_fields"), domain, domain.sealed_fields, law)
    lacking = domain.fhe_context is None if domain.tier == "FHE" else domain.computation == "mpc" and domain.mpc is None
    if not domain.sourced or (lacking and domain.protect_at is None):
        return  # payloads are the enforcer's, or none gets there
    if domain.tier == "PLAINTEXT":
        yield document.error((*path, "protect_at"), "protect_at: a domain of tier PLAINTEXT protects nothing")
    if domain.blind_index is not None:
        yield document.error((*path, "blind_index"), "blind_index: no enforcer sees payloads with protect_at: source")
    # At the source there are numbers where they are computed on, no hop that could count, and no key to hash with.
    numbers = domain.tier == "FHE" or domain.computation == "mpc"
    looking = {
        "guardrails": {
            name for name, each in law.guardrails.items() if "payload" in each.on and (numbers or each.then == "flag")
        },
        "masks": {
            name for name, each in law.masks.items() if any(map(_in_payload, each.changed if numbers else each.hash))
        },
    }
    for key, names in looking.items():
        for place, name in enumerate(getattr(domain, key)):
            if name in names:
                why = "payloads that are encrypted numbers" if numbers else "payloads, where a source cannot keep it"
                yield document.error((*path, key, place), f"{key}: {name} looks into {why}")


def _growing(document: Document, path: Path_, domain: Domain, law: SecurityMesh) -> Iterator[PolicyError]:
    """What an enforcer may make longer than its cell."""
    at_source = domain.sourced
    for place, name in enumerate(domain.masks):
        mask = law.masks.get(name)
        changed = [] if mask is None else [*mask.hash, *mask.last4, *mask.generalise]
        if any(not (at_source and _in_payload(key)) for key in changed):
            message = f"masks: {name} may make what it masks longer than a cell; with constant_size it may drop alone"
            yield document.error((*path, "masks", place), message)
    for place, name in enumerate(domain.guardrails):
        rule = law.guardrails.get(name)
        if rule is not None and rule.then == "redact" and ("metadata" in rule.on or not at_source):
            message = f"guardrails: {name} may make what it redacts longer than a cell; with constant_size it may deny"
            yield document.error((*path, "guardrails", place), message)
    if law.labels is not None and law.labels.propagate == "tickets":
        yield document.error((*path, "constant_size"), "constant_size: tickets have more sizes than one")


def _sealed(
    document: Document, path: Path_, domain: Domain, fields: dict[str, str], law: SecurityMesh
) -> Iterator[PolicyError]:
    if domain.sourced or domain.tier == "PLAINTEXT":
        yield document.error(path, "sealed_fields: expected a domain whose payloads an enforcer protects")
    protecting = {each.name for each in law.domains if each.sourced and each.tier != "FHE"}
    protecting -= {each.name for each in law.domains if each.computation == "mpc"}
    for name, target in fields.items():
        if target not in protecting:
            message = f"{name}: expected a domain with protect_at: source, found {target!r}"
            yield document.error((*path, name), message)
        if any(other != name and name.startswith(f"{other}.") for other in fields):
            yield document.error((*path, name), f"{name}: a field around it is sealed, too", key=True)
    for place, mask in enumerate(domain.masks):
        for key in law.masks[mask].changed if mask in law.masks else ():
            name = key.removeprefix("payload.")
            if name != key and any(each == name or name.startswith(f"{each}.") for each in fields):
                where = (LAW, "domains", path[2], "masks", place)
                yield document.error(where, f"masks: {mask} would mask {name}, which is sealed")
    for index in domain.blind_index or []:
        if any(index == name or index.startswith(f"{name}.") for name in fields):
            yield document.error(path, f"sealed_fields: {index} is in the blind index, which an enforcer makes")


def _in_payload(key: str) -> bool:
    return key.startswith("payload.")


def _indexed(document: Document, path: Path_, domain: Domain) -> Iterator[PolicyError]:
    if domain.tier != "RETRIEVAL":
        yield document.error(path, f"blind_index: expected a domain of tier RETRIEVAL, found {domain.tier}")
    fields = domain.blind_index or []
    for place, name in enumerate(fields):
        if name in fields[:place]:
            yield document.error((*path, place), f"blind_index: {name!r} is given twice")


def _narrowing(document: Document, path: Path_, domain: Domain, law: SecurityMesh) -> Iterator[PolicyError]:
    # A role that inherits an allowed one may be named, too: its holders have the allowed one.
    bound = [each for each in known_roles(law) if set(closure(law, [each])) & set(domain.allowed_roles)]
    for key in ("allowed_roles", "produce", "consume", "delegates"):
        roles = getattr(domain, key) or []
        for place, role in enumerate(roles):
            where = (*path, key, place)
            if role in roles[:place]:
                yield document.error(where, f"{key}: role {role!r} is given twice")
            elif key != "allowed_roles" and role not in bound:
                message = f"{key}: expected one of allowed_roles {domain.allowed_roles}, found {role!r}"
                near = difflib.get_close_matches(role, domain.allowed_roles, 1)
                yield document.error(where, message, nearest=near[0] if near else "")
            elif key == "delegates" and set(closure(law, [role])) & set(domain.producers):
                yield document.error(where, f"delegates: {role} may produce by itself")
    for tool, roles in (domain.tools or {}).items():
        yield from _each_known(document, (*path, "tools", tool), tool, roles, bound)


def _topics(document: Document, law: SecurityMesh) -> Iterator[PolicyError]:
    topics = law.topics
    if topics.retention < topics.backlog_horizon:
        yield document.error(
            (LAW, "topics", "retention"),
            f"retention: expected at least backlog_horizon ({topics.backlog_horizon} ms), found {topics.retention} ms",
        )


def _quotas(document: Document, law: SecurityMesh) -> Iterator[PolicyError]:
    known = [*known_roles(law), "default"]
    for name in law.broker_quotas:
        if name not in known:
            yield unknown(document, (LAW, "broker_quotas", name), "broker_quotas", name, known, key=True)


def _roles(document: Document, law: SecurityMesh) -> Iterator[PolicyError]:
    levels, categories = (law.labels.levels, law.labels.categories) if law.labels else ([], [])
    for name, role in law.roles.items():
        path = (LAW, "roles", name)
        yield from _each_known(document, (*path, "inherits"), "inherits", role.inherits, known_roles(law))
        yield from _each_known(document, (*path, "categories"), "categories", role.categories, categories)
        if role.clearance is not None and role.clearance not in levels:
            yield unknown(document, (*path, "clearance"), "clearance", role.clearance, levels)
        if any(name in closure(law, [each]) for each in role.inherits):
            yield document.error((*path, "inherits"), f"inherits: {name} inherits itself")


def _zones(document: Document, law: SecurityMesh) -> Iterator[PolicyError]:
    zones, levels = list(law.zones), law.labels.levels if law.labels else []
    yield from _each_known(document, (LAW, "tenants"), "tenants", law.tenants, law.tenants)
    for index, flow in enumerate(law.flows):
        path = (LAW, "flows", index)
        if flow.id in [each.id for each in law.flows[:index]]:
            yield document.error((*path, "id"), f"flow {flow.id!r} is given twice")
        for key, zone in (("from", flow.from_), ("to", flow.to)):
            if zone not in zones:
                yield unknown(document, (*path, key), key, zone, zones)
        if flow.from_ == flow.to:
            yield document.error((*path, "to"), f"to: expected another zone than {flow.from_}, found the same")
        yield from _each_known(
            document, (*path, "domains"), "domains", flow.domains, [each.name for each in law.domains]
        )
        yield from _each_known(
            document, (*path, "forbid"), "forbid", flow.forbid, law.labels.categories if law.labels else []
        )
        if flow.max_label is not None and flow.max_label not in levels:
            yield unknown(document, (*path, "max_label"), "max_label", flow.max_label, levels)


def _labels(document: Document, law: SecurityMesh) -> Iterator[PolicyError]:
    labels = law.labels
    if labels is None:
        return
    path = (LAW, "labels")
    names = labels.levels + labels.categories
    for key, offset in (("levels", 0), ("categories", len(labels.levels))):
        for place, name in enumerate(getattr(labels, key)):
            if name in names[: offset + place]:
                yield document.error((*path, key, place), f"{key}: {name!r} is given twice")
    for index, each in enumerate(labels.declassify):
        where = (*path, "declassify", index)
        if each.role not in known_roles(law):
            yield unknown(document, (*where, "role"), "role", each.role, known_roles(law))
        for key, level in (("from", each.from_), ("to", each.to)):
            if level not in labels.levels:
                yield unknown(document, (*where, key), key, level, labels.levels)
        yield from _each_known(document, (*where, "drop"), "drop", each.drop, labels.categories)
        yield from _each_known(document, (*where, "after"), "after", each.after, list(law.guardrails))


def _conditions(document: Document, law: SecurityMesh) -> Iterator[PolicyError]:
    for name, text in law.conditions.items():
        try:
            compile_condition(name, text)
        except ValueError as error:
            yield document.error((LAW, "conditions", name), f"{name}: {error}")


def _masks(document: Document, law: SecurityMesh) -> Iterator[PolicyError]:
    for name, mask in law.masks.items():
        seen: set[str] = set()
        for key in ("keep", "drop", "hash", "last4", "generalise"):
            for place, target in enumerate(getattr(mask, key) or []):
                path = (LAW, "masks", name, key, place)
                if target in seen:
                    yield document.error(path, f"{key}: {target!r} is given twice")
                seen.add(target)
                if key == "keep" and target.startswith("payload."):
                    yield document.error(path, f"keep: expected a key of the metadata, found {target!r}")
                if target.removeprefix("metadata.") in NEVER_KEPT and key != "drop":
                    yield document.error(path, f"{key}: {target} tells topology and can never be kept")


def _guardrails(document: Document, law: SecurityMesh, types: frozenset[str]) -> Iterator[PolicyError]:
    for name, rule in law.guardrails.items():
        yield from _each_known(document, (LAW, "guardrails", name, "detect"), "detect", rule.detect, sorted(types))


def _agents(document: Document, who: AgentsFile, law: SecurityMesh) -> Iterator[PolicyError]:
    known = known_roles(law)
    seen: dict[str, str] = {}
    for name, agent in who.agents.items():
        path = ("agents", name)
        if not is_lower_name(name):
            yield document.error(path, f"agent: expected {LOWER_NAME}, found {name!r}", key=True)
        if other := seen.get(folded(name)):
            yield document.error(path, f"agent {name!r} collides with {other!r} after folding", key=True)
        seen[folded(name)] = name
        if (agent.role is None) == (agent.roles is None):
            yield document.error(path, "expected one of `role` and `roles`")
        for role in agent_roles(agent):
            if role not in known:
                near = difflib.get_close_matches(role, known, 1)
                where = (*path, "role") if agent.role else (*path, "roles")
                message = f"role: expected one that a domain allows ({', '.join(known)}), found {role!r}"
                yield document.error(where, message, nearest=near[0] if near else "")
        measured = agent.measurements or []
        for place, each in enumerate(measured):
            if each in measured[:place]:
                yield document.error((*path, "measurements", place), "measurements: this one is given twice")
        for key, given, allowed in (("tenant", agent.tenant, law.tenants), ("zone", agent.zone, list(law.zones))):
            if given is not None and given not in allowed:
                yield unknown(document, (*path, key), key, given, allowed)
            elif given is None and allowed:
                yield document.error(path, f"expected key {key!r}, found none: the policy has {key}s")
