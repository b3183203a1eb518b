"""A report as a folder: `report.json`, `report.html`, `report.pdf`, a file of proofs a figure, the ledger's signature.

`report.note` is a C2SP signed note over the SHA-256 of every other file; ``checked`` counts again what they show.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bus.crypto.signing import Signer
from bus.files import make_folder, write_file
from bus.ledger.checkpoint import sign_note
from bus.ledger.proof import Proof
from bus.ledger.report.events import FILE
from bus.ledger.report.html import page
from bus.ledger.report.made import Report
from bus.ledger.report.pdf import pages

DATA: Final = "report.json"
NOTE: Final = "report.note"


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
    }
    drawn = pages(document)
    if drawn is not None:
        files["report.pdf"] = drawn
    files[NOTE] = _sign(document["deployment"], files, signer).encode()
    for name, value in files.items():
        write_file(folder / name, value)
    return [folder / name for name in files]


def _lines(proofs: Sequence[Proof]) -> bytes:
    return "".join(f"{each.to_json()}\n" for each in proofs).encode()


def report_name(deployment: str) -> str:
    """What the note of a report is of."""
    return f"sealbus/{deployment}/report"


def _sign(deployment: str, files: Mapping[str, bytes], signer: Signer) -> str:
    """The note: a line a file, its SHA-256 and its name."""
    name = report_name(deployment)
    rows = (f"{hashlib.sha256(data).hexdigest()}  {path}" for path, data in sorted(files.items()))
    return sign_note(name, "".join(f"{row}\n" for row in (name, *rows)), signer)
