"""A profile's decision at any moment: conditions on time, load and size are asked once for all moments that are alike.

Alike are moments in which nothing that the conditions look at differs: the minute, where they ask no finer part of the
time than that; the machine's load, which is read now and then; the record's size. A condition whose way to the time,
the load or the size is not plain to see is asked for every record. Beside that memory, pure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from bus.policy.conditions import Look
from bus.policy.decide import Decision, decide_moment
from bus.policy.model import Policy
from bus.policy.question import Action, Context
from bus.wire.names import AgentId, DomainName

MAX_MOMENTS: Final = 1024
"""Per profile; forgotten when full: what matters is the bound."""
MINUTE_MS: Final = 60_000


class Moments:
    """``decision`` of a profile, asked again for the time (ms since 1970), load and size (bytes) of each record."""

    __slots__ = ("_asked", "_context", "_decision", "_known", "_looks", "_policy")

    def __init__(
        self,
        decision: Decision,
        principal: AgentId,
        action: Action,
        resource: DomainName,
        context: Context,
        policy: Policy,
    ) -> None:
        domain = policy.domains.get(resource)
        self._decision = decision
        self._asked = principal, action, resource
        self._context = context
        self._policy = policy
        looks = domain.looks if domain is not None else frozenset()
        self._looks = None if looks is None else tuple(each in looks for each in (Look.MINUTE, Look.LOAD, Look.SIZE))
        self._known: dict[tuple[int, float, int], Decision] = {}

    def at(self, time_ms: int, load: float, size: int) -> Decision:
        """What ``decide_moment`` answers for a record of this profile then."""
        if self._looks is None:
            return self._decide(time_ms, load, size)
        minute, loaded, sized = self._looks
        moment = time_ms // MINUTE_MS if minute else 0, load if loaded else 0.0, size if sized else 0
        found = self._known.get(moment)
        if found is None:
            if len(self._known) >= MAX_MOMENTS:
                self._known.clear()
            found = self._known[moment] = self._decide(time_ms, load, size)
        return found

    def _decide(self, time_ms: int, load: float, size: int) -> Decision:
        principal, action, resource = self._asked
        context = replace(self._context, time_ms=time_ms, load=load, size=size)
        return decide_moment(self._decision, principal, action, resource, context, self._policy)
