"""The deployment that fuzzed values belong to: keys, place and trust of the known-answer vectors, and a policy.

Everything is fixed, so that a kept input means the same in every run.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import reduce
from typing import Any

from bus.client.opening import Opened, Profiles, open_bundle
from bus.crypto import keys
from bus.crypto.keyring import Keyring
from bus.crypto.keys import Secret
from bus.crypto.signing import Signer, Trust, sign_object
from bus.ledger.leaf import day_keys
from bus.policy.compiling import canonical, compile_policy
from bus.policy.rekeying import opening_digest
from bus.wire.names import AgentId, DomainName
from tests.vectors import generate
from tests.vectors.generate import DAY, DEPLOYMENT, DOMAIN, EPOCH, PARTITION, TOPICS, ZONE

__all__ = ["DAY", "DEPLOYMENT", "DOMAIN", "EPOCH", "PARTITION", "TOPICS", "ZONE"]

VECTORS: dict[str, Any] = json.loads(generate.FILE.read_text(encoding="utf-8"))

ANCHOR, POLICY_SIGNER, ENFORCER = map(Signer, (generate.ANCHOR_SEED, generate.POLICY_SEED, generate.ENFORCER_SEED))
ROOT = Secret(generate.ROOT, "root")
AUDIT_ROOT = Secret(generate.AUDIT_ROOT, "audit root")
DAY_KEYS = day_keys(DAY, AUDIT_ROOT)
WRITER, OUTSIDER = generate.AGENT, AgentId("out-1")
AGENT = keys.agent_keys(ROOT, WRITER)
ROLES = tuple(keys.role_key(ROOT, role) for role in generate.ROLES)
OTHER_DOMAIN = DomainName("coordination")
OTHER_ROOT = Secret(bytes(range(0xA0, 0xC0)), "root of another domain")
OTHER_EPOCH = replace(generate.EPOCH_OBJECT, domain=OTHER_DOMAIN, root_digest=keys.root_digest(OTHER_ROOT))
CERTIFICATE = sign_object(ANCHOR, replace(generate.CERTIFICATE, zones=(ZONE, "")))
TRUST = Trust(DEPLOYMENT, ANCHOR.public_key, [CERTIFICATE])
"""The client of this release reads for the empty zone: the enforcer is certified for it too."""


def told(path: str) -> Any:
    """What stands at a dotted path of the vectors."""
    return reduce(lambda value, name: value[int(name) if name.isdigit() else name], path.split("."), VECTORS)


def raw(path: str) -> bytes:
    """The bytes at a dotted path of the vectors."""
    return bytes.fromhex(told(path))


def _domain(tier: str) -> dict[str, Any]:
    return {
        "tier": tier,
        "produce": list(generate.ROLES),
        "consume": list(generate.ROLES),
        "metadata_masking": True,
        "audit_level": "FULL_MESH",
        "attestation_required": False,
        "locations": {"name": "mesh.yaml:7", "produce": "mesh.yaml:9"},
    }


DOCUMENT = canonical(
    {
        "format": "sealbus.policy/1",
        "global": {"credential_rotation_interval_ms": 600_000},
        "topics": {"partitions": 8, "replication": 1, "retention_ms": 86_400_000, "backlog_horizon_ms": 86_400_000},
        "domains": {DOMAIN: _domain("RETRIEVAL"), OTHER_DOMAIN: _domain("PLAINTEXT")},
        "agents": {
            **{each: {"roles": list(generate.ROLES)} for each in (WRITER, generate.GIVER, generate.TARGET)},
            OUTSIDER: {"roles": ["OUTSIDER"]},
        },
    }
)
POLICY = compile_policy(DOCUMENT)


def keyring() -> Keyring:
    """What an enforcer holds: two agents in two domains, one epoch."""
    ring = Keyring(lead_ms=0, grace_ms=0)
    for epoch, root in ((generate.EPOCH_OBJECT, ROOT), (OTHER_EPOCH, OTHER_ROOT)):
        ring.add(epoch, root, (WRITER, OUTSIDER), opening_digest(POLICY, DomainName(epoch.domain)))
    return ring


def opened(value: bytes, target: str = "") -> Opened:
    """What a reader with every role, and with the reading key of ``target``, gets. Raises the first refusal."""
    own = (keys.target_key(ROOT, target),) if target else ()
    got = open_bundle(
        value,
        domain=DOMAIN,
        topic=TOPICS.outbound,
        partition=PARTITION,
        offset=0,
        append_time=generate.DECIDED,
        trust=TRUST,
        tier=None,
        highest=lambda _instance: -1,
        reading=lambda _epoch: (*ROLES, *own),
        profiles=Profiles(),
    )
    for _, error in got.refusals:
        raise error
    return got
