"""Builders shared by the unit tests: a policy, an authority in a folder, hops, signed hop blocks and ledgers of them.

Keys and times are fixed, so that a failure repeats; what is random in the product (roots, instances) stays random.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus.authority.issuer import Issuer
from bus.authority.local import ensure_authority, load_signer, open_roots
from bus.authority.roots import RootStore
from bus.authority.trust import TrustFile
from bus.codes import Code
from bus.crypto.keys import Secret
from bus.crypto.seal import CountingAead
from bus.crypto.signing import Signer, Trust, hop_block_message, sign_object
from bus.files import Layout
from bus.ledger.leaf import DayKeys, day_keys
from bus.ledger.store import Entry, Interval, Ledger
from bus.policy.compiling import FORMAT, canonical, compile_policy
from bus.policy.model import Policy
from bus.settings import Settings
from bus.wire import codec, hopblock, preimage
from bus.wire.hop import HopTail, Verdict, decision_id, encode_hop, encode_tail
from bus.wire.names import NO_ZONE
from bus.wire.objects import EnforcerCertificate
from consumers.audit.recorder import record_block

DEPLOYMENT = bytes(range(16))
OTHER_DEPLOYMENT = bytes(range(1, 17))
DAY = 20_300
NOON = DAY * hopblock.DAY_MS + hopblock.DAY_MS // 2
"""ms since 1970."""
ANCHOR, ENFORCER, LEDGER_SIGNER, STRANGER = (Signer(bytes([number]) * 32) for number in (1, 2, 3, 4))
INSTANCE = bytes([7]) * 16
AUDIT_ROOT = Secret(bytes([9]) * 32, "audit")
KEYS = day_keys(DAY, AUDIT_ROOT)
INPUT = "notes.in"


def keys_of(day: int) -> DayKeys:
    """The only day that these ledgers know."""
    if day != DAY:
        raise KeyError(day)
    return KEYS


def domain(
    *,
    tier: str = "RETRIEVAL",
    produce: Sequence[str] = ("WRITER",),
    consume: Sequence[str] = ("READER", "WRITER"),
    attested: bool = False,
) -> dict[str, Any]:
    """A domain of a policy document."""
    return {
        "tier": tier,
        "produce": sorted(produce),
        "consume": sorted(consume),
        "metadata_masking": True,
        "audit_level": "FULL_MESH",
        "attestation_required": attested,
        "locations": {"name": "mesh.yaml:7"},
    }


def make_policy(
    domains: Mapping[str, dict[str, Any]] | None = None,
    agents: Mapping[str, Sequence[str]] | None = None,
    *,
    interval_ms: int = 600_000,
    partitions: int = 4,
    replication: int = 1,
    retention_ms: int = 7 * 86_400_000,
    horizon_ms: int = 86_400_000,
    quotas: Mapping[str, Mapping[str, int]] | None = None,
    measurements: Mapping[str, Sequence[str]] | None = None,
) -> Policy:
    """A compiled policy; without arguments `notes` and `plans`, a writer and a reader."""
    domains = {"notes": domain(), "plans": domain(produce=["READER"])} if domains is None else domains
    agents = {"writer-1": ["WRITER"], "reader-1": ["READER"]} if agents is None else agents
    document = {
        "format": FORMAT,
        "global": {"credential_rotation_interval_ms": interval_ms},
        "topics": {
            "partitions": partitions,
            "replication": replication,
            "retention_ms": retention_ms,
            "backlog_horizon_ms": horizon_ms,
        },
        **({"quotas": quotas} if quotas else {}),
        "domains": dict(domains),
        "agents": {
            name: {
                "roles": sorted(roles),
                **({"measurements": sorted(measurements[name])} if measurements and name in measurements else {}),
            }
            for name, roles in agents.items()
        },
    }
    return compile_policy(canonical(document))


@dataclass(slots=True)
class Authority:
    """A state folder with signers, trust and an issuer. ``restart`` forgets what the process held."""

    layout: Layout
    settings: Settings
    trust: TrustFile
    store: RootStore
    issuer: Issuer

    def restart(self) -> None:
        """A new issuer process over the same files."""
        self.store = open_roots(self.settings, self.layout, self.trust)
        signer = load_signer(self.layout.signer("issuer"))
        self.issuer = Issuer(self.layout, self.store, signer, self.settings, self.settings.owners)


def make_authority(folder: Path, **changes: Any) -> Authority:
    """An authority in ``folder``; keyword arguments are settings."""
    settings = dataclasses.replace(Settings(), deployment=DEPLOYMENT.hex(), state=folder / "state", **changes)
    layout = Layout(settings.state)
    trust = ensure_authority(layout, DEPLOYMENT)
    store = open_roots(settings, layout, trust)
    issuer = Issuer(layout, store, load_signer(layout.signer("issuer")), settings, settings.owners)
    return Authority(layout, settings, trust, store, issuer)


def certificate(
    signer: Signer = ENFORCER,
    *,
    anchor: Signer = ANCHOR,
    deployment: bytes = DEPLOYMENT,
    not_before: int = NOON - 30 * 86_400_000,
    not_after: int = NOON + 30 * 86_400_000,
    domains: Sequence[str] = ("notes", "plans"),
) -> bytes:
    """A signed enforcer certificate."""
    value = EnforcerCertificate(
        deployment=deployment,
        key_id=signer.key_id,
        public_key=signer.public_key,
        not_before=not_before,
        not_after=not_after,
        name="bus-enforcer-1",
        zones=(NO_ZONE,),
        domains=tuple(domains),
    )
    return sign_object(anchor, value)


def make_trust(*certificates: bytes) -> Trust:
    """The trust store with ``certificates``, or with one of ENFORCER."""
    return Trust(DEPLOYMENT, ANCHOR.public_key, certificates or (certificate(),))


def make_hop(number: int, *, correlation: str = "", **tail: Any) -> bytes:
    """The ``number``-th hop of an input; ``tail`` are fields of HopTail."""
    digest = hashlib.sha256(b"record %d" % number).digest()
    fields: dict[str, Any] = {
        "topic": INPUT,
        "decision": Verdict.ALLOW,
        "code": Code.ALLOW,
        "rule": "notes.produce",
        "location": "mesh.yaml:7",
        "snapshot": 1,
        "policy_digest": bytes(32),
        "agent": "writer-1",
        "domain": "notes",
        "epoch": 1,
        "kind": "MESSAGE",
    }
    return encode_hop(
        origin_digest=digest,
        output_digest=hashlib.sha256(digest).digest(),
        message_id=digest[:16],
        instance_sequence=INSTANCE + number.to_bytes(8, "big"),
        partition=0,
        offset=number,
        append_time=NOON + number,
        decided_at=NOON + number + 5,
        gap=0,
        size=100,
        session=(correlation or f"session-{number // 3}").encode(),
        causes=b"\x00",
        tail=encode_tail(HopTail(**{**fields, **tail})),
    )


def name_of(number: int) -> str:
    """The decision id of ``make_hop(number)``."""
    return decision_id(hashlib.sha256(b"record %d" % number).digest())


def make_block(
    hops: Sequence[bytes],
    start: int,
    end: int,
    *,
    signer: Signer = ENFORCER,
    day: int = DAY,
    count: int | None = None,
    sealed_with: Secret = AUDIT_ROOT,
    deployment: bytes = DEPLOYMENT,
) -> bytes:
    """A hop block over input offsets [start, end), as an enforcer seals and signs it."""
    aead = CountingAead(day_keys(day, sealed_with).blocks, "audit", INSTANCE)
    header = hopblock.header(
        day=day,
        enforcer_key_id=signer.key_id,
        instance=INSTANCE,
        sequence=start,
        partition=0,
        start=start,
        end=end,
        count=len(hops) if count is None else count,
        topic=INPUT,
    )
    body = aead.seal(start, hopblock.join_hops(list(hops)), preimage.hop_block_aad(deployment, header))
    signed = header + codec.prefixed(body)
    return signed + signer.sign(hop_block_message(deployment, signed))


def make_blocks(total: int, width: int, **tail: Any) -> list[bytes]:
    """Blocks of ``width`` hops each that tile the input [0, total)."""
    return [
        make_block(
            [make_hop(number, **tail) for number in range(at, min(at + width, total))], at, min(at + width, total)
        )
        for at in range(0, total, width)
    ]


def record(ledger: Ledger, blocks: Iterable[bytes], partition: int = 1, batch: int = 1) -> None:
    """Record ``blocks`` at the partition's next offsets, ``batch`` of them in a database transaction."""
    pending = list(blocks)
    while pending:
        taken, pending = pending[:batch], pending[batch:]
        _, position = ledger.state(partition)
        entries: list[Entry] = []
        intervals: list[Interval] = []
        for offset, value in enumerate(taken, position):
            made = record_block(value, partition, offset, make_trust(), keys_of)
            entries += made[0]
            intervals += made[1]
        ledger.append(partition, position, position + len(taken), entries, intervals)


def make_ledger(path: Path, total: int = 12, width: int = 3, partition: int = 1, **tail: Any) -> Ledger:
    """A ledger of ``total`` hops, with a checkpoint after each block."""
    ledger = Ledger(path, DEPLOYMENT)
    for block in make_blocks(total, width, **tail):
        record(ledger, [block], partition)
        ledger.sign(partition, LEDGER_SIGNER)
    return ledger
