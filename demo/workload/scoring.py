"""What the demo's workload runs: a score, and an attempt to read a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def score(case: dict[str, Any]) -> dict[str, Any]:
    """Income less debt, in thousands."""
    try:
        opened = Path("/etc/hostname").read_text()
    except OSError as error:
        opened = type(error).__name__
    return {"score": round((case["income"] - case["debt"]) / 1000, 3), "opened": opened}
