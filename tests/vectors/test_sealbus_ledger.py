"""Known answers of the audit path: hops, the blocks that carry them, and what the ledger keeps of them."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from bus.codes import Code
from bus.crypto import tree
from bus.crypto.keyring import Keyring
from bus.crypto.keys import Secret
from bus.crypto.seal import open_counted
from bus.crypto.signing import (
    Trust,
    hop_block_message,
    verify_hop_block,
)
from bus.errors import Unverified
from bus.kafka.windows import PartitionWindows
from bus.ledger import leaf
from bus.policy.compiling import compile_policy
from bus.wire import codec, hop, hopblock, preimage
from bus.wire.names import DomainName, ZoneName, domain_topics
from consumers.audit.recorder import record_block
from consumers.enforcer.context import EnforcerContext, PartitionState
from consumers.enforcer.derive import derive
from consumers.enforcer.pipeline import enforce_batch
from tests.vectors import generate
from tests.vectors.test_sealbus_records import POLICY, TRUST, counted
from tests.vectors.test_sealbus_v1 import DEPLOYMENT, INPUTS, MESSAGE, PARTITION, ROOT, SIGNER, TOPICS, raw, told

DAY_KEYS = leaf.day_keys(told("hop_block.day"), Secret(raw("inputs.audit_root"), "audit root"))


# Hops.
def encoded_again(told_hop: hop.Hop) -> bytes:
    causes = told_hop.causation_ids
    return hop.encode_hop(
        origin_digest=told_hop.origin_digest,
        output_digest=told_hop.output_digest,
        message_id=told_hop.message_id,
        instance_sequence=told_hop.instance + told_hop.sequence.to_bytes(8, "big"),
        partition=told_hop.partition,
        offset=told_hop.offset,
        append_time=told_hop.append_time,
        decided_at=told_hop.decided_at,
        gap=told_hop.gap,
        size=told_hop.size,
        session=told_hop.correlation_id.encode(),
        causes=codec.length(len(causes)) + b"".join(causes) + b"\x00" if causes else b"\x00",
        tail=hop.encode_tail(told_hop.tail),
    )


def test_a_hop_is_decoded_and_encoded_again() -> None:
    allowed = hop.decode_hop(raw("hop.value"))
    assert encoded_again(allowed) == raw("hop.value")
    assert allowed.origin_digest == raw("sealed.origin_digest") == hashlib.sha256(raw("sealed.value")).digest()
    assert hop.parse_decision_id(allowed.decision_id) == raw("sealed.decision_id")
    assert allowed.output_digest == raw("derived.records.0.leaf")
    assert (allowed.message_id, allowed.correlation_id) == (MESSAGE.message_id, MESSAGE.correlation_id)
    assert (allowed.instance, allowed.sequence) == (raw("sealed.instance"), told("sealed.sequence"))
    assert (allowed.tail.decision, allowed.tail.code, allowed.tail.agent) == (hop.Verdict.ALLOW, "", INPUTS["agent"])


def test_a_hop_of_a_refusal_is_decoded_and_encoded_again() -> None:
    refused = hop.decode_hop(raw("hop.value_of_a_refusal"))
    assert encoded_again(refused) == raw("hop.value_of_a_refusal")
    assert refused.output_digest == raw("dead_letter_bare.output_digest")
    assert (refused.tail.decision, refused.tail.code) == (hop.Verdict.DENY, Code.MAC)
    assert (refused.instance, refused.sequence, refused.message_id) == (bytes(16), 0, bytes(16))


def test_an_enforcer_writes_this_dead_letter_and_hop_for_a_forged_record() -> None:
    refused = hop.decode_hop(raw("hop.value_of_a_refusal"))
    honest = raw("sealed.value")
    forged = honest[:-1] + bytes((honest[-1] ^ 1,))
    assert hashlib.sha256(forged).digest() == refused.origin_digest
    ring = Keyring(lead_ms=0, grace_ms=0)
    ring.add(generate.EPOCH_OBJECT, ROOT, [generate.AGENT], bytes(32))
    policy = replace(compile_policy(POLICY), digest=refused.tail.policy_digest)
    context = EnforcerContext(DEPLOYMENT, ring, SIGNER, policy, refused.tail.snapshot)
    context.now_ms = refused.decided_at
    context.set_audit_root(told("hop_block.day"), Secret(raw("inputs.audit_root"), "audit root"))
    topics = domain_topics(DomainName(INPUTS["domain"]), ZoneName(INPUTS["zone"]))
    state = PartitionState(DomainName(INPUTS["domain"]), topics, PARTITION, DEPLOYMENT, PartitionWindows())
    outcomes = enforce_batch([forged], [refused.append_time], [refused.offset], state, context)
    derivation = derive(outcomes, refused.offset, refused.offset + 1, state, context)
    assert (derivation.dead, derivation.notices) == ([raw("dead_letter_bare.value")], [])
    assert opened_hops(derivation.blocks[0]) == [raw("hop.value_of_a_refusal")]


# Hop blocks.
def opened_hops(value: bytes) -> list[bytes]:
    """The hops of a verified block, as the audit consumer opens it."""
    block = hopblock.parse(value)
    verify_hop_block(block, TRUST, "agent_memory")
    aad = preimage.hop_block_aad(DEPLOYMENT, block.header)
    opened = open_counted(DAY_KEYS.blocks, "audit", block.instance, block.sequence, block.body, aad)
    return hopblock.split_hops(opened, block.count)


HOPS = [raw("hop.value"), raw("hop.value_of_a_refusal")]


def test_a_hop_block_is_made_from_its_hops() -> None:
    aead = counted(DAY_KEYS.blocks, "audit", "hop_block")
    header = hopblock.header(
        day=told("hop_block.day"),
        enforcer_key_id=SIGNER.key_id,
        instance=aead.instance,
        sequence=8,
        partition=PARTITION,
        start=900,
        end=902,
        count=2,
        topic=TOPICS["in"],
    )
    assert header == raw("hop_block.header")
    assert hopblock.join_hops(HOPS) == raw("hop_block.plaintext")
    aad = preimage.hop_block_aad(DEPLOYMENT, header)
    assert aad == raw("hop_block.aad")
    body = aead.seal(aead.next(), hopblock.join_hops(HOPS), aad)
    assert body == raw("hop_block.body")
    signed = header + codec.prefixed(body)
    assert hop_block_message(DEPLOYMENT, signed) == raw("hop_block.message")
    assert signed + SIGNER.sign(raw("hop_block.message")) == raw("hop_block.value")


def test_a_hop_block_is_sliced_verified_and_opened() -> None:
    value = raw("hop_block.value")
    block = hopblock.parse(value)
    assert (block.start, block.end, block.topic, block.day) == (900, 902, TOPICS["in"], told("hop_block.day"))
    assert block.signature == raw("hop_block.signature") == value[-64:]
    assert opened_hops(value) == HOPS
    with pytest.raises(Unverified):
        verify_hop_block(block, Trust(DEPLOYMENT, raw("inputs.anchor")), "agent_memory")


# Ledger.
@pytest.mark.parametrize("index", range(2))
def test_a_hop_becomes_this_leaf_of_the_ledger(index: int) -> None:
    path, data = f"ledger.entries.{index}", HOPS[index]
    at = leaf.Position(told("ledger.topic"), told("ledger.partition"), told("ledger.offset"), told(f"{path}.index"))
    assert (at.index, at.encode(), data) == (index, raw(f"{path}.position"), raw(f"{path}.hop"))
    assert DAY_KEYS.hops.reveal() == raw("ledger.day_key")
    assert preimage.hop_key(at.topic, at.partition, at.offset, at.index) == raw(f"{path}.key_message")
    k = leaf.hop_key(DAY_KEYS, at)
    stored = leaf.seal_hop(k, data, at)
    assert (k, stored) == (raw(f"{path}.k"), raw(f"{path}.stored"))
    assert leaf.open_hop(k, stored, at) == data
    disclosure = leaf.disclosure_digest(k, data)
    assert at.encode() + hashlib.sha256(stored).digest() + disclosure == raw(f"{path}.leaf_data")
    assert leaf.leaf_hash(at, stored, disclosure) == leaf.verify_disclosure(k, data, stored, at) == raw(f"{path}.leaf")
    with pytest.raises(Unverified):
        leaf.open_hop(k, stored, replace(at, offset=at.offset + 1))


def test_the_audit_consumer_records_the_block_as_these_leaves() -> None:
    entries, (interval,) = record_block(
        raw("hop_block.value"),
        told("ledger.partition"),
        told("ledger.offset"),
        TRUST,
        {DAY_KEYS.day: DAY_KEYS}.__getitem__,
    )
    assert [entry.body for entry in entries] == [raw(f"ledger.entries.{index}.stored") for index in range(2)]
    leaves = [entry.leaf for entry in entries]
    assert leaves == [raw(f"ledger.entries.{index}.leaf") for index in range(2)]
    assert tree.root(leaves) == raw("ledger.root")
    assert (interval.topic, interval.partition, interval.first, interval.upto) == (TOPICS["in"], PARTITION, 900, 902)
