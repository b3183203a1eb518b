"""What ``publish`` returns: a message on its way, the broker's answer and the enforcer's decision."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Final

from bus.codes import Code
from bus.errors import BusError, Denied, Unavailable
from bus.wire import records
from bus.wire.hop import Verdict, decision_id

_MAKING: Final = threading.Lock()


class Sent:
    """A published message. ``decision`` gives the enforcer's answer when it was asked for, and every denial."""

    __slots__ = ("_answered", "_changed", "_domain", "_error", "_message_id", "_verdict")

    def __init__(self, message_id: bytes, domain: str) -> None:
        self._message_id = message_id
        self._domain = domain
        self._answered = False
        self._changed: threading.Condition | None = None
        self._error: BusError | None = None
        self._verdict: records.Verdict | None = None

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
        self._answered = True
        self._notify()

    def _told(self, verdict: records.Verdict) -> None:
        if self._verdict is None and verdict.code is not Code.REPLAY:  # a resend of ours was refused: it is there
            self._verdict = verdict
            self._notify()

    def _notify(self) -> None:
        # A waiter makes the condition before it looks at the state, so that either it sees the change or is woken.
        if self._changed is not None:
            with self._changed:
                self._changed.notify_all()

    def _wait(self, ready: Callable[[], bool], timeout: float) -> bool:
        with _MAKING:
            if self._changed is None:
                self._changed = threading.Condition()
        with self._changed:
            return self._changed.wait_for(ready, timeout)

    @property
    def stored(self) -> bool:
        """Whether the broker has it."""
        return self._answered and self._error is None

    def wait_stored(self, timeout: float) -> None:
        """Until the broker has it. Raises what refused it, or Unavailable after ``timeout`` s."""
        if not self._wait(lambda: self._answered, timeout):
            raise Unavailable(
                f"{self._domain}: the broker has not answered in {timeout:.0f} s",
                code=Code.UNKNOWN,
                message_id=str(self.id),
                hint="it may still arrive: wait for it again, or look for its id, before publishing anew",
            )
        if self._error is not None:
            raise self._error

    def decision(self, timeout: float = 10.0) -> tuple[str, ...]:
        """Obligations of the ALLOW (asked for with ``confirm="decided"``). Raises Denied, or Unavailable in time."""
        if not self._wait(lambda: self._verdict is not None or self._error is not None, timeout):
            raise Unavailable(f"{self._domain}: no decision in {timeout:.0f} s", message_id=str(self.id))
        if self._error is not None:
            raise self._error
        verdict = self._verdict
        if verdict is None or verdict.decision is Verdict.ALLOW:
            return verdict.obligations if verdict is not None else ()
        raise denial(verdict, str(self.id))


def denial(verdict: records.Verdict, message_id: str) -> Denied:
    """The typed error of a notice."""
    name = decision_id(verdict.decision_id)
    return Denied(
        f"refused by the enforcer: {verdict.rule or verdict.code}",
        rule=verdict.rule,
        code=verdict.code,
        decision_id=name,
        message_id=message_id,
        hint=verdict.hint,
    )
