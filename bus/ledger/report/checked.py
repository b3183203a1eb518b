"""A report's folder counted again, with the ledger's public key alone.

Steps: (1) the note over every file, (2) the checkpoints, (3) for each figure every hop that is shown is proven under
its checkpoint and is one that the figure counts, (4) the figure's number, leaves and table agree, (5) the events are
what the issuer signed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bus.errors import BusError, Unverified
from bus.ledger.checkpoint import open_checkpoint, open_note, origin
from bus.ledger.proof import ProofVerifier, parse_proof
from bus.ledger.report.events import FILE, within
from bus.ledger.report.figures import KINDS, Framework, Kind, Row
from bus.ledger.report.folder import DATA, NOTE, report_name
from bus.ledger.report.leaves import Leaves
from bus.ledger.report.made import FORMAT, Asked
from bus.wire.hop import Hop

MAX_FILE: Final = 1 << 30


@dataclass(slots=True)
class Checked:
    """What was counted again, and what does not hold."""

    figures: int = 0
    proofs: int = 0
    counted: int = 0
    """Figures of which every hop is shown."""
    problems: list[str] = field(default_factory=list)


def check_report(folder: Path, public_key: bytes) -> Checked:
    """Count again what the folder shows. Raises Unverified (report, checkpoint) for what is no report or was not signed
    by this key, OSError."""
    checked = Checked()
    try:
        name, files = _signed(_read(folder / NOTE).decode(), public_key)
        for path, digest in files.items():
            with contextlib.suppress(FileNotFoundError):
                if hashlib.sha256(_read(folder / path)).hexdigest() == digest:
                    continue
            if path == DATA:
                raise Unverified(f"{DATA} is not what was signed", step="report")
            checked.problems.append(f"{path} is not what was signed")
        document: dict[str, Any] = json.loads(_read(folder / DATA))
        if document["format"] != FORMAT or name != report_name(document["deployment"]) or DATA not in files:
            raise Unverified(f"expected {FORMAT} of {name}", step="report")
        _Checking(folder, document, public_key, checked).run()
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise Unverified(f"{DATA} is no report: {type(error).__name__}", step="report") from error
    return checked


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE)


def _signed(note: str, public_key: bytes) -> tuple[str, dict[str, str]]:
    """The note's name, and the SHA-256 of each file that it covers."""
    name, body = open_note(note, public_key)
    rows = [line.split("  ", 1) for line in body.splitlines()[1:]]
    return name, {path: digest for digest, path in rows if ".." not in path and not path.startswith("/")}


class _Checking:
    def __init__(self, folder: Path, document: dict[str, Any], public_key: bytes, checked: Checked) -> None:
        self._folder = folder
        self._document = document
        self._key = public_key
        self._told = checked
        self._deployment = bytes.fromhex(document["deployment"])
        self._asked = Asked(
            Framework(document["framework"]), document["begin"], document["end"], document["person"], document["levels"]
        )
        self._verify = ProofVerifier(public_key)

    def run(self) -> None:
        """All steps behind the note."""
        document = self._document
        sizes = {}
        for number, note in document["checkpoints"].items():
            checkpoint = open_checkpoint(note, self._key)
            if checkpoint.origin != origin(self._deployment, int(number)):
                self._problem(f"partition {number}: its checkpoint names another log")
            sizes[number] = checkpoint.size
        if sorted(each["name"] for each in document["figures"]) != sorted(KINDS):
            self._problem("figures: not those of a report")
        for figure in document["figures"]:
            self._figure(figure, KINDS[figure["name"]], sizes)
        if document["events"] is not None:
            self._events(document["events"])
        if found := document["gaps"]["problems"]:
            self._problem(f"gaps: the report itself names {len(found)}")

    def _problem(self, what: str) -> None:
        self._told.problems.append(what)

    def _figure(self, figure: dict[str, Any], kind: Kind, sizes: Mapping[str, int]) -> None:
        self._told.figures += 1
        leaves = {number: Leaves(text) for number, text in figure["leaves"].items()}
        named = sum(map(len, leaves.values()))
        table = {tuple(row[:-1]): row[-1] for row in figure["rows"]}
        if named != figure["value"]:
            self._problem(f"{kind.name}: says {figure['value']}, names {named} leaves")
        if any(each.below > sizes.get(number, 0) for number, each in leaves.items()):
            self._problem(f"{kind.name}: names leaves that no checkpoint covers")
        if sum(table.values()) != figure["value"]:
            self._problem(f"{kind.name}: says {figure['value']}, its table {sum(table.values())}")
        shown = self._shown(figure, kind, leaves)
        self._told.proofs += len(shown)
        if len(shown) != figure["proven"]:
            self._problem(f"{kind.name}: {figure['proven']} hops are said to be shown, {len(shown)} are")
        if len(shown) == figure["value"]:
            self._told.counted += 1
            rows: dict[Row, int] = {}
            for hop in shown.values():
                rows[kind.row(hop)] = rows.get(kind.row(hop), 0) + 1
            if rows != table:
                self._problem(f"{kind.name}: its table is another than that of its hops")

    def _shown(self, figure: dict[str, Any], kind: Kind, leaves: Mapping[str, Leaves]) -> dict[tuple[int, int], Hop]:
        """Hops by place whose proofs hold and that the figure counts."""
        shown: dict[tuple[int, int], Hop] = {}
        path = self._folder / f"proofs/{kind.name}.jsonl"
        lines = _read(path).decode().splitlines() if figure["proofs"] and path.exists() else []
        heads = self._document["checkpoints"]
        for number, line in enumerate(lines, 1):
            try:
                proof = parse_proof(line)
                hop, _ = self._verify(proof)
            except BusError as error:
                self._problem(f"{kind.name}: proof {number}: {error}")
                continue
            partition = str(proof.at.partition)
            held = proof.checkpoint == heads.get(partition) and proof.leaf in leaves.get(partition, ())
            if held and self._asked.counts(kind, hop):
                shown[proof.at.partition, proof.leaf] = hop
            else:
                self._problem(f"{kind.name}: proof {number}: not a hop that this figure counts")
        return shown

    def _events(self, told: dict[str, Any]) -> None:
        """Every event is one that the issuer signed, within the time; and there are as many as the report says."""
        self._told.figures += 1
        path = self._folder / FILE
        lines = _read(path).decode().split() if told["proofs"] and path.exists() else []
        anchor, asked = bytes.fromhex(told["anchor"]), self._asked
        kept, rows, wrong = within(map(bytes.fromhex, lines), anchor, self._deployment, asked.begin, asked.end)
        if wrong or len(kept) != len(lines) or len(kept) != told["value"]:
            self._problem(f"events: says {told['value']}, {len(kept)} are shown that the issuer signed")
        elif rows != {tuple(row[:-1]): row[-1] for row in told["rows"]}:
            self._problem("events: its table is another than that of its events")
        else:
            self._told.counted += 1
        self._told.proofs += len(kept)
