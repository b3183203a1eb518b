"""The shape of cases.yaml, the tests of the law: cases that differ from a base, matrices, what must never be."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field

from bus.errors import PolicyError
from bus.policy.document import KindText
from bus.policy.values import LowerName, RoleText, Strict
from bus.policy.yamldoc import Document, read
from bus.wire.delegation import MAX_BLOCKS

CASES_FILE: Final = "cases.yaml"
Question = Annotated[str, Field(pattern=r"^(produce|consume) [a-z][a-z0-9_-]{0,62}$")]


def _chosen(value: Any) -> Any:
    if value != "all" and not isinstance(value, list):
        raise ValueError("expected all, or a list of agents")
    return value


Chosen = Annotated[Literal["all"] | list[LowerName], BeforeValidator(_chosen)]


class Double(Strict):
    """A test double: an agent that the cases speak of."""

    role: RoleText | None = None
    roles: list[RoleText] | None = None
    tenant: LowerName = ""
    zone: LowerName = ""
    attested: bool = False


class Facts(Strict):
    """What is asked about; a case names only what differs from the base."""

    who: LowerName | None = None
    tenant: str | None = None
    zone: str | None = None
    to: str | None = None
    delegated_by: Annotated[list[LowerName], Field(max_length=MAX_BLOCKS)] | None = None
    kind: KindText | None = None
    target: str | None = None
    tool: str | None = None
    task_type: str | None = None
    purpose: str | None = None
    user: str | None = None
    labels: list[LowerName] | None = None
    time: str | None = None
    load: float | None = None
    size: int | None = None
    payload: Any = None
    metadata: dict[str, str] | None = None


class Case(Facts):
    """One question and its answer. ``redacts`` are types that guardrails must find in ``payload``, ``label`` is the
    record's whatever the decision."""

    name: str
    do: Question
    expect: Literal["ALLOW", "DENY"]
    rule: str | None = None
    obligations: list[str] = []
    redacts: list[RoleText] = []
    label: list[LowerName] | None = None


class Matrix(Facts):
    """The same question for many agents and domains: one case per cell."""

    name: str
    who: Chosen = "all"  # type: ignore[assignment]  # many, where a case has one
    except_: list[LowerName] = Field(default=[], alias="except")
    do: Annotated[list[Question], Field(min_length=1)]
    expect: Literal["ALLOW", "DENY"]
    rule: str | None = None


class Never(Strict):
    """What must not be possible for anyone, whatever the kind, purpose or time."""

    name: str
    who: list[LowerName] | None = None
    do: list[Question] | None = None
    labels: list[LowerName] = []
    crosses: Literal["zones", "tenants"] | None = None


class CasesFile(Strict):
    """cases.yaml."""

    agents: dict[LowerName, Double] = {}
    base: Facts = Facts()
    cases: list[Case] = []
    matrix: list[Matrix] = []
    never: list[Never] = []


def read_cases(path: Path) -> Document:
    """The file beside the policy. Raises PolicyError where there is none."""
    if not path.exists():
        raise PolicyError("expected cases.yaml beside mesh.yaml, found none", file=str(path), parsed=False)
    return read(path)
