"""What ``publish`` returns: a message on its way, the broker's answer and the enforcer's decision."""

from __future__ import annotations

import threading
import time
import uuid
from collections import OrderedDict
from typing import Final

from bus.client.publisher import Key
from bus.client.refusal import refusal
from bus.codes import Code
from bus.errors import BusError, Unavailable
from bus.policy.model import Policy
from bus.wire import records
from bus.wire.hop import Verdict

MAX_VERDICTS: Final = 10_000
"""Decisions that may still be asked for; the oldest are forgotten first."""
_MAKING: Final = threading.Lock()
Told = tuple[records.Verdict, Policy | None]
"""A verdict, and the policy that the agent held when it came."""


class Verdicts:
    """What the enforcer told an agent, by what it names: instance, partition, sequence."""

    def __init__(self) -> None:
        self._held: OrderedDict[Key, Told] = OrderedDict()
        self._wholes: OrderedDict[bytes, bytes] = OrderedDict()
        self._changed = threading.Condition()

    def put(self, verdict: records.Verdict, policy: Policy | None) -> None:
        """Keep ``verdict``. The refusal of a resend says nothing: the first one is there."""
        if verdict.code is Code.REPLAY:
            return
        with self._changed:
            self._held.setdefault((verdict.instance, verdict.partition, verdict.sequence), (verdict, policy))
            if len(self._held) > MAX_VERDICTS:
                self._held.popitem(last=False)
            self._changed.notify_all()

    def part(self, part_id: bytes, message_id: bytes) -> None:
        """A record with the id ``part_id`` is a part of this message."""
        with self._changed:
            self._wholes[part_id] = message_id
            if len(self._wholes) > MAX_VERDICTS:
                self._wholes.popitem(last=False)

    def whole(self, message_id: bytes) -> bytes:
        """The id of the message that a record is a part of; its own where it is all of it."""
        with self._changed:
            return self._wholes.get(message_id, message_id)

    def wait(self, key: Key, timeout: float) -> Told | None:
        """What was told of ``key``, or None after ``timeout`` s."""
        with self._changed:
            self._changed.wait_for(lambda: key in self._held, timeout)
            return self._held.get(key)


class Sent:
    """A published message. ``decision`` gives the enforcer's answer when it was asked for, and every denial."""

    __slots__ = ("_changed", "_domain", "_error", "_keys", "_left", "_message_id", "_verdicts")

    def __init__(self, message_id: bytes, domain: str, verdicts: Verdicts, records: int = 1) -> None:
        """``records``: how many the message is cut into."""
        self._message_id = message_id
        self._domain = domain
        self._verdicts = verdicts
        self._keys: list[Key] = []
        self._left = records
        self._changed: threading.Condition | None = None
        self._error: BusError | None = None

    def __repr__(self) -> str:
        return f"Sent({self.id}, {self._domain})"

    @property
    def id(self) -> uuid.UUID:
        """The message's id (UUIDv7)."""
        return uuid.UUID(bytes=self._message_id)

    def _done(self, error: BusError | None) -> None:
        if error is not None:
            error.message_id = str(self.id)
            self._error = error
        self._left -= 1  # by one thread at a time: the poll thread, or whoever holds the publisher's lock
        # A waiter makes the condition before it looks at the state, so that either it sees the change or is woken.
        if self._changed is not None:
            with self._changed:
                self._changed.notify_all()

    @property
    def stored(self) -> bool:
        """Whether the broker has it."""
        return self._answered and self._error is None

    @property
    def _answered(self) -> bool:
        return self._left <= 0 or self._error is not None

    def wait_stored(self, timeout: float) -> None:
        """Until the broker has it. Raises what refused it, or Unavailable after ``timeout`` s."""
        with _MAKING:
            if self._changed is None:
                self._changed = threading.Condition()
        with self._changed:
            answered = self._changed.wait_for(lambda: self._answered, timeout)
        if not answered:
            raise Unavailable(
                f"{self._domain}: the broker has not answered in {timeout:.0f} s",
                code=Code.UNKNOWN,
                message_id=str(self.id),
                hint="it may still arrive: wait for it again, or look for its id, before publishing anew",
            )
        if self._error is not None:
            raise self._error

    def decision(self, timeout: float = 10.0) -> tuple[str, ...]:
        """Obligations of the ALLOW (asked for with ``confirm="decided"``).

        Raises Denied; Throttled or CircuitOpen where the same may be published anew later; Unavailable after
        ``timeout`` s. Asked again, the answer is the same.
        """
        deadline = time.monotonic() + timeout
        self.wait_stored(timeout)
        obligations: tuple[str, ...] = ()
        for key in self._keys:
            told = self._verdicts.wait(key, max(deadline - time.monotonic(), 0))
            if told is None:
                raise Unavailable(f"{self._domain}: no decision in {timeout:.0f} s", message_id=str(self.id))
            verdict, policy = told
            if verdict.decision is not Verdict.ALLOW:
                raise refusal(verdict, str(self.id), policy, self._domain)
            obligations = verdict.obligations
        return obligations
