"""Signed objects: epochs and their tombstones, enforcer certificates and policy snapshots. Framing only;
``bus.crypto.signing`` verifies.

In each, the signature is the last 64 bytes and covers ``preimage.signed_object(use, everything before it)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from bus.wire import codec
from bus.wire.schemas import schema

SIGNATURE_LENGTH: Final = 64


def _u(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _marked(name: str, value: dict[str, Any]) -> bytes:
    kind = schema(name)
    return kind.head + codec.encode(kind, {**value, "signature": bytes(SIGNATURE_LENGTH)})[:-SIGNATURE_LENGTH]


@dataclass(frozen=True, slots=True)
class Epoch:
    """Validity of one domain's keys, ms since 1970. ``root_digest`` commits to the root."""

    deployment: bytes
    epoch: int
    not_before: int
    not_after: int
    zone: str
    domain: str
    root_digest: bytes

    use = "epoch"

    def encode_unsigned(self) -> bytes:
        """The value without its signature."""
        return _marked(
            "epoch",
            {
                "deployment": self.deployment,
                "epoch": self.epoch.to_bytes(8, "big"),
                "not_before": self.not_before.to_bytes(8, "big"),
                "not_after": self.not_after.to_bytes(8, "big"),
                "zone": self.zone,
                "domain": self.domain,
                "root_digest": self.root_digest,
            },
        )

    @classmethod
    def parse(cls, data: bytes) -> Epoch:
        """Unverified; raises WireError."""
        value = codec.decode_marked(schema("epoch"), data)
        return cls(
            deployment=value["deployment"],
            epoch=_u(value["epoch"]),
            not_before=_u(value["not_before"]),
            not_after=_u(value["not_after"]),
            zone=value["zone"],
            domain=value["domain"],
            root_digest=value["root_digest"],
        )


@dataclass(frozen=True, slots=True)
class Tombstone:
    """The root of one domain's epoch is erased. ``key_ids`` (16 bytes each, ascending) are those of the agents' keys
    under it: without the root they are all that is left to know its records by. Times in ms since 1970."""

    deployment: bytes
    epoch: int
    not_after: int
    erased_at: int
    zone: str
    domain: str
    key_ids: tuple[bytes, ...]

    use = "tombstone"

    def encode_unsigned(self) -> bytes:
        """The value without its signature."""
        return _marked(
            "tombstone",
            {
                "deployment": self.deployment,
                "epoch": self.epoch.to_bytes(8, "big"),
                "not_after": self.not_after.to_bytes(8, "big"),
                "erased_at": self.erased_at.to_bytes(8, "big"),
                "zone": self.zone,
                "domain": self.domain,
                "key_ids": list(self.key_ids),
            },
        )

    @classmethod
    def parse(cls, data: bytes) -> Tombstone:
        """Unverified; raises WireError."""
        value = codec.decode_marked(schema("tombstone"), data)
        return cls(
            deployment=value["deployment"],
            epoch=_u(value["epoch"]),
            not_after=_u(value["not_after"]),
            erased_at=_u(value["erased_at"]),
            zone=value["zone"],
            domain=value["domain"],
            key_ids=tuple(value["key_ids"]),
        )


@dataclass(frozen=True, slots=True)
class EnforcerCertificate:
    """This Ed25519 key may derive for these zones and domains within its validity (ms since 1970)."""

    deployment: bytes
    key_id: bytes
    public_key: bytes
    not_before: int
    not_after: int
    name: str
    zones: tuple[str, ...]
    domains: tuple[str, ...]

    use = "enforcer-certificate"

    def encode_unsigned(self) -> bytes:
        """The value without its signature."""
        return _marked(
            "enforcer_certificate",
            {
                "deployment": self.deployment,
                "key_id": self.key_id,
                "public_key": self.public_key,
                "not_before": self.not_before.to_bytes(8, "big"),
                "not_after": self.not_after.to_bytes(8, "big"),
                "name": self.name,
                "zones": list(self.zones),
                "domains": list(self.domains),
            },
        )

    @classmethod
    def parse(cls, data: bytes) -> EnforcerCertificate:
        """Unverified; raises WireError."""
        value = codec.decode_marked(schema("enforcer_certificate"), data)
        return cls(
            deployment=value["deployment"],
            key_id=value["key_id"],
            public_key=value["public_key"],
            not_before=_u(value["not_before"]),
            not_after=_u(value["not_after"]),
            name=value["name"],
            zones=tuple(value["zones"]),
            domains=tuple(value["domains"]),
        )


@dataclass(frozen=True, slots=True)
class SignedSnapshot:
    """A numbered policy: ``document`` is canonical JSON (RFC 8785), ``digest`` its SHA-256."""

    deployment: bytes
    number: int
    digest: bytes
    valid_from: int
    valid_until: int
    document: bytes

    use = "snapshot"

    def encode_unsigned(self) -> bytes:
        """The value without its signature."""
        return _marked(
            "snapshot",
            {
                "deployment": self.deployment,
                "number": self.number.to_bytes(8, "big"),
                "digest": self.digest,
                "valid_from": self.valid_from.to_bytes(8, "big"),
                "valid_until": self.valid_until.to_bytes(8, "big"),
                "document": self.document,
            },
        )

    @classmethod
    def parse(cls, data: bytes) -> SignedSnapshot:
        """Unverified; raises WireError."""
        value = codec.decode_marked(schema("snapshot"), data)
        return cls(
            deployment=value["deployment"],
            number=_u(value["number"]),
            digest=value["digest"],
            valid_from=_u(value["valid_from"]),
            valid_until=_u(value["valid_until"]),
            document=value["document"],
        )
