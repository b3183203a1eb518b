"""Cosignatures of witnesses: C2SP tlog-cosignature (Ed25519, v1), one line of a signed note each.

A witness says by one that the tree of this checkpoint extends every tree of the log that it said so of before. It is
known by a verifier key (C2SP signed-note): ``<name>+<key hash>+<base64 of 04 and the public key>``.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from bus.crypto.signing import Signer, verify
from bus.errors import SettingsError, Unverified

ALGORITHM: Final = 4
"""Of key hashes and verifier keys: timestamped Ed25519 cosignatures."""
NAME: Final = re.compile(r"[A-Za-z0-9._/-]{1,128}")
_LENGTH: Final = 4 + 8 + 64


@dataclass(frozen=True, slots=True)
class WitnessKey:
    """A witness as who verifies knows it; ``public_key`` 32 bytes."""

    name: str
    public_key: bytes

    @property
    def key_hash(self) -> bytes:
        """4 bytes."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([ALGORITHM]) + self.public_key).digest()[:4]

    def __str__(self) -> str:
        key = base64.b64encode(bytes([ALGORITHM]) + self.public_key).decode()
        return f"{self.name}+{self.key_hash.hex()}+{key}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises SettingsError."""
        try:
            name, _, data = text.split("+", 2)
            key = base64.b64decode(data, validate=True)
            made = cls(name, key[1:])
            if key[:1] == bytes([ALGORITHM]) and len(key) == 33 and NAME.fullmatch(name) and str(made) == text:
                return made
        except ValueError:
            pass
        hint = "`bus run witness` prints it when it starts"
        raise SettingsError(f"witness: expected its verifier key, NAME+HASH+KEY, found {text!r}", hint=hint)


def _message(body: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{body}".encode()


def cosign(name: str, body: str, signer: Signer, time_s: int) -> str:
    """The line, with its newline, for the checkpoint ``body``; ``time_s`` since 1970."""
    data = (
        WitnessKey(name, signer.public_key).key_hash + struct.pack(">Q", time_s) + signer.sign(_message(body, time_s))
    )
    return f"— {name} {base64.b64encode(data).decode()}\n"


def cosigners(note: str, witnesses: Iterable[WitnessKey]) -> list[WitnessKey]:
    """Those of ``witnesses`` that co-signed the checkpoint ``note``, by lines behind its own signature."""
    text, _, signatures = note.partition("\n\n")
    found = []
    for witness in witnesses:
        for line in signatures.splitlines():
            with contextlib.suppress(Unverified):
                cosigned_at(line, f"{text}\n", witness)
                found.append(witness)
                break
    return found


def cosigned_at(line: str, body: str, witness: WitnessKey) -> int:
    """When ``witness`` said it of ``body`` (s since 1970). Raises Unverified(witness)."""
    try:
        dash, name, text = line.removesuffix("\n").split(" ")
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise Unverified(f"witness {witness.name}: not a cosignature", step="witness") from None
    if dash != "—" or name != witness.name or len(data) != _LENGTH or data[:4] != witness.key_hash:
        raise Unverified(f"witness {witness.name}: a cosignature of another key", step="witness")
    (time_s,) = struct.unpack(">Q", data[4:12])
    try:
        verify(witness.public_key, data[12:], _message(body, time_s), "cosignature")
    except Unverified:
        raise Unverified(f"witness {witness.name}: its cosignature does not hold", step="witness") from None
    return int(time_s)
