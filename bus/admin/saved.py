"""A plan in a file: what was looked at is what is applied, and nothing else.

The file holds the draft itself, the cluster and the live policy that it was planned against, and every change. It is
applied only where planning the same draft again gives the same changes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from bus.admin.plan import Plan
from bus.codes import Code
from bus.errors import PolicyError, Refused, WireError
from bus.policy.compiling import compile_policy
from bus.policy.model import Policy

FORMAT: Final = "bus.saved-plan/1"


def save_plan(plan: Plan, path: Path) -> None:
    """Write ``plan``. Raises OSError."""
    path.write_text(json.dumps(_document(plan), indent=1) + "\n")


def _document(plan: Plan) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "cluster": plan.cluster,
        "live": plan.live_digest.hex() if plan.live_digest else "",
        "live_number": plan.live_number,
        "changes": [str(each) for each in plan.changes],
        "access": [str(each) for each in plan.access],
        "document": plan.policy.document.decode(),
    }


def read_draft(path: Path) -> tuple[Policy, dict[str, Any]]:
    """The draft in a saved plan, and the plan as it was. Raises PolicyError(parsed=False)."""
    try:
        told = json.loads(path.read_text())
        if told["format"] != FORMAT:
            raise PolicyError(f"expected {FORMAT}, found {told['format']!r}", file=str(path), parsed=False)
        return compile_policy(told["document"].encode()), told
    except OSError as error:
        raise PolicyError(f"cannot be read: {error.strerror}", file=str(path), parsed=False) from error
    except (ValueError, KeyError, TypeError, AttributeError, WireError) as error:
        raise PolicyError(f"not a saved plan: {type(error).__name__}", file=str(path), parsed=False) from error


def check_same(plan: Plan, saved: dict[str, Any]) -> None:
    """Raises Refused where the cluster is another one, or moved since the plan was saved."""
    now = _document(plan)
    for key, what in (("cluster", "cluster"), ("live", "live policy"), ("live_number", "live snapshot")):
        if now[key] != saved[key]:
            raise _moved(f"{what}: expected {saved[key]}, found {now[key]}")
    if now["changes"] != saved["changes"]:
        other = sorted(set(now["changes"]) ^ set(saved["changes"]))
        raise _moved(f"{len(other)} changes are others, first {other[0] if other else 'their order'}")


def _moved(why: str) -> Refused:
    return Refused(f"the cluster is not as it was planned: {why}", code=Code.POLICY, hint="plan anew, look, apply that")
