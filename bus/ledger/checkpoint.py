"""Checkpoints: signed tree heads as C2SP signed notes (tlog-checkpoint, signed-note with Ed25519)."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from bus.crypto.signing import Signer, verify
from bus.errors import Unverified


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: ``origin`` names the log, ``size`` counts its leaves."""

    origin: str
    size: int
    root: bytes

    def body(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def origin(deployment: bytes, partition: int) -> str:
    """``sealbus/<deployment>/<audit partition>``."""
    return f"sealbus/{deployment.hex()}/{partition}"


def _key_hash(name: str, public_key: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n\x01" + public_key).digest()[:4]


def sign_note(name: str, body: str, signer: Signer) -> str:
    """``body``, which ends with a newline, with the signature of ``name``."""
    signature = _key_hash(name, signer.public_key) + signer.sign(body.encode())
    return f"{body}\n— {name} {base64.b64encode(signature).decode()}\n"


def open_note(note: str, public_key: bytes) -> tuple[str, str]:
    """The name (its first line) and the text of a note that this key signed. Raises Unverified(checkpoint)."""
    try:
        text, signatures = note.split("\n\n", 1)
        name, body = text.split("\n", 1)[0], text + "\n"
        for line in signatures.strip("\n").split("\n"):
            dash, signer, data = line.split(" ")
            signature = base64.b64decode(data, validate=True)
            if dash == "—" and signer == name and signature[:4] == _key_hash(name, public_key):
                verify(public_key, signature[4:], body.encode(), "checkpoint")
                return name, body
    except ValueError as error:
        raise Unverified("checkpoint: not a signed note", step="checkpoint") from error
    raise Unverified("checkpoint: no signature by this key", step="checkpoint")


def size_of(note: str | None) -> int:
    """Leaves that a checkpoint of our own covers, without opening it; 0 for none."""
    return int(note.split("\n", 2)[1]) if note is not None else 0


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> str:
    """The signed note."""
    return sign_note(checkpoint.origin, checkpoint.body(), signer)


def open_checkpoint(note: str, public_key: bytes) -> Checkpoint:
    """The verified checkpoint in ``note``. Raises Unverified(checkpoint)."""
    try:
        body, _ = note.split("\n\n", 1)
        name, size, root = body.split("\n")[:3]
        checkpoint = Checkpoint(name, int(size), base64.b64decode(root, validate=True))
    except ValueError as error:
        raise Unverified("checkpoint: not a signed note", step="checkpoint") from error
    if checkpoint.body() != body + "\n" or len(checkpoint.root) != 32 or str(checkpoint.size) != size:
        raise Unverified("checkpoint: not in canonical form", step="checkpoint")
    open_note(note, public_key)
    return checkpoint
