"""Known answers of sealbus's wire format: the file as a whole, keys, envelope and Sealed.

``generate.py`` composed ``sealbus-v1.json`` from primitives; here the functions that the SDK and the enforcer call must
come to the same bytes, forwards and back. Bundles stand in ``test_sealbus_derived.py``, the other records in
``test_sealbus_records.py``, what is refused in ``test_sealbus_malformed.py``.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import reduce
from typing import Any

import pytest

from bus.crypto import keys
from bus.crypto.delegations import give, pass_on
from bus.crypto.keyring import Keyring
from bus.crypto.keys import ReadingKey, Secret
from bus.crypto.seal import Sealer, open_sealed
from bus.crypto.signing import Signer
from bus.errors import Unverified
from bus.ledger.leaf import day_keys
from bus.wire import codec, envelope, preimage, sealed
from bus.wire.delegation import Block, Chain, parse
from bus.wire.names import AgentId, DomainName, Tier, ZoneName, domain_topics
from bus.wire.schemas import SCHEMA_DIRECTORY, schema
from tests.vectors import generate

VECTORS = json.loads(generate.FILE.read_text(encoding="utf-8"))


def told(path: str) -> Any:
    """What stands at a dotted path of the file."""
    return reduce(lambda value, name: value[int(name) if name.isdigit() else name], path.split("."), VECTORS)


def raw(path: str) -> bytes:
    """The bytes at a dotted path."""
    return bytes.fromhex(told(path))


INPUTS = told("inputs")
DEPLOYMENT = raw("inputs.deployment")
PARTITION = told("inputs.partition")
TOPICS = INPUTS["topics"]
ROOT = Secret(raw("inputs.root"), "root")
SIGNER = Signer(raw("inputs.enforcer_seed"))
AGENT = keys.agent_keys(ROOT, INPUTS["agent"])
ROLES = {role: keys.role_key(ROOT, role) for role in INPUTS["roles"]}
TARGET = keys.target_key(ROOT, INPUTS["target"])
READERS = {**ROLES, INPUTS["target"]: TARGET}


def test_the_committed_file_is_what_the_generator_makes() -> None:
    assert generate.FILE.read_text(encoding="utf-8") == generate.text()


def test_no_vector_has_vanished() -> None:
    def leaves(value: Any) -> int:
        if isinstance(value, dict | list):
            return sum(map(leaves, value.values() if isinstance(value, dict) else value))
        return 1

    assert {name: leaves(value) for name, value in VECTORS.items() if name != "malformed"} == {
        "format": 1,
        "inputs": 23,
        "markers": 19,
        "keys": 32,
        "delegation": 19,
        "profile": 20,
        "envelope": 22,
        "sealed": 16,
        "derived": 92,
        "derived_plaintext": 21,
        "dead_letter": 11,
        "dead_letter_bare": 2,
        "hop": 2,
        "hop_block": 11,
        "window": 5,
        "window_snapshot": 5,
        "verdict": 1,
        "notice": 9,
        "claim": 18,
        "epoch": 4,
        "tombstone": 4,
        "certificate": 4,
        "snapshot": 4,
        "ledger": 21,
    }
    assert Counter(each["of"] for each in told("malformed")) == {
        "profile": 12,
        "envelope": 25,
        "sealed": 26,
        "derived": 67,
        "hop": 9,
        "hop_block": 22,
        "dead_letter": 14,
        "window": 19,
        "verdict": 5,
        "notice": 10,
        "claim": 4,
        "epoch": 11,
        "tombstone": 11,
        "certificate": 12,
        "snapshot": 11,
    }


def test_markers_are_the_fingerprints_of_the_published_schemas() -> None:
    names = {path.name.removesuffix(".v1.avsc") for path in SCHEMA_DIRECTORY.glob("*.avsc")}
    assert {name: schema(name).head.hex() for name in names} == told("markers")


def test_topics_are_named_by_zone_and_domain() -> None:
    topics = domain_topics(DomainName(INPUTS["domain"]), ZoneName(INPUTS["zone"]))
    assert (topics.inbound, topics.outbound, topics.dead, topics.windows) == tuple(TOPICS.values())


# Delegations.
def test_a_delegation_is_given_passed_on_and_verified() -> None:
    vector = told("delegation")
    giver, domain = AgentId(vector["giver"]), DomainName(INPUTS["domain"])
    blocks = [
        Block(
            AgentId(each["to"]),
            each["not_after"],
            frozenset(map(envelope.Kind, each["kinds"])),
            frozenset(each["tools"]),
        )
        for each in vector["blocks"]
    ]
    made = [keys.delegation_key(ROOT, agent) for agent in (giver, blocks[0].to)]
    assert [each.reveal() for each in made] == [raw(f"delegation.keys.{place}.value") for place in (0, 1)]
    given = give(made[0], DEPLOYMENT, Chain(INPUTS["epoch"], domain, giver, (blocks[0],)))
    assert given == raw("delegation.first.value")
    passed = pass_on(made[1], given, blocks[1])
    assert passed == raw("delegation.passed_on.value") == PROFILE.delegation
    assert parse(passed)[0].blocks == tuple(blocks)


# Keys.
def test_an_agents_five_keys() -> None:
    made = {
        "key-id": AGENT.key_id,
        "mac": AGENT.mac.reveal(),
        "seal": AGENT.seal.reveal(),
        "notice": AGENT.notice.reveal(),
        "notice-key-id": AGENT.notice_key_id,
    }
    for purpose, key in made.items():
        assert key == raw(f"keys.agent.{purpose}.value"), purpose
        assert preimage.agent_info(INPUTS["agent"], purpose) == raw(f"keys.agent.{purpose}.info")
    assert list(made) == list(told("keys.agent"))


@pytest.mark.parametrize(
    ("path", "key", "info"),
    [
        *((f"keys.roles.{role}", key, preimage.role_info(role, "")) for role, key in ROLES.items()),
        (
            "keys.role_of_tenant",
            keys.role_key(ROOT, INPUTS["roles"][0], INPUTS["tenant"]),
            preimage.role_info(INPUTS["roles"][0], INPUTS["tenant"]),
        ),
        ("keys.target", TARGET, preimage.target_info(INPUTS["target"])),
    ],
    ids=["retriever", "orchestrator", "role of a tenant", "target"],
)
def test_a_reading_key_and_its_id(path: str, key: ReadingKey, info: bytes) -> None:
    assert (info, key.kek.reveal(), key.key_id) == (
        raw(f"{path}.info"),
        raw(f"{path}.value"),
        raw(f"{path}.reader_key_id"),
    )
    assert keys.reading_key(key.kek) == key


def test_purpose_keys_of_a_domain_and_of_a_day() -> None:
    day = day_keys(0, Secret(raw("inputs.audit_root"), "audit root"))
    made = {
        "keys.dead": ("dead", keys.purpose_key(ROOT, "dead").reveal()),
        "keys.root_commitment": ("commitment", keys.root_digest(ROOT)),
        "keys.audit.block": ("block", day.blocks.reveal()),
        "keys.audit.ledger": ("ledger", day.hops.reveal()),
        "keys.audit.search": ("search", day.search.reveal()),
    }
    for path, (purpose, key) in made.items():
        assert (preimage.purpose_info(purpose), key) == (raw(f"{path}.info"), raw(f"{path}.value"))


@pytest.mark.parametrize(
    ("path", "key", "use"),
    [
        ("sealed", AGENT.seal, "seal"),
        ("claim.sealed", AGENT.seal, "seal"),
        ("notice", AGENT.notice, "notice"),
        ("dead_letter", keys.purpose_key(ROOT, "dead"), "dead"),
        ("hop_block", keys.purpose_key(Secret(raw("inputs.audit_root"), "audit root"), "block"), "audit"),
    ],
)
def test_instance_keys(path: str, key: Secret, use: str) -> None:
    info = raw(f"{path}.instance_key.info")
    assert preimage.instance_info(use, info[-16:]) == info
    assert keys.instance_key(key, use, info[-16:]).reveal() == raw(f"{path}.instance_key.value")


# Envelope.
def profile_of(fields: dict[str, Any]) -> envelope.Profile:
    binary = {name: bytes.fromhex(fields[name]) for name in ("schema", "on_behalf_of", "delegation")}
    return envelope.Profile(
        **{
            **fields,
            **binary,
            "kind": envelope.Kind(fields["kind"]),
            "labels": tuple(fields["labels"]),
            "tier_floor": Tier[fields["tier_floor"]],
            "protect_at": envelope.ProtectAt(fields["protect_at"]),
        }
    )


def message_of(fields: dict[str, Any]) -> envelope.Message:
    chunk = fields["chunk"]
    return envelope.Message(
        **{
            **fields,
            "message_id": bytes.fromhex(fields["message_id"]),
            "causation_ids": tuple(map(bytes.fromhex, fields["causation_ids"])),
            "tickets": tuple(map(bytes.fromhex, fields["tickets"])),
            "chunk": envelope.Chunk(bytes.fromhex(chunk["group"]), chunk["index"], chunk["count"]),
            "field_protection": tuple(map(tuple, fields["field_protection"])),
        }
    )


PROFILE = profile_of(told("profile.fields"))
MESSAGE = message_of(told("envelope.message_fields"))


def test_a_profile_is_encoded_and_decoded() -> None:
    assert envelope.encode_profile(PROFILE) == raw("profile.value") == raw("envelope.profile")
    assert envelope.decode_profile(raw("profile.value")) == PROFILE


def test_an_envelope_is_encoded_framed_and_decoded() -> None:
    content, payload = raw("envelope.content"), raw("envelope.payload")
    assert envelope.encode_message(MESSAGE) == raw("envelope.message")
    frame = envelope.encode_plaintext(raw("envelope.profile"), raw("envelope.message"), payload, told("envelope.cell"))
    assert frame == raw("envelope.frame")
    assert envelope.unpad(frame) == content
    assert envelope.decode_envelope(content) == envelope.Envelope(PROFILE, MESSAGE, payload)


def test_stepping_over_an_envelope_finds_its_parts() -> None:
    frame = raw("envelope.frame")
    prefixed, message, payload_at, session, causes, causes_end = envelope.split(frame)
    assert prefixed == codec.prefixed(raw("envelope.profile"))
    assert frame[message:].startswith(raw("envelope.message"))
    assert frame[payload_at:].startswith(codec.prefixed(raw("envelope.payload")))
    assert session == MESSAGE.correlation_id.encode()
    assert frame[causes:causes_end] == b"\x04" + b"".join(MESSAGE.causation_ids) + b"\x00"
    assert envelope.split(frame, prefixed)[0] is prefixed


# Sealed.
@pytest.mark.parametrize("path", ["sealed", "claim.sealed"])
def test_a_sealer_with_this_instance_and_sequence_makes_these_bytes(path: str) -> None:
    topic, partition = told(f"{path}.topic"), told(f"{path}.partition")
    sealer = Sealer(AGENT, DEPLOYMENT, topic, raw(f"{path}.instance"))
    for sequence in range(told(f"{path}.sequence")):
        assert sealer.seal(partition, b"spent")[0] == sequence
    assert sealer.seal(partition, raw(f"{path}.plaintext")) == (told(f"{path}.sequence"), raw(f"{path}.value"))


@pytest.mark.parametrize("path", ["sealed", "claim.sealed"])
def test_a_sealed_is_framed_and_opened(path: str) -> None:
    value, topic, partition = raw(f"{path}.value"), told(f"{path}.topic"), told(f"{path}.partition")
    parts = sealed.parse(value)
    assert parts == sealed.Sealed(
        header=raw(f"{path}.header"),
        key_id=AGENT.key_id,
        instance=raw(f"{path}.instance"),
        sequence=told(f"{path}.sequence"),
        mac=raw(f"{path}.mac"),
        tail=codec.prefixed(raw(f"{path}.body")),
        body=raw(f"{path}.body"),
    )
    assert sealed.header(AGENT.key_id, parts.instance, parts.sequence) == parts.header
    assert preimage.sealed_nonce(partition, parts.sequence) == raw(f"{path}.nonce")
    assert preimage.sealed_aad(DEPLOYMENT, topic, partition) + parts.header == raw(f"{path}.aad")
    mac_input = preimage.sealed_mac(DEPLOYMENT, topic, partition) + parts.header + parts.tail
    assert mac_input == raw(f"{path}.mac_input")
    assert open_sealed(AGENT, DEPLOYMENT, topic, partition, value) == raw(f"{path}.plaintext")
    with pytest.raises(Unverified):
        open_sealed(keys.agent_keys(ROOT, "ret-2"), DEPLOYMENT, topic, partition, value)


def test_a_keyring_finds_the_agent_by_its_key_id() -> None:
    ring = Keyring(lead_ms=0, grace_ms=0)
    ring.add(generate.EPOCH_OBJECT, ROOT, [generate.AGENT], bytes(32))
    found = ring.find(sealed.parse(raw("sealed.value")).key_id)
    assert found is not None
    assert (found.agent, found.topic) == (INPUTS["agent"], TOPICS["in"])
    assert ring.find(bytes(16)) is None
