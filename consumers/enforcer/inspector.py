"""Steps 7 to 9 for records that have to be looked at one by one: conditions of the moment, guardrails, payload masks.

Made per domain and policy; a domain that needs none of it has no inspector, and its records go by their profile alone.
"""

from __future__ import annotations

from dataclasses import replace

from bus.codes import Code
from bus.guardrails.scanner import Scanners, default_scanner
from bus.kafka.limits import PartitionLimits, breaker_name, rate_name
from bus.policy.decide import Decision
from bus.policy.guarding import Findings, Guardrails
from bus.policy.labels import Propagate
from bus.policy.model import DomainPolicy, Policy
from bus.policy.sealedfields import Kept, Unsealed
from bus.wire import codec, envelope
from bus.wire.envelope import Profile
from bus.wire.names import AgentId
from consumers.enforcer.decided import DecidedProfile

NONE: Findings = ()


class Denied(Exception):  # an outcome, not a fault
    """The record is refused; ``decision`` says by which rule, ``findings`` what guardrails found."""

    def __init__(self, decision: Decision, findings: Findings = NONE, reopens: int = 0) -> None:
        super().__init__(decision.why)
        self.decision = decision
        self.findings = findings
        self.reopens = reopens


class Inspector:
    """What one domain of a policy asks of every record. Raises PolicyError where nothing in ``scanners`` finds a type
    that it names."""

    def __init__(self, domain: DomainPolicy, policy: Policy, scanners: Scanners = default_scanner) -> None:
        self._domain = domain
        self._policy = policy
        self.moment = domain.moment
        """Whether a condition looks at the time, the load or the size."""
        # What is protected at its source is looked into there.
        self._guardrails = Guardrails(domain, policy, scanners, payloads=not domain.at_source)
        self._masks = [mask for mask in domain.masks if mask.payload and not domain.at_source]
        self._sealed = domain.sealed_fields
        self.by_ticket = policy.propagate is Propagate.TICKETS
        """Whether records carry tickets on."""
        self._meters: dict[AgentId, tuple[str, str]] = {}
        self._limited = domain.rate is not None or domain.breaker is not None

    @property
    def by_record(self) -> bool:
        """Whether records must be looked at one by one, and not by their profile alone."""
        looks = self._guardrails.on_payload or bool(self._masks) or bool(self._sealed)
        return looks or self.moment or self.by_ticket or self._limited

    @property
    def by_value(self) -> bool:
        """Whether it looks at the values of a profile's metadata."""
        masks = self._domain.masks
        return self._guardrails.on_metadata or any(mask.hash or mask.last4 or mask.generalise for mask in masks)

    def judge(self, decided: DecidedProfile, time_ms: int, size: int, load: float) -> None:
        """Conditions of the moment. Raises Denied."""
        if decided.moments is None:
            return
        decision = decided.moments.at(time_ms, load, size)
        if decision is not decided.decision:
            raise Denied(decision)

    def entire(self, plain: bytes, message: int, payload: int) -> None:
        """Raises Denied for one part of a message where rules need all of it: its readers put parts together."""
        if self._domain.whole and envelope.is_part(plain, message, payload):
            rule, where = f"{self._domain.name}.parts", self._domain.location("name")
            why = "a message in parts cannot be looked into, nor its size be told"
            raise Denied(Decision(Code.SCHEMA, rule, where, why=why))

    def metadata(self, profile: Profile) -> tuple[Profile, Findings]:
        """A profile with its metadata redacted. Raises Denied."""
        if not self._guardrails.on_metadata:
            return profile, NONE
        told = self._guardrails.metadata(profile.metadata)
        if told.refusal is not None:
            raise Denied(told.refusal, told.findings)
        return replace(profile, metadata=told.value), told.findings

    def payload(self, plain: bytes, at: int, content_type: str, key: bytes) -> tuple[bytes | None, Findings]:
        """The payload behind its length at ``plain[at:]``, redacted and masked; None where it stays. Raises Denied."""
        size, start = codec.read_length(plain, at)
        before = plain[start : start + size]
        if not self._sealed:
            return self._looked_into(before, content_type, key)
        try:
            kept = Kept(before, self._sealed)
        except (ValueError, RecursionError) as error:
            rule, where = f"{self._domain.name}.sealed_fields", self._domain.location("sealed_fields")
            if isinstance(error, Unsealed):
                raise Denied(Decision(Code.TIER_FLOOR, rule, where, why=f"{error} is not sealed")) from None
            why = "fields are sealed here: expected JSON or Avro, found none"
            raise Denied(Decision(Code.SCHEMA, rule, where, why=why)) from None
        payload, findings = self._looked_into(kept.without, content_type, key)
        return (None if payload is None else kept.back(payload)), findings

    def _looked_into(self, before: bytes, content_type: str, key: bytes) -> tuple[bytes | None, Findings]:
        told = self._guardrails.released(before, content_type, self._masks, key)
        if told.refusal is not None:
            raise Denied(told.refusal, told.findings)
        return (None if told.value is before else told.value), told.findings

    def admit(self, agent: AgentId, size: int, now: int, limits: PartitionLimits) -> None:
        """Rate, then breaker, for a record that is allowed so far; ``now`` is the effective time. Raises Denied."""
        rate, breaker, locations = self._domain.rate, self._domain.breaker, self._policy.locations
        bucket, fuse = self._meters.get(agent) or self._named(agent)
        if rate is not None:
            if rate.max_bytes is not None and size > rate.max_bytes:
                where = locations.get(f"rate_limits:{rate.name}", "")
                why = f"expected at most {rate.max_bytes} bytes, found {size}"
                raise Denied(Decision(Code.TOO_LARGE, f"{rate.name}.max_bytes", where, why=why))
            if not limits.take(bucket, rate.per_hour, rate.burst, now):
                where = locations.get(f"rate_limits:{rate.name}", "")
                raise Denied(Decision(Code.THROTTLED, rate.name, where, why=f"too many records per {rate.per}"))
        if breaker is not None and not limits.closed(fuse, breaker.half_open_ms, now):
            where = locations.get(f"circuit_breakers:{breaker.name}", "")
            decision = Decision(Code.BREAKER_OPEN, breaker.name, where, why="too many refusals: wait")
            raise Denied(decision, reopens=limits.reopens(fuse, breaker.half_open_ms))

    def settle(self, decision: Decision, agent: AgentId, now: int, limits: PartitionLimits) -> None:
        """Tell the breaker how a record ended."""
        breaker = self._domain.breaker
        if breaker is None:
            return
        _, fuse = self._meters.get(agent) or self._named(agent)
        if decision.allowed:
            limits.passed(fuse)
        elif decision.code not in (Code.THROTTLED, Code.BREAKER_OPEN):
            limits.failed(fuse, breaker.count, breaker.within_ms, now)

    def _named(self, agent: AgentId) -> tuple[str, str]:
        """Names of the bucket and the breaker that ``agent`` has a share in; kept: there are no more than agents."""
        rate, breaker = self._domain.rate, self._domain.breaker
        found = self._meters[agent] = (
            rate_name(rate.name, self._whom(rate.per, agent)) if rate is not None else "",
            breaker_name(breaker.name, self._whom(breaker.per, agent)) if breaker is not None else "",
        )
        return found

    def _whom(self, per: str, agent: AgentId) -> str:
        held = self._policy.agents.get(agent)
        if per == "domain" or held is None:
            return self._domain.name
        if per == "tenant":
            return held.tenant
        return agent if per == "agent" else min(held.roles & self._domain.writing, default="")
