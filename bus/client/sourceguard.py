"""What a source does to a payload before it is protected: guardrails and masks where no enforcer will see it, and the
fields that are sealed for others. The same rules by the same code as an enforcer's; kept as far as the SDK is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bus.client.delivery import Delivery
from bus.client.keystore import KeyStore
from bus.client.source import Sources
from bus.codes import Code
from bus.crypto.session import SourceOpener
from bus.errors import Denied, Refused, Unverified
from bus.guardrails.scanner import Scanners
from bus.policy.guarding import Guardrails
from bus.policy.model import DomainPolicy, Policy
from bus.policy.sealedfields import open_fields, seal_fields
from bus.wire import preimage
from bus.wire.names import AgentId, DomainName

MAX_HELD = 64


class SourceGuard:
    """Guardrails and payload masks of domains that protect at the source. One agent's; what a policy says is compiled
    once."""

    def __init__(self, scanners: Callable[[], Scanners]) -> None:
        """``scanners``: loaded when a domain needs them first."""
        self._scanners = scanners
        self._held: dict[tuple[bytes, DomainName], Guardrails] = {}

    def released(self, domain: DomainPolicy, policy: Policy, payload: bytes, content_type: str) -> bytes:
        """``payload`` as it may go on. Raises Denied (guardrail, mask)."""
        masks = [mask for mask in domain.masks if mask.payload]
        if not masks and not any(rule.payload for rule in domain.guardrails):
            return payload
        name = policy.digest, domain.name
        guardrails = self._held.get(name)
        if guardrails is None:
            if len(self._held) >= MAX_HELD:
                self._held.clear()
            guardrails = self._held[name] = Guardrails(domain, policy, self._scanners())
        told = guardrails.released(payload, content_type, masks, b"")
        refusal = told.refusal
        if refusal is not None:
            hint = f"{refusal.location}; nothing was sent"
            raise Denied(f"{domain.name}: {refusal.why}", rule=refusal.rule, code=refusal.code, hint=hint)
        return told.value


class Fields:
    """Sealed fields of one agent's messages and deliveries."""

    def __init__(self, keys: KeyStore, sources: Sources, agent: AgentId, deployment: bytes) -> None:
        self._keys = keys
        self._sources = sources
        self._agent = agent
        self._deployment = deployment
        self._openers: dict[str, SourceOpener] = {}

    def seal(self, domain: DomainPolicy, policy: Policy, message_id: bytes, payload: bytes, now_ms: int) -> bytes:
        """``payload`` with the fields that ``domain`` names sealed. Raises Denied where this agent may not write the
        domain that one is sealed for, Refused (schema) for a payload without fields, and as ``Sources.seal``."""
        may = {each.name for each in policy.may_produce(self._agent)}

        def seal(name: str, way: str, value: bytes) -> bytes:
            if name not in may:
                message = f"{self._agent} may not produce to {name}, for whose readers a field is sealed"
                raise Denied(message, rule=f"{domain.name}.sealed_fields", code=Code.PRODUCE)
            context = preimage.field_context(domain.name, way)
            return self._sources.seal(DomainName(name), message_id, value, now_ms, context)

        try:
            return seal_fields(payload, domain.sealed_fields, seal)
        except (ValueError, RecursionError) as error:
            why = f"expected JSON or Avro; {error}" if isinstance(error, ValueError) else "nested too deep"
            raise Refused(f"{domain.name}: fields are sealed here: {why}", code=Code.SCHEMA) from None

    def opened(self, domain: DomainPolicy, delivery: Delivery) -> Delivery:
        """``delivery`` with what this agent may read of its sealed fields. Raises Unverified (source)."""

        def opened(name: str, way: str, data: bytes) -> bytes | None:
            opener = self._openers.get(name)
            if opener is None:
                target = DomainName(name)
                made = SourceOpener(self._deployment, name, lambda epoch: self._keys.session(target, epoch))
                opener = self._openers[name] = made
            try:
                context = preimage.field_context(domain.name, way)
                return opener.open(delivery.source, delivery.message_id, data, context)
            except Unverified:
                raise
            except Refused:
                return None  # no key of it: it stays closed to this agent

        try:
            return replace(delivery, payload=open_fields(delivery.payload, domain.sealed_fields, opened))
        except (ValueError, RecursionError) as error:
            raise Unverified(f"payload: {error}", step="source", code=Code.OPEN) from None
