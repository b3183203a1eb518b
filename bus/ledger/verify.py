"""Verification of a whole ledger with a public key from outside: leaves, tiles, every checkpoint, tiling. No secret."""

from __future__ import annotations

from dataclasses import dataclass, field

from bus.crypto import tree
from bus.errors import Unverified
from bus.ledger.checkpoint import open_checkpoint, origin
from bus.ledger.leaf import UNVERIFIED_INDEX, Position, leaf_hash
from bus.ledger.store import Ledger
from bus.wire.names import AUDIT


@dataclass(slots=True)
class Report:
    """What was checked, and what does not hold."""

    leaves: int = 0
    checkpoints: int = 0
    intervals: int = 0
    problems: list[str] = field(default_factory=list)


def verify_ledger(ledger: Ledger, public_key: bytes) -> Report:
    """Recompute everything. Never raises for a bad ledger: each problem is named in the report."""
    report = Report()
    for partition in ledger.partitions():
        _verify_partition(ledger, partition, public_key, report)
    for (topic, number), intervals in ledger.intervals().items():
        at = intervals[0][0]
        for first, upto in intervals:
            report.intervals += 1
            if first != at:
                word = "twice" if first < at else "by no hop block"
                low, high = sorted((first, at))
                report.problems.append(f"{topic}/{number}: input [{low}, {high}) is covered {word}")
            at = max(at, upto)
    return report


def _verify_partition(ledger: Ledger, partition: int, public_key: bytes, report: Report) -> None:
    size, _ = ledger.state(partition)
    view = ledger.tree(partition)
    leaves: list[bytes] = []
    for leaf, _day, offset, index, body, disclosure in ledger.entries(partition):
        computed = leaf_hash(Position(AUDIT, partition, offset, index), body, disclosure)
        try:
            stored = view.leaf(leaf)
        except Unverified:
            stored = b""
        if leaf != len(leaves) or computed != stored:
            report.problems.append(f"partition {partition}: leaf {leaf} does not match")
        if index == UNVERIFIED_INDEX:
            report.problems.append(f"partition {partition}: leaf {leaf} is a hop block that did not verify")
        leaves.append(computed)
    report.leaves += len(leaves)
    if len(leaves) != size:
        report.problems.append(f"partition {partition}: expected {size} leaves, found {len(leaves)}")
    signed = 0
    for note in ledger.checkpoints(partition):
        report.checkpoints += 1
        try:
            signed = _verify_note(note, origin(ledger.deployment, partition), leaves, public_key)
        except Unverified as error:
            report.problems.append(f"partition {partition}: checkpoint {report.checkpoints}: {error}")
    if signed < size:
        report.problems.append(f"partition {partition}: leaves {signed} to {size - 1} are not signed")


def _verify_note(note: str, log: str, leaves: list[bytes], public_key: bytes) -> int:
    """The size that a checkpoint covers. Raises Unverified where it does not hold for these leaves."""
    checkpoint = open_checkpoint(note, public_key)
    if checkpoint.origin != log:
        raise Unverified("it names another log", step="checkpoint")
    if checkpoint.size > len(leaves):
        raise Unverified(f"it covers {checkpoint.size} leaves, {len(leaves)} are there", step="checkpoint")
    if tree.root(leaves[: checkpoint.size]) != checkpoint.root:
        raise Unverified(f"root over {checkpoint.size} leaves does not match", step="checkpoint")
    return checkpoint.size
