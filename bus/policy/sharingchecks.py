"""What must hold of `mpc` in a domain: who may be a party, what may be added up; every refusal at its place."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from bus.errors import PolicyError
from bus.policy.document import AgentsFile, Domain, Mpc, SecurityMesh
from bus.policy.roles import agent_roles, closure
from bus.policy.yamldoc import Document, Path_


def check_sharing(
    document: Document, path: Path_, domain: Domain, mpc: Mpc, law: SecurityMesh, who: AgentsFile
) -> Iterator[PolicyError]:
    """Every refusal of ``domain``'s `mpc`."""
    if domain.tier != "COMPUTATION" or domain.computation != "mpc":
        yield document.error(path, "mpc: expected a domain of tier COMPUTATION with computation: mpc")
    if not mpc.fields and not mpc.groups:
        yield document.error(path, "mpc: expected fields or groups to add up, found neither")
    for name in sorted({*mpc.fields} & {*mpc.groups}):
        yield document.error((*path, "groups", name), f"groups: {name} is a field, too", key=True)
    for name, field in mpc.fields.items():
        if not field.min < field.max:
            message = f"max: expected more than min ({field.min:g}), found {field.max:g}"
            yield document.error((*path, "fields", name, "max"), message)
    for name, values in mpc.groups.items():
        if len(set(values)) < len(values):
            yield document.error((*path, "groups", name), f"{name}: a value is given twice")
    roles = domain.allowed_roles if domain.consume is None else domain.consume
    for place, role in enumerate(mpc.release_to):
        if not set(closure(law, [role])) & set(roles):
            message = f"release_to: expected roles that may consume {domain.name}, found {role!r}"
            yield document.error((*path, "release_to", place), message)
    yield from _parties(document, path, domain, mpc, law, who)


def _parties(
    document: Document, path: Path_, domain: Domain, mpc: Mpc, law: SecurityMesh, who: AgentsFile
) -> Iterator[PolicyError]:
    keys: dict[str, str] = {}
    zones: dict[str, str] = {}
    reads, writes = domain.allowed_roles if domain.consume is None else domain.consume, domain.producers
    for name, party in mpc.parties.items():
        where = (*path, "parties", name)
        if not _is_key(party.key):
            yield document.error((*where, "key"), "key: expected an X25519 public key as `bus mpc init` prints it")
        if other := keys.get(party.key):
            yield document.error((*where, "key"), f"key: {other} has the same: one holder could open everything")
        keys[party.key] = name
        if party.peer is not None:
            continue
        agent = who.agents.get(name)
        if agent is None:
            message = f"parties: expected an agent of agents.yaml, or a peer that has it; found {name!r}"
            yield document.error(where, message, key=True)
            continue
        held = set(closure(law, agent_roles(agent)))
        if not held & set(reads) or not held & set(writes):
            message = f"parties: expected one that may consume and produce {domain.name}, found {name!r}"
            yield document.error(where, message, key=True)
        if agent.zone is not None and (other := zones.get(agent.zone)):
            message = f"parties: expected another zone than that of {other}, found the same ({agent.zone})"
            yield document.error(where, message, key=True)
        if agent.zone is not None:
            zones[agent.zone] = name


def _is_key(text: str) -> bool:
    """Whether shares can be sealed to it: a point of small order is none."""
    try:
        X25519PrivateKey.generate().exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(text)))
    except ValueError:
        return False
    return True
