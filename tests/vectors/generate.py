"""Makes ``sealbus-v1.json``: known-answer vectors of docs/wire-format.md, and malformed variants with their codes.

Everything is fixed: roots, instances, sequences, nonces, seeds, ids and the clock. Derivation, MAC, seal and leaf are
composed here from primitives (hashlib, hmac, AES-GCM, Ed25519), not through ``bus.crypto``, so that the product is
compared with a second composition. Preimages and Avro come from ``bus.wire``; ``tools/OpenVectors.java`` has its own.

Run it again with ``python tests/vectors/generate.py`` after a change of the format that an ADR explains.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus.codes import Code
from bus.wire import codec, delegation, derived, envelope, hop, hopblock, objects, preimage, records
from bus.wire.names import AgentId, DomainName, Tier, ZoneName, domain_topics
from bus.wire.schemas import SCHEMA_DIRECTORY, schema

FILE = Path(__file__).with_name("sealbus-v1.json")

Json = dict[str, Any]

NOW = 1_767_225_600_000
"""2026-01-01T00:00:00Z: the beginning of the epoch and of a day."""
DAY = NOW // hopblock.DAY_MS
DEPLOYMENT = bytes.fromhex("00112233445566778899aabbccddeeff")
ZONE = ZoneName("eu")
DOMAIN = DomainName("agent_memory")
EPOCH = 7
PARTITION = 3
TOPICS = domain_topics(DOMAIN, ZONE)
AGENT = AgentId("ret-1")
ROLES = ("RETRIEVER", "ORCHESTRATOR")
TENANT = "hr"
TARGET = AgentId("exe-1")
ROOT = bytes(range(0x20))
AUDIT_ROOT = bytes(range(0x20, 0x40))
ENFORCER_SEED = bytes(range(0x40, 0x60))
ANCHOR_SEED = bytes(range(0x60, 0x80))
POLICY_SEED = bytes(range(0x80, 0xA0))
APPENDED = NOW + 60_050
DECIDED = NOW + 60_100
CELL = 64


def fixed(name: str, size: int = 16) -> bytes:
    """``size`` (at most 32) bytes that stand for something random: the beginning of SHA-256 of its name."""
    return hashlib.sha256(f"sealbus vectors {name}".encode()).digest()[:size]


def uuid7(at: int, name: str) -> bytes:
    """A UUIDv7 of ``at`` (ms) with a fixed random part."""
    rest = bytearray(fixed(name, 10))
    rest[0] = 0x70 | rest[0] & 0x0F
    rest[2] = 0x80 | rest[2] & 0x3F
    return at.to_bytes(6, "big") + rest


# Primitives.
def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def expand(key: bytes, info: bytes, length: int = 32) -> bytes:
    """HKDF-Expand of at most one block."""
    return hmac.digest(key, info + b"\x01", "sha256")[:length]


def gcm(key: bytes, nonce: bytes, aad: bytes, plaintext: bytes) -> bytes:
    return AESGCM(key).encrypt(nonce, plaintext, aad)


def sign(seed: bytes, message: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).sign(message)


def public(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def tree_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, as it is written there."""
    if len(leaves) == 1:
        return leaves[0]
    cut = 1
    while 2 * cut < len(leaves):
        cut *= 2
    return sha256(b"\x01" + tree_root(leaves[:cut]) + tree_root(leaves[cut:]))


def counter_nonce(counter: int) -> bytes:
    return bytes(4) + counter.to_bytes(8, "big")


def u16(value: int) -> bytes:
    return value.to_bytes(2, "big")


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


ENFORCER_KEY_ID = sha256(public(ENFORCER_SEED))[:16]


# Keys.
def derive(key: bytes, info: bytes, length: int = 32) -> Json:
    return {"info": info, "value": expand(key, info, length)}


def reading(info: bytes) -> Json:
    kek = expand(ROOT, info)
    return {"info": info, "value": kek, "reader_key_id": expand(kek, preimage.reader_key_id_info(), 8)}


def all_keys() -> Json:
    """Every key that section 2 of the page derives."""
    sizes = {"key-id": 16, "mac": 32, "seal": 32, "notice": 32, "notice-key-id": 16}
    return {
        "agent": {purpose: derive(ROOT, preimage.agent_info(AGENT, purpose), n) for purpose, n in sizes.items()},
        "roles": {role: reading(preimage.role_info(role, "")) for role in ROLES},
        "role_of_tenant": reading(preimage.role_info(ROLES[0], TENANT)),
        "target": reading(preimage.target_info(TARGET)),
        "dead": derive(ROOT, preimage.purpose_info("dead")),
        "root_commitment": derive(ROOT, preimage.purpose_info("commitment")),
        "audit": {
            purpose: derive(AUDIT_ROOT, preimage.purpose_info(purpose)) for purpose in ("block", "ledger", "search")
        },
    }


def instance_key(key: bytes, use: str, instance: bytes) -> Json:
    return derive(key, preimage.instance_info(use, instance))


# Delegations.
GIVER = AgentId("orc-1")
BLOCKS = (
    delegation.Block(TARGET, NOW + 600_000, frozenset({envelope.Kind.MEMORY, envelope.Kind.MESSAGE})),
    delegation.Block(AGENT, NOW + 300_000, frozenset({envelope.Kind.MEMORY}), frozenset({"sql.read"})),
)


def delegation_vector() -> Json:
    """Given, and passed on once."""
    keys = [derive(ROOT, preimage.agent_info(agent, "delegate")) for agent in (GIVER, TARGET)]
    made: list[Json] = []
    for count, key in enumerate(keys, 1):
        use = preimage.delegation_next(made[-1]["mac"]) if made else preimage.delegation_first(DEPLOYMENT)
        signed = delegation.encode_signed(delegation.Chain(EPOCH, DOMAIN, GIVER, BLOCKS[:count]))
        mac = hmac.digest(key["value"], use + signed, "sha256")
        made.append({"mac_input": use + signed, "mac": mac, "value": signed + mac})
    told = [
        {"to": each.to, "not_after": each.not_after, "kinds": sorted(each.kinds), "tools": sorted(each.tools)}
        for each in BLOCKS
    ]
    return {"keys": keys, "giver": GIVER, "blocks": told, "first": made[0], "passed_on": made[1]}


DELEGATION = delegation_vector()

# Envelopes.
PROFILE = envelope.Profile(
    source=AGENT,
    domain=DOMAIN,
    kind=envelope.Kind.MEMORY,
    task_type="summary",
    labels=("confidential", "pii"),
    purpose="care",
    tier_floor=Tier.RETRIEVAL,
    protect_at=envelope.ProtectAt.ENFORCER,
    notify=True,
    schema=bytes.fromhex("0102030405060708"),
    metadata={"locale": "de-AT", "priority": "high", "Überschrift": "Befund"},
    delegation=DELEGATION["passed_on"]["value"],
)
MESSAGE = envelope.Message(
    message_id=uuid7(NOW + 60_000, "message 0"),
    created_at=NOW + 60_000,
    expires_at=NOW + 660_000,
    correlation_id="case-4711",
    causation_ids=(uuid7(NOW + 1, "cause 0"), uuid7(NOW + 2, "cause 1")),
    reply_to="coordination",
    tickets=(fixed("ticket of a cause", 32),),
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    chunk=envelope.Chunk(uuid7(NOW, "group"), 0, 2),
    field_protection=(("payload.email", "hash"), ("payload.phone", "last4")),
)
PAYLOAD = '{"note":"Grüße, 0123"}'.encode()


def small_message(number: int) -> envelope.Message:
    return envelope.Message(uuid7(NOW + 60_000, f"message {number}"), NOW + 60_000, NOW + 660_000)


def profile_fields(profile: envelope.Profile) -> Json:
    return {
        "source": profile.source,
        "domain": profile.domain,
        "kind": profile.kind.value,
        "target": profile.target,
        "tool": profile.tool,
        "task_type": profile.task_type,
        "labels": list(profile.labels),
        "purpose": profile.purpose,
        "tier_floor": "NONE" if profile.tier_floor is None else profile.tier_floor.name,
        "protect_at": profile.protect_at.value,
        "notify": profile.notify,
        "content_type": profile.content_type,
        "schema": profile.schema,
        "metadata": dict(sorted(profile.metadata.items())),
        "on_behalf_of": profile.on_behalf_of,
        "delegation": profile.delegation,
    }


def message_fields(message: envelope.Message) -> Json:
    chunk = message.chunk
    return {
        "message_id": message.message_id,
        "created_at": message.created_at,
        "expires_at": message.expires_at,
        "correlation_id": message.correlation_id,
        "causation_ids": list(message.causation_ids),
        "reply_to": message.reply_to,
        "tickets": list(message.tickets),
        "traceparent": message.traceparent,
        "chunk": chunk and {"group": chunk.group, "index": chunk.index, "count": chunk.count},
        "field_protection": [list(each) for each in message.field_protection],
    }


def envelope_vector() -> Json:
    profile = envelope.encode_profile(PROFILE)
    message = envelope.encode_message(MESSAGE)
    frame = envelope.encode_plaintext(profile, message, PAYLOAD, CELL)
    return {
        "profile": profile,
        "message": message,
        "message_fields": message_fields(MESSAGE),
        "payload": PAYLOAD,
        "content": frame[4 : 4 + int.from_bytes(frame[:4], "big")],
        "cell": CELL,
        "frame": frame,
    }


# Records.
def seal(keys: Json, topic: str, instance: bytes, sequence: int, plaintext: bytes, partition: int = PARTITION) -> Json:
    """A Sealed with everything between the keys and the value."""
    agent = keys["agent"]
    header = schema("sealed").head + u16(1) + agent["key-id"]["value"] + instance + u64(sequence)
    subkey = instance_key(agent["seal"]["value"], "seal", instance)
    nonce = u32(partition) + u64(sequence)
    aad = preimage.sealed_aad(DEPLOYMENT, topic, partition) + header
    body = gcm(subkey["value"], nonce, aad, plaintext)
    tail = codec.prefixed(body)
    mac_input = preimage.sealed_mac(DEPLOYMENT, topic, partition) + header + tail
    mac = hmac.digest(agent["mac"]["value"], mac_input, "sha256")
    value = header + mac + tail
    return {
        "topic": topic,
        "partition": partition,
        "instance": instance,
        "sequence": sequence,
        "instance_key": subkey,
        "header": header,
        "nonce": nonce,
        "aad": aad,
        "plaintext": plaintext,
        "body": body,
        "mac_input": mac_input,
        "mac": mac,
        "value": value,
        "origin_digest": sha256(value),
        "decision_id": sha256(value)[:10],
    }


def remac(keys: Json, value: bytes) -> bytes:
    """``value`` with the MAC that its other bytes need: what the holder of the agent's keys could send."""
    message = preimage.sealed_mac(DEPLOYMENT, TOPICS.inbound, PARTITION) + value[:52] + value[84:]
    return value[:52] + hmac.digest(keys["agent"]["mac"]["value"], message, "sha256") + value[84:]


def reader_set(name: str, readers: list[Json]) -> Json:
    """A DEK with its wrapped copies, in the order of their reader key ids."""
    dek = fixed(f"dek {name}", 32)
    commitment = sha256(preimage.dek_commitment(dek))
    aad = preimage.wrap_aad(DEPLOYMENT, TOPICS.outbound, EPOCH, commitment)
    entries = []
    for reader in sorted(readers, key=lambda each: each["reader_key_id"]):
        nonce = fixed(f"wrap nonce {name} {reader['reader_key_id'].hex()}", 12)
        wrapped = nonce + gcm(reader["value"], nonce, aad, dek)
        entries.append({"reader_key_id": reader["reader_key_id"], "nonce": nonce, "wrapped": wrapped})
    return {
        "dek": dek,
        "commitment_preimage": preimage.dek_commitment(dek),
        "commitment": commitment,
        "wrap_aad": aad,
        "entries": entries,
    }


def released(decision_id: bytes, ticket: bytes, content: bytes) -> Json:
    value = codec.encode(schema("released"), {"decision_id": decision_id, "ticket": ticket, "envelope": content})
    return {"decision_id": decision_id, "ticket": ticket, "envelope": content, "value": value}


def head_of(tier: Tier, count: int, sequence: int, decided_at: int = DECIDED, signer: bytes = ENFORCER_KEY_ID) -> bytes:
    return derived.Head(
        tier=tier,
        epoch=EPOCH,
        policy_digest=fixed("policy digest", 32),
        enforcer_key_id=signer,
        instance=fixed("enforcer instance"),
        sequence=sequence,
        decided_at=decided_at,
        count=count,
    ).encode()


def key_table_of(sets: list[Json], index: list[Json] | None = None) -> bytes:
    return derived.encode_key_table(
        tuple(
            derived.ReaderSet(
                each["commitment"], tuple((entry["reader_key_id"], entry["wrapped"]) for entry in each["entries"])
            )
            for each in sets
        ),
        tuple((each["record"], each["token"]) for each in index or []),
    )


def seal_record(head: bytes, sets: list[Json], number: int, counter: int, name: str, plaintext: bytes) -> Json:
    """One record of a bundle, sealed for reader set ``number`` (65535: left readable)."""
    record_id = fixed(f"record id {name}")
    record: Json = {"record_id": record_id, "reader_set": number, "counter": counter, "plaintext": plaintext}
    if number == derived.NO_SET:
        return record | {"body": plaintext}
    prefix = preimage.derived_aad(DEPLOYMENT, TOPICS.outbound, PARTITION)
    aad = prefix + head + sets[number]["commitment"] + record_id
    nonce = counter_nonce(counter)
    return record | {"aad": aad, "nonce": nonce, "body": gcm(sets[number]["dek"], nonce, aad, plaintext)}


def bundle(head: bytes, sets: list[Json], entries: list[Json], index: list[Json] | None = None) -> Json:
    """The signed bundle of sealed records, with tokens of its blind index."""
    key_table = key_table_of(sets, index)
    leaves = []
    for each in entries:
        tail = each["record_id"] + u16(each["reader_set"]) + u64(each["counter"])
        each["leaf"] = sha256(b"\x00" + head + tail + each["body"])
        each["entry"] = tail + codec.prefixed(each["body"])
        leaves.append(each["leaf"])
    root = tree_root(leaves)
    message = preimage.derived_signature(DEPLOYMENT, TOPICS.outbound, PARTITION) + head + sha256(key_table) + root
    signature = sign(ENFORCER_SEED, message)
    return {
        "topic": TOPICS.outbound,
        "partition": PARTITION,
        "head": head,
        "sets": sets,
        "index": index or [],
        "key_table": key_table,
        "key_table_digest": sha256(key_table),
        "records": entries,
        "root": root,
        "message": message,
        "signature": signature,
        "value": derived.encode(head, key_table, [each["entry"] for each in entries], signature),
    }


def resign(value: bytes, seed: bytes = ENFORCER_SEED) -> bytes:
    """A framed bundle with the signature that its other bytes need."""
    parts = derived.parse(value)
    leaves = [sha256(b"\x00" + parts.head_bytes + each.leaf_tail) for each in parts.entries]
    prefix = preimage.derived_signature(DEPLOYMENT, TOPICS.outbound, PARTITION)
    return value[:-64] + sign(seed, prefix + parts.head_bytes + sha256(parts.key_table) + tree_root(leaves))


def released_plaintexts(origin: Json) -> list[Json]:
    """What the three records of the bundle release: the sealed envelope masked, a small one, a targeted one."""
    masked = replace(PROFILE, metadata={"locale": "de-AT", "priority": "high"}, delegation=b"")
    targeted = envelope.Profile(AGENT, DOMAIN, envelope.Kind.TOOL_RESULT, target=TARGET, tool="sql.read")
    small = envelope.Profile(AGENT, DOMAIN)
    made = []
    for number, (profile, message, payload) in enumerate(
        (
            (masked, MESSAGE, PAYLOAD),
            (small, small_message(1), b""),
            (targeted, small_message(2), b'{"rows":[]}'),
        )
    ):
        content = envelope.unpad(
            envelope.encode_plaintext(envelope.encode_profile(profile), envelope.encode_message(message), payload)
        )
        decision = origin["decision_id"] if number == 0 else fixed(f"origin {number}", 10)
        ticket = fixed(f"ticket {number}", 32) if number == 0 else b""
        made.append(released(decision, ticket, content) | {"payload": payload})
    return made


def derived_vectors(keys: Json, origin: Json) -> tuple[Json, Json]:
    """A bundle of three records with two reader sets, and one of one record in tier PLAINTEXT."""
    sets = [reader_set("roles", list(keys["roles"].values())), reader_set("target", [keys["target"]])]
    plain = released_plaintexts(origin)
    head = head_of(Tier.RETRIEVAL, 3, 11)
    entries = []
    for number, (index, counter) in enumerate(((0, 5), (0, 6), (1, 0))):
        frame = envelope.pad(plain[number]["value"], CELL)
        entries.append(seal_record(head, sets, index, counter, str(number), frame) | {"released": plain[number]})
    head_plain = head_of(Tier.PLAINTEXT, 1, 12)
    frame = envelope.pad(plain[1]["value"])
    one = seal_record(head_plain, [], derived.NO_SET, 0, "plaintext", frame) | {"released": plain[1]}
    return bundle(head, sets, entries, blind_index(keys)), bundle(head_plain, [], [one])


def blind_index(keys: Json) -> list[Json]:
    """Tokens of the first and the third record, for one reader each: HMAC-SHA-256 of the normalised value."""
    told = []
    role = keys["roles"][ROLES[0]]["value"]
    for record, kek, field, value, text in (
        (0, role, "customer_id", "C-17", "c-17"),
        (0, role, "order.number", 4711, "4711"),
        (2, keys["target"]["value"], "customer_id", "\uff23\uff0d17", "c-17"),
    ):
        info = preimage.index_info(field)
        key = expand(kek, info)
        token = hmac.digest(key, text.encode(), hashlib.sha256)[:16]
        told.append(
            {"record": record, "field": field, "value": value, "text": text}
            | {"kek": kek, "info": info, "key": key, "token": token}
        )
    return sorted(told, key=lambda each: (each["record"], each["token"]))


def hop_tail(decision: hop.Verdict, code: Code) -> hop.HopTail:
    return hop.HopTail(
        topic=TOPICS.inbound,
        decision=decision,
        code=code,
        rule="agent_memory.produce",
        location="mesh.yaml:31",
        snapshot=4,
        policy_digest=fixed("policy digest", 32),
        agent=AGENT,
        tenant=TENANT,
        zone=ZONE,
        domain=DOMAIN,
        epoch=EPOCH,
        kind="MEMORY",
        purpose="care",
        labels=("confidential", "pii"),
        metadata_keys=("locale", "priority"),
        on_behalf_of=fixed("user token", 32),
        guardrails=(("no-keys", "API_KEY", 0),),
        facts={"load": "0.2", "time": "2026-01-01T00:01:00Z"},
        breaker="closed",
    )


def encode_hop(origin: Json, output_digest: bytes, tail: hop.HopTail, *, opened: bool = True) -> bytes:
    """The hop of a record that was opened, or of one whose MAC did not hold: nothing that it says is believed."""
    causes = b"\x04" + b"".join(MESSAGE.causation_ids) + b"\x00"
    return hop.encode_hop(
        origin_digest=origin["origin_digest"],
        output_digest=output_digest,
        message_id=MESSAGE.message_id if opened else envelope.NO_MESSAGE_ID,
        instance_sequence=origin["instance"] + u64(origin["sequence"]) if opened else hop.NO_INSTANCE + bytes(8),
        partition=PARTITION,
        offset=900 if opened else 901,
        append_time=APPENDED,
        decided_at=DECIDED,
        gap=0,
        size=len(origin["value"]),
        session=MESSAGE.correlation_id.encode() if opened else b"",
        causes=causes if opened else b"\x00",
        tail=hop.encode_tail(tail),
    )


def hop_block(hops: list[bytes], *, count: int | None = None, topic: bytes | None = None, plain: bytes = b"") -> Json:
    """A sealed and signed hop block; the arguments after the first make malformed ones."""
    instance = fixed("enforcer instance")
    key = instance_key(expand(AUDIT_ROOT, preimage.purpose_info("block")), "audit", instance)
    header = hopblock.header(
        day=DAY,
        enforcer_key_id=ENFORCER_KEY_ID,
        instance=instance,
        sequence=8,
        partition=PARTITION,
        start=900,
        end=902,
        count=len(hops) if count is None else count,
        topic=TOPICS.inbound,
    )
    if topic is not None:
        header = header[:80] + codec.prefixed(topic)
    plaintext = plain or b"".join(u32(len(each)) + each for each in hops)
    aad = preimage.hop_block_aad(DEPLOYMENT, header)
    body = gcm(key["value"], counter_nonce(8), aad, plaintext)
    return {
        "day": DAY,
        "instance_key": key,
        "header": header,
        "nonce": counter_nonce(8),
        "aad": aad,
        "plaintext": plaintext,
        "body": body,
    } | signed_block(header + codec.prefixed(body))


def signed_block(content: bytes) -> Json:
    message = preimage.hop_block_signature(DEPLOYMENT, sha256(content))
    signature = sign(ENFORCER_SEED, message)
    return {"message": message, "signature": signature, "value": content + signature}


def forged(origin: Json) -> bytes:
    """A Sealed whose MAC does not hold: the record after ``origin``."""
    return flip(origin["value"], len(origin["value"]) - 1)


def dead_letter_vectors(keys: Json, origin: Json) -> tuple[Json, Json]:
    instance, sequence = fixed("enforcer instance"), 2
    key = instance_key(keys["dead"]["value"], "dead", instance)
    aad = preimage.dead_aad(DEPLOYMENT, TOPICS.dead, PARTITION, origin["origin_digest"])
    plaintext = u32(len(AGENT)) + AGENT.encode() + origin["plaintext"]
    body = gcm(key["value"], counter_nonce(sequence), aad, plaintext)
    letter = records.DeadLetter(
        offset=900,
        append_time=APPENDED,
        origin_digest=origin["origin_digest"],
        code=Code.PRODUCE,
        sealed=records.DeadBody(EPOCH, instance, sequence, body),
    )
    bare = replace(letter, offset=901, origin_digest=sha256(forged(origin)), code=Code.MAC, sealed=None)
    return (
        {
            "topic": TOPICS.dead,
            "partition": PARTITION,
            "instance_key": key,
            "sequence": sequence,
            "nonce": counter_nonce(sequence),
            "aad": aad,
            "plaintext": plaintext,
            "body": body,
            "value": letter.encode(),
            "output_digest": sha256(b"\x00" + letter.encode()),
        },
        {"value": bare.encode(), "output_digest": sha256(b"\x00" + bare.encode())},
    )


def signed_window(content: bytes) -> Json:
    message = preimage.window_signature(DEPLOYMENT, TOPICS.windows, PARTITION, sha256(content))
    signature = sign(ENFORCER_SEED, message)
    return {"message": message, "signature": signature, "value": content + signature}


def window(keys: Json, *, snapshot: bool) -> Json:
    key_id = keys["agent"]["key-id"]["value"]
    entries = (
        records.WindowEntry(key_id, fixed("agent instance"), 5, 0b11_0111),
        records.WindowEntry(key_id, fixed("agent instance 2"), 2000, (1 << 1023) | 1),
    )
    limits = (
        records.LimitEntry("breaker|worker|agent-1", 0, APPENDED, (APPENDED - 7, APPENDED), APPENDED),
        records.LimitEntry("rate|normal|agent-1", 24_500_000, APPENDED),
    )
    told = ((), ()) if snapshot else (entries, limits)
    value = records.Window(ENFORCER_KEY_ID, 902, APPENDED, 0, 1, snapshot, *told)
    return {"topic": TOPICS.windows, "partition": PARTITION} | signed_window(value.encode_unsigned())


def notice_vectors(keys: Json, origin: Json) -> tuple[Json, Json]:
    verdict = records.Verdict(
        instance=origin["instance"],
        partition=PARTITION,
        sequence=origin["sequence"],
        message_id=MESSAGE.message_id,
        decided_at=DECIDED,
        decision_id=origin["decision_id"],
        decision=hop.Verdict.DENY,
        code=Code.PRODUCE,
        rule="agent_memory.produce",
        hint="ask for the role RETRIEVER",
        obligations=("topology",),
    ).encode()
    return {"value": verdict}, notice(keys, verdict)


def notice(keys: Json, plaintext: bytes) -> Json:
    agent = keys["agent"]
    instance, sequence = fixed("enforcer instance"), 4
    key = instance_key(agent["notice"]["value"], "notice", instance)
    header = records.notice_header(agent["notice-key-id"]["value"], instance, sequence)
    aad = preimage.notice_aad(DEPLOYMENT, header)
    body = gcm(key["value"], counter_nonce(sequence), aad, plaintext)
    return {
        "instance_key": key,
        "sequence": sequence,
        "header": header,
        "nonce": counter_nonce(sequence),
        "aad": aad,
        "plaintext": plaintext,
        "body": body,
        "value": header + codec.prefixed(body),
    }


def claim_vector(keys: Json, bundle_value: Json) -> Json:
    kind = schema("claim")
    claim = {
        "kind": "QUARANTINE",
        "domain": DOMAIN,
        "topic": TOPICS.outbound,
        "partition": u32(PARTITION),
        "offset": u64(77),
        "index": u32(2),
        "digest": sha256(bundle_value["value"]),
        "code": Code.UNVERIFIED.value,
        "at": u64(DECIDED + 40),
        "detail": b"",
    }
    content = kind.head + codec.encode(kind, claim)
    made = seal(keys, "bus.claims", fixed("agent claims instance"), 0, envelope.pad(content, CELL), partition=0)
    return {"content": content, "sealed": made, "value": content}


def signed_object(use: str, content: bytes, seed: bytes) -> Json:
    message = preimage.signed_object(use, content)
    signature = sign(seed, message)
    return {"use": use, "message": message, "signature": signature, "value": content + signature}


EPOCH_OBJECT = objects.Epoch(
    deployment=DEPLOYMENT,
    epoch=EPOCH,
    not_before=NOW,
    not_after=NOW + 600_000,
    zone=ZONE,
    domain=DOMAIN,
    root_digest=expand(ROOT, preimage.purpose_info("commitment")),
)
TOMBSTONE = objects.Tombstone(
    deployment=DEPLOYMENT,
    epoch=EPOCH,
    not_after=NOW + 600_000,
    erased_at=NOW + hopblock.DAY_MS,
    zone=ZONE,
    domain=DOMAIN,
    key_ids=tuple(sorted((fixed("one key", 16), fixed("another key", 16)))),
)
CERTIFICATE = objects.EnforcerCertificate(
    deployment=DEPLOYMENT,
    key_id=ENFORCER_KEY_ID,
    public_key=public(ENFORCER_SEED),
    not_before=NOW - hopblock.DAY_MS,
    not_after=NOW + 90 * hopblock.DAY_MS,
    name="enforcer-1",
    zones=(ZONE,),
    domains=(DOMAIN, "coordination"),
)
DOCUMENT = b'{"security_mesh":{"version":1}}'
SNAPSHOT = objects.SignedSnapshot(DEPLOYMENT, 4, sha256(DOCUMENT), NOW, NOW + 86_400_000, DOCUMENT)


def ledger_vector(hops: list[bytes]) -> Json:
    day_key = expand(AUDIT_ROOT, preimage.purpose_info("ledger"))
    entries = []
    for index, data in enumerate(hops):
        message = preimage.hop_key("bus.audit", 1, 55, index)
        position = preimage.audit_position("bus.audit", 1, 55, index)
        k = hmac.digest(day_key, message, "sha256")
        stored = gcm(k, bytes(12), position, data)
        leaf_data = position + sha256(stored) + sha256(k + data)
        entries.append(
            {
                "index": index,
                "hop": data,
                "position": position,
                "key_message": message,
                "k": k,
                "stored": stored,
                "leaf_data": leaf_data,
                "leaf": sha256(b"\x00" + leaf_data),
            }
        )
    return {
        "topic": "bus.audit",
        "partition": 1,
        "offset": 55,
        "day_key": day_key,
        "entries": entries,
        "root": tree_root([each["leaf"] for each in entries]),
    }


# Malformed variants.
def at(data: bytes, place: int, new: bytes, old: int | None = None) -> bytes:
    """``data`` with ``old`` bytes (as many as ``new``) at ``place`` replaced."""
    end = place + (len(new) if old is None else old)
    return data[:place] + new + data[end:]


def flip(data: bytes, place: int, bit: int = 0) -> bytes:
    return at(data, place, bytes((data[place] ^ 1 << bit,)))


def loose(length: int) -> bytes:
    """``length`` as a varint that is one byte too long."""
    data = bytearray(codec.length(length))
    data[-1] |= 0x80
    return bytes(data) + b"\x00"


def negative(count: int) -> bytes:
    """-``count`` as a varint (one byte)."""
    return bytes((2 * count - 1,))


Variant = tuple[str, bytes, Code] | tuple[str, bytes, Code, Json]


def malformed_sealed(keys: Json, vector: Json) -> list[Variant]:
    value, body = vector["value"], vector["body"]
    size = codec.length(len(body))
    start = 84 + len(size)

    def inside(plaintext: bytes) -> bytes:
        return seal(keys, TOPICS.inbound, vector["instance"], vector["sequence"], plaintext)["value"]  # type: ignore[no-any-return]

    return [
        ("empty", b"", Code.BOUNDS),
        ("under the smallest size", value[:100], Code.BOUNDS),
        ("cut by a byte", value[:-1], Code.BOUNDS),
        ("trailing byte", value + b"\x00", Code.BOUNDS),
        ("body length not minimal", at(value, 84, loose(len(body)), len(size)), Code.BOUNDS),
        ("body length negative", at(value, 84, negative(8), len(size)), Code.BOUNDS),
        ("body length of six bytes", at(value, 84, b"\x80\x80\x80\x80\x80\x01", len(size)), Code.BOUNDS),
        ("body length one less", at(value, 84, codec.length(len(body) - 1), len(size)), Code.BOUNDS),
        ("wrong marker", at(value, 0, schema("derived").head), Code.VERSION),
        ("flipped bit in the marker", flip(value, 1), Code.VERSION),
        ("wrong suite", at(value, 10, u16(2)), Code.VERSION),
        ("flipped bit in the key id", flip(value, 12), Code.UNKNOWN_KEY),
        ("flipped bit in the instance", flip(value, 28, 7), Code.MAC),
        ("flipped bit in the sequence", flip(value, 51), Code.MAC),
        ("flipped bit in the MAC", flip(value, 52), Code.MAC),
        ("flipped bit in the body", flip(value, start), Code.MAC),
        ("flipped bit in the tag", flip(value, len(value) - 1, 7), Code.MAC),
        ("other partition", value, Code.MAC, {"partition": PARTITION + 1}),
        ("other deployment", value, Code.MAC, {"deployment": fixed("other deployment")}),
        ("other topic", value, Code.WRONG_DOMAIN, {"topic": "eu.coordination.in"}),
        ("body flipped, MAC made anew", remac(keys, flip(value, start)), Code.OPEN),
        ("sequence flipped, MAC made anew", remac(keys, flip(value, 51)), Code.OPEN),
        ("instance flipped, MAC made anew", remac(keys, flip(value, 28)), Code.OPEN),
        ("padding is not zeros", inside(vector["plaintext"][:-1] + b"\x01"), Code.DECODE),
        ("frame of three bytes", inside(b"\x00\x00\x00"), Code.DECODE),
        ("an envelope with a trailing byte", inside(envelope.pad(envelope_content() + b"\x00")), Code.DECODE),
    ]


def envelope_content() -> bytes:
    return envelope_vector()["content"]  # type: ignore[no-any-return]


def malformed_envelope() -> list[Variant]:
    vector = envelope_vector()
    content, profile, message = vector["content"], vector["profile"], vector["message"]
    size = codec.length(len(profile))
    start = 10 + len(size) + len(profile)
    causes = start + 33 + len(MESSAGE.correlation_id)
    causes_end = causes + 1 + 32
    reply = causes_end + 1
    tickets = reply + 1 + len(MESSAGE.reply_to)
    trace = tickets + 1 + 1 + 32 + 1
    chunk = trace + 1 + len(MESSAGE.traceparent)
    payload = start + len(message)
    assert content[causes] == 4
    assert content[chunk] == 2

    def with_profile(data: bytes) -> bytes:
        return content[:10] + codec.prefixed(data) + content[start:]

    framed: list[tuple[str, bytes]] = [
        ("trailing byte", content + b"\x00"),
        ("cut by a byte", content[:-1]),
        ("wrong marker", at(content, 0, schema("sealed").head)),
        ("profile length not minimal", at(content, 10, loose(len(profile)), len(size))),
        ("profile over its bound", with_profile(codec.encode(schema("profile"), large_profile()))),
        ("profile with a trailing byte", with_profile(profile + b"\x00")),
        ("correlation id over 63 bytes", at(content, start + 32, codec.text("x" * 64), 1 + 9)),
        ("correlation id not UTF-8", at(content, start + 33, b"\xed\xa0\x80")),
        ("causes in two blocks", at(content, causes_end - 32 - 1, two_blocks(MESSAGE.causation_ids), 34)),
        ("causes with a negative count", at(content, causes, negative(2) + codec.length(32), 1)),
        ("causes end with another count", at(content, causes_end, b"\x02")),
        ("64 causes", at(content, causes, codec.length(64) + bytes(64 * 16) + b"\x00", 34)),
        ("reply_to length negative", at(content, reply, b"\x01")),
        ("17 tickets", at(content, tickets, codec.length(17) + b"\x02\x01" * 17 + b"\x00", 1 + 1 + 32 + 1)),
        ("ticket of 513 bytes", at(content, tickets, b"\x02" + codec.prefixed(bytes(513)) + b"\x00", 1 + 1 + 32 + 1)),
        ("ticket count not minimal", at(content, tickets, b"\x82\x00", 1)),
        ("chunk branch 2", at(content, chunk, b"\x04")),
        (
            "33 protected fields",
            at(content, chunk + 25, codec.length(33) + b"\x00\x00" * 33 + b"\x00", payload - chunk - 25),
        ),
        ("payload length not minimal", at(content, payload, loose(len(PAYLOAD)), 1)),
        ("payload length one less", at(content, payload, codec.length(len(PAYLOAD) - 1))),
        ("payload length one more", at(content, payload, codec.length(len(PAYLOAD) + 1))),
    ]
    return [
        *((name, envelope.pad(data), Code.DECODE) for name, data in framed),
        ("empty frame", b"", Code.DECODE),
        ("frame length over the rest", u32(len(content) + 1) + content, Code.DECODE),
        ("frame length one less", u32(len(content) - 1) + content, Code.DECODE),
        ("padding is not zeros", envelope.pad(content) + b"\x00\x01\x00", Code.DECODE),
    ]


def two_blocks(items: tuple[bytes, ...]) -> bytes:
    return b"".join(b"\x02" + each for each in items) + b"\x00"


def large_profile() -> Json:
    return profile_fields(PROFILE) | {"purpose": "x" * envelope.MAX_PROFILE}


def malformed_profile() -> list[Variant]:
    data = envelope.encode_profile(PROFILE)
    fields = profile_fields(PROFILE)
    kind = 2 + len(AGENT) + len(DOMAIN)
    notify = data.index(b"\x08\x04\x02\x01") if b"\x08\x04\x02\x01" in data else -1

    def encoded(**changes: Any) -> bytes:
        return codec.encode(schema("profile"), fields | changes)

    low = encoded(tier_floor="RETRIEVAL", protect_at="ENFORCER", notify=True)
    assert low == data
    place = data.index(codec.text("care")) + 5 + 2
    assert notify == -1
    assert data[place] == 1
    locale = codec.text("locale") + codec.text("de-AT")
    priority = codec.text("priority") + codec.text("high")
    assert locale + priority in data
    return [
        ("trailing byte", data + b"\x00", Code.DECODE),
        ("cut by a byte", data[:-1], Code.DECODE),
        ("empty", b"", Code.DECODE),
        ("kind out of range", at(data, kind, b"\x10"), Code.DECODE),
        ("kind negative", at(data, kind, b"\x01"), Code.DECODE),
        ("kind not minimal", at(data, kind, b"\x8c\x00", 1), Code.DECODE),
        ("notify is 2", at(data, place, b"\x02"), Code.DECODE),
        ("metadata keys not in order", data.replace(locale + priority, priority + locale), Code.DECODE),
        ("metadata key twice", data.replace(locale + priority, locale + locale), Code.DECODE),
        ("65 metadata keys", encoded(metadata={f"k{n:02}": "" for n in range(65)}), Code.DECODE),
        ("33 labels", encoded(labels=["x"] * 33), Code.DECODE),
        ("source not UTF-8", at(data, 1, b"\xff"), Code.DECODE),
    ]


def malformed_derived(vector: Json) -> list[Variant]:
    value, table, sets = vector["value"], vector["key_table"], vector["sets"]
    entries, head = vector["records"], vector["head"]
    size = codec.length(len(table))
    table_at = 103 + len(size)
    count_at = table_at + len(table)
    first = count_at + 1
    body_at = first + 26 + len(codec.length(len(entries[0]["body"])))
    second = first + len(entries[0]["entry"])
    third = second + len(entries[1]["entry"])
    wrapped = table_at + 1 + 32 + 1 + 8

    def with_table(data: bytes) -> bytes:
        return at(value, 103, codec.prefixed(data), len(size) + len(table))

    def with_frame(frame: bytes) -> bytes:
        changed = seal_record(head, sets, 0, 5, "0", frame)
        return bundle(head, sets, [changed, *entries[1:]], vector["index"])["value"]  # type: ignore[no-any-return]

    def with_head(**changes: Any) -> bytes:
        other = head_of(Tier.RETRIEVAL, 3, 11, **changes)
        remade = [
            seal_record(other, sets, each["reader_set"], each["counter"], str(i), each["plaintext"])
            for i, each in enumerate(entries)
        ]
        return bundle(other, sets, remade, vector["index"])["value"]  # type: ignore[no-any-return]

    def with_index(*told: tuple[int, bytes]) -> bytes:
        sets_alone = table[: table.index(codec.length(len(index)) + u16(0) + index[0]["token"])]
        listed = codec.length(len(told)) + b"".join(u16(number) + token for number, token in told)
        return with_table(sets_alone + listed + b"\x00")

    index = vector["index"]
    low, high = bytes(16), b"\xff" * 16
    released_value = entries[0]["released"]["value"]
    wrong_dek = wrapped_other_dek(sets[0])
    three = {"key_table": table}
    assert three["key_table"][0] == 4
    return [
        ("empty", b"", Code.BOUNDS),
        ("under the smallest size", value[:167], Code.BOUNDS),
        ("cut by a byte", value[:-1], Code.BOUNDS),
        ("trailing byte", value + b"\x00", Code.BOUNDS),
        ("wrong marker", at(value, 0, schema("sealed").head), Code.VERSION),
        ("wrong suite", at(value, 10, u16(2)), Code.VERSION),
        ("tier 4", at(value, 12, b"\x04"), Code.BOUNDS),
        ("count 0", at(value, 101, u16(0)), Code.BOUNDS),
        ("count 33", at(value, 101, u16(33)), Code.BOUNDS),
        ("head counts one more", at(value, 101, u16(4)), Code.BOUNDS),
        ("head counts one less", at(value, 101, u16(2)), Code.BOUNDS),
        ("array counts one less", at(value, count_at, codec.length(2)), Code.BOUNDS),
        ("array count negative", at(value, count_at, negative(3)), Code.BOUNDS),
        ("array count not minimal", at(value, count_at, b"\x86\x00", 1), Code.BOUNDS),
        ("records in two blocks", value[:third] + b"\x02" + value[third:], Code.BOUNDS),
        ("key table length not minimal", at(value, 103, loose(len(table)), len(size)), Code.BOUNDS),
        ("key table length over the rest", at(value, 103, codec.length(len(value)), len(size)), Code.BOUNDS),
        ("key table with a trailing byte", with_table(table + b"\x00"), Code.BOUNDS),
        ("key table with an empty reader set", with_table(b"\x02" + bytes(32) + b"\x00\x00\x00"), Code.BOUNDS),
        ("key table without an index", with_table(b"\x00"), Code.BOUNDS),
        ("index out of order", with_index((0, high), (0, low)), Code.BOUNDS),
        ("index with a token twice", with_index((1, low), (1, low)), Code.BOUNDS),
        ("index of a record that is not there", with_index((0, low), (3, low)), Code.BOUNDS),
        ("index cut", with_table(table[:-9] + b"\x00"), Code.BOUNDS),
        (
            "2049 tokens",
            with_index(*((0, u64(number) + bytes(8)) for number in range(2049))),
            Code.BOUNDS,
        ),
        ("flipped bit in a token", flip(value, count_at - 2), Code.UNVERIFIED),
        ("without its index", with_index(), Code.BOUNDS),
        ("another index", with_index((0, low)), Code.UNVERIFIED),
        ("key table cut", with_table(table[:-2]), Code.BOUNDS),
        (
            "33 reader sets",
            with_table(codec.length(33) + (bytes(32) + b"\x02" + bytes(68) + b"\x00") * 33 + b"\x00\x00"),
            Code.BOUNDS,
        ),
        (
            "64 entries in a reader set",
            with_table(b"\x02" + bytes(32) + codec.length(64) + bytes(64 * 68) + b"\x00\x00\x00"),
            Code.BOUNDS,
        ),
        ("reader set out of range", at(value, first + 16, u16(2)), Code.BOUNDS),
        ("no reader set in tier RETRIEVAL", at(value, first + 16, u16(65535)), Code.BOUNDS),
        ("body length negative", at(value, first + 26, b"\x01"), Code.BOUNDS),
        ("flipped bit in the tier", flip(value, 12), Code.UNVERIFIED),
        ("flipped bit in the epoch", flip(value, 20), Code.UNVERIFIED),
        ("flipped bit in the policy digest", flip(value, 21), Code.UNVERIFIED),
        ("flipped bit in the enforcer key id", flip(value, 53), Code.UNVERIFIED),
        ("flipped bit in the instance", flip(value, 69), Code.UNVERIFIED),
        ("flipped bit in the sequence", flip(value, 92), Code.UNVERIFIED),
        ("flipped bit in decided_at", flip(value, 100), Code.UNVERIFIED),
        ("flipped bit in a commitment", flip(value, table_at + 1), Code.UNVERIFIED),
        ("flipped bit in a wrapped DEK", flip(value, wrapped + 12), Code.UNVERIFIED),
        ("flipped bit in a record id", flip(value, first), Code.UNVERIFIED),
        ("flipped bit in a reader set", flip(value, first + 17), Code.UNVERIFIED),
        ("flipped bit in a counter", flip(value, first + 25), Code.UNVERIFIED),
        ("flipped bit in a body", flip(value, body_at), Code.UNVERIFIED),
        ("flipped bit in the last body", flip(value, len(value) - 66), Code.UNVERIFIED),
        ("flipped bit in the signature", flip(value, len(value) - 1), Code.UNVERIFIED),
        ("records swapped", value[:first] + value[second:third] + value[first:second] + value[third:], Code.UNVERIFIED),
        ("signed by another key", resign(value, ANCHOR_SEED), Code.UNVERIFIED),
        ("signer without a certificate", with_head(signer=fixed("no certificate")), Code.UNVERIFIED),
        ("decided before the certificate", with_head(decided_at=NOW - 2 * hopblock.DAY_MS), Code.UNVERIFIED),
        ("other partition", value, Code.UNVERIFIED, {"partition": PARTITION + 1}),
        ("other topic", value, Code.UNVERIFIED, {"topic": "eu.coordination.out"}),
        ("other domain", value, Code.UNVERIFIED, {"domain": "payments"}),
        ("other zone", value, Code.UNVERIFIED, {"zone": "us"}),
        ("wrapped DEKs flipped, signed anew", resign(flip_wrapped(value, table_at)), Code.OPEN),
        ("commitment flipped, signed anew", resign(flip(value, table_at + 1)), Code.OPEN),
        ("another DEK under this commitment", resign(with_table(key_table_of([wrong_dek, sets[1]], index))), Code.OPEN),
        ("body flipped, signed anew", resign(flip(value, body_at)), Code.OPEN),
        ("counter flipped, signed anew", resign(flip(value, first + 25)), Code.OPEN),
        ("record id flipped, signed anew", resign(flip(value, first)), Code.OPEN),
        ("sequence flipped, signed anew", resign(flip(value, 92)), Code.OPEN),
        ("padding is not zeros", with_frame(envelope.pad(released_value) + b"\x01"), Code.DECODE),
        ("Released with a trailing byte", with_frame(envelope.pad(released_value + b"\x00")), Code.DECODE),
        ("envelope in it with a trailing byte", with_frame(released_with(entries[0], b"\x00")), Code.DECODE),
    ]


def flip_wrapped(value: bytes, table_at: int) -> bytes:
    """Both entries of the first reader set damaged, so that any role meets the damage."""
    first = table_at + 1 + 32 + 1
    return flip(flip(value, first + 67), first + 68 + 67)


def released_with(entry: Json, tail: bytes) -> bytes:
    parts = entry["released"]
    return envelope.pad(released(parts["decision_id"], parts["ticket"], parts["envelope"] + tail)["value"])


def wrapped_other_dek(original: Json) -> Json:
    """The reader set with another DEK in each entry: it unwraps, but is not what the set commits to."""
    other = fixed("another dek", 32)
    by_id = {each["reader_key_id"]: each["value"] for each in all_keys()["roles"].values()}
    entries = [
        entry
        | {"wrapped": entry["nonce"] + gcm(by_id[entry["reader_key_id"]], entry["nonce"], original["wrap_aad"], other)}
        for entry in original["entries"]
    ]
    return original | {"entries": entries}


def malformed_hop(data: bytes) -> list[Variant]:
    facts = codec.text("load") + codec.text("0.2")
    time = codec.text("time") + codec.text("2026-01-01T00:01:00Z")
    assert facts + time in data
    code = 150 + 1 + len(MESSAGE.correlation_id) + 34 + 1 + len(TOPICS.inbound) + 1
    assert data[code : code + 1] == b"\x00"
    return [
        ("trailing byte", data + b"\x00", Code.DECODE),
        ("cut by a byte", data[:-1], Code.DECODE),
        ("empty", b"", Code.DECODE),
        ("decision id is not the digest's", flip(data, 0), Code.DECODE),
        ("decision out of range", at(data, code - 1, b"\x06"), Code.DECODE),
        ("code is not in the registry", at(data, code, codec.text("no-such-code"), 1), Code.DECODE),
        ("facts not in order", data.replace(facts + time, time + facts), Code.DECODE),
        ("fact twice", data.replace(facts + time, facts + facts), Code.DECODE),
        ("correlation id length not minimal", at(data, 150, loose(len(MESSAGE.correlation_id)), 1), Code.DECODE),
    ]


def malformed_hop_block(vector: Json, hops: list[bytes]) -> list[Variant]:
    value, header, body = vector["value"], vector["header"], vector["body"]
    size = codec.length(len(body))
    start = len(header) + len(size)
    plain = vector["plaintext"]
    return [
        ("empty", b"", Code.BOUNDS),
        ("under the smallest size", value[:149], Code.BOUNDS),
        ("cut by a byte", value[:-1], Code.BOUNDS),
        ("trailing byte", value + b"\x00", Code.BOUNDS),
        ("wrong marker", at(value, 0, schema("hop").head), Code.VERSION),
        ("wrong suite", at(value, 10, u16(0)), Code.VERSION),
        ("topic length not minimal", at(value, 80, loose(len(TOPICS.inbound)), 1), Code.BOUNDS),
        ("topic of 250 bytes", hop_block(hops, topic=b"x" * 250)["value"], Code.BOUNDS),
        ("topic not UTF-8", hop_block(hops, topic=b"eu.\xff.in")["value"], Code.BOUNDS),
        ("body length one more", at(value, len(header), codec.length(len(body) + 1), len(size)), Code.BOUNDS),
        ("flipped bit in the day", flip(value, 15), Code.UNVERIFIED),
        ("flipped bit in the key id", flip(value, 16), Code.UNVERIFIED),
        ("flipped bit in the interval", flip(value, 67), Code.UNVERIFIED),
        ("flipped bit in the topic", flip(value, 81), Code.UNVERIFIED),
        ("flipped bit in the body", flip(value, start), Code.UNVERIFIED),
        ("flipped bit in the signature", flip(value, len(value) - 64), Code.UNVERIFIED),
        ("body flipped, signed anew", signed_block(flip(value, start)[:-64])["value"], Code.OPEN),
        ("interval flipped, signed anew", signed_block(flip(value, 67)[:-64])["value"], Code.OPEN),
        ("count one more", hop_block(hops, count=3)["value"], Code.DECODE),
        ("count one less", hop_block(hops, count=1)["value"], Code.DECODE),
        ("a hop over the body", hop_block(hops, plain=plain[:-1])["value"], Code.DECODE),
        ("a hop of no bytes", hop_block(hops, count=3, plain=plain + bytes(4))["value"], Code.DECODE),
    ]


def malformed_dead_letter(vector: Json) -> list[Variant]:
    value = vector["value"]
    branch = 60 + 1 + len(Code.PRODUCE.value)
    assert value[branch] == 2
    body = branch + 1 + 32
    size = codec.length(len(vector["body"]))
    return [
        ("empty", b"", Code.BOUNDS),
        ("wrong marker", at(value, 0, schema("notice").head), Code.VERSION),
        ("wrong suite", at(value, 10, u16(2)), Code.VERSION),
        ("trailing byte", value + b"\x00", Code.DECODE),
        ("cut by a byte", value[:-1], Code.DECODE),
        ("code is not in the registry", at(value, 60, codec.text("no-such-code"), branch - 60), Code.DECODE),
        ("branch 2", at(value, branch, b"\x04"), Code.DECODE),
        ("branch not minimal", at(value, branch, b"\x82\x00", 1), Code.DECODE),
        ("body length not minimal", at(value, body, loose(len(vector["body"])), len(size)), Code.DECODE),
        ("flipped bit in the origin digest", flip(value, 28), Code.OPEN),
        ("flipped bit in the instance", flip(value, branch + 9), Code.OPEN),
        ("flipped bit in the sequence", flip(value, branch + 32), Code.OPEN),
        ("flipped bit in the body", flip(value, len(value) - 1), Code.OPEN),
        ("other partition", value, Code.OPEN, {"partition": PARTITION + 1}),
    ]


def malformed_window(vector: Json) -> list[Variant]:
    value = vector["value"]
    content = value[:-64]
    bitmap = 53 + 1 + 40
    assert content[bitmap : bitmap + 2] == b"\x02\x37"
    times = codec.prefixed(u64(APPENDED - 7) + u64(APPENDED))
    assert times in content

    def signed(data: bytes) -> bytes:
        return signed_window(data)["value"]  # type: ignore[no-any-return]

    return [
        ("empty", b"", Code.BOUNDS),
        ("over the largest size", value + bytes(records.MAX_WINDOW), Code.BOUNDS),
        ("wrong marker", at(value, 0, schema("hop_block").head), Code.VERSION),
        ("wrong suite", signed(at(content, 10, u16(2))), Code.VERSION),
        ("trailing byte", value + b"\x00", Code.DECODE),
        ("cut by a byte", value[:-1], Code.DECODE),
        ("kind out of range", signed(at(content, 52, b"\x04")), Code.DECODE),
        ("kind negative", signed(at(content, 52, b"\x01")), Code.DECODE),
        ("count one more", signed(at(content, 53, b"\x06")), Code.DECODE),
        ("bitmap with a leading zero", signed(at(content, bitmap, b"\x04\x00\x37", 2)), Code.DECODE),
        ("bitmap of 129 bytes", signed(at(content, bitmap, codec.prefixed(b"\x01" + bytes(128)), 2)), Code.DECODE),
        ("a time of a refusal that is cut", signed(content.replace(times, codec.prefixed(bytes(15)))), Code.DECODE),
        ("65 times of refusals", signed(content.replace(times, codec.prefixed(bytes(8 * 65)))), Code.DECODE),
        ("flipped bit in upto", flip(value, 35), Code.UNVERIFIED),
        ("flipped bit in the key id", flip(value, 12), Code.UNVERIFIED),
        ("flipped bit in a bitmap", flip(value, bitmap + 1), Code.UNVERIFIED),
        ("flipped bit in the signature", flip(value, len(value) - 1), Code.UNVERIFIED),
        ("other partition", value, Code.UNVERIFIED, {"partition": PARTITION + 1}),
        ("other domain", value, Code.UNVERIFIED, {"domain": "payments"}),
    ]


def malformed_verdict(data: bytes) -> list[Variant]:
    code = codec.text(Code.PRODUCE.value)
    assert data[63 : 63 + len(code)] == code
    return [
        ("trailing byte", data + b"\x00", Code.DECODE),
        ("cut by a byte", data[:-1], Code.DECODE),
        ("decision out of range", at(data, 62, b"\x06"), Code.DECODE),
        ("decision negative", at(data, 62, b"\x03"), Code.DECODE),
        ("code is not in the registry", at(data, 63, codec.text("no-such-code"), len(code)), Code.DECODE),
    ]


def malformed_notice(keys: Json, vector: Json) -> list[Variant]:
    value = vector["value"]
    size = codec.length(len(vector["body"]))
    return [
        ("empty", b"", Code.BOUNDS),
        ("wrong marker", at(value, 0, schema("verdict").head), Code.VERSION),
        ("wrong suite", at(value, 10, u16(2)), Code.VERSION),
        ("trailing byte", value + b"\x00", Code.DECODE),
        ("body length not minimal", at(value, 52, loose(len(vector["body"])), len(size)), Code.DECODE),
        ("flipped bit in the instance", flip(value, 28), Code.OPEN),
        ("flipped bit in the sequence", flip(value, 51), Code.OPEN),
        ("flipped bit in the body", flip(value, len(value) - 1), Code.OPEN),
        ("other deployment", value, Code.OPEN, {"deployment": fixed("other deployment")}),
        ("a verdict with a trailing byte", notice(keys, vector["plaintext"] + b"\x00")["value"], Code.DECODE),
    ]


def malformed_claim(data: bytes) -> list[Variant]:
    return [
        ("wrong marker", at(data, 0, schema("notice").head), Code.VERSION),
        ("trailing byte", data + b"\x00", Code.DECODE),
        ("kind out of range", at(data, 10, b"\x06"), Code.DECODE),
        ("kind not minimal", at(data, 10, b"\x82\x00", 1), Code.DECODE),
    ]


def malformed_object(vector: Json, seed: bytes, inside: list[tuple[str, bytes, Code]]) -> list[Variant]:
    """Variants of a signed object; ``inside`` are contents that are signed properly."""
    value, use = vector["value"], vector["use"]
    content = value[:-64]
    return [
        ("empty", b"", Code.UNVERIFIED),
        ("trailing byte", value + b"\x00", Code.UNVERIFIED),
        ("flipped bit in the marker", flip(value, 0), Code.UNVERIFIED),
        ("flipped bit in the content", flip(value, 26), Code.UNVERIFIED),
        ("flipped bit in the signature", flip(value, len(value) - 1), Code.UNVERIFIED),
        ("signed by another key", signed_object(use, content, fixed("another seed", 32))["value"], Code.UNVERIFIED),
        ("signed for another use", signed_object("other", content, seed)["value"], Code.UNVERIFIED),
        ("other deployment", value, Code.UNVERIFIED, {"deployment": fixed("other deployment")}),
        ("trailing byte, signed", signed_object(use, content + b"\x00", seed)["value"], Code.DECODE),
        ("wrong marker, signed", signed_object(use, at(content, 0, schema("hop").head), seed)["value"], Code.VERSION),
        *((name, signed_object(use, data, seed)["value"], code) for name, data, code in inside),
    ]


def all_malformed(made: Json, hops: list[bytes]) -> list[Json]:
    keys = made["keys"]
    epoch = made["epoch"]["value"][:-64]
    tombstone = made["tombstone"]["value"][:-64]
    certificate = made["certificate"]["value"][:-64]
    snapshot = made["snapshot"]["value"][:-64]
    listed: dict[str, list[Variant]] = {
        "profile": malformed_profile(),
        "envelope": malformed_envelope(),
        "sealed": malformed_sealed(keys, made["sealed"]),
        "derived": malformed_derived(made["derived"]),
        "hop": malformed_hop(hops[0]),
        "hop_block": malformed_hop_block(made["hop_block"], hops),
        "dead_letter": malformed_dead_letter(made["dead_letter"]),
        "window": malformed_window(made["window"]),
        "verdict": malformed_verdict(made["verdict"]["value"]),
        "notice": malformed_notice(keys, made["notice"]),
        "claim": malformed_claim(made["claim"]["value"]),
        "epoch": malformed_object(
            made["epoch"],
            ANCHOR_SEED,
            [("zone length not minimal", at(epoch, 50, loose(len(ZONE)), 1), Code.DECODE)],
        ),
        "tombstone": malformed_object(
            made["tombstone"],
            ANCHOR_SEED,
            [("number of key ids one less", at(tombstone, 52 + len(ZONE) + len(DOMAIN), codec.length(1)), Code.DECODE)],
        ),
        "certificate": malformed_object(
            made["certificate"],
            ANCHOR_SEED,
            [
                ("key id is not the key's", flip(certificate, 26), Code.UNVERIFIED),
                ("name length not minimal", at(certificate, 90, loose(len(CERTIFICATE.name)), 1), Code.DECODE),
            ],
        ),
        "snapshot": malformed_object(
            made["snapshot"],
            POLICY_SEED,
            [("document length one less", at(snapshot, 82, codec.length(len(DOCUMENT) - 1)), Code.DECODE)],
        ),
    }
    out: list[Json] = []
    for of, variants in listed.items():
        for name, value, code, *rest in variants:
            entry: Json = {"of": of, "name": name, "value": value, "code": code.value}
            if rest:
                entry["with"] = rest[0]
            out.append(entry)
    return out


def build() -> Json:
    """All vectors; bytes as bytes."""
    keys = all_keys()
    frame = envelope_vector()
    made: Json = {
        "format": "sealbus wire format 1, known-answer vectors (docs/wire-format.md, section 18)",
        "inputs": {
            "deployment": DEPLOYMENT,
            "zone": ZONE,
            "domain": DOMAIN,
            "epoch": EPOCH,
            "partition": PARTITION,
            "topics": {
                "in": TOPICS.inbound,
                "out": TOPICS.outbound,
                "dead": TOPICS.dead,
                "windows": TOPICS.windows,
            },
            "root": ROOT,
            "audit_root": AUDIT_ROOT,
            "agent": AGENT,
            "roles": list(ROLES),
            "tenant": TENANT,
            "target": TARGET,
            "enforcer_seed": ENFORCER_SEED,
            "enforcer_key": public(ENFORCER_SEED),
            "anchor_seed": ANCHOR_SEED,
            "anchor": public(ANCHOR_SEED),
            "policy_signer_seed": POLICY_SEED,
            "policy_signer": public(POLICY_SEED),
            "now": NOW,
        },
        "markers": {
            name: schema(name).head
            for name in sorted(each.name.removesuffix(".v1.avsc") for each in SCHEMA_DIRECTORY.glob("*.v1.avsc"))
        },
        "keys": keys,
        "delegation": DELEGATION,
        "profile": {"fields": profile_fields(PROFILE), "value": envelope.encode_profile(PROFILE)},
        "envelope": frame,
    }
    made["sealed"] = seal(keys, TOPICS.inbound, fixed("agent instance"), 5, frame["frame"])
    made["derived"], made["derived_plaintext"] = derived_vectors(keys, made["sealed"])
    made["dead_letter"], made["dead_letter_bare"] = dead_letter_vectors(keys, made["sealed"])
    hops = [
        encode_hop(made["sealed"], made["derived"]["records"][0]["leaf"], hop_tail(hop.Verdict.ALLOW, Code.ALLOW)),
        encode_hop(
            {"value": forged(made["sealed"]), "origin_digest": sha256(forged(made["sealed"]))},
            made["dead_letter_bare"]["output_digest"],
            hop.HopTail(
                TOPICS.inbound, hop.Verdict.DENY, Code.MAC, "", "", 4, fixed("policy digest", 32), domain=DOMAIN
            ),
            opened=False,
        ),
    ]
    made["hop"] = {"value": hops[0], "value_of_a_refusal": hops[1]}
    made["hop_block"] = hop_block(hops)
    made["window"] = window(keys, snapshot=False)
    made["window_snapshot"] = window(keys, snapshot=True)
    made["verdict"], made["notice"] = notice_vectors(keys, made["sealed"])
    made["claim"] = claim_vector(keys, made["derived"])
    made["epoch"] = signed_object("epoch", EPOCH_OBJECT.encode_unsigned(), ANCHOR_SEED)
    made["tombstone"] = signed_object("tombstone", TOMBSTONE.encode_unsigned(), ANCHOR_SEED)
    made["certificate"] = signed_object("enforcer-certificate", CERTIFICATE.encode_unsigned(), ANCHOR_SEED)
    made["snapshot"] = signed_object("snapshot", SNAPSHOT.encode_unsigned(), POLICY_SEED)
    made["ledger"] = ledger_vector(hops)
    made["malformed"] = all_malformed(made, hops)
    return made


def text() -> str:
    """The file's text: bytes as hexadecimal digits."""
    return json.dumps(build(), indent=1, ensure_ascii=False, default=bytes.hex) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
