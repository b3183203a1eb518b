"""Step 9 of a decision: a domain's guardrails over metadata and payload, the same for the enforcer and for cases. Pure.

What is found is the room below's (``bus.guardrails``); here it becomes a refusal with its rule and place. Whether a
record gets here, and what becomes of what was redacted, is the caller's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from bus.codes import Code
from bus.guardrails.content import is_avro
from bus.guardrails.inspect import Inspected, Inspection
from bus.guardrails.scanner import Scanners, default_scanner
from bus.guardrails.unpack import Unclear
from bus.policy.decide import Decision
from bus.policy.masking import mask_payload, reads
from bus.policy.model import DomainPolicy, GuardrailRule, MaskRule, Policy

T = TypeVar("T")
Findings = tuple[tuple[str, str, int], ...]
"""What guardrails found: rule, type, count."""


@dataclass(frozen=True, slots=True)
class Guarded(Generic[T]):
    """``value`` is redacted, or the very payload that came in; ``refusal`` where it may not go on."""

    value: T
    findings: Findings = ()
    refusal: Decision | None = None


class Guardrails:
    """The guardrails of one domain of a policy; without ``payloads`` those of metadata alone. Raises PolicyError for a
    type that ``scanners`` do not know."""

    def __init__(
        self, domain: DomainPolicy, policy: Policy, scanners: Scanners = default_scanner, *, payloads: bool = True
    ) -> None:
        self._policy = policy
        self._metadata = _inspection([rule for rule in domain.guardrails if rule.metadata], scanners)
        self._payload = _inspection([rule for rule in domain.guardrails if rule.payload and payloads], scanners)

    @property
    def on_metadata(self) -> bool:
        """Whether any looks at metadata."""
        return self._metadata is not None

    @property
    def on_payload(self) -> bool:
        """Whether any looks at payloads."""
        return self._payload is not None

    def metadata(self, metadata: Mapping[str, str]) -> Guarded[Mapping[str, str]]:
        """Metadata, of which unclear is refused by the first guardrail that looks at it."""
        if self._metadata is None:
            return Guarded(metadata)
        inspection, first = self._metadata
        return self._told(metadata, lambda: inspection.metadata(metadata), first, "metadata")

    def payload(self, payload: bytes, content_type: str) -> Guarded[bytes]:
        """A payload, likewise."""
        if self._payload is None:
            return Guarded(payload)
        inspection, first = self._payload
        return self._told(payload, lambda: inspection.payload(payload, content_type), first, "payload")

    def released(self, payload: bytes, content_type: str, masks: Sequence[MaskRule], key: bytes) -> Guarded[bytes]:
        """A payload behind guardrails and ``masks`` of its fields, which hash under ``key``."""
        plain = "json" not in content_type.lower() and not is_avro(payload)  # Avro is told by its first bytes
        if masks and self.on_payload and plain and reads(payload):
            content_type = "application/json"  # whatever it says: masks write anew what they read in it
        told = self.payload(payload, content_type)
        if told.refusal is not None or not masks:
            return told
        try:
            return replace(told, value=mask_payload(told.value, masks, key))
        except (ValueError, RecursionError) as error:
            name = masks[0].name
            where = self._policy.locations.get(f"masks:{name}", "")
            why = "payload fields are masked here: expected JSON, found none"
            if is_avro(payload):
                why = f"payload fields are masked here: {error}"
            return replace(told, refusal=Decision(Code.MASK, name, where, why=why))

    def _told(self, value: T, inspect: Callable[[], Inspected], first: str, part: str) -> Guarded[T]:
        try:
            told = inspect()
        except Unclear as error:
            return Guarded(value, refusal=self._refusal(first, f"{part}: {error}"))
        if told.denied:
            return Guarded(value, told.counts, self._refusal(told.denied, f"{told.denied} found what must not go on"))
        return Guarded(told.value, told.counts)

    def _refusal(self, name: str, why: str) -> Decision:
        return Decision(Code.GUARDRAIL, name, self._policy.locations.get(f"guardrails:{name}", ""), why=why)


def _inspection(rules: list[GuardrailRule], scanners: Scanners) -> tuple[Inspection, str] | None:
    """All of ``rules`` at once, and the name of the first."""
    return (Inspection(rules, scanners), rules[0].name) if rules else None
