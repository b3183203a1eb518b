"""Verification of a whole ledger with a public key from outside: leaves, tiles, every checkpoint, tiling. No secret."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from bus.errors import Refused, Unverified
from bus.ledger.checkpoint import open_checkpoint, origin
from bus.ledger.cosignature import WitnessKey, cosigned_at
from bus.ledger.leaf import UNVERIFIED_INDEX, Position, leaf_hash
from bus.ledger.store import Ledger
from bus.ledger.walk import Walk
from bus.wire.names import AUDIT


@dataclass(slots=True)
class Report:
    """What was checked, and what does not hold."""

    leaves: int = 0
    checkpoints: int = 0
    intervals: int = 0
    payloads: int = 0
    """Records that are kept."""
    lost: int = 0
    """Records that could not be kept, each with its reason in the ledger."""
    problems: list[str] = field(default_factory=list)
    retired: int = 0
    """Hops that the retention took; their leaves are among ``leaves``."""
    sizes: dict[int, int] = field(default_factory=dict)
    """Leaves by partition."""
    witnessed: dict[int, int] = field(default_factory=dict)
    """Leaves by partition that enough witnesses co-signed; empty where nobody asked."""


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Who must have co-signed: at least ``quorum`` of ``keys``."""

    keys: Sequence[WitnessKey] = ()
    quorum: int = 0


NOBODY: Final = Witnesses()


def verify_ledger(ledger: Ledger, public_key: bytes, witnesses: Witnesses = NOBODY, *, viewed: bool = False) -> Report:
    """Recompute everything, in one consistent view. Never raises for a bad ledger: the report names each problem.

    ``viewed``: the caller holds that view.
    """
    report = Report()
    with contextlib.nullcontext() if viewed else ledger.reading():
        try:
            for partition in ledger.partitions():
                with _named(report, f"partition {partition}"):
                    _verify_partition(ledger, partition, public_key, report)
                    if witnesses.keys:
                        _verify_witnesses(ledger, partition, public_key, witnesses, report)
            with _named(report, "intervals"):
                _verify_tiling(ledger, report)
            with _named(report, "payloads"):
                _verify_payloads(ledger, report)
        except Refused as error:
            report.problems.append(f"the database is damaged: {error}")
    return report


@contextlib.contextmanager
def _named(report: Report, what: str) -> Iterator[None]:
    """A value that no recorder writes, or a damaged page, is a problem like another."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, OverflowError, Refused) as error:
        report.problems.append(f"{what}: not readable: {error}")


def _verify_tiling(ledger: Ledger, report: Report) -> None:
    for (topic, number), intervals in ledger.intervals().items():
        at = intervals[0][0]
        for first, upto in intervals:
            report.intervals += 1
            if first != at:
                word = "twice" if first < at else "by no hop block"
                low, high = sorted((first, at))
                report.problems.append(f"{topic}/{number}: input [{low}, {high}) is covered {word}")
            at = max(at, upto)


def _verify_payloads(ledger: Ledger, report: Report) -> None:
    """Each record is the one that its digest names; that a hop has this digest, its proof says."""
    for digest, sealed in ledger.payloads():
        if sealed is None:
            report.lost += 1
            continue
        report.payloads += 1
        if hashlib.sha256(sealed).digest() != digest:
            report.problems.append(f"payload {digest.hex()}: other bytes are kept")


def _verify_partition(ledger: Ledger, partition: int, public_key: bytes, report: Report) -> None:
    """Leaves against tiles, tiles against each other, checkpoints against the roots that the leaves give."""
    size, _ = ledger.state(partition)
    name = f"partition {partition}"
    heads = _heads(ledger, partition, public_key, report)
    walk = Walk(ledger, partition, public_key, heads, report.problems)
    before: dict[int, int] = {}
    for leaf, day, offset, index, body, disclosure in ledger.entries(partition):
        if wrong := _wrong_day(before, day, offset, index):
            report.problems.append(f"{name}: leaf {leaf}: {wrong}")
        walk.entry(leaf, leaf_hash(Position(AUDIT, partition, offset, index), body, disclosure))
        if index == UNVERIFIED_INDEX:
            report.problems.append(f"{name}: leaf {leaf} is a hop block that did not verify")
    walk.end(size)
    report.leaves += walk.size
    report.retired += walk.retired
    report.sizes[partition] = walk.size
    if walk.size != size:
        report.problems.append(f"{name}: expected {size} leaves, found {walk.size}")
    for covered, root in sorted(heads.items()):
        if covered > walk.size:
            report.problems.append(f"{name}: a checkpoint covers {covered} leaves, {walk.size} are there")
        elif walk.roots[covered] != root:
            report.problems.append(f"{name}: checkpoint: root over {covered} leaves does not match")
    signed = max(heads, default=0)
    if signed < size:
        report.problems.append(f"{name}: leaves {signed} to {size - 1} are not signed")


def _wrong_day(before: dict[int, int], day: int, offset: int, index: int) -> str:
    """What is wrong with a day, which no leaf covers: a hop block has one, and days do not go back by more than one.

    ``before``: the day of the last block (by its offset), and of the newest.
    """
    if (day == 0) != (index == UNVERIFIED_INDEX):
        return "it has a day, and its block did not verify" if day else "it has no day"
    newest = max(before.values(), default=day)
    told = ""
    if before.get(offset, day) != day:
        told = f"day {day}, and day {before[offset]} for others of its hop block"
    elif day and day < newest - 1:
        told = f"day {day} after day {newest}"
    if day and not told:
        before.clear()
        before.update({offset: day, -1: max(newest, day)})
    return told


def _verify_witnesses(ledger: Ledger, partition: int, public_key: bytes, witnesses: Witnesses, report: Report) -> None:
    """What is co-signed is a checkpoint that the ledger's key signed; roots of these were compared before."""
    sizes = [_cosigned(ledger, partition, public_key, key, report) for key in witnesses.keys]
    covered = sorted(sizes, reverse=True)[witnesses.quorum - 1]
    report.witnessed[partition] = covered
    if covered == 0 and ledger.state(partition)[0]:
        expected = f"expected cosignatures of {witnesses.quorum} of {len(sizes)} witnesses"
        report.problems.append(f"partition {partition}: {expected}, found {sum(size > 0 for size in sizes)}")


def _cosigned(ledger: Ledger, partition: int, public_key: bytes, key: WitnessKey, report: Report) -> int:
    """The largest size that this witness co-signed."""
    for size, line in ledger.cosignatures(partition, str(key)):
        note = ledger.note(partition, size)
        if note is None:
            report.problems.append(f"partition {partition}: the checkpoint over {size} leaves is missing")
            continue
        try:
            cosigned_at(line, open_checkpoint(note, public_key).body(), key)
        except Unverified as error:
            report.problems.append(f"partition {partition}: over {size} leaves: {error}")
        else:
            return size
    return 0


def _heads(ledger: Ledger, partition: int, public_key: bytes, report: Report) -> dict[int, bytes]:
    """Signed roots by size."""
    heads = {}
    for number, note in enumerate(ledger.checkpoints(partition), 1):
        report.checkpoints += 1
        try:
            checkpoint = open_checkpoint(note, public_key)
        except Unverified as error:
            report.problems.append(f"partition {partition}: checkpoint {number}: {error}")
            continue
        if checkpoint.origin == origin(ledger.deployment, partition):
            heads[checkpoint.size] = checkpoint.root
        else:
            report.problems.append(f"partition {partition}: checkpoint {number}: it names another log")
    return heads
