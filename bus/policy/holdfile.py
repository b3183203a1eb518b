"""The shape of holds.yaml: what must stay in the ledger whatever its retention says (legal hold)."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from bus.errors import PolicyError
from bus.policy.loader import validate
from bus.policy.values import LowerName, Strict
from bus.policy.yamldoc import read

HOLDS_FILE: Final = "holds.yaml"
_DAY_MS: Final = 86_400_000


def _day(value: Any) -> Any:
    """A date as days since 1970; YAML reads one that is not quoted."""
    try:
        told = value if isinstance(value, dt.date) else dt.date.fromisoformat(value)
    except (TypeError, ValueError):
        raise ValueError("expected a day, as in 2026-11-29") from None
    return told.toordinal() - dt.date(1970, 1, 1).toordinal()


Day = Annotated[int, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]


class Hold(Strict):
    """Hops that have everything that is named; ``since`` and ``until`` are days, both included."""

    name: LowerName
    reason: Annotated[str, Field(min_length=1, max_length=500)]
    agent: str = ""
    domain: str = ""
    correlation: str = ""
    person: str = ""
    since: Day = 0
    until: Day = 1 << 40

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> Self:
        if self.since > self.until:
            raise ValueError("expected since before until")
        return self

    def covers(self, *, agent: str, domain: str, correlation: str, person: str, at_ms: int) -> bool:
        """Whether a hop with these is held."""
        asked = ((self.agent, agent), (self.domain, domain), (self.correlation, correlation), (self.person, person))
        return all(own in ("", found) for own, found in asked) and self.since <= at_ms // _DAY_MS <= self.until


class HoldsFile(Strict):
    """holds.yaml."""

    holds: Annotated[list[Hold], Field(max_length=1000)] = []


def read_holds(directory: Path) -> list[Hold]:
    """Those of the file in ``directory``; none where a folder has no such file. Raises PolicyError."""
    if not directory.is_dir():  # none that are known is not none that there are
        raise PolicyError("expected the folder of the policy, found none", file=str(directory), parsed=False)
    path = directory / HOLDS_FILE
    return validate(read(path), HoldsFile).holds if path.exists() else []
