"""The one place that says which bytes a MAC, an AAD, a signature or a key derivation covers (docs/wire-format.md).

Every preimage begins with its own label; every part of variable length stands behind a uint16 length; integers are big
endian. What follows the prefixes made here is of fixed length or carries its own length, so no two inputs share bytes.
"""

from __future__ import annotations

from typing import Final

DEPLOYMENT_ID_LENGTH: Final = 16


def part(data: bytes) -> bytes:
    """``data`` behind its length (uint16)."""
    return len(data).to_bytes(2, "big") + data


def label(use: str) -> bytes:
    """The label ``sealbus/v1/<use>`` that begins every preimage, behind its length."""
    return part(f"sealbus/v1/{use}".encode())


def place(use: str, deployment: bytes, topic: str, partition: int) -> bytes:
    """label | deployment id | topic | partition: what binds bytes to one partition of one deployment."""
    if len(deployment) != DEPLOYMENT_ID_LENGTH:
        raise ValueError(f"deployment id: expected {DEPLOYMENT_ID_LENGTH} bytes, found {len(deployment)}")
    return label(use) + deployment + part(topic.encode()) + partition.to_bytes(4, "big")


# Sealed: header = the 52 bytes before the MAC.
def sealed_aad(deployment: bytes, topic: str, partition: int) -> bytes:
    """Prefix of the AAD of a Sealed body; the 52 header bytes follow."""
    return place("sealed/aad", deployment, topic, partition)


def sealed_mac(deployment: bytes, topic: str, partition: int) -> bytes:
    """Prefix of the MAC of a Sealed; the header, then everything behind the MAC (body length and body) follow."""
    return place("sealed/mac", deployment, topic, partition)


def sealed_nonce(partition: int, sequence: int) -> bytes:
    """uint32 partition | uint64 sequence: never repeats under the key of one instance."""
    return partition.to_bytes(4, "big") + sequence.to_bytes(8, "big")


def counter_nonce(counter: int) -> bytes:
    """uint32 0 | uint64 counter, for keys that one process counts over all partitions."""
    return counter.to_bytes(12, "big")


# Derived.
def derived_aad(deployment: bytes, topic: str, partition: int) -> bytes:
    """Prefix of the AAD of a Derived body; head, DEK commitment (zeros without one) and record id follow."""
    return place("derived/aad", deployment, topic, partition)


def derived_signature(deployment: bytes, topic: str, partition: int) -> bytes:
    """Prefix of a bundle's signature; head, SHA-256 of the key table and tree root follow."""
    return place("derived/signature", deployment, topic, partition)


def dek_commitment(dek: bytes) -> bytes:
    """Preimage of the SHA-256 commitment to a DEK."""
    return label("dek") + dek


def wrap_aad(deployment: bytes, topic: str, epoch: int, commitment: bytes) -> bytes:
    """AAD of a wrapped DEK: it opens only as the key of this commitment in this topic and epoch."""
    return label("wrap") + deployment + part(topic.encode()) + epoch.to_bytes(8, "big") + commitment


# The enforcer's other records.
def hop_block_aad(deployment: bytes, header: bytes) -> bytes:
    """AAD of a hop block's body; ``header`` is every byte before it."""
    return label("hop-block/aad") + deployment + header


def hop_block_signature(deployment: bytes, value_digest: bytes) -> bytes:
    """What a hop block's signature covers; ``value_digest`` = SHA-256 of every byte before it."""
    return label("hop-block/signature") + deployment + value_digest


def window_signature(deployment: bytes, topic: str, partition: int, value_digest: bytes) -> bytes:
    """What a window record's signature covers; ``value_digest`` = SHA-256 of every byte before it."""
    return place("window/signature", deployment, topic, partition) + value_digest


def dead_aad(deployment: bytes, topic: str, partition: int, origin_digest: bytes) -> bytes:
    """AAD of a dead letter's body."""
    return place("dead/aad", deployment, topic, partition) + origin_digest


def notice_aad(deployment: bytes, header: bytes) -> bytes:
    """AAD of a notice's body; ``header`` is every byte before it."""
    return label("notice/aad") + deployment + header


def ticket_mac(deployment: bytes, session: bytes) -> bytes:
    """Prefix of a ticket's MAC: it holds in the session (correlation id) of its record; the ticket follows."""
    return label("ticket") + deployment + part(session)


def delegation_first(deployment: bytes) -> bytes:
    """Prefix of the MAC of a delegation's first block; the delegation without its MAC follows."""
    return label("delegation") + deployment


def delegation_next(mac: bytes) -> bytes:
    """The same of every later block: the MAC of the blocks before it (32 bytes), which is bound to the deployment."""
    return label("delegation/next") + mac


# Events of a partition: hops that no record caused.
def event(deployment: bytes, topic: str, partition: int, kind: str, offset: int, at: int) -> bytes:
    """Preimage of the origin digest of an event's hop: place | kind | input offset | time (ms)."""
    return (
        place("event", deployment, topic, partition)
        + part(kind.encode())
        + offset.to_bytes(8, "big")
        + at.to_bytes(8, "big")
    )


# Signed objects: everything before the signature follows.
def signed_object(use: str, content: bytes) -> bytes:
    """label | content, where content is the encoded object without its signature."""
    return label(use) + content


# Ledger (docs/wire-format.md, "Ledger").
def hop_key(topic: str, partition: int, offset: int, index: int) -> bytes:
    """Message of the HMAC under the day's key that gives the key of one stored hop."""
    return label("ledger/hop") + audit_position(topic, partition, offset, index)


def audit_position(topic: str, partition: int, offset: int, index: int) -> bytes:
    """topic | partition | offset | index: where a hop stands in the audit log."""
    return part(topic.encode()) + partition.to_bytes(4, "big") + offset.to_bytes(8, "big") + index.to_bytes(4, "big")


# Key derivation: the `info` of HKDF-Expand (RFC 5869).
def agent_info(agent: str, purpose: str) -> bytes:
    """Keys of an agent from root(zone, domain, epoch): purpose is mac, seal, notice, key-id, delegate or store."""
    return label("key/agent") + part(agent.encode()) + part(purpose.encode())


def target_info(agent: str) -> bytes:
    """Reading key of one agent."""
    return label("key/target") + part(agent.encode())


def role_info(role: str, tenant: str) -> bytes:
    """Role KEK."""
    return label("key/role") + part(role.encode()) + part(tenant.encode())


def reader_key_id_info() -> bytes:
    """The 8 bytes that name a reading key or role KEK in a key table."""
    return label("key/reader-id")


def instance_info(use: str, instance: bytes) -> bytes:
    """A process's own subkey of a shared key: use is seal, notice, dead or audit; instance is 16 bytes."""
    return label(f"key/instance/{use}") + instance


def purpose_info(purpose: str) -> bytes:
    """A domain-wide key from a root: dead, ticket; or from root(audit, day): block, ledger, search."""
    return label("key/purpose") + part(purpose.encode())


def index_info(field: str) -> bytes:
    """Key of the blind index for one field of payloads, from the reading key of who may search."""
    return label("key/index") + part(field.encode())


# Payloads that are protected at their source (bus.crypto.session).
def session_info(domain: str, epoch: int) -> bytes:
    """The session key of a domain and epoch, from what the authority's secret and the root give together."""
    return label("key/session") + part(domain.encode()) + epoch.to_bytes(8, "big")


def source_aad(deployment: bytes, domain: str, agent: str) -> bytes:
    """Prefix of the AAD of a payload protected at its source; message id (16) and header (33) follow."""
    return label("source/aad") + deployment + part(domain.encode()) + part(agent.encode())


def field_context(domain: str, path: str) -> bytes:
    """Behind the AAD of a field that is sealed for another domain: the one whose record it is in, and where."""
    return label("source/field") + part(domain.encode()) + part(path.encode())


# Shares of several parties (bus.tiers.mpcframe): what HPKE is told.
def share_info(head: bytes, domain: str, source: str) -> bytes:
    """Of one share, by its head (58 bytes)."""
    return label("mpc/share") + head + part(domain.encode()) + part(source.encode())


def release_info(rule: bytes, domain: str, job: bytes, ids: bytes, party: int) -> bytes:
    """Of one party's sums: digest of the rule (32), job (16), hash of the batches (32)."""
    return label("mpc/sums") + rule + part(domain.encode()) + job + ids + bytes((party,))


# An agent's data at rest (bus.crypto.entries).
def store_names_info() -> bytes:
    """Key of the tokens that stand for names, from an agent's store key."""
    return label("key/store/names")


def store_entry_info(salt: bytes) -> bytes:
    """Key of one sealed entry, from an agent's store key; the salt is 16 random bytes."""
    return label("key/store/entry") + salt


def store_shelf(store: str) -> bytes:
    """Message of the HMAC that stands for the name of a store."""
    return label("store/shelf") + part(store.encode())


def store_name(store: str, name: str) -> bytes:
    """Message of the HMAC that stands for the name of an entry."""
    return label("store/name") + part(store.encode()) + part(name.encode())


def store_aad(deployment: bytes, domain: str, epoch: int, token: bytes, expires_ms: int) -> bytes:
    """AAD of an entry: domain and epoch of its key, the token of its name (32 bytes), its end (ms; 0: none)."""
    told = epoch.to_bytes(8, "big") + token + expires_ms.to_bytes(8, "big")
    return label("store/aad") + deployment + part(domain.encode()) + told


# Attestation.
def attestation_binding(nonce: bytes, agent: str, confirmation: bytes) -> bytes:
    """What evidence carries the digest of: the verifier's nonce, the agent and its key (SubjectPublicKeyInfo, DER)."""
    return label("attestation/binding") + part(nonce) + part(agent.encode()) + part(confirmation)


def attestation_software(binding: bytes, digest: bytes) -> bytes:
    """What an agent signs with its own key: SHA-256 of the binding and its measurement, 32 bytes each."""
    return label("attestation/software") + binding + digest


def attestation_code() -> bytes:
    """Prefix of a software measurement; the interpreter's SHA-256, then path and SHA-256 of each file follow."""
    return label("attestation/code")


def attestation_activation(nonce: bytes, agent: str, ek: bytes, name: bytes) -> bytes:
    """What the secret of a TPM's challenge is derived from: nonce, agent, SHA-256 of the EK certificate, AK name."""
    return label("attestation/activation") + part(nonce) + part(agent.encode()) + ek + part(name)


def attestation_nonce(told: bytes, agent: str, confirmation: bytes) -> bytes:
    """What the MAC in a nonce covers: the 16 bytes before it, the agent that is asked and its key."""
    return label("attestation/nonce") + told + part(agent.encode()) + part(confirmation)
