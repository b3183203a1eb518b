"""Proof documents: one hop disclosed with all that a third party needs; verified with no database and no secret."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Final

from bus.crypto import tree
from bus.errors import Unverified
from bus.ledger.checkpoint import Checkpoint, open_checkpoint
from bus.ledger.leaf import Position, verify_disclosure
from bus.wire.hop import Hop, HopReader

FORMAT: Final = "sealbus.proof/1"
MAX_OPENED: Final = 64


@dataclass(frozen=True, slots=True)
class Proof:
    """An inclusion proof of one disclosed hop."""

    at: Position
    leaf: int
    hop: bytes
    k: bytes
    body: bytes
    path: tuple[bytes, ...]
    checkpoint: str
    payload: bytes | None = field(default=None, repr=False)
    """The record that was decided, as it was sent."""

    def to_json(self) -> str:
        """The document, one line."""
        return json.dumps(
            {
                "format": FORMAT,
                "topic": self.at.topic,
                "partition": self.at.partition,
                "offset": self.at.offset,
                "index": self.at.index,
                "leaf": self.leaf,
                "hop": self.hop.hex(),
                "k": self.k.hex(),
                "body": self.body.hex(),
                "path": [each.hex() for each in self.path],
                "checkpoint": self.checkpoint,
                **({"payload": self.payload.hex()} if self.payload is not None else {}),
            }
        )


def parse_proof(text: str) -> Proof:
    """The proof in a document. Raises Unverified(format)."""
    try:
        value: dict[str, Any] = json.loads(text)
        if value["format"] != FORMAT:
            raise Unverified(f"proof: expected format {FORMAT}, found {value['format']!r}", step="format")
        return Proof(
            at=Position(str(value["topic"]), int(value["partition"]), int(value["offset"]), int(value["index"])),
            leaf=int(value["leaf"]),
            hop=bytes.fromhex(value["hop"]),
            k=bytes.fromhex(value["k"]),
            body=bytes.fromhex(value["body"]),
            path=tuple(bytes.fromhex(each) for each in value["path"]),
            checkpoint=str(value["checkpoint"]),
            payload=bytes.fromhex(value["payload"]) if "payload" in value else None,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise Unverified(f"proof: not a proof document: {type(error).__name__}", step="format") from error


class ProofVerifier:
    """Verifies many proofs with one key: a checkpoint that several stand under is opened once."""

    def __init__(self, public_key: bytes) -> None:
        self._key = public_key
        self._opened: dict[str, Checkpoint] = {}
        self._reader = HopReader()

    def __call__(self, proof: Proof) -> tuple[Hop, Checkpoint]:
        """The proven hop and its checkpoint. Raises Unverified naming the step, WireError for a hop that is none.

        Steps: (1) the checkpoint's signature, (2) the hop is what the body holds under k, (3) the leaf is in the tree,
        (4) the payload, where the document has one, is the record that the hop names by its SHA-256.
        """
        checkpoint = self._opened.get(proof.checkpoint)
        if checkpoint is None:
            checkpoint = open_checkpoint(proof.checkpoint, self._key)
            if len(self._opened) >= MAX_OPENED:
                self._opened.clear()
            self._opened[proof.checkpoint] = checkpoint
        try:
            leaf = verify_disclosure(proof.k, proof.hop, proof.body, proof.at)
        except (ValueError, OverflowError) as error:
            raise Unverified("proof: a key or position is not of its length", step="disclosure") from error
        tree.verify_inclusion(leaf, proof.leaf, checkpoint.size, proof.path, checkpoint.root)
        hop = self._reader.read(proof.hop)
        if proof.payload is not None and hashlib.sha256(proof.payload).digest() != hop.origin_digest:
            raise Unverified("proof: the payload is not the record that was decided", step="payload")
        return hop, checkpoint


def verify_proof(proof: Proof, public_key: bytes) -> tuple[Hop, Checkpoint]:
    """As ``ProofVerifier``, of one proof."""
    return ProofVerifier(public_key)(proof)
