"""The shape of alerts.yaml: what is told at once, of what the ledger and bus.issue say, and to whom."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    AnyHttpUrl,
    BeforeValidator,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from bus.codes import Code
from bus.errors import PolicyError
from bus.policy.loader import validate
from bus.policy.values import Duration, LowerName, Strict
from bus.policy.yamldoc import read

ALERTS_FILE: Final = "alerts.yaml"
_TIMES: Final = r"([1-9][0-9]{0,2}) in ([1-9][0-9]{0,8})(s|m|h|d)"
_HOURS: Final = r"([01]?[0-9]|2[0-3])-([01]?[0-9]|2[0-4])"
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _times(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(_TIMES, value)):
        return int(match[1]), int(match[2]) * _SECONDS[match[3]] * 1000
    raise ValueError("expected times in a time, as in 20 in 5m, at most 999")


def _hours(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(_HOURS, value)) and int(match[1]) < int(match[2]):
        return int(match[1]), int(match[2])
    raise ValueError("expected hours of a day in UTC, as in 6-20")


def _share(value: Any) -> Any:
    if isinstance(value, str) and (match := re.fullmatch(r"([1-9][0-9]?)%", value)):
        return int(match[1])
    raise ValueError("expected a share, as in 30%")


def _code(value: str) -> str:
    if value not in {each.value for each in Code}:
        raise ValueError("expected a refusal code, as in mac or replay")
    return value


def _url(value: str) -> str:
    try:
        url = AnyHttpUrl(value)
    except ValidationError:
        url = None
    if url is None or url.username is not None or url.password is not None or url.host is None:
        raise ValueError("expected http://HOST or https://HOST, without a password")
    return str(url)


def _file(value: Any) -> Any:
    if not isinstance(value, str) or not value:
        raise ValueError("expected the path of a file")
    return Path(value)


_TEXT: Final = WithJsonSchema({"type": "string"})
Times = Annotated[tuple[int, int], BeforeValidator(_times), _TEXT]
"""How many, in how many ms."""
Hours = Annotated[tuple[int, int], BeforeValidator(_hours), _TEXT]
Share = Annotated[int, BeforeValidator(_share), _TEXT]
CodeText = Annotated[str, AfterValidator(_code)]
File = Annotated[Path, BeforeValidator(_file), _TEXT]
Url = Annotated[str, AfterValidator(_url)]


class Rule(Strict):
    """What all rules have."""

    name: LowerName
    severity: Literal["low", "medium", "high", "critical"] = "medium"


class Denials(Rule):
    """More refusals than ``more_than`` of one ``by``; of these codes, where any is named."""

    when: Literal["denials"]
    more_than: Times
    by: Literal["agent", "domain", "code", "rule"] = "agent"
    codes: list[CodeText] = []


class NewFlow(Rule):
    """An agent that wrote a domain for the first time, ``learn`` after the first hop that was watched or later."""

    when: Literal["new_flow"]
    learn: Duration = 0


class Noisy(Rule):
    """An agent of which more than ``share`` of the last records (at least as many as ``of`` says, in that time) were
    refused, and before that less than half of this share of at least as many."""

    when: Literal["noisy"]
    share: Share
    of: Times


class Leases(Rule):
    """More of these events on bus.issue than ``more_than`` of one agent, or one outside of ``hours`` (UTC)."""

    when: Literal["leases"]
    more_than: Times | None = None
    hours: Hours | None = None
    events: list[LowerName] = ["leased"]


Alerting = Annotated[Denials | NewFlow | Noisy | Leases, Field(discriminator="when")]


class Send(Strict):
    """Where alerts go, beside the log."""

    webhook: Url | None = None
    topic: bool = False
    """bus.alerts."""


class Stream(Strict):
    """Where every hop goes: files that a SIEM collects, an OpenTelemetry collector."""

    ocsf: File | None = None
    cef: File | None = None
    otlp: Url | None = None


class AlertsFile(Strict):
    """alerts.yaml."""

    alerts: Annotated[list[Alerting], Field(max_length=256)] = []
    send: Send = Send()
    stream: Stream = Stream()

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        names = [each.name for each in self.alerts]
        if twice := sorted({each for each in names if names.count(each) > 1}):
            raise ValueError(f"expected rules with names of their own, found {', '.join(twice)} twice")
        return self


def read_alerts(directory: Path) -> AlertsFile:
    """The file in ``directory``; an empty one where a folder has no such file. Raises PolicyError."""
    if not directory.is_dir():  # no rules that are known is not none that there are
        raise PolicyError("expected the folder of the policy, found none", file=str(directory), parsed=False)
    path = directory / ALERTS_FILE
    return validate(read(path), AlertsFile) if path.exists() else AlertsFile()
