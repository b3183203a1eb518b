"""What must hold between cases.yaml and the policy: a name that does not exist would make a DENY pass for nothing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from typing import Any

from bus.errors import PolicyError
from bus.policy.casefile import CasesFile, Facts
from bus.policy.checks import unknown
from bus.policy.model import Policy
from bus.policy.yamldoc import Document, Path_


def parse_time(text: str) -> int:
    """ms since 1970 of ISO 8601; UTC where it names no zone. Raises ValueError, also outside the years 1 to 9999."""
    at = dt.datetime.fromisoformat(text)
    at = (at if at.tzinfo else at.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)
    return int(at.timestamp() * 1000)


def check_cases(document: Document, file: CasesFile, policy: Policy) -> Iterator[PolicyError]:
    """Every refusal, in no order."""
    yield from _Checks(document, file, policy).run()


class _Checks:
    def __init__(self, document: Document, file: CasesFile, policy: Policy) -> None:
        self._document = document
        self._file = file
        self._policy = policy
        self._agents = sorted({*policy.agents, *file.agents})
        self._roles = sorted({
            role for each in policy.domains.values() for role in each.writing | each.consume
        } | {*policy.inherits, *policy.clearances})  # fmt: skip

    def run(self) -> Iterator[PolicyError]:
        for name, double in self._file.agents.items():
            where = ("agents", name)
            for role in [double.role] if double.role else double.roles or []:
                yield from self._known((*where, "role" if double.role else "roles"), "role", role, self._roles)
            yield from self._places(where, tenant=double.tenant, zone=double.zone)
        yield from self._facts(("base",), self._file.base)
        if self._file.base.who is not None:
            yield from self._agent(("base", "who"), self._file.base.who)
        for index, case in enumerate(self._file.cases):
            path = ("cases", index)
            yield from self._agent((*path, "who"), case.who or self._file.base.who)
            yield from self._question((*path, "do"), case.do)
            yield from self._facts(path, case)
        for index, matrix in enumerate(self._file.matrix):
            path = ("matrix", index)
            for agent in [] if matrix.who == "all" else matrix.who:
                yield from self._agent((*path, "who"), agent)
            for place, agent in enumerate(matrix.except_):
                yield from self._known((*path, "except", place), "except", agent, self._agents)
            for place, question in enumerate(matrix.do):
                yield from self._question((*path, "do", place), question)
            yield from self._facts(path, matrix)
        for index, never in enumerate(self._file.never):
            path = ("never", index)
            for place, agent in enumerate(never.who or []):
                yield from self._agent((*path, "who", place), agent)
            for place, question in enumerate(never.do or []):
                yield from self._question((*path, "do", place), question)
            if self._policy.scheme.parse(never.labels) is None:
                yield self._error((*path, "labels"), f"labels: expected the policy's, found {never.labels}")

    def _error(self, path: Path_, message: str) -> PolicyError:
        return self._document.error(path, message)

    def _known(self, path: Path_, what: str, found: str, known: Sequence[str]) -> Iterator[PolicyError]:
        if found not in known:
            yield unknown(self._document, path, what, found, known)

    def _agent(self, path: Path_, name: str | None) -> Iterator[PolicyError]:
        if name not in self._agents:
            yield self._error(path, f"who: expected an agent, found {name!r}")

    def _question(self, path: Path_, question: str) -> Iterator[PolicyError]:
        domain = question.split()[1]
        if domain not in self._policy.domains:
            known = sorted(map(str, self._policy.domains))
            yield self._error(path, f"do: expected a domain of the policy ({', '.join(known)}), found {domain!r}")

    def _places(self, path: Path_, **places: str | None) -> Iterator[PolicyError]:
        for key, found in places.items():
            known = self._policy.tenants if key == "tenant" else self._policy.zones
            if found and known and found not in known:  # where the policy has none, none counts
                yield from self._known((*path, key), key, found, sorted(known))

    def _facts(self, path: Path_, facts: Facts) -> Iterator[PolicyError]:
        yield from self._places(path, tenant=facts.tenant, zone=facts.zone, to=facts.to)
        for place, agent in enumerate(facts.delegated_by or []):
            yield from self._known((*path, "delegated_by", place), "delegated_by", agent, self._agents)
        if facts.time:
            try:
                parse_time(facts.time)
            except (ValueError, OverflowError):
                yield self._error((*path, "time"), f"time: expected ISO 8601, found {facts.time!r}")
        for where, found in _not_json(facts.payload, (*path, "payload")):
            yield self._error(where, f"payload: expected what JSON has, found a {type(found).__name__}")


def _not_json(value: Any, path: Path_) -> Iterator[tuple[Path_, Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _not_json(each, (*path, key))
    elif isinstance(value, list):
        for place, each in enumerate(value):
            yield from _not_json(each, (*path, place))
    elif not isinstance(value, str | int | float | bool | None):
        yield path, value
