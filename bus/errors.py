"""The one error root. *Refused* is final; *RetryLater* may succeed unchanged; both carry a code of ``bus.codes``.

A message says what was expected and what was found. It never holds key material or payload: whoever raises one
passes names, sizes and positions.
"""

from __future__ import annotations

import math

from bus.codes import Code

__all__ = [
    "AccessRefused",
    "BusError",
    "CircuitOpen",
    "Denied",
    "Erased",
    "Expired",
    "Limited",
    "PolicyError",
    "Refused",
    "RetryLater",
    "SettingsError",
    "StackError",
    "Throttled",
    "TooLarge",
    "Unavailable",
    "Unverified",
    "WireError",
]


class BusError(Exception):
    """Root of every error that this package raises on purpose.

    ``code`` is the same string in hops, metrics and CLI JSON, ``hint`` says what to do next,
    ``message_id`` names the message (UUID text) where there is one.
    """

    code: Code = Code.INTERNAL

    def __init__(self, message: str, *, code: Code | None = None, hint: str = "", message_id: str = "") -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.hint = hint
        self.message_id = message_id


class Refused(BusError):
    """Final: the same call or record is refused again."""


class RetryLater(BusError):
    """Not now: the same call may succeed after ``after`` seconds."""

    code = Code.RETRY

    def __init__(
        self,
        message: str,
        *,
        after: float = 1.0,
        code: Code | None = None,
        hint: str = "",
        message_id: str = "",
    ) -> None:
        super().__init__(message, code=code, hint=hint, message_id=message_id)
        self.after = after

    def for_model(self) -> str:
        """One line that may be shown to a language model: how long to wait, no policy detail."""
        return f"busy, {max(math.ceil(self.after), 1)} s"


class Unavailable(RetryLater):
    """A service that this call needs (broker, issuer, enforcer) did not answer in time."""


class Limited(RetryLater):
    """The enforcer refused a record for now. That record is a dead letter for good and is not decided again;
    publishing anew may succeed after ``after`` seconds.

    ``rule`` names the rule, ``decision_id`` finds the hop (``bus audit trace``). ``after`` is what the policy says;
    whoever shares the limit may make it longer.
    """

    def __init__(
        self, message: str, *, rule: str, after: float, decision_id: str = "", hint: str = "", message_id: str = ""
    ) -> None:
        super().__init__(message, after=after, hint=hint, message_id=message_id)
        self.rule = rule
        self.decision_id = decision_id


class Throttled(Limited):
    """A rate is used up; ``after`` is the time that its bucket takes for one record more."""

    code = Code.THROTTLED


class CircuitOpen(Limited):
    """A circuit breaker is open; ``after`` is the time from the last refusal until it lets one record try."""

    code = Code.BREAKER_OPEN


class WireError(Refused):
    """Bytes that are not what the wire format says; ``code`` names the step that failed."""

    code = Code.BOUNDS


class Unverified(Refused):
    """A MAC, signature, certificate or proof does not hold; ``step`` names the check."""

    code = Code.UNVERIFIED

    def __init__(self, message: str, *, step: str, code: Code | None = None, hint: str = "") -> None:
        super().__init__(message, code=code, hint=hint)
        self.step = step


class Denied(Refused):
    """The policy says no. ``rule`` names the rule, ``decision_id`` finds the hop (``bus audit trace``)."""

    code = Code.PRODUCE

    def __init__(
        self,
        message: str,
        *,
        rule: str,
        decision_id: str = "",
        code: Code | None = None,
        hint: str = "",
        message_id: str = "",
    ) -> None:
        super().__init__(message, code=code, hint=hint, message_id=message_id)
        self.rule = rule
        self.decision_id = decision_id

    def for_model(self) -> str:
        """One line that may be shown to a language model: the rule's name, no policy detail."""
        return f"refused: {self.rule or self.code}" + (f" ({self.decision_id})" if self.decision_id else "")


class Expired(Refused):
    """A message or a credential is past its end."""

    code = Code.EXPIRED


class Erased(Refused):
    """A record of ``epoch`` in ``domain`` that this reader has no key for any more: the epoch was erased, or is beyond
    the backlog horizon."""

    code = Code.ERASED

    def __init__(self, message: str, *, epoch: int, domain: str) -> None:
        super().__init__(message)
        self.epoch = epoch
        self.domain = domain


class TooLarge(Refused):
    """A payload or record is over ``limit`` bytes."""

    code = Code.TOO_LARGE

    def __init__(self, message: str, *, limit: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.limit = limit


class AccessRefused(Refused):
    """The broker refused a principal: an ACL (``operation`` on ``resource``) or the credential itself."""

    code = Code.ACL

    def __init__(
        self,
        message: str,
        *,
        principal: str,
        operation: str,
        resource: str,
        code: Code | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, code=code, hint=hint)
        self.principal = principal
        self.operation = operation
        self.resource = resource


class PolicyError(Refused):
    """A policy file is refused. ``parsed`` is False where it could not even be read (CLI exit 2, else 1)."""

    code = Code.POLICY

    def __init__(
        self,
        message: str,
        *,
        file: str = "",
        line: int = 0,
        column: int = 0,
        nearest: str = "",
        parsed: bool = True,
        hint: str = "",
    ) -> None:
        where = f"{file}:{line}:{column}: " if line else (f"{file}: " if file else "")
        super().__init__(where + message, hint=hint)
        self.file = file
        self.line = line
        self.column = column
        self.nearest = nearest
        self.parsed = parsed


class SettingsError(Refused):
    """``bus.toml`` or a ``BUS_*`` variable is unusable."""

    code = Code.SETTINGS


class StackError(Refused):
    """The local stack cannot be started, found or stopped."""

    code = Code.STACK
