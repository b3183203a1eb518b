"""A report as data: its figures with the hops that they count, and what says that nothing is missing between them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bus.ledger.checkpoint import open_checkpoint
from bus.ledger.proof import Proof
from bus.ledger.query import Found, LedgerQuery
from bus.ledger.report.figures import CLAUSES, KINDS, Framework, Kind, Row, person
from bus.ledger.report.leaves import runs
from bus.ledger.store import Ledger
from bus.ledger.verify import NOBODY, Witnesses, verify_ledger
from bus.wire.hop import Hop

FORMAT: Final = "sealbus.report/1"
TELL_EVERY: Final = 20_000


@dataclass(frozen=True, slots=True)
class Asked:
    """What a report is about: times in ms since 1970, of one ``person`` alone where one is named.

    ``levels``: the policy's, lowest first. ``proofs``: of how many hops a figure's proofs are written.
    """

    framework: Framework
    begin: int
    end: int
    person: str = ""
    levels: Sequence[str] = ()
    proofs: int = 1000

    def counts(self, kind: Kind, hop: Hop) -> bool:
        """Whether a figure of this kind counts ``hop``."""
        inside = self.begin <= hop.decided_at < self.end and self.person in ("", person(hop))
        return inside and kind.question(hop, self.levels)


@dataclass(slots=True)
class Figure:
    """A number of hops, where each stands, and how they fall into rows."""

    kind: Kind
    value: int = 0
    rows: dict[Row, int] = field(default_factory=dict)
    leaves: dict[int, list[int]] = field(default_factory=dict)
    shown: list[tuple[int, int, int, Found]] = field(default_factory=list)
    """Those whose proofs are written, the newest: a heap by time, partition and leaf."""

    def add(self, each: Found, limit: int) -> None:
        """Count one hop; of those that were added ``limit`` stay to be shown."""
        self.value += 1
        row = self.kind.row(each.hop)
        self.rows[row] = self.rows.get(row, 0) + 1
        self.leaves.setdefault(each.partition, []).append(each.leaf)
        heapq.heappush(self.shown, (each.hop.decided_at, each.partition, each.leaf, each))
        if len(self.shown) > limit:
            heapq.heappop(self.shown)


@dataclass(frozen=True, slots=True)
class Report:
    """``heads``: the checkpoints (notes) by partition that everything stands under."""

    asked: Asked
    deployment: bytes
    made_at: int
    heads: Mapping[int, str]
    complete: Mapping[str, Any]
    figures: Sequence[Figure]
    erasures: Sequence[Mapping[str, Any]]
    events: Mapping[str, Any] | None = None
    """Of bus.issue; None where it was not read."""

    def document(self) -> dict[str, Any]:
        """The report as JSON."""
        clauses = CLAUSES[self.asked.framework]
        return {
            "format": FORMAT,
            "framework": self.asked.framework.value,
            "deployment": self.deployment.hex(),
            "begin": self.asked.begin,
            "end": self.asked.end,
            "person": self.asked.person,
            "levels": list(self.asked.levels),
            "made_at": self.made_at,
            "checkpoints": {str(partition): note for partition, note in self.heads.items()},
            "gaps": {"clause": clauses["gaps"], **self.complete},
            "figures": [
                {
                    "name": each.kind.name,
                    "title": each.kind.title,
                    "clause": clauses[each.kind.name],
                    "value": each.value,
                    "columns": list(each.kind.columns),
                    "rows": [[*row, count] for row, count in sorted(each.rows.items(), key=_most)],
                    "leaves": {str(number): runs(found) for number, found in sorted(each.leaves.items())},
                    "proofs": f"proofs/{each.kind.name}.jsonl" if each.shown else "",
                    "proven": len(each.shown),
                }
                for each in self.figures
            ],
            "events": self.events,
            "erasures": list(self.erasures),
        }


def make_report(
    ledger: Ledger,
    query: LedgerQuery,
    public_key: bytes,
    asked: Asked,
    made_at: int,
    *,
    erasures: Sequence[Mapping[str, Any]] = (),
    witnesses: Witnesses = NOBODY,
    tell: Callable[[int], None] = lambda _: None,
) -> tuple[Report, dict[str, list[Proof]]]:
    """The report, and each figure's proofs. ``tell`` is told how many hops were read.

    Counts what is under a checkpoint, in one view of the ledger; verifies the whole ledger, as ``verify_ledger`` does.
    """
    kinds = [Figure(each) for each in KINDS.values()]
    with ledger.reading():
        heads = {number: note for number in ledger.partitions() if (note := ledger.checkpoint(number)) is not None}
        sizes = {number: open_checkpoint(note, public_key).size for number, note in heads.items()}
        read = 0
        for number, size in sizes.items():
            for each in query.within(number, size, asked.begin):
                read += 1
                if read % TELL_EVERY == 0:
                    tell(read)
                for figure in kinds:
                    if asked.counts(figure.kind, each.hop):
                        figure.add(each, asked.proofs)
        proofs = {
            each.kind.name: [
                query.disclosed(found, heads[found.partition], sizes[found.partition])
                for *_, found in sorted(each.shown, reverse=True)
            ]
            for each in kinds
        }
        complete = _complete(ledger, public_key, witnesses, sizes)
    return Report(asked, ledger.deployment, made_at, heads, complete, kinds, erasures), proofs


def _complete(ledger: Ledger, key: bytes, witnesses: Witnesses, sizes: Mapping[int, int]) -> dict[str, Any]:
    """That intervals tile every input, that every leaf is under a checkpoint; or what is missing."""
    held = verify_ledger(ledger, key, witnesses, viewed=True)
    inputs = {f"{topic}/{number}": [found[0][0], found[-1][1]] for (topic, number), found in ledger.intervals().items()}
    return {
        "problems": held.problems,
        "leaves": sum(sizes.values()),
        "retired": held.retired,
        "checkpoints": held.checkpoints,
        "inputs": inputs,
        "positions": sum(upto - first for first, upto in inputs.values()),
        "witnesses": {"named": len(witnesses.keys), "quorum": witnesses.quorum, "leaves": sum(held.witnessed.values())},
    }


def _most(row: tuple[Row, int]) -> tuple[int, Row]:
    return -row[1], row[0]
