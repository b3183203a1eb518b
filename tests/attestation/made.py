"""Evidence made here: a CA, a chip, an enclave and a TPM in Python, so that every step can be made to fail alone."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from bus.attestation import cbor
from bus.attestation.confirmation import to_der
from bus.attestation.evidence import Question, pack
from bus.attestation.tpm_credential import kdfa
from bus.attestation.tpm_structures import FIXED_PARENT, FIXED_TPM, ORIGIN, RESTRICTED, SIGN, qualified_name
from bus.errors import BusError, Unverified
from bus.wire.measurement import EvidenceKind, Measurement
from bus.wire.names import AgentId

DATA = Path(__file__).parents[1] / "data" / "attestation"
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
AGENT_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = to_der(AGENT_KEY.public_key())
OTHER_KEY = to_der(Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key())
ASKED = Question(hashlib.sha256(b"nonce").digest(), AgentId("ana"))
QUESTIONS = {
    "nonce": Question(hashlib.sha256(b"another").digest(), AgentId("ana")),
    "agent": Question(ASKED.nonce, AgentId("eve")),
}


def refused(step, call, *told):
    with pytest.raises(BusError) as error:
        call(*told)
    found = error.value.step if isinstance(error.value, Unverified) else error.value.code
    assert found == step, error.value


class Authority:
    """A key with a certificate, and what it issues."""

    def __init__(self, name: str = "root", issuer: Authority | None = None, **how: Any) -> None:
        self.key = ec.generate_private_key(ec.SECP384R1())
        self.certificate = (issuer or self).issue(
            name, self.key.public_key(), ca=True, by=self if not issuer else None, **how
        )

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def issue(
        self,
        name: str,
        key: Any,
        *,
        ca: bool = False,
        by: Authority | None = None,
        begin: datetime = NOW - timedelta(days=1),
        end: datetime = NOW + timedelta(days=1),
        extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
        path_length: int | None = None,
        may_sign: bool = True,
    ) -> x509.Certificate:
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        issuer = named(name) if by is self else self.certificate.subject
        builder = x509.CertificateBuilder(issuer, named(name), key, x509.random_serial_number(), begin, end)
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
        usage = dict.fromkeys(
            [
                *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"),
                *("encipher_only", "decipher_only"),
            ],
            False,
        )
        builder = builder.add_extension(
            x509.KeyUsage(digital_signature=not may_sign, key_cert_sign=ca and may_sign, **usage), critical=True
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self.key, hashes.SHA384())


def raw_signature(key: ec.EllipticCurvePrivateKey, message: bytes, hashed: hashes.HashAlgorithm) -> tuple[int, int]:
    return decode_dss_signature(key.sign(message, ec.ECDSA(hashed)))


# AMD SEV-SNP.
CHIP = hashlib.sha512(b"chip").digest()
TCB = (3, 0, 8, 115)
LAUNCHED = Measurement(EvidenceKind.SNP, 0, hashlib.sha384(b"guest").digest())


class Chip:
    def __init__(self, product: bytes = b"Milan-B0", curve: type[ec.EllipticCurve] = ec.SECP384R1) -> None:
        self.root = Authority("ARK")
        self.ask = Authority("ASK", self.root)
        self.key = ec.generate_private_key(curve())
        named = {"2": b"\x16" + bytes([len(product)]) + product, "4": CHIP}
        named |= {f"3.{oid}": b"\x02\x01" + bytes([value]) for oid, value in zip((1, 2, 3, 8), TCB, strict=True)}
        extensions = tuple(
            (x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.3.6.1.4.1.3704.1.{oid}"), value), False)
            for oid, value in named.items()
        )
        vcek = self.ask.issue("VCEK", self.key.public_key(), extensions=extensions)
        self.vcek = vcek.public_bytes(Encoding.DER)

    def report(self, data: bytes, fields: Mapping[int, bytes] | None = None) -> bytes:
        told = bytearray(1184)
        for at, value in {
            0x00: struct.pack("<II", 2, 0),
            0x08: struct.pack("<Q", 3 << 16),
            0x34: struct.pack("<I", 1),
            0x50: data,
            0x90: LAUNCHED.digest,
            0x180: bytes([TCB[0], TCB[1], 0, 0, 0, 0, TCB[2], TCB[3]]),
            0x1A0: CHIP,
            **(fields or {}),
        }.items():
            told[at : at + len(value)] = value
        r, s = raw_signature(self.key, bytes(told[:0x2A0]), hashes.SHA384())
        told[0x2A0 : 0x2A0 + 144] = r.to_bytes(72, "little") + s.to_bytes(72, "little")
        return bytes(told)

    def evidence(
        self, question: Question = ASKED, key: bytes = KEY, fields: Mapping[int, bytes] | None = None
    ) -> bytes:
        report = self.report(question.binding(key) + bytes(32), fields)
        return pack(EvidenceKind.SNP, report, self.vcek, self.ask.der, key)


# AWS Nitro.
IMAGE = Measurement(EvidenceKind.NITRO, 0, hashlib.sha384(b"image").digest())


def encode(value: Any) -> bytes:
    """CBOR of what documents hold."""
    if value is None or isinstance(value, bool):
        return {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[value]
    if isinstance(value, int):
        return cbor.head(0, value) if value >= 0 else cbor.head(1, -1 - value)
    if isinstance(value, bytes):
        return cbor.byte_string(value)
    if isinstance(value, str):
        return cbor.head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return cbor.head(4, len(value)) + b"".join(map(encode, value))
    return cbor.head(5, len(value)) + b"".join(encode(key) + encode(each) for key, each in value.items())


class Enclave:
    def __init__(self, curve: type[ec.EllipticCurve] = ec.SECP384R1) -> None:
        self.root = Authority("aws.nitro-enclaves")
        self.zone = Authority("zone", self.root)
        self.key = ec.generate_private_key(curve())
        leaf = self.zone.issue("enclave", self.key.public_key())
        self.leaf = leaf.public_bytes(Encoding.DER)

    def document(self, question: Question = ASKED, key: bytes = KEY, algorithm: int = -35, **fields: Any) -> bytes:
        told = {
            "module_id": "i-1-enc1",
            "digest": "SHA384",
            "timestamp": int(NOW.timestamp() * 1000),
            "pcrs": {0: IMAGE.digest, 1: bytes(48)},
            "certificate": self.leaf,
            "cabundle": [self.root.der, self.zone.der],
            "public_key": None,
            "user_data": question.binding(key),
            "nonce": question.nonce,
            **fields,
        }
        protected, payload = encode({1: algorithm}), encode(told)
        signed = cbor.Sign1(protected, {}, payload, b"").signed()
        length = self.key.key_size // 8
        signature = b"".join(each.to_bytes(length, "big") for each in raw_signature(self.key, signed, hashes.SHA384()))
        return encode([protected, {}, payload, signature])

    def evidence(self, question: Question = ASKED, key: bytes = KEY, **fields: Any) -> bytes:
        return pack(EvidenceKind.NITRO, self.document(question, key, **fields), key)


# TPM 2.0.
GOLDEN = Measurement(EvidenceKind.TPM, 14, hashlib.sha256(b"pcr").digest())
AK_ATTRIBUTES = FIXED_TPM | FIXED_PARENT | ORIGIN | RESTRICTED | SIGN | 1 << 6
EK_USE = x509.ExtendedKeyUsage([x509.ObjectIdentifier("2.23.133.8.1")])


class Tpm:
    def __init__(
        self, root: Authority, attributes: int = AK_ATTRIBUTES, bits: int = 2048, use: x509.ExtendedKeyUsage = EK_USE
    ) -> None:
        self.ek = rsa.generate_private_key(65537, bits)
        self.ak = ec.generate_private_key(ec.SECP256R1())
        certificate = root.issue("EK", self.ek.public_key(), extensions=((use, False),))
        self.certificate = certificate.public_bytes(Encoding.DER)
        point = self.ak.public_key().public_numbers()
        self.public = (
            struct.pack(">HHIH5H", 0x23, 0x0B, attributes, 0, 0x10, 0x18, 0x0B, 3, 0x10)
            + (b"\0\x20" + point.x.to_bytes(32, "big"))
            + (b"\0\x20" + point.y.to_bytes(32, "big"))
        )
        self.name = b"\0\x0b" + hashlib.sha256(self.public).digest()

    def offer(self) -> bytes:
        return pack(EvidenceKind.TPM, self.certificate, self.public)

    def activate(self, challenge: bytes) -> bytes:
        """TPM2_ActivateCredential: the secret, or ValueError."""
        length = int.from_bytes(challenge[:2], "big")
        identity, sealed = challenge[2 : 2 + length], challenge[4 + length :]
        oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"IDENTITY\0")
        seed = self.ek.decrypt(sealed, oaep)
        mac, encrypted = identity[2:34], identity[34:]
        expected = hmac.digest(kdfa(seed, b"INTEGRITY", b"", 256), encrypted + self.name, "sha256")
        if mac != expected:
            raise ValueError("integrity")
        stream = Cipher(algorithms.AES(kdfa(seed, b"STORAGE", self.name, 128)), modes.ECB()).encryptor()
        last, plain = bytes(16), b""
        for at in range(0, len(encrypted), 16):
            block = encrypted[at : at + 16]
            plain += bytes(a ^ b for a, b in zip(block, stream.update(last), strict=False))
            last = block
        return plain[2:]

    def quote(
        self,
        extra: bytes,
        *,
        selection: bytes = b"\0\0\0\1\0\x0b\3\0\x40\0",
        value: bytes = GOLDEN.digest,
        signer: bytes = b"",
        head: bytes = b"\xffTCG\x80\x18",
    ) -> tuple[bytes, bytes]:
        """TPMS_ATTEST and TPMT_SIGNATURE."""
        signer = signer or qualified_name(self.ek.public_key(), self.name)
        digest = hashlib.sha256(value).digest()
        attest = head + struct.pack(">H", len(signer)) + signer + struct.pack(">H", len(extra)) + extra
        attest += struct.pack(">QIIBQ", 123_456, 7, 2, 1, 0x2020) + selection + struct.pack(">H", 32) + digest
        r, s = raw_signature(self.ak, attest, hashes.SHA256())
        signature = struct.pack(">HHH", 0x18, 0x0B, 32) + r.to_bytes(32, "big") + b"\0\x20" + s.to_bytes(32, "big")
        return attest, signature

    def evidence(self, secret: bytes, question: Question = ASKED, key: bytes = KEY, **how: Any) -> bytes:
        attest, signature = self.quote(question.binding(key), **how)
        return pack(EvidenceKind.TPM, self.certificate, self.public, secret, attest, signature, key)
