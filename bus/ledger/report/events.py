"""What bus.issue says within a report's time: leases, certificates, records that an operator opened.

Each event is signed by the issuer, and is its own proof; that none is missing is not proven: the topic has a retention
and no tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from bus.crypto.issued import open_issued
from bus.errors import BusError
from bus.ledger.report.figures import Framework

FILE: Final = "proofs/issued.jsonl"
COLUMNS: Final = ("event", "agent", "domain", "by")
CLAUSES: Final = {
    Framework.GDPR: "Art. 32(1)(b); Art. 15, 30: who was given keys to read",
    Framework.HIPAA: "164.308(a)(4), 164.312(a)(2)(iv): who was given keys to read",
    Framework.SOC2: "CC6.1, CC6.2: who was given keys to read",
}


def within(
    values: Iterable[bytes], anchor: bytes, deployment: bytes, begin: int, end: int
) -> tuple[list[bytes], dict[tuple[str, ...], int], int]:
    """The signed events from ``begin`` (ms since 1970) and before ``end``; how often each row of COLUMNS was met; and
    how many were not what the issuer signed."""
    kept: list[bytes] = []
    rows: dict[tuple[str, ...], int] = {}
    wrong = 0
    for value in dict.fromkeys(values):  # one that was written twice is one event
        try:
            event = open_issued(value, anchor, deployment)
            inside = begin <= int(event.get("at", 0)) < end
        except (BusError, TypeError, ValueError):
            wrong += 1
            continue
        if inside:
            row = tuple(str(event.get(name, "")) for name in COLUMNS)
            kept.append(value)
            rows[row] = rows.get(row, 0) + 1
    return kept, rows, wrong


def section(
    framework: Framework, anchor: bytes, kept: Sequence[bytes], rows: dict[tuple[str, ...], int], wrong: int
) -> dict[str, Any]:
    """As JSON."""
    return {
        "clause": CLAUSES[framework],
        "anchor": anchor.hex(),
        "value": len(kept),
        "wrong": wrong,
        "columns": list(COLUMNS),
        "rows": [[*row, count] for row, count in sorted(rows.items(), key=lambda each: (-each[1], each[0]))],
        "proofs": FILE if kept else "",
    }
