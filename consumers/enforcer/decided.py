"""A profile with its decision: decoded, decided and masked once, found again by its bytes."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Final, NamedTuple

from bus.policy.decide import Decision
from bus.policy.guarding import Findings
from bus.policy.moments import Moments
from bus.wire.envelope import Profile


class Moment(NamedTuple):
    """What of the moment a hop keeps: the machine's load, an open breaker and when it lets one try (ms)."""

    load: str = ""
    breaker: str = ""
    reopens: int = 0


NO_MOMENT: Final = Moment()
Proven = tuple[str, ...] | None
"""Labels of what a record builds on; None where it shows no ticket, or one that does not hold."""
MAX_VARIANTS: Final = 64


class DecidedProfile:
    """One agent's profile with its decision.

    ``profile`` may be that of another record of the same shape: only values of its metadata differ. ``moments`` asks
    the conditions of the moment, where there is something to ask. ``proven``: the labels that tickets proved.
    ``lasting`` is False where it holds for some time only, under a delegation or on behalf of a ``user``: nothing but
    the context remembers it.
    """

    __slots__ = (
        "decision",
        "findings",
        "lasting",
        "masked",
        "moments",
        "policy_digest",
        "prefixed",
        "profile",
        "proven",
        "readers",
        "tail",
        "user",
        "variants",
    )

    def __init__(
        self,
        prefixed: bytes,
        profile: Profile | None,
        decision: Decision,
        masked: bytes,
        tail: bytes,
        readers: tuple[tuple[str, str], ...],
        policy_digest: bytes,
        moments: Moments | None = None,
        findings: Findings = (),
        proven: Proven = None,
        *,
        lasting: bool = True,
        user: str = "",
    ) -> None:
        self.prefixed = prefixed
        self.profile = profile
        self.decision = decision
        self.masked = masked
        self.tail = tail
        self.readers = readers
        self.policy_digest = policy_digest
        self.moments = moments
        self.findings = findings
        self.proven = proven
        self.lasting = lasting
        self.user = user
        self.variants: dict[object, DecidedProfile] = {}

    def with_values(self, prefixed: bytes, masked: bytes) -> DecidedProfile:
        """A profile of the same shape."""
        made = self._copy()
        made.prefixed, made.masked = prefixed, masked
        return made

    def _copy(self) -> DecidedProfile:
        made = copy(self)
        made.variants = {}
        return made

    def variant(
        self,
        decision: Decision,
        findings: Findings,
        moment: Moment,
        tail: Callable[[Decision, Findings, Moment], bytes],
    ) -> DecidedProfile:
        """The same profile with what was decided or found for one record; records of one variant share its tail."""
        if decision is self.decision and findings == () and moment == NO_MOMENT:
            return self
        name = (decision, findings, moment)
        found = self.variants.get(name)
        if found is None:
            if len(self.variants) >= MAX_VARIANTS:
                self.variants.clear()
            found = self.variants[name] = self._copy()
            found.decision, found.findings = decision, tuple(sorted((*self.findings, *findings)))
            found.tail = tail(decision, found.findings, moment)
        return found
