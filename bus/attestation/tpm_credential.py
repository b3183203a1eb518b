"""TPM2_MakeCredential in software (Library Specification, part 1, section 24): a secret that only one TPM can return.

The TPM that holds the endorsement key's private part gives the secret back only where the key of that name is loaded
in it, too. RSA 2048 endorsement keys with SHA-256 and AES-128-CFB, as the default template has them.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


def make_credential(ek: rsa.RSAPublicKey, name: bytes, secret: bytes) -> bytes:
    """TPM2B_ID_OBJECT | TPM2B_ENCRYPTED_SECRET for ``secret`` (at most 32 bytes) and the object ``name`` (34 bytes)."""
    seed = secrets.token_bytes(32)
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"IDENTITY\0")
    identity = _encrypted(kdfa(seed, b"STORAGE", name, 128), _sized(secret))
    mac = hmac.digest(kdfa(seed, b"INTEGRITY", b"", 256), identity + name, hashlib.sha256)
    return _sized(_sized(mac) + identity) + _sized(ek.encrypt(seed, oaep))


def kdfa(key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa with HMAC-SHA-256 (NIST SP 800-108 in counter mode) of at most 256 bits."""
    data = (1).to_bytes(4, "big") + label + b"\0" + context + bits.to_bytes(4, "big")
    return hmac.digest(key, data, hashlib.sha256)[: bits // 8]


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _encrypted(key: bytes, data: bytes) -> bytes:
    """AES-CFB with zeros as IV, from the block cipher: cryptography moves its CFB between versions."""
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - one block at a time, chained below
    last, out = bytes(16), b""
    for at in range(0, len(data), 16):
        stream = block.update(last)
        last = bytes(a ^ b for a, b in zip(data[at : at + 16], stream, strict=False))
        out += last
    return out
