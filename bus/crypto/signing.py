"""Ed25519 signatures (RFC 8032): signed objects, bundles, windows and hop blocks; certified enforcer keys.

Verification returns the verified value or raises. What is signed is said in ``bus.wire.preimage``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Final, Protocol, Self, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from bus.crypto import tree
from bus.crypto.keys import KEY_ID_LENGTH
from bus.errors import Unverified
from bus.wire import derived, hopblock, objects, preimage, records

MAX_TIME: Final = 2**64 - 1
"""ms since 1970: the end of what a u64 can say."""


def key_id_of(public_key: bytes) -> bytes:
    """The first 16 bytes of SHA-256 of an Ed25519 public key."""
    return hashlib.sha256(public_key).digest()[:KEY_ID_LENGTH]


class Signer:
    """An Ed25519 private key. Its repr shows the key id."""

    __slots__ = ("_key", "key_id", "public_key", "sign")

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes_raw()
        self.key_id = key_id_of(self.public_key)
        self.sign = self._key.sign

    @classmethod
    def generate(cls) -> Signer:
        """A fresh random key."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw())

    def seed(self) -> bytes:
        """The private seed (32 bytes), for a 0600 file."""
        return self._key.private_bytes_raw()

    def __repr__(self) -> str:
        return f"Signer({self.key_id.hex()})"


def verify(public_key: bytes, signature: bytes, message: bytes, what: str) -> None:
    """Raise Unverified(signature) unless ``signature`` holds."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise Unverified(f"{what}: signature does not hold", step="signature") from None


class SignedObject(Protocol):
    """An object of ``bus.wire.objects``."""

    use: str

    def encode_unsigned(self) -> bytes: ...  # noqa: D102

    @classmethod
    def parse(cls, data: bytes) -> Self: ...  # noqa: D102

    @property
    def deployment(self) -> bytes: ...  # noqa: D102


T = TypeVar("T", bound=SignedObject)


def sign_object(signer: Signer, value: SignedObject) -> bytes:
    """``value`` encoded, with its signature at the end."""
    content = value.encode_unsigned()
    return content + signer.sign(preimage.signed_object(value.use, content))


def open_object(kind: type[T], data: bytes, public_key: bytes, deployment: bytes) -> T:
    """The verified object in ``data``. Raises Unverified(signature, deployment) or WireError."""
    content, signature = data[: -objects.SIGNATURE_LENGTH], data[-objects.SIGNATURE_LENGTH :]
    verify(public_key, signature, preimage.signed_object(kind.use, content), kind.use)
    value = kind.parse(data)
    if value.deployment != deployment:
        raise Unverified(f"{kind.use}: it belongs to another deployment", step="deployment")
    return value


class Trust:
    """The trust anchor of a deployment and the enforcer certificates that it signed."""

    def __init__(self, deployment: bytes, anchor: bytes, certificates: Iterable[bytes] = ()) -> None:
        self.deployment = deployment
        self.anchor = anchor
        self._certificates: dict[bytes, objects.EnforcerCertificate] = {}
        for data in certificates:
            self.add(data)

    def add(self, data: bytes) -> objects.EnforcerCertificate:
        """Take a certificate; raises Unverified unless the anchor signed it for this deployment and its own key id."""
        certificate = open_object(objects.EnforcerCertificate, data, self.anchor, self.deployment)
        if key_id_of(certificate.public_key) != certificate.key_id:
            raise Unverified("enforcer certificate: key id is not its key's", step="certificate")
        self._certificates[certificate.key_id] = certificate
        return certificate

    def knows(self, key_id: bytes, domain: str) -> bool:
        """Whether a certificate of this enforcer key for ``domain`` is held; if not, it may have been made since."""
        certificate = self._certificates.get(key_id)
        return certificate is not None and domain in certificate.domains

    def enforcer_key(
        self, key_id: bytes, zone: str | None, domain: str | None, since: int = 0, until: int = MAX_TIME
    ) -> bytes:
        """The public key that may sign for ``zone`` and ``domain`` at some time in [since, until] (ms).

        Raises Unverified(certificate).
        """
        certificate = self._certificates.get(key_id)
        if certificate is None:
            raise Unverified(f"enforcer key {key_id.hex()} has no certificate", step="certificate")
        if until < certificate.not_before or since > certificate.not_after:
            raise Unverified(f"certificate of {certificate.name}: not valid at this time", step="certificate")
        if (domain is not None and domain not in certificate.domains) or (
            zone is not None and zone not in certificate.zones
        ):
            raise Unverified(f"certificate of {certificate.name}: not for this domain", step="certificate")
        return certificate.public_key


def bundle_leaf(head: bytes, fixed: bytes, body: bytes) -> bytes:
    """The leaf of one record of a bundle: SHA-256(00 | head | record id | set | counter | body)."""
    return hashlib.sha256(b"".join((b"\x00", head, fixed, body))).digest()


def bundle_message(prefix: bytes, head: bytes, key_table: bytes, leaves: list[bytes]) -> bytes:
    """What a bundle's signature covers; ``prefix`` = ``preimage.derived_signature``."""
    return b"".join((prefix, head, hashlib.sha256(key_table).digest(), tree.quick_root(leaves)))


def verify_bundle(
    bundle: derived.Derived, trust: Trust, topic: str, partition: int, *, zone: str, domain: str
) -> list[bytes]:
    """The leaves of a bundle whose signature holds for this topic and partition. Raises Unverified."""
    decided_at = bundle.head.decided_at
    key = trust.enforcer_key(bundle.head.enforcer_key_id, zone, domain, decided_at, decided_at)
    leaves = [bundle_leaf(bundle.head_bytes, each.fixed, each.body) for each in bundle.entries]
    prefix = preimage.derived_signature(trust.deployment, topic, partition)
    verify(key, bundle.signature, bundle_message(prefix, bundle.head_bytes, bundle.key_table, leaves), "bundle")
    return leaves


class KnownTrust:
    """The trust of a deployment as it was ``read`` last: read again where it has no certificate of an enforcer."""

    def __init__(self, read: Callable[[], Trust]) -> None:
        self._read = read
        self._held = read()

    @property
    def held(self) -> Trust:
        """As it was read last."""
        return self._held

    def of(self, key_id: bytes, domain: str) -> Trust:
        """With the certificate of this enforcer key for ``domain``, where there is one by now."""
        if not self._held.knows(key_id, domain):
            self._held = self._read()
        return self._held


def window_message(deployment: bytes, topic: str, partition: int, signed: bytes) -> bytes:
    """What a window record's signature covers."""
    return preimage.window_signature(deployment, topic, partition, hashlib.sha256(signed).digest())


def verify_window(window: records.Window, trust: Trust, topic: str, partition: int, domain: str) -> None:
    """Raise Unverified unless a certified enforcer of ``domain`` signed ``window`` for this topic and partition."""
    # A window may be older than its writer's certificate: the certificate's dates are not asked.
    key = trust.enforcer_key(window.enforcer_key_id, None, domain)
    verify(key, window.signature, window_message(trust.deployment, topic, partition, window.signed), "window")


def hop_block_message(deployment: bytes, signed: bytes) -> bytes:
    """What a hop block's signature covers."""
    return preimage.hop_block_signature(deployment, hashlib.sha256(signed).digest())


def verify_hop_block(block: hopblock.HopBlock, trust: Trust, domain: str) -> None:
    """Raise Unverified unless an enforcer certified for ``domain`` at some time of its day signed ``block``."""
    begin = block.day * hopblock.DAY_MS
    key = trust.enforcer_key(block.enforcer_key_id, None, domain, begin, begin + hopblock.DAY_MS)
    verify(key, block.signature, hop_block_message(trust.deployment, block.signed), "hop block")
