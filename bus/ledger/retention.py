"""Retention: whole segments of hops are taken out of the ledger, and their leaves stay.

What is taken is what can be read: bodies, search rows, kept records. Tiles, checkpoints and intervals stay, so that
every root, every proof that was given out, and the tiling verify as before; a note that the ledger's key signs says of
each segment that it was taken on purpose, and under which root. A segment is taken when all of its hops are older than
the retention, none is held, and all of it is under a checkpoint.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bus.crypto.signing import Signer
from bus.errors import Unverified
from bus.ledger.checkpoint import open_checkpoint, open_note, sign_note
from bus.ledger.postings import SEGMENT_BITS
from bus.ledger.query import LedgerQuery
from bus.ledger.segments import SEGMENT, Taken
from bus.ledger.store import Ledger
from bus.wire.hop import Hop


@dataclass(frozen=True, slots=True)
class Due:
    """A segment whose hops are all old enough. ``held`` says why it stays, or nothing."""

    partition: int
    segment: int
    newest: int
    """Day of its newest hop (days since 1970)."""
    held: str = ""


def due(
    ledger: Ledger, query: LedgerQuery, before: int, held: Callable[[Hop], str]
) -> Iterator[tuple[Due, set[bytes]]]:
    """Segments with nothing of day ``before`` or later, and the records (SHA-256) that their hops name.

    ``held`` names what holds a hop, or nothing. A segment with a day whose keys are gone stays while anything is held:
    nobody can say that it is not in it.
    """
    for partition in ledger.partitions():
        note = ledger.checkpoint(partition)
        covered = int(note.split("\n")[1]) if note is not None else 0
        for segment, newest in ledger.segments(partition, covered // SEGMENT):
            if newest >= before:
                continue
            why, digests = "", set()
            first = segment * SEGMENT
            try:
                for each in query.forwards(partition, first, first + SEGMENT):
                    digests.add(each.hop.origin_digest)
                    why = why or held(each.hop)
            except (OSError, KeyError):
                why = "the keys of a day are gone, and there are holds" if held is not nothing else ""
            yield Due(partition, segment, newest, why), digests


def nothing(_: Hop) -> str:
    """No hold."""
    return ""


def retire(ledger: Ledger, what: Due, digests: set[bytes], signer: Signer, now_ms: int) -> None:
    """Take one segment. Raises Refused (ledger) where it is not what was signed."""
    partition, segment = what.partition, what.segment
    note = ledger.checkpoint(partition)
    if note is None or open_checkpoint(note, signer.public_key).size < (segment + 1) * SEGMENT:
        raise Unverified(f"partition {partition}: segment {segment} is not under a checkpoint", step="retention")
    root = ledger.tree(partition).subtree(SEGMENT_BITS, segment)
    body = _body(ledger.deployment, partition, segment, root, now_ms)
    told = sign_note(_name(ledger.deployment, partition), body, signer)
    ledger.take(Taken(partition, segment, told), digests)


def _name(deployment: bytes, partition: int) -> str:
    return f"sealbus/{deployment.hex()}/{partition}/retired"


def _body(deployment: bytes, partition: int, segment: int, root: bytes, now_ms: int) -> str:
    return f"{_name(deployment, partition)}\n{segment}\n{base64.b64encode(root).decode()}\n{now_ms}\n"


def open_retired(note: str, deployment: bytes, partition: int, segment: int, public_key: bytes) -> bytes:
    """The root of the segment that ``note`` says was taken. Raises Unverified (checkpoint, retention)."""
    name, body = open_note(note, public_key)
    try:
        _, number, root, _ = body.rstrip("\n").split("\n")
        found = base64.b64decode(root, validate=True)
    except ValueError:
        raise Unverified("retention: expected a segment, its root and a time", step="retention") from None
    if (name, number) != (_name(deployment, partition), str(segment)):
        raise Unverified(f"retention: it names segment {number} of {name}", step="retention")
    return found
