"""Alert rules over hops and events of bus.issue. Pure: what was seen, and the next thing, to alerts.

State is bounded: a key that was not seen for as long as its rule looks back is forgotten, and of keys the newest
MAX_KEYS stay. An alert of one rule and key is not told again until its time has passed.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, TypeAlias

from bus.policy.alertfile import Alerting, Denials, Leases, NewFlow, Noisy
from bus.wire.hop import Hop, Verdict

MAX_KEYS: Final = 10_000
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
        return hashlib.sha256(f"{self.rule}|{self.subject}|{self.at}|{self.decisions[-1:]}".encode()).hexdigest()[:32]

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


class _Counting:
    """How often something was met of a key within a time."""

    def __init__(self, rule: Alerting, times: tuple[int, int]) -> None:
        self._rule = rule
        self._count, self._span = times
        self._met = _Keys()

    def met(self, key: str, at: int, decision: str, what: str) -> Iterator[Alert]:
        """One more."""
        seen: deque[tuple[int, str]] = self._met.touch(key, deque(maxlen=self._count + 1))
        seen.append((at, decision))
        if len(seen) > self._count and at - seen[0][0] <= self._span:
            told = tuple(each for _, each in list(seen)[-MAX_TOLD:] if each)
            text = f"{key}: more than {self._count} {what} in {self._span // 1000} s"
            seen.clear()
            yield Alert(self._rule.name, self._rule.severity, at, key, text, told)


class _DenialsOf:
    def __init__(self, rule: Denials) -> None:
        self._rule = rule
        self._counting = _Counting(rule, rule.more_than)

    def hop(self, hop: Hop) -> Iterator[Alert]:
        wanted = not self._rule.codes or hop.tail.code.value in self._rule.codes
        if hop.tail.decision is Verdict.DENY and wanted:
            yield from self._counting.met(OF[self._rule.by](hop), hop.decided_at, hop.decision_id, "refusals")

    def issued(self, _: Mapping[str, Any]) -> Iterator[Alert]:
        return iter(())


class _NewFlowOf:
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
        self._known.touch(flow, None)
        if not known and hop.decided_at >= self._since + self._rule.learn:
            text = f"{flow}: written for the first time, under {tail.rule} ({tail.location})"
            yield Alert(self._rule.name, self._rule.severity, hop.decided_at, flow, text, (hop.decision_id,))

    def issued(self, _: Mapping[str, Any]) -> Iterator[Alert]:
        return iter(())


class _NoisyOf:
    def __init__(self, rule: Noisy) -> None:
        self._rule = rule
        self._count, self._span = rule.of
        self._met = _Keys()

    def hop(self, hop: Hop) -> Iterator[Alert]:
        tail = hop.tail
        if tail.decision is Verdict.RETRY or not tail.agent:
            return
        # The last records of an agent, and of all before them: how many, how many refused.
        recent, before = self._met.touch(tail.agent, (deque(), [0, 0]))
        recent.append((hop.decided_at, tail.decision is Verdict.DENY, hop.decision_id))
        while recent and (recent[0][0] < hop.decided_at - self._span or len(recent) > self._count):
            _, denied, _ = recent.popleft()
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

    def issued(self, _: Mapping[str, Any]) -> Iterator[Alert]:
        return iter(())


class _LeasesOf:
    def __init__(self, rule: Leases) -> None:
        self._rule = rule
        self._counting = _Counting(rule, rule.more_than) if rule.more_than is not None else None

    def hop(self, _: Hop) -> Iterator[Alert]:
        return iter(())

    def issued(self, event: Mapping[str, Any]) -> Iterator[Alert]:
        if event["event"] not in self._rule.events:
            return
        agent, at = str(event.get("agent", "")), int(event.get("at", 0))
        if self._rule.hours is not None:
            hour = dt.datetime.fromtimestamp(at / 1000, dt.UTC).hour
            if not self._rule.hours[0] <= hour < self._rule.hours[1]:
                first, end = self._rule.hours
                text = f"{agent}: {event['event']} at {hour} h UTC, outside of {first}-{end}"
                yield Alert(self._rule.name, self._rule.severity, at, agent, text)
        if self._counting is not None:
            yield from self._counting.met(agent, at, "", f"times {event['event']}")


_Judge: TypeAlias = _DenialsOf | _NewFlowOf | _NoisyOf | _LeasesOf


class Alerts:
    """All rules of a file. What it has seen is in memory: after a restart it is fed again what it needs (``since``)."""

    def __init__(self, rules: Sequence[Alerting]) -> None:
        self._judges = [_judge(each) for each in rules]

    def hop(self, hop: Hop) -> list[Alert]:
        """What the next hop brings about."""
        return [alert for judge in self._judges for alert in judge.hop(hop)]

    def issued(self, event: Mapping[str, Any]) -> list[Alert]:
        """What the next event of bus.issue brings about."""
        return [alert for judge in self._judges for alert in judge.issued(event)]


def _judge(rule: Alerting) -> _Judge:
    if isinstance(rule, Denials):
        return _DenialsOf(rule)
    if isinstance(rule, NewFlow):
        return _NewFlowOf(rule)
    return _NoisyOf(rule) if isinstance(rule, Noisy) else _LeasesOf(rule)
