"""Alert rules over hops and events of bus.issue. Pure: what was seen, and the next thing, to alerts.

What rules remember is bounded (of keys the newest MAX_KEYS stay) and is JSON, so that it is kept with the place in the
log that it is of. An alert of one rule and key is not told again until the time that the rule looks back has passed.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

from bus.policy.alertfile import Alerting, Denials, Leases, NewFlow, Noisy
from bus.wire.hop import Hop, Verdict

MAX_KEYS: Final = 4000
MAX_TOLD: Final = 10
"""Decisions that an alert names."""
OF: Final[Mapping[str, Callable[[Hop], str]]] = {
    "agent": lambda hop: hop.tail.agent or "unknown",
    "domain": lambda hop: hop.tail.domain,
    "code": lambda hop: hop.tail.code.value,
    "rule": lambda hop: hop.tail.rule,
}


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. ``at``: ms since 1970, of what brought it about; ``decisions``: of the hops, for `bus audit prove`."""

    rule: str
    severity: str
    at: int
    subject: str
    text: str
    decisions: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The same for the same alert, which may be sent twice."""
        told = f"{self.rule}|{self.subject}|{self.at}|{self.text}|{self.decisions[-1:]}"
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"id": self.id, **asdict(self), "decisions": list(self.decisions)}


class _Keys(OrderedDict[str, Any]):
    """Values by key, of which the least lately used go."""

    def touch(self, key: str, made: Any) -> Any:
        """The value of ``key``, ``made`` where there is none."""
        found = self.setdefault(key, made)
        self.move_to_end(key)
        if len(self) > MAX_KEYS:
            self.popitem(last=False)
        return found


class _Judge(Protocol):
    """One rule, and what it remembers."""

    def hop(self, hop: Hop) -> Iterator[Alert]:
        """What the next hop brings about."""
        ...

    def issued(self, event: Mapping[str, Any]) -> Iterator[Alert]:
        """What the next event of bus.issue brings about."""
        ...

    def state(self) -> Any:
        """What it remembers, as JSON."""
        ...

    def restore(self, state: Any) -> None:
        """Remember what ``state`` gave."""
        ...


class _Silent:
    """A rule that one of both is nothing to."""

    def hop(self, _: Hop) -> Iterator[Alert]:
        return iter(())

    def issued(self, _: Mapping[str, Any]) -> Iterator[Alert]:
        return iter(())


class _Counting:
    """How often something was met of a key within a time."""

    def __init__(self, rule: Alerting, times: tuple[int, int]) -> None:
        self._rule = rule
        self._count, self._span = times
        self.met = _Keys()
        """By key: [times and decisions, newest last; when it was told last]."""

    def add(self, key: str, at: int, decision: str, what: str) -> Iterator[Alert]:
        """One more. Times may come out of order: what counts is how far they are apart."""
        seen, told = held = self.met.touch(key, [[], None])
        seen.append([at, decision])
        seen.sort(key=lambda each: each[0])
        del seen[: max(len(seen) - self._count - 1, 0)]
        if len(seen) <= self._count or seen[-1][0] - seen[0][0] > self._span or at < seen[0][0]:
            return
        if told is not None and abs(at - told) <= self._span:
            return
        held[1] = at
        names = tuple(each for _, each in seen[-MAX_TOLD:] if each)
        text = f"{key}: more than {self._count} {what} in {self._span // 1000} s"
        yield Alert(self._rule.name, self._rule.severity, at, key, text, names)

    def restore(self, state: Any) -> None:
        """What ``met`` was."""
        self.met = _Keys(state)


class _DenialsOf(_Silent):
    def __init__(self, rule: Denials) -> None:
        self._rule = rule
        self._counting = _Counting(rule, rule.more_than)

    def hop(self, hop: Hop) -> Iterator[Alert]:
        wanted = not self._rule.codes or hop.tail.code.value in self._rule.codes
        if hop.tail.decision is Verdict.DENY and wanted:
            yield from self._counting.add(OF[self._rule.by](hop), hop.decided_at, hop.decision_id, "refusals")

    def state(self) -> Any:
        return list(self._counting.met.items())

    def restore(self, state: Any) -> None:
        self._counting.restore(state)


class _NewFlowOf(_Silent):
    def __init__(self, rule: NewFlow) -> None:
        self._rule = rule
        self._known = _Keys()
        self._since: int | None = None

    def hop(self, hop: Hop) -> Iterator[Alert]:
        tail = hop.tail
        if tail.decision is not Verdict.ALLOW or not tail.agent:
            return
        if self._since is None:
            self._since = hop.decided_at
        flow = f"{tail.agent} -> {tail.domain}"
        known = flow in self._known
        self._known.touch(flow, 1)
        if not known and hop.decided_at >= self._since + self._rule.learn:
            text = f"{flow}: written for the first time, under {tail.rule} ({tail.location})"
            yield Alert(self._rule.name, self._rule.severity, hop.decided_at, flow, text, (hop.decision_id,))

    def state(self) -> Any:
        return [self._since, list(self._known)]

    def restore(self, state: Any) -> None:
        self._since = state[0]
        self._known = _Keys(dict.fromkeys(state[1], 1))


class _NoisyOf(_Silent):
    def __init__(self, rule: Noisy) -> None:
        self._rule = rule
        self._count, self._span = rule.of
        self._met = _Keys()
        """By agent: its last records, each time, refused, decision; of all before them how many, how many refused."""

    def hop(self, hop: Hop) -> Iterator[Alert]:
        tail = hop.tail
        if tail.decision is Verdict.RETRY or not tail.agent:
            return
        recent, before = self._met.touch(tail.agent, [[], [0, 0]])
        recent.append([hop.decided_at, tail.decision is Verdict.DENY, hop.decision_id])
        while recent and (recent[0][0] < hop.decided_at - self._span or len(recent) > self._count):
            _, denied, _ = recent.pop(0)
            before[0] += 1
            before[1] += denied
        refused = [each for _, denied, each in recent if denied]
        if len(recent) < self._count or before[0] < self._count:
            return
        share, usual = 100 * len(refused) / len(recent), 100 * before[1] / before[0]
        if share > self._rule.share and usual < self._rule.share / 2:
            text = f"{tail.agent}: {share:.0f} % of its last {len(recent)} records were refused, {usual:.0f} % before"
            before[0] += len(recent)
            before[1] += len(refused)
            recent.clear()
            told = tuple(refused[-MAX_TOLD:])
            yield Alert(self._rule.name, self._rule.severity, hop.decided_at, tail.agent, text, told)

    def state(self) -> Any:
        return list(self._met.items())

    def restore(self, state: Any) -> None:
        self._met = _Keys(state)


class _LeasesOf(_Silent):
    def __init__(self, rule: Leases) -> None:
        self._rule = rule
        self._counting = _Counting(rule, rule.more_than) if rule.more_than is not None else None

    def issued(self, event: Mapping[str, Any]) -> Iterator[Alert]:
        if event["event"] not in self._rule.events:
            return
        agent, at = event["agent"], event["at"]
        if self._rule.hours is not None:
            hour = dt.datetime.fromtimestamp(at / 1000, dt.UTC).hour
            first, end = self._rule.hours
            if not first <= hour < end:
                text = f"{agent}: {event['event']} at {hour} h UTC, outside of {first}-{end}"
                yield Alert(self._rule.name, self._rule.severity, at, agent, text)
        if self._counting is not None:
            yield from self._counting.add(agent, at, "", f"times {event['event']}")

    def state(self) -> Any:
        return list(self._counting.met.items()) if self._counting is not None else []

    def restore(self, state: Any) -> None:
        if self._counting is not None:
            self._counting.restore(state)


class Alerts:
    """All rules of a file."""

    def __init__(self, rules: Sequence[Alerting]) -> None:
        self._judges = {f"{each.name} {_digest(each)}": _judge(each) for each in rules}

    def hop(self, hop: Hop) -> list[Alert]:
        """What the next hop brings about."""
        return [alert for judge in self._judges.values() for alert in judge.hop(hop)]

    def issued(self, event: Mapping[str, Any]) -> list[Alert]:
        """What the next event of bus.issue brings about: its ``event`` and ``agent`` texts, ``at`` ms since 1970."""
        return [alert for judge in self._judges.values() for alert in judge.issued(event)]

    def state(self) -> dict[str, Any]:
        """What rules remember, as JSON."""
        return {name: judge.state() for name, judge in self._judges.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Remember what ``state`` gave; a rule that was changed since begins anew."""
        for name, judge in self._judges.items():
            if name in state:
                judge.restore(state[name])


def _digest(rule: Alerting) -> str:
    return hashlib.sha256(rule.model_dump_json().encode()).hexdigest()[:16]


def _judge(rule: Alerting) -> _Judge:
    if isinstance(rule, Denials):
        return _DenialsOf(rule)
    if isinstance(rule, NewFlow):
        return _NewFlowOf(rule)
    return _NoisyOf(rule) if isinstance(rule, Noisy) else _LeasesOf(rule)
