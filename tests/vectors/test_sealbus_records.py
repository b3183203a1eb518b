"""Known answers of the smaller records: dead letters, windows, verdicts and notices, claims, signed objects.

Each is made by the product's functions from its parts and read back; what is signed or authenticated is compared too.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from bus.authority.trust import TrustFile, open_snapshot
from bus.codes import Code
from bus.crypto import keys, tree
from bus.crypto.keys import Secret
from bus.crypto.seal import CountingAead, open_counted, open_sealed
from bus.crypto.signing import (
    Signer,
    Trust,
    open_object,
    sign_object,
    verify_window,
    window_message,
)
from bus.errors import Unverified, WireError
from bus.policy.compiling import canonical
from bus.wire import codec, envelope, hop, objects, preimage, records
from bus.wire.schemas import schema
from tests.vectors import generate
from tests.vectors.test_sealbus_v1 import AGENT, DEPLOYMENT, INPUTS, MESSAGE, PARTITION, ROOT, SIGNER, TOPICS, raw, told

ANCHOR = Signer(raw("inputs.anchor_seed"))
POLICY_SIGNER = Signer(raw("inputs.policy_signer_seed"))
TRUST = Trust(DEPLOYMENT, raw("inputs.anchor"), [raw("certificate.value")])


def counted(key: Secret, use: str, path: str) -> CountingAead:
    """The AEAD of the process whose record stands at ``path``, its counter where that record found it."""
    aead = CountingAead(key, use, raw(f"{path}.instance_key.info")[-16:])
    for spent in range(int.from_bytes(raw(f"{path}.nonce"), "big")):
        assert aead.next() == spent
    return aead


# Dead letters.
def test_a_dead_letter_is_sealed_and_opened() -> None:
    path, dead_key = "dead_letter", keys.purpose_key(ROOT, "dead")
    aead = counted(dead_key, "dead", path)
    digest = raw("sealed.origin_digest")
    aad = preimage.dead_aad(DEPLOYMENT, TOPICS["dead"], PARTITION, digest)
    assert aad == raw(f"{path}.aad")
    sequence = aead.next()
    assert (sequence, aead.seal(sequence, raw(f"{path}.plaintext"), aad)) == (
        told(f"{path}.sequence"),
        raw(f"{path}.body"),
    )
    sealed = records.DeadBody(INPUTS["epoch"], aead.instance, sequence, raw(f"{path}.body"))
    letter = records.DeadLetter(900, generate.APPENDED, digest, Code.PRODUCE, sealed)
    assert letter.encode() == raw(f"{path}.value")
    assert records.parse_dead_letter(raw(f"{path}.value")) == letter
    assert tree.leaf_hash(raw(f"{path}.value")) == raw(f"{path}.output_digest")
    opened = open_counted(dead_key, "dead", sealed.instance, sealed.sequence, sealed.body, aad)
    agent = INPUTS["agent"].encode()
    assert opened == raw(f"{path}.plaintext") == len(agent).to_bytes(4, "big") + agent + raw("sealed.plaintext")


def test_a_dead_letter_without_a_body_is_encoded_and_parsed() -> None:
    value = raw("dead_letter_bare.value")
    letter = records.parse_dead_letter(value)
    assert (letter.code, letter.sealed, letter.offset) == (Code.MAC, None, 901)
    assert letter.encode() == value
    assert tree.leaf_hash(value) == raw("dead_letter_bare.output_digest")


# Windows.
@pytest.mark.parametrize(("path", "entries"), [("window", 2), ("window_snapshot", 0)])
def test_a_window_is_signed_and_verified(path: str, entries: int) -> None:
    value = raw(f"{path}.value")
    window = records.parse_window(value)
    assert (window.upto, window.snapshot, len(window.entries)) == (902, path == "window_snapshot", entries)
    signed = replace(window, signed=b"", signature=b"").encode_unsigned()
    assert window_message(DEPLOYMENT, TOPICS["windows"], PARTITION, signed) == raw(f"{path}.message")
    assert signed + SIGNER.sign(raw(f"{path}.message")) == value
    verify_window(window, TRUST, TOPICS["windows"], PARTITION, INPUTS["domain"])
    with pytest.raises(Unverified):
        verify_window(window, TRUST, TOPICS["windows"], PARTITION + 1, INPUTS["domain"])


def test_a_windows_bitmaps_count_back_from_the_highest() -> None:
    near, far = records.parse_window(raw("window.value")).entries
    assert [near.highest - bit for bit in range(6) if near.bitmap >> bit & 1] == [5, 4, 3, 1, 0]
    assert [far.highest - bit for bit in range(1024) if far.bitmap >> bit & 1] == [2000, 977]
    assert {near.key_id, far.key_id} == {AGENT.key_id}


# Notices and claims.
def test_a_verdict_is_encoded_and_parsed() -> None:
    verdict = records.parse_verdict(raw("verdict.value"))
    assert verdict == records.Verdict(
        instance=raw("sealed.instance"),
        partition=PARTITION,
        sequence=told("sealed.sequence"),
        message_id=MESSAGE.message_id,
        decided_at=generate.DECIDED,
        decision_id=raw("sealed.decision_id"),
        decision=hop.Verdict.DENY,
        code=Code.PRODUCE,
        rule="agent_memory.produce",
        hint="ask for the role RETRIEVER",
        obligations=("topology",),
    )
    assert verdict.encode() == raw("verdict.value") == raw("notice.plaintext")


def test_a_notice_is_sealed_and_opened() -> None:
    aead = counted(AGENT.notice, "notice", "notice")
    sequence = aead.next()
    header = records.notice_header(AGENT.notice_key_id, aead.instance, sequence)
    aad = preimage.notice_aad(DEPLOYMENT, header)
    assert (sequence, header, aad) == (told("notice.sequence"), raw("notice.header"), raw("notice.aad"))
    body = aead.seal(sequence, raw("verdict.value"), aad)
    assert header + codec.prefixed(body) == raw("notice.value")
    notice = records.parse_notice(raw("notice.value"))
    assert notice == records.Notice(AGENT.notice_key_id, aead.instance, sequence, header, raw("notice.body"))
    opened = open_counted(AGENT.notice, "notice", notice.instance, notice.sequence, notice.body, aad)
    assert opened == raw("notice.plaintext")


def test_a_claim_is_read_out_of_its_sealed() -> None:
    opened = open_sealed(AGENT, DEPLOYMENT, "bus.claims", 0, raw("claim.sealed.value"))
    assert envelope.unpad(opened) == raw("claim.content") == raw("claim.value")
    claim = codec.decode_marked(schema("claim"), raw("claim.value"))
    assert claim["digest"] == hashlib.sha256(raw("derived.value")).digest()
    assert (claim["kind"], claim["domain"], claim["topic"]) == ("QUARANTINE", INPUTS["domain"], TOPICS["out"])
    assert schema("claim").head + codec.encode(schema("claim"), claim) == raw("claim.value")


# Signed objects.
@pytest.mark.parametrize(
    ("path", "kind", "signer"),
    [
        ("epoch", objects.Epoch, ANCHOR),
        ("tombstone", objects.Tombstone, ANCHOR),
        ("certificate", objects.EnforcerCertificate, ANCHOR),
        ("snapshot", objects.SignedSnapshot, POLICY_SIGNER),
    ],
)
def test_a_signed_object_is_signed_and_opened(path: str, kind: Any, signer: Signer) -> None:
    value = raw(f"{path}.value")
    told_object = open_object(kind, value, signer.public_key, DEPLOYMENT)
    assert kind.use == told(f"{path}.use")
    assert preimage.signed_object(kind.use, told_object.encode_unsigned()) == raw(f"{path}.message")
    assert sign_object(signer, told_object) == value == told_object.encode_unsigned() + raw(f"{path}.signature")
    with pytest.raises(Unverified):
        open_object(kind, value, SIGNER.public_key, DEPLOYMENT)


def test_what_the_signed_objects_say() -> None:
    epoch = objects.Epoch.parse(raw("epoch.value"))
    assert (epoch.epoch, epoch.zone, epoch.domain) == (INPUTS["epoch"], INPUTS["zone"], INPUTS["domain"])
    assert epoch.root_digest == keys.root_digest(ROOT)
    tombstone = objects.Tombstone.parse(raw("tombstone.value"))
    assert (tombstone.epoch, tombstone.zone, tombstone.domain) == (epoch.epoch, epoch.zone, epoch.domain)
    assert tombstone.not_after == epoch.not_after < tombstone.erased_at
    assert [len(each) for each in tombstone.key_ids] == [16, 16]
    public = {"anchor": ANCHOR, "policy_signer": POLICY_SIGNER, "enforcer_key": SIGNER}
    assert {name: INPUTS[name] for name in public} == {name: each.public_key.hex() for name, each in public.items()}
    assert TRUST.enforcer_key(SIGNER.key_id, INPUTS["zone"], INPUTS["domain"], INPUTS["now"]) == SIGNER.public_key
    snapshot = objects.SignedSnapshot.parse(raw("snapshot.value"))
    assert snapshot.digest == hashlib.sha256(snapshot.document).digest()


POLICY = canonical(
    {
        "format": "sealbus.policy/1",
        "global": {"credential_rotation_interval_ms": 600_000},
        "topics": {"partitions": 8, "replication": 1, "retention_ms": 86_400_000, "backlog_horizon_ms": 86_400_000},
        "domains": {
            INPUTS["domain"]: {
                "tier": "RETRIEVAL",
                "produce": INPUTS["roles"],
                "consume": INPUTS["roles"],
                "metadata_masking": True,
                "audit_level": "FULL_MESH",
                "attestation_required": False,
                "locations": {},
            }
        },
        "agents": {
            each: {"roles": INPUTS["roles"]} for each in (INPUTS["agent"], INPUTS["target"], told("delegation.giver"))
        },
    }
)
"""A policy under which the agent of the vectors may send what it sends."""


def test_a_snapshot_whose_digest_is_not_its_documents_is_refused() -> None:
    trust = TrustFile(DEPLOYMENT, raw("inputs.anchor"), raw("inputs.policy_signer"), bytes(32))
    honest = replace(
        objects.SignedSnapshot.parse(raw("snapshot.value")), document=POLICY, digest=hashlib.sha256(POLICY).digest()
    )
    assert open_snapshot(sign_object(POLICY_SIGNER, honest), trust).signed == honest
    with pytest.raises(WireError) as refused:
        open_snapshot(sign_object(POLICY_SIGNER, replace(honest, digest=bytes(32))), trust)
    assert refused.value.code is Code.DECODE
