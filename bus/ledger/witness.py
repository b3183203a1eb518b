"""What a witness does with a checkpoint that it is asked to co-sign: C2SP tlog-witness, `add-checkpoint`. Pure.

It holds the newest head of each log that it said yes to, and says yes to one that extends it alone: so two people who
are shown different logs under one name cannot both be shown a cosignature. Keeping heads, and HTTP, are the service's
(``consumers.witness``).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bus.crypto import tree
from bus.crypto.signing import Signer
from bus.errors import Unverified
from bus.ledger.checkpoint import Checkpoint, open_checkpoint
from bus.ledger.cosignature import cosign

PATH: Final = "/add-checkpoint"
SIZE_TYPE: Final = "text/x.tlog.size"
MAX_PROOF: Final = 63
"""Hashes of a consistency proof."""
MAX_REQUEST: Final = 16384


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status with its body; ``head`` is the one to hold before it is given."""

    status: int
    body: str
    kind: str = "text/plain; charset=utf-8"
    head: Checkpoint | None = None


def request(old: int, proof: list[bytes], note: str) -> bytes:
    """What is posted: the size that the witness holds, a consistency proof from there, and the checkpoint."""
    lines = [f"old {old}", *(base64.b64encode(each).decode() for each in proof)]
    return ("\n".join(lines) + "\n\n" + note).encode()


def log_of(origin: str) -> str:
    """The log that a partition's origin belongs to: ``sealbus/<deployment>``; "" for what is none."""
    log, _, partition = origin.rpartition("/")
    return log if partition.isascii() and partition.isdecimal() and str(int(partition)) == partition else ""


def origin_of(data: bytes) -> str:
    """The log that a request is about, not verified; "" where it names none."""
    lines = data.partition(b"\n\n")[2].split(b"\n", 1)
    return lines[0].decode("utf-8", "replace")


def add_checkpoint(
    data: bytes, held: Checkpoint | None, logs: Mapping[str, bytes], name: str, signer: Signer, now_s: int
) -> Answer:
    """``logs``: public keys by log (``sealbus/<deployment>``); ``held``: the newest head of ``origin_of(data)``.

    In turn: the form, whether the log is known, its signature, what it builds on, the proof. Nothing is signed unless
    all hold."""
    # 1. The form: `old <size>`, hashes, an empty line, a note.
    try:
        text = data.decode()
        head, note = text.split("\n\n", 1)
        first, *hashes = head.split("\n")
        word, told = first.split(" ")
        old, proof = int(told), [base64.b64decode(each, validate=True) for each in hashes]
        well = word == "old" and str(old) == told and old >= 0 and len(proof) <= MAX_PROOF
    except ValueError:
        well = False
    if not well or any(len(each) != tree.HASH_LENGTH for each in proof):
        return Answer(400, "expected old SIZE, a consistency proof, an empty line and a checkpoint\n")
    # 2. The log, 3. its signature.
    key = logs.get(log_of(origin_of(data)))
    if key is None:
        return Answer(404, "no log of this name is known here\n")
    try:
        checkpoint = open_checkpoint(note, key)
    except Unverified as error:
        return Answer(403, f"{error}\n")
    # 4. What it builds on must be what is held.
    size, root = (held.size, held.root) if held is not None else (0, tree.EMPTY_ROOT)
    if old > checkpoint.size:
        return Answer(400, f"old {old} is over the checkpoint's size, {checkpoint.size}\n")
    if old != size or (checkpoint.size == size and checkpoint.root != root):
        return Answer(409, f"{size}\n", SIZE_TYPE)
    # 5. It must extend what is held.
    if size == 0 and proof:
        return Answer(422, "expected no proof from an empty tree\n")
    try:
        if size:
            tree.verify_consistency(size, checkpoint.size, root, checkpoint.root, proof)
    except Unverified as error:
        return Answer(422, f"{error}\n")
    return Answer(200, cosign(name, checkpoint.body(), signer, now_s), head=checkpoint)
