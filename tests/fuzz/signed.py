"""Targets: what a signature covers. Values as they come, and any content under an honest signature or seal.

The second kind finds what an honest but faulty, or a stolen, signing key could do to a reader.
"""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from bus.authority.trust import TrustFile, open_snapshot
from bus.codes import Code
from bus.crypto.seal import CountingAead
from bus.crypto.signing import Trust, bundle_leaf, bundle_message, hop_block_message, open_object
from bus.errors import Refused
from bus.ledger import checkpoint
from bus.ledger.leaf import UNVERIFIED_INDEX, Position, hop_key, open_hop
from bus.ledger.proof import Proof, parse_proof, verify_proof
from bus.policy.compiling import canonical
from bus.wire import codec, derived, envelope, hopblock, objects, preimage
from bus.wire.names import AUDIT, Tier
from consumers.audit.recorder import record_block
from tests.fuzz.target import Fault, Target
from tests.fuzz.tokens import JSON_TOKENS, NOTE_TOKENS
from tests.fuzz.world import (
    ANCHOR,
    DAY,
    DAY_KEYS,
    DEPLOYMENT,
    DOCUMENT,
    ENFORCER,
    PARTITION,
    POLICY_SIGNER,
    TOPICS,
    TRUST,
    opened,
    raw,
)
from tests.vectors import generate

INSTANCE = generate.fixed("enforcer instance")
NO_TABLE = derived.encode_key_table(())
LEDGER = POLICY_SIGNER
"""Any key will do for the ledger."""


# Signed objects.
def signer_of(kind: Any) -> Any:
    return POLICY_SIGNER if kind is objects.SignedSnapshot else ANCHOR


def sign(kind: Any, content: bytes) -> bytes:
    return content + signer_of(kind).sign(preimage.signed_object(kind.use, content))


def object_targets(name: str, kind: Any) -> tuple[Target, Target]:
    """An object as it comes, unverified and verified; and any content under an honest signature."""
    value = raw(f"{name}.value")
    key = signer_of(kind).public_key

    def verified(content: bytes) -> Any:
        return open_object(kind, sign(kind, content), key, DEPLOYMENT)

    return (
        Target(
            name,
            lambda data: (kind.parse(data), data[-objects.SIGNATURE_LENGTH :]),
            (value,),
            lambda told: told[0].encode_unsigned() + told[1],
            lambda data: open_object(kind, data, key, DEPLOYMENT),
            share=5,
        ),
        Target(f"{name}_signed", verified, (value[:-64],), kind.encode_unsigned),
    )


def read_certificate(content: bytes) -> objects.EnforcerCertificate:
    return Trust(DEPLOYMENT, ANCHOR.public_key).add(sign(objects.EnforcerCertificate, content))


def read_policy(document: bytes) -> bytes:
    """A policy document in a snapshot that its signer signed; gives the canonical form of what it says."""
    digest = hashlib.sha256(document).digest()
    content = objects.SignedSnapshot(DEPLOYMENT, 4, digest, 0, 2**63, document).encode_unsigned()
    trust = TrustFile(DEPLOYMENT, ANCHOR.public_key, POLICY_SIGNER.public_key, bytes(32))
    live = open_snapshot(sign(objects.SignedSnapshot, content), trust)
    try:
        return canonical(json.loads(live.policy.document))
    except ValueError as error:
        raise Fault("accepted, though it has no canonical form") from error


# What a bundle and a hop block hold.
def open_released(content: bytes) -> None:
    """``content`` in a bundle of one that an enforcer signed, as a reader gets it."""
    head = generate.head_of(Tier.PLAINTEXT, 1, 1)
    fixed = bytes(16) + derived.NO_SET.to_bytes(2, "big") + bytes(8)
    entry = derived.Entry(fixed, derived.NO_SET, 0, envelope.pad(content))
    prefix = preimage.derived_signature(DEPLOYMENT, TOPICS.outbound, PARTITION)
    message = bundle_message(prefix, head, NO_TABLE, [bundle_leaf(head, entry.fixed, entry.body)])
    encoded = fixed + codec.prefixed(entry.body)
    opened(derived.encode(head, NO_TABLE, [encoded], ENFORCER.sign(message)))


def record(data: bytes) -> bytes:
    """A count of hops and a block's body, sealed and signed by an enforcer: what the recorder keeps opens again."""
    if len(data) < 4:
        raise Refused("no count", code=Code.BOUNDS)
    count, body = int.from_bytes(data[:4], "big"), data[4:]
    header = hopblock.header(
        day=DAY,
        enforcer_key_id=ENFORCER.key_id,
        instance=INSTANCE,
        sequence=0,
        partition=PARTITION,
        start=900,
        end=902,
        count=count,
        topic=TOPICS.inbound,
    )
    sealed = CountingAead(DAY_KEYS.blocks, "audit", INSTANCE).seal(0, body, preimage.hop_block_aad(DEPLOYMENT, header))
    content = header + codec.prefixed(sealed)
    value = content + ENFORCER.sign(hop_block_message(DEPLOYMENT, content))
    entries, intervals = record_block(value, 1, 55, TRUST, lambda _day: DAY_KEYS)
    if not intervals:
        if [(each.index, each.body) for each in entries] != [(UNVERIFIED_INDEX, value)]:
            raise Fault("a refused hop block is not kept as it came")
        raise Refused("the block is kept as one leaf", code=Code.DECODE)
    places = [Position(AUDIT, 1, 55, each.index) for each in entries]
    hops = [open_hop(hop_key(DAY_KEYS, at), each.body, at) for at, each in zip(places, entries, strict=True)]
    return len(hops).to_bytes(4, "big") + hopblock.join_hops(hops)


# Proofs and checkpoints.
def ledger_head() -> checkpoint.Checkpoint:
    return checkpoint.Checkpoint(checkpoint.origin(DEPLOYMENT, 1), 2, raw("ledger.root"))


NOTE = checkpoint.sign_checkpoint(ledger_head(), LEDGER)


def make_proof(index: int) -> Proof:
    """Of one of the vectors' two stored hops."""
    entry, other = f"ledger.entries.{index}", f"ledger.entries.{1 - index}"
    at = Position(AUDIT, 1, 55, index)
    path = (raw(f"{other}.leaf"),)
    return Proof(at, index, raw(f"{entry}.hop"), raw(f"{entry}.k"), raw(f"{entry}.stored"), path, NOTE)


PROOFS = tuple(map(make_proof, (0, 1)))


def read_proof(data: bytes) -> Proof:
    """A document as `bus audit verify` reads it. Whatever is proven is one of the two hops that are in the tree."""
    proof = parse_proof(data.decode(errors="replace"))
    _, head = verify_proof(proof, LEDGER.public_key)
    if head != ledger_head() or not any(
        (proof.at, proof.leaf, proof.hop, proof.k, proof.body, proof.path)
        == (each.at, each.leaf, each.hop, each.k, each.body, each.path)
        for each in PROOFS
    ):
        raise Fault("proven, though it is not in the tree")
    return proof


def read_note(data: bytes) -> None:
    if checkpoint.open_checkpoint(data.decode(errors="replace"), LEDGER.public_key) != ledger_head():
        raise Fault("a checkpoint that nobody signed")


def read_signed_body(data: bytes) -> None:
    """Any text under the ledger's signature: what is taken has one spelling."""
    text = data.decode(errors="replace")
    name = text.split("\n")[0]
    key_hash = hashlib.sha256(name.encode() + b"\n\x01" + LEDGER.public_key).digest()[:4]
    told = base64.b64encode(key_hash + LEDGER.sign(text.encode())).decode()
    if checkpoint.open_checkpoint(f"{text}\n— {name} {told}\n", LEDGER.public_key).body() != text:
        raise Fault("another spelling of a checkpoint")


def same(data: bytes) -> bytes:
    return data


def targets() -> list[Target]:
    released = tuple(raw(f"derived.records.{each}.released.value") for each in (0, 1, 2))
    blocks = ((2).to_bytes(4, "big") + raw("hop_block.plaintext"), bytes(4))
    proofs = tuple(each.to_json().encode() for each in PROOFS)
    body = ledger_head().body().encode()
    objects_ = [
        *object_targets("epoch", objects.Epoch),
        *object_targets("tombstone", objects.Tombstone),
        *object_targets("certificate", objects.EnforcerCertificate),
        *object_targets("snapshot", objects.SignedSnapshot),
    ]
    return [
        *objects_,
        Target("policy", read_policy, (DOCUMENT,), same, tokens=JSON_TOKENS),
        Target("released", open_released, released),
        Target("recorded", record, blocks, same, share=5),
        Target("proof", read_proof, proofs, tokens=JSON_TOKENS, limit=8192),
        Target("checkpoint", read_note, (NOTE.encode(),), tokens=NOTE_TOKENS, limit=1024, share=5),
        Target("checkpoint_signed", read_signed_body, (body,), tokens=NOTE_TOKENS, limit=1024, share=5),
    ]


TARGETS = tuple(targets())
