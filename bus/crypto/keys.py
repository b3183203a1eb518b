"""Secrets and their derivation: HKDF-Expand (RFC 5869) from a random root of one (zone, domain, epoch).

A root is random, so Expand alone is enough. Which bytes go into ``info`` is said in ``bus.wire.preimage``.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from typing import Final, NoReturn

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from bus.wire import preimage

KEY_LENGTH: Final = 32
KEY_ID_LENGTH: Final = 16
READER_KEY_ID_LENGTH: Final = 8
INSTANCE_LENGTH: Final = 16


class Secret:
    """Key material. Its repr shows a name, it is compared in constant time and refuses to be pickled."""

    __slots__ = ("_value", "name")

    def __init__(self, value: bytes, name: str) -> None:
        self._value = value
        self.name = name

    @classmethod
    def random(cls, name: str) -> Secret:
        """32 fresh random bytes."""
        return cls(secrets.token_bytes(KEY_LENGTH), name)

    def reveal(self) -> bytes:
        """The bytes, for a primitive or for a 0600 file; never for a message or a log."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({self.name})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")


def expand(key: Secret, info: bytes, name: str, length: int = KEY_LENGTH) -> Secret:
    """HKDF-Expand with SHA-256: ``length`` bytes of ``key`` for ``info``."""
    return Secret(HKDFExpand(hashes.SHA256(), length, info).derive(key.reveal()), name)


def fresh_instance() -> bytes:
    """16 random bytes: new per process and epoch, so that two processes never share a key."""
    return secrets.token_bytes(INSTANCE_LENGTH)


@dataclass(frozen=True, slots=True)
class AgentKeys:
    """What an agent holds for one domain and epoch. ``key_id`` names it on the wire."""

    key_id: bytes
    mac: Secret
    seal: Secret
    notice: Secret
    notice_key_id: bytes


def agent_keys(root: Secret, agent: str) -> AgentKeys:
    """The keys of ``agent`` under root(zone, domain, epoch)."""

    def key(purpose: str, length: int = KEY_LENGTH) -> Secret:
        return expand(root, preimage.agent_info(agent, purpose), f"{agent} {purpose}", length)

    return AgentKeys(
        key_id=key("key-id", KEY_ID_LENGTH).reveal(),
        mac=key("mac"),
        seal=key("seal"),
        notice=key("notice"),
        notice_key_id=key("notice-key-id", KEY_ID_LENGTH).reveal(),
    )


def delegation_key(root: Secret, agent: str) -> Secret:
    """What ``agent`` passes on a right to write with, its own or one that it holds, under root(zone, domain, epoch)."""
    return expand(root, preimage.agent_info(agent, "delegate"), f"{agent} delegate")


def store_key(root: Secret, agent: str) -> Secret:
    """What ``agent`` seals its own data at rest with (``bus.crypto.entries``), under root(zone, domain, epoch)."""
    return expand(root, preimage.agent_info(agent, "store"), f"{agent} store")


@dataclass(frozen=True, slots=True)
class ReadingKey:
    """A key that wraps DEKs: of a role (with tenant) or of one target. ``key_id`` (8 bytes) stands in key tables."""

    key_id: bytes
    kek: Secret


def _reading_key(kek: Secret) -> ReadingKey:
    key_id = expand(kek, preimage.reader_key_id_info(), kek.name, READER_KEY_ID_LENGTH)
    return ReadingKey(key_id.reveal(), kek)


def reading_key(kek: Secret) -> ReadingKey:
    """A leased KEK with its key id, as a reader holds it."""
    return _reading_key(kek)


def role_key(root: Secret, role: str, tenant: str = "") -> ReadingKey:
    """The role KEK of ``role`` in ``tenant``."""
    return _reading_key(expand(root, preimage.role_info(role, tenant), f"role {role}"))


def group_key(root: Secret, group: str) -> ReadingKey:
    """The KEK of a reader group, ``ROLE[@tenant][/zone]``: of those holders of a role that are in a tenant and zone."""
    name, slash, zone = group.partition("/")
    role, _, tenant = name.partition("@")
    return role_key(root, role + slash + zone, tenant)


def target_key(root: Secret, agent: str) -> ReadingKey:
    """The reading key of ``agent``, for records that have it as their target."""
    return _reading_key(expand(root, preimage.target_info(agent), f"target {agent}"))


def instance_key(key: Secret, use: str, instance: bytes) -> Secret:
    """A process's own subkey of ``key``; the process counts nonces under it."""
    return expand(key, preimage.instance_info(use, instance), f"{key.name} instance")


def purpose_key(root: Secret, purpose: str) -> Secret:
    """A key for one purpose of a domain's or the audit's root."""
    return expand(root, preimage.purpose_info(purpose), purpose)


def index_key(reader: ReadingKey, name: str) -> Secret:
    """The key of the blind index for one field of payloads: who may open a record may search it, nobody else."""
    return expand(reader.kek, preimage.index_info(name), f"index {name}")


def root_digest(root: Secret) -> bytes:
    """A commitment to a root (32 bytes) that lets two holders compare."""
    return expand(root, preimage.purpose_info("commitment"), "commitment").reveal()
