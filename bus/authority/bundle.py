"""An agent's keys of one epoch, as one 0600 file: what the issuer writes and the SDK reads.

``keys/<epoch>`` holds, per domain that the agent may touch, the signed epoch object, the key of its data at rest, its
own MAC and seal keys and the one that it delegates with where it may write, and its reading key and the KEKs of its
reader groups where it may consume. It never holds a root or another agent's key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bus.authority.roots import StoredEpoch
from bus.codes import Code
from bus.crypto import keys
from bus.crypto.keys import AgentKeys, ReadingKey, Secret
from bus.crypto.session import session_key
from bus.crypto.signing import open_object
from bus.errors import Unverified, WireError
from bus.files import read_secret
from bus.policy.model import Policy
from bus.wire.names import AgentId, DomainName
from bus.wire.objects import Epoch

FORMAT: Final = "sealbus.bundle/1"


@dataclass(frozen=True, slots=True)
class DomainBundle:
    """One domain and epoch in an agent's hands. ``own`` and ``delegation`` are None where it may only consume or the
    epoch has closed."""

    epoch: Epoch
    own: AgentKeys | None
    reading: tuple[ReadingKey, ...]
    store: Secret
    delegation: Secret | None = None
    session: Secret | None = None
    """Where payloads of the domain are protected at their source."""


Bundle = Mapping[DomainName, DomainBundle]


def make_bundle(
    agent: AgentId,
    policy: Policy,
    epochs: list[StoredEpoch],
    *,
    sending: bool = True,
    attested: bool = False,
    session: Secret | None = None,
) -> bytes | None:
    """The file's bytes for ``agent``, or None where the policy gives it no domain of these epochs.

    ``sending`` False leaves out the MAC and seal keys, for an epoch whose grace has ended. ``attested``: whether an
    attestation result of the agent is in force, and so keys of domains that require one are among them. ``session`` is
    what session keys are made with; without it there are none of domains that protect at the source.
    """
    produce = {each.name for each in policy.may_produce(agent)}
    consume = {each.name for each in policy.may_consume(agent)}
    domains: dict[str, Any] = {}
    for stored in epochs:
        name = DomainName(stored.epoch.domain)
        domain = policy.domains.get(name)
        if domain is None or name not in produce | consume:
            continue
        if not domain.protectable or (domain.attestation_required and not attested):
            continue
        protects = session if domain.at_source else None
        if domain.at_source and protects is None:
            continue
        store = keys.store_key(stored.root, agent)
        entry: dict[str, Any] = {"epoch": stored.signed.hex(), "store": store.reveal().hex()}
        if protects is not None and (name in consume or sending):
            entry["session"] = session_key(stored.root, protects, name, stored.epoch.epoch).reveal().hex()
        if name in produce and sending:
            entry["own"] = _own(keys.agent_keys(stored.root, agent))
            entry["delegation"] = keys.delegation_key(stored.root, agent).reveal().hex()
        if name in consume:
            groups = policy.groups(agent, domain)
            entry["reading"] = keys.target_key(stored.root, agent).kek.reveal().hex()
            entry["roles"] = {group: keys.group_key(stored.root, group).kek.reveal().hex() for group in groups}
        domains[name] = entry
    if not domains:
        return None
    return json.dumps({"format": FORMAT, "agent": agent, "domains": domains}).encode()


def _own(own: AgentKeys) -> dict[str, str]:
    return {
        "key_id": own.key_id.hex(),
        "mac": own.mac.reveal().hex(),
        "seal": own.seal.reveal().hex(),
        "notice": own.notice.reveal().hex(),
        "notice_key_id": own.notice_key_id.hex(),
    }


def read_bundle(path: Path, agent: AgentId, anchor: bytes, deployment: bytes) -> Bundle:
    """The verified bundle in ``path``. Raises Refused (mode), Unverified (epoch signature) or WireError(decode)."""
    data = read_secret(path)
    try:
        document = json.loads(data)
        if document["format"] != FORMAT or document["agent"] != agent:
            raise WireError(f"{path}: not a bundle of {agent}", code=Code.DECODE)
        return {
            DomainName(name): _domain(agent, name, entry, anchor, deployment)
            for name, entry in document["domains"].items()
        }
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise WireError(f"{path}: not a bundle: {type(error).__name__}", code=Code.DECODE) from None


def _secret(text: str, name: str) -> Secret:
    value = bytes.fromhex(text)
    if len(value) != keys.KEY_LENGTH:
        raise ValueError(f"{name}: expected {keys.KEY_LENGTH} bytes, found {len(value)}")
    return Secret(value, name)


def _domain(agent: AgentId, name: str, entry: dict[str, Any], anchor: bytes, deployment: bytes) -> DomainBundle:
    own = entry.get("own")
    reading = []
    if "reading" in entry:
        reading.append(keys.reading_key(_secret(entry["reading"], f"target {agent}")))
    for role, kek in entry.get("roles", {}).items():
        reading.append(keys.reading_key(_secret(kek, f"role {role}")))
    epoch = open_object(Epoch, bytes.fromhex(entry["epoch"]), anchor, deployment)
    if epoch.domain != name:
        raise Unverified(f"bundle of {agent}: the epoch of {name} is one of {epoch.domain}", step="epoch")
    return DomainBundle(
        epoch=epoch,
        own=None
        if own is None
        else AgentKeys(
            key_id=bytes.fromhex(own["key_id"]),
            mac=_secret(own["mac"], f"{agent} mac"),
            seal=_secret(own["seal"], f"{agent} seal"),
            notice=_secret(own["notice"], f"{agent} notice"),
            notice_key_id=bytes.fromhex(own["notice_key_id"]),
        ),
        reading=tuple(reading),
        store=_secret(entry["store"], f"{agent} store"),
        delegation=_secret(entry["delegation"], f"{agent} delegate") if "delegation" in entry else None,
        session=_secret(entry["session"], f"session {name}") if "session" in entry else None,
    )
