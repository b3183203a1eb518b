"""Steps 7 to 9 for records that have to be looked at one by one: conditions of the moment, guardrails, payload masks.

Made per domain and policy; a domain that needs none of it has no inspector, and its records go by their profile alone.
"""

from __future__ import annotations

from dataclasses import replace

from bus.codes import Code
from bus.guardrails.inspect import Inspection, Unclear
from bus.policy.decide import Decision, decide_moment
from bus.policy.masking import mask_payload
from bus.policy.model import DomainPolicy, Policy
from bus.policy.question import Action
from bus.wire import codec
from bus.wire.envelope import Profile
from consumers.enforcer.decided import DecidedProfile, Findings

NONE: Findings = ()


class Denied(Exception):  # an outcome, not a fault
    """The record is refused; ``decision`` says by which rule, ``findings`` what guardrails found."""

    def __init__(self, decision: Decision, findings: Findings = NONE) -> None:
        super().__init__(decision.why)
        self.decision = decision
        self.findings = findings


class Inspector:
    """What one domain of a policy asks of every record."""

    def __init__(self, domain: DomainPolicy, policy: Policy) -> None:
        self._domain = domain
        self._policy = policy
        self.moment = domain.moment
        """Whether a condition looks at the time, the load or the size."""
        rules = [rule for rule in domain.guardrails if rule.payload]
        self._payload = Inspection(rules) if rules else None
        rules = [rule for rule in domain.guardrails if rule.metadata]
        self._metadata = Inspection(rules) if rules else None
        self._masks = [mask for mask in domain.masks if mask.payload]

    @property
    def by_record(self) -> bool:
        """Whether records must be looked at one by one, and not by their profile alone."""
        return self.moment or self._payload is not None or bool(self._masks)

    @property
    def by_value(self) -> bool:
        """Whether it looks at the values of a profile's metadata."""
        masks = self._domain.masks
        return self._metadata is not None or any(mask.hash or mask.last4 or mask.generalise for mask in masks)

    def judge(self, decided: DecidedProfile, time_ms: int, size: int, load: float) -> None:
        """Conditions of the moment. Raises Denied."""
        if decided.context is None:
            return
        context = replace(decided.context, time_ms=time_ms, size=size, load=load)
        agent, domain = decided.agent, self._domain.name
        decision = decide_moment(decided.decision, agent, Action.PRODUCE, domain, context, self._policy)
        if decision is not decided.decision:
            raise Denied(decision)

    def metadata(self, profile: Profile) -> tuple[Profile, Findings]:
        """A profile with its metadata redacted. Raises Denied."""
        if self._metadata is None:
            return profile, NONE
        told = self._metadata.metadata(profile.metadata)
        if told.denied:
            raise Denied(self._refusal(told.denied), told.counts)
        return replace(profile, metadata=told.value), told.counts

    def payload(self, plain: bytes, at: int, content_type: str, key: bytes) -> tuple[bytes | None, Findings]:
        """The payload behind its length at ``plain[at:]``, redacted and masked; None where it stays. Raises Denied."""
        size, start = codec.read_length(plain, at)
        payload = before = plain[start : start + size]
        counts: Findings = NONE
        if self._payload is not None:
            try:
                told = self._payload.payload(payload, content_type)
            except Unclear as error:
                raise Denied(self._refusal(self._domain.guardrails[0].name, str(error))) from None
            if told.denied:
                raise Denied(self._refusal(told.denied), told.counts)
            payload, counts = told.value, told.counts
        if self._masks:
            try:
                payload = mask_payload(payload, self._masks, key)
            except (ValueError, RecursionError):
                name = self._masks[0].name
                where = self._policy.locations.get(f"masks:{name}", "")
                why = "payload fields are masked here: expected JSON, found none"
                raise Denied(Decision(Code.MASK, name, where, why=why), counts) from None
        return (None if payload is before else payload), counts

    def _refusal(self, name: str, why: str = "") -> Decision:
        where = self._policy.locations.get(f"guardrails:{name}", "")
        return Decision(Code.GUARDRAIL, name, where, why=why or f"{name} found what must not go on")
