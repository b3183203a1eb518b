"""A report as PDF, by fpdf2 (an extra): what the page says, for whoever files paper."""

from __future__ import annotations

import datetime as dt
from typing import Any, Final

from bus.errors import SettingsError
from bus.extras import package
from bus.ledger.report.html import gaps, when

MAX_ROWS: Final = 60
MAX_CELL: Final = 60
"""Characters; report.json has them all."""


def pages(document: dict[str, Any]) -> bytes | None:
    """The file; None where fpdf2 is not installed."""
    try:
        fpdf = package("fpdf", "report", "report.pdf")
    except SettingsError:
        return None
    made = fpdf.FPDF()
    made.set_creation_date(dt.datetime.fromtimestamp(document["made_at"] / 1000, dt.UTC))
    made.set_title(f"{document['framework'].upper()} report")
    made.set_author("sealbus")
    made.add_page()

    def line(text: str, size: int, style: str = "", link: str = "") -> None:
        made.set_font("helvetica", style, size)
        made.multi_cell(0, size / 2, _latin(text), new_x="LMARGIN", new_y="NEXT", link=link)

    line(f"{document['framework'].upper()} report", 18, "B")
    line(f"Deployment {document['deployment']}", 10)
    line(f"{when(document['begin'])} to {when(document['end'])}", 10)
    if document["person"]:
        line(f"Person {document['person']}", 10)
    line(f"Gaps ({document['gaps']['clause']})", 12, "B")
    line(gaps(document), 10)
    for problem in document["gaps"]["problems"][:MAX_ROWS]:
        line(problem, 9)
    for figure in document["figures"]:
        made.ln(4)
        line(figure["title"], 12, "B")
        line(figure["clause"], 9, "I")
        where = f": proofs in {figure['proofs']}" if figure["proofs"] else ""
        line(f"{figure['value']} hops{where}", 10, link=figure["proofs"])
        _table(made, [*figure["columns"], "hops"], figure["rows"])
    if document["events"] is not None:
        told = document["events"]
        made.ln(4)
        line("Keys that were given out, and records that were opened", 12, "B")
        line(told["clause"], 9, "I")
        line(f"{told['value']} events of bus.issue, each signed by the issuer", 10, link=told["proofs"])
        _table(made, [*told["columns"], "events"], told["rows"])
    made.ln(4)
    line("Erasures", 12, "B")
    for each in document["erasures"]:
        line(f"{each['domain']}/{each['epoch']}: {each['state']}, {when(each['erased_at'])}", 10)
    if not document["erasures"]:
        line("No epoch was erased.", 10)
    return bytes(made.output())


def _table(made: Any, columns: list[str], rows: list[list[Any]]) -> None:
    if not rows:
        return
    made.set_font("helvetica", "", 8)
    with made.table(line_height=4, text_align="LEFT") as table:
        for values in (columns, *rows[:MAX_ROWS]):
            row = table.row()
            for value in values:
                row.cell(_latin(str(value))[:MAX_CELL])


def _latin(text: str) -> str:
    """What the fonts that every reader has can show."""
    return text.encode("latin-1", "replace").decode("latin-1")
