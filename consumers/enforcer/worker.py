"""The loop's worker: turns messages into outcomes, outcomes into one transaction, and restores windows.

Thin: what is decided is ``pipeline``'s, what is written is ``derive``'s. Here partitions get their state, keys and
policy that the watcher read are taken over, and everything of a transaction is put together.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from bus.authority.local import now_ms
from bus.codes import Code
from bus.crypto.signing import Trust, verify_window, window_message
from bus.errors import Refused as RefusedError
from bus.errors import RetryLater
from bus.kafka.batch import Records
from bus.kafka.loop import Committed
from bus.kafka.restore import METADATA_PREFIX, WindowReader, snapshot_offset
from bus.kafka.transaction import Place, Staged
from bus.kafka.windows import PartitionWindows, restored
from bus.wire import names
from bus.wire.hopblock import DAY_MS
from bus.wire.names import AUDIT, NOTICE, DomainName, audit_partition, notice_partition
from bus.wire.records import parse_window
from consumers.enforcer.compiled import acceptor_for, enforce
from consumers.enforcer.context import EnforcerContext, PartitionState
from consumers.enforcer.derive import derive
from consumers.enforcer.events import EventKind, PartitionEvent
from consumers.enforcer.outcome import Outcome

log = logging.getLogger("bus.enforcer")

SNAPSHOT_EVERY: Final = 500
"""Transactions of a partition between two full snapshots of its windows."""
ERASED_AT_ONCE: Final = 100
"""Erased epochs that one event names."""
_Event = tuple[EventKind, int, dict[str, str]]
"""kind, ms since 1970, facts: told at the position where the partition stands when it can be written."""
Refresh = Callable[[int], None]
"""Takes over what was read; given a time in ms, waits (2 s at most) for a reading that began then or later.
Raises RetryLater where keys or a valid policy cannot be had."""


@dataclass(slots=True)
class _Input:
    """An assigned partition: its state and what is staged of it."""

    state: PartitionState
    position: int
    metadata: str
    outcomes: list[Outcome] = field(default_factory=list)
    start: int = 0
    transactions: int = 0
    snapshot_at: int = 0


class EnforcerWorker:
    """See ``bus.kafka.loop.Worker``. ``name`` is this enforcer's; ``observe`` is told of each transaction that is
    durable."""

    def __init__(
        self,
        context: EnforcerContext,
        name: str,
        trust: Callable[[], Trust],
        reader: WindowReader,
        refresh: Refresh,
        observe: Callable[[Staged], None] = lambda _: None,
    ) -> None:
        self._context = context
        self._name = name
        self._trust = trust
        self._reader = reader
        self._refresh = refresh
        self._observe = observe
        self._inputs: dict[Place, _Input] = {}
        self._events: dict[Place, list[_Event]] = {}
        self._told: dict[Place, int] = {}
        self._erased: list[str] = []
        self._erased_told = 0
        self._paused_at = 0

    def restore(self, committed: dict[Place, Committed]) -> dict[Place, int]:
        """Windows of these partitions as of their committed offsets."""
        wanted: dict[Place, int] = {
            (names.domain_topics(names.domain_of(topic)).windows, number): snapshot_offset(told.metadata)
            for (topic, number), told in committed.items()
        }
        values = self._reader.read(wanted)
        starts = {}
        for place, told in committed.items():
            domain = names.domain_of(place[0])
            topics = names.domain_topics(domain)
            windows, start = self._windows(domain, values[topics.windows, place[1]], place[1], told)
            state = PartitionState(domain, topics, place[1], self._context.deployment, windows)
            state.acceptor = acceptor_for(state, self._context)
            self._inputs[place] = _Input(state, start, told.metadata or f"{METADATA_PREFIX}0", start=start)
            if told.offset is None:
                self._events.setdefault(place, [(EventKind.START, now_ms(), {})])
            starts[place] = start
        return starts

    def _windows(
        self, domain: DomainName, values: list[bytes] | None, partition: int, told: Committed
    ) -> tuple[PartitionWindows, int]:
        """Windows, and the offset that they end at: where to go on."""
        if told.offset is None:
            if values is None or values:
                raise RefusedError(
                    f"{domain}/{partition}: windows are there but no offset is committed",
                    code=Code.RETRY,
                    hint="the group's offsets were lost; an operator must decide where to go on",
                )
            return PartitionWindows(), 0
        if not told.stable and not values:
            raise RetryLater(f"{domain}/{partition}: no windows prove where it stands", code=Code.RETRY)
        if not values:
            return (PartitionWindows() if values is None else restored([], told.offset)), told.offset
        topic = names.domain_topics(domain).windows
        trust = self._trust()
        parsed = []
        for value in values:
            window = parse_window(value)
            verify_window(window, trust, topic, partition, domain)
            parsed.append(window)
        # Windows and offsets are written in one transaction, and these were read to the end of the log: they prove how
        # far it came. A coordinator whose broker was killed has been seen to answer with offsets of minutes before.
        start = max(told.offset, parsed[-1].upto)
        if start != told.offset:
            log.warning("%s/%d: going on at %d by its windows: %d is committed", topic, partition, start, told.offset)
        return restored(parsed, start), start

    def windows(self) -> dict[Place, int]:
        """How many windows each partition holds. From any thread."""
        return {place: len(each.state.windows) for place, each in list(self._inputs.items())}

    def breakers(self) -> dict[tuple[str, str], int]:
        """How many breakers let nothing through now, by domain and rule; of domains that have one. From any thread."""
        now, policy = now_ms(), self._context.policy
        found: Counter[tuple[str, str]] = Counter()
        for each in list(self._inputs.values()):
            domain = policy.domains.get(each.state.domain)
            if domain is not None and (rule := domain.breaker) is not None:
                found[domain.name, rule.name] += each.state.windows.limits.refusing(rule.name, rule.half_open_ms, now)
        return found

    def drop(self, places: Iterable[Place]) -> None:
        """Forget these partitions."""
        for place in list(places):
            self._inputs.pop(place, None)
            self._events.pop(place, None)
            self._told.pop(place, None)

    def reset(self) -> None:
        """Staged state is void; partitions are restored next."""
        self._context.reset()
        self._told.clear()
        self._erased_told = 0
        for each in self._inputs.values():
            each.outcomes.clear()

    def idle(self) -> None:
        """Take over keys and policy. Raises RetryLater where no valid policy is held, and while paused until keys,
        policy and the day's audit root were read whole after the pause began."""
        self._refresh(self._paused_at)
        if self._paused_at and not self._context.has_audit_root(self._context.now_ms // DAY_MS):
            raise RetryLater("the day's audit root is not there yet", code=Code.RETRY)

    def topics(self) -> list[str]:
        """Input topics of the policy in force."""
        return sorted(names.domain_topics(each).inbound for each in self._context.policy.domains)

    def paused(self, why: str) -> None:
        """All partitions stand still: an event of each."""
        self._paused_at = now_ms()
        self._tell(EventKind.PAUSE, {"why": why})

    def resumed(self) -> None:
        """They go on."""
        self._paused_at = 0
        self._tell(EventKind.RESUME, {})

    def erased(self, epochs: list[str]) -> None:
        """The context holds no key of these any more (`<domain>/<epoch>`): told by an event as soon as there is a
        partition to tell it at."""
        for each in self._inputs.values():
            each.state.forget_decisions()  # they hold keys of agents
        self._erased += epochs

    def pending(self) -> bool:
        """Whether erased epochs wait to be told."""
        return bool(self._inputs) and len(self._erased) > self._erased_told

    def _tell(self, kind: EventKind, facts: dict[str, str]) -> None:
        for place in self._inputs:
            self._events.setdefault(place, []).append((kind, now_ms(), facts))

    def handle(self, place: Place, records: Records) -> None:
        """Enforce; where a key is unknown, have the keys read again and go on with the rest."""
        each = self._inputs[place]
        context = self._context
        values, times, offsets, foreign = records.values, records.times, records.offsets, records.foreign
        context.received_ms = context.now_ms = now_ms()
        context.load = os.getloadavg()[0] / (os.cpu_count() or 1)
        context.appended_ms = max(context.appended_ms, times[-1])
        while values:
            some = enforce(values, times, offsets, each.state, context, foreign=foreign)
            each.outcomes.extend(some)
            done = len(some)
            if done == len(values):
                break
            values, times, offsets = values[done:], times[done:], offsets[done:]
            self._refresh(context.received_ms)
            context.now_ms = now_ms()
        each.position = records.offsets[-1] + 1

    def stage(self) -> Staged | None:
        """One transaction out of everything handled, and of events that were not told yet."""
        context = self._context
        context.now_ms = now_ms()
        if not context.has_audit_root(context.now_ms // DAY_MS):
            self._refresh(context.now_ms)
        staged = Staged()
        writes: dict[Place, list[bytes]] = {}
        telling = self._erasure()
        for place, each in self._inputs.items():
            waiting = [*self._events.get(place, []), *telling.get(place, [])]
            if each.outcomes or any(kind is not EventKind.START for kind, _, _ in waiting):
                self._told[place] = len(self._events.get(place, []))
                events = [PartitionEvent(kind, each.start, at, facts) for kind, at, facts in waiting]
                self._stage_partition(place, each, [*events, *each.state.events], staged, writes)
        staged.writes = [(place, values) for place, values in writes.items() if values]
        return staged if staged.offsets else None

    def _erasure(self) -> dict[Place, list[_Event]]:
        """The next erased epochs to tell, at a partition of one of their domains where there is one."""
        self._erased_told = 0
        if not self.pending():
            return {}
        told = self._erased[:ERASED_AT_ONCE]
        self._erased_told = len(told)
        domains = {each.partition("/")[0] for each in told}
        place = next((each for each, held in self._inputs.items() if held.state.domain in domains), None)
        facts = {"enforcer": self._name, "epochs": " ".join(told)}
        return {place or next(iter(self._inputs)): [(EventKind.ERASED, now_ms(), facts)]}

    def _stage_partition(
        self,
        place: Place,
        each: _Input,
        events: list[PartitionEvent],
        staged: Staged,
        writes: dict[Place, list[bytes]],
    ) -> None:
        state = each.state
        partition = state.partition
        made = derive(each.outcomes, each.start, each.position, state, self._context, events)
        writes.setdefault((state.topics.outbound, partition), []).extend(made.bundles)
        writes.setdefault((state.topics.dead, partition), []).extend(made.dead)
        writes.setdefault((AUDIT, audit_partition(partition)), []).extend(made.blocks)
        for agent, notice in made.notices:
            writes.setdefault((NOTICE, notice_partition(agent)), []).append(notice)
        self._stage_windows(place, each, staged, writes)
        staged.offsets[place] = (each.position, each.metadata)
        staged.records += len(each.outcomes)
        staged.outcomes[state.domain, ""] += made.allowed
        for code, count in made.codes.items():
            staged.outcomes[state.domain, code.value] += count
        for (code, rule), count in made.limited.items():
            staged.limited[state.domain, rule, code.value] += count
        for (rule, became), count in state.windows.limits.take_changes().items():
            staged.breakers[state.domain, rule, became] += count
        staged.sizes[state.domain] += made.size
        if made.codes:
            log.info("%s/%d: refused %s", state.topics.inbound, partition, dict(made.codes))
        each.outcomes = []
        each.start = each.position
        state.events = []

    def _stage_windows(self, place: Place, each: _Input, staged: Staged, writes: dict[Place, list[bytes]]) -> None:
        state, signer = each.state, self._context.signer
        target = (state.topics.windows, state.partition)
        # The first after a restore, every so many, and by age: retention must never delete what a restore needs.
        due = self._context.now_ms - each.snapshot_at > self._context.policy.backlog_horizon_ms // 4
        snapshot = due or each.transactions % SNAPSHOT_EVERY == 0
        each.transactions += 1
        if snapshot:
            each.snapshot_at = self._context.now_ms
            state.windows.drop(lambda key_id: self._ended(key_id, state.windows.highest_time))
            made = state.windows.snapshot(signer.key_id, each.position)
        else:
            made = state.windows.take_delta(signer.key_id, each.position)
        values = []
        for window in made:
            signed = window.encode_unsigned()
            message = window_message(self._context.deployment, state.topics.windows, state.partition, signed)
            values.append(signed + signer.sign(message))
        if snapshot:
            staged.snapshots[place] = (target, values)
        else:
            writes.setdefault(target, []).extend(values)

    def _ended(self, key_id: bytes, effective_ms: int) -> bool:
        """Whether no record of this key can be accepted any more: effective time only rises, so it says so for good."""
        key = self._context.keyring.find(key_id)
        return key is None or key.domain_epoch.closes < effective_ms

    def committed(self, staged: Staged) -> None:
        """Remember where the last snapshot of each partition's windows stands, and which events are told."""
        for place, offset in staged.snapshot_offsets.items():
            if place in self._inputs:
                self._inputs[place].metadata = f"{METADATA_PREFIX}{offset}"
        for place, count in self._told.items():
            del self._events.get(place, [])[:count]
        self._told.clear()
        del self._erased[: self._erased_told]
        self._erased_told = 0
        self._observe(staged)
