"""What a notice of a refusal is to its agent: a typed error. Pure.

A rate or an open breaker gives ``Throttled`` or ``CircuitOpen``, every other code ``Denied``. A notice does not say how
long to wait: that comes from the policy that the agent holds.
"""

from __future__ import annotations

import math
from typing import Final

from bus.codes import Code
from bus.errors import CircuitOpen, Denied, Limited, Throttled
from bus.policy.model import DomainPolicy, Policy
from bus.wire import records
from bus.wire.hop import decision_id

LIMITS: Final[dict[Code, type[Limited]]] = {Code.THROTTLED: Throttled, Code.BREAKER_OPEN: CircuitOpen}
UNKNOWN_S: Final = 1.0
"""Where the agent's policy has no such rule: the enforcer's is another one by now."""
HOUR_S: Final = 3600


def refusal(verdict: records.Verdict, message_id: str, policy: Policy | None, domain: str = "") -> Denied | Limited:
    """The error of a ``verdict`` that is no ALLOW.

    ``domain`` is where the record went; without it the longest wait of the domains that have the rule counts.
    """
    kind = LIMITS.get(verdict.code)
    name = decision_id(verdict.decision_id)
    text = f"refused by the enforcer: {verdict.rule or verdict.code}"
    if kind is None:
        return Denied(
            text, rule=verdict.rule, code=verdict.code, decision_id=name, message_id=message_id, hint=verdict.hint
        )
    after = _after(verdict, policy, domain)
    return kind(
        f"{text}; publishing anew may succeed in {math.ceil(after)} s",
        rule=verdict.rule,
        after=after,
        decision_id=name,
        message_id=message_id,
        hint=verdict.hint,
    )


def _after(verdict: records.Verdict, policy: Policy | None, domain: str) -> float:
    domains = policy.domains.values() if policy is not None else ()
    waits = [_wait(each, verdict) for each in domains if domain in ("", each.name)]
    return max(waits, default=0.0) or UNKNOWN_S


def _wait(domain: DomainPolicy, verdict: records.Verdict) -> float:
    """In s: until a bucket has one token more, or a breaker lets one try. 0 where it is none of the domain's rules."""
    rate, breaker = domain.rate, domain.breaker
    if verdict.code is Code.THROTTLED and rate is not None and rate.name == verdict.rule:
        return HOUR_S / rate.per_hour
    if verdict.code is Code.BREAKER_OPEN and breaker is not None and breaker.name == verdict.rule:
        return breaker.half_open_ms / 1000
    return 0.0
