"""A report as a folder: `report.json`, `report.html`, `report.pdf`, a file of proofs a figure, the ledger's signature.

`report.note` is a C2SP signed note over the SHA-256 of `report.json`. ``check`` needs the folder and the public key: it
asks each figure's question of every hop that is shown, and counts again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bus.crypto.signing import Signer
from bus.errors import BusError, Unverified
from bus.files import make_folder, write_file
from bus.ledger.checkpoint import open_note, sign_note
from bus.ledger.proof import Proof, ProofVerifier, parse_proof
from bus.ledger.report.events import FILE, within
from bus.ledger.report.figures import KINDS, Framework, Kind
from bus.ledger.report.html import page
from bus.ledger.report.made import FORMAT, Asked, Report, leaves_of
from bus.ledger.report.pdf import pages
from bus.wire.hop import Hop

DATA: Final = "report.json"
NOTE: Final = "report.note"
MAX_DATA: Final = 256 * 1024 * 1024


@dataclass(slots=True)
class Checked:
    """What was counted again, and what does not hold."""

    figures: int = 0
    proofs: int = 0
    counted: int = 0
    """Figures of which every hop is shown."""
    problems: list[str] = field(default_factory=list)


def write_report(
    folder: Path, report: Report, proofs: Mapping[str, Sequence[Proof]], signer: Signer, issued: Sequence[bytes] = ()
) -> list[Path]:
    """Everything into ``folder``, ``issued`` as the events' proofs; returns the files. Raises FileExistsError where it
    holds a report.

    Without fpdf2 there is no PDF.
    """
    if (folder / DATA).exists():
        raise FileExistsError(folder / DATA)
    make_folder(folder / "proofs")
    document = report.document()
    data = json.dumps(document, indent=1, ensure_ascii=False).encode()
    files = {
        **{f"proofs/{name}.jsonl": _lines(found) for name, found in proofs.items() if found},
        **({FILE: "".join(f"{each.hex()}\n" for each in issued).encode()} if issued else {}),
        "report.html": page(document).encode(),
        DATA: data,
        NOTE: _sign(document["deployment"], data, signer).encode(),
    }
    drawn = pages(document)
    if drawn is not None:
        files["report.pdf"] = drawn
    for name, value in files.items():
        write_file(folder / name, value)
    return [folder / name for name in files]


def _lines(proofs: Sequence[Proof]) -> bytes:
    return "".join(f"{each.to_json()}\n" for each in proofs).encode()


def _name(deployment: str) -> str:
    return f"sealbus/{deployment}/report"


def _sign(deployment: str, data: bytes, signer: Signer) -> str:
    name = _name(deployment)
    return sign_note(name, f"{name}\n{hashlib.sha256(data).hexdigest()}\n", signer)


def check_report(folder: Path, public_key: bytes) -> Checked:
    """Count again what the folder shows. Raises Unverified (report, checkpoint) for another than was signed."""
    with (folder / DATA).open("rb") as file:
        data = file.read(MAX_DATA)
    name, body = open_note((folder / NOTE).read_text(), public_key)
    if body != f"{name}\n{hashlib.sha256(data).hexdigest()}\n":
        raise Unverified(f"{DATA} is not what was signed", step="report")
    try:
        document: dict[str, Any] = json.loads(data)
        if document["format"] != FORMAT or name != _name(document["deployment"]):
            raise Unverified(f"expected {FORMAT} of {name}", step="report")
        asked = Asked(
            Framework(document["framework"]), document["begin"], document["end"], document["person"], document["levels"]
        )
        checked, verify = Checked(), ProofVerifier(public_key)
        for figure in document["figures"]:
            _check(folder, figure, KINDS[figure["name"]], asked, document["checkpoints"], verify, checked)
        if document["events"] is not None:
            _check_events(folder, document["events"], asked, bytes.fromhex(document["deployment"]), checked)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unverified(f"{DATA} is no report: {type(error).__name__}", step="report") from error
    return checked


def _check_events(folder: Path, told: dict[str, Any], asked: Asked, deployment: bytes, checked: Checked) -> None:
    """Every event is one that the issuer signed, within the time; and there are as many as the report says."""
    checked.figures += 1
    lines = (folder / FILE).read_text().split() if told["proofs"] else []
    values = list(dict.fromkeys(bytes.fromhex(line) for line in lines))
    kept, rows, wrong = within(values, bytes.fromhex(told["anchor"]), deployment, asked.begin, asked.end)
    if wrong or len(kept) != len(lines) or len(kept) != told["value"]:
        checked.problems.append(f"events: says {told['value']}, {len(kept)} are shown that the issuer signed")
    elif rows != {tuple(row[:-1]): row[-1] for row in told["rows"]}:
        checked.problems.append("events: its table is another than that of its events")
    else:
        checked.counted += 1
    checked.proofs += len(kept)


def _check(
    folder: Path,
    figure: dict[str, Any],
    kind: Kind,
    asked: Asked,
    heads: Mapping[str, str],
    verify: ProofVerifier,
    checked: Checked,
) -> None:
    """One figure: every hop that is shown is proven, under the report's checkpoint, and is one that it counts."""
    checked.figures += 1
    told = {(int(number), leaf) for number, text in figure["leaves"].items() for leaf in leaves_of(text)}
    if len(told) != figure["value"]:
        checked.problems.append(f"{kind.name}: says {figure['value']}, names {len(told)} leaves")
    shown: dict[tuple[int, int], Hop] = {}
    lines = (folder / f"proofs/{kind.name}.jsonl").read_text().splitlines() if figure["proofs"] else []
    for number, line in enumerate(lines, 1):
        try:
            proof = parse_proof(line)
            hop, _ = verify(proof)
        except BusError as error:
            checked.problems.append(f"{kind.name}: proof {number}: {error}")
            continue
        place = proof.at.partition, proof.leaf
        if proof.checkpoint != heads.get(str(proof.at.partition)) or place not in told or not asked.counts(kind, hop):
            checked.problems.append(f"{kind.name}: proof {number}: not a hop that this figure counts")
            continue
        shown[place] = hop
    checked.proofs += len(shown)
    if len(shown) != figure["proven"]:
        checked.problems.append(f"{kind.name}: {figure['proven']} hops are said to be shown, {len(shown)} are")
    if len(shown) == figure["value"]:
        checked.counted += 1
        rows: dict[tuple[str, ...], int] = {}
        for hop in shown.values():
            rows[kind.row(hop)] = rows.get(kind.row(hop), 0) + 1
        if rows != {tuple(row[:-1]): row[-1] for row in figure["rows"]}:
            checked.problems.append(f"{kind.name}: its table is another than that of its hops")
