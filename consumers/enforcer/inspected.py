"""Steps 8 and 9 of one record of a domain that looks at each: conditions of the moment, guardrails, masks of payload
fields, rate and breaker. What they ask is the inspector's; here it meets records, of plain and of compiled steps.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from bus.codes import Code
from bus.crypto.keyring import AgentKey
from bus.wire import codec, envelope, sealed
from consumers.enforcer.context import EnforcerContext, PartitionState
from consumers.enforcer.decided import NO_MOMENT, DecidedProfile, Moment
from consumers.enforcer.inspector import NONE, Denied, Inspector
from consumers.enforcer.outcome import Outcome, refused

if TYPE_CHECKING:
    import sealbus_native

log = logging.getLogger("bus.enforcer")

_TICKET_END = 4 + 10 + 1
"""In the plaintext of a record of the compiled steps: length, origin, no ticket."""


def inspect(
    inspector: Inspector,
    decided: DecidedProfile,
    plain: bytes,
    message: int,
    payload: int,
    size: int,
    effective_ms: int,
    key: AgentKey,
    state: PartitionState,
    context: EnforcerContext,
) -> tuple[DecidedProfile, bytes | None]:
    """What holds for a record whose message begins at ``plain[message:]`` and its payload's length at
    ``plain[payload:]``, and its payload where that changes."""
    released, findings, decision = None, NONE, decided.decision
    moment = Moment(load=f"{context.load:.2f}") if inspector.moment else NO_MOMENT
    limits = state.windows.limits
    try:
        if inspector.moment:
            inspector.judge(decided, effective_ms, size, context.load)
        if decision.allowed:
            inspector.entire(plain, message, payload)
            content_type = decided.profile.content_type if decided.profile is not None else ""
            released, findings = inspector.payload(plain, payload, content_type, key.domain_epoch.masking.reveal())
            inspector.admit(key.agent, size, effective_ms, limits)
    except Denied as denied:
        decision, findings = denied.decision, denied.findings or findings
        if denied.reopens:
            moment = moment._replace(breaker=decision.rule, reopens=denied.reopens)
    inspector.settle(decision, key.agent, effective_ms, limits)
    return context.variant(state, key, decided, decision, findings, moment), released


def inspect_compiled(
    outcome: sealbus_native.Accepted,
    value: bytes,
    effective_ms: int,
    inspector: Inspector,
    state: PartitionState,
    context: EnforcerContext,
) -> Outcome:
    """A record, sealed in ``value``, that the compiled steps accepted up to step 7."""
    key, decided, plain = outcome.key, outcome.decided, outcome.plaintext
    try:
        _, start = codec.read_length(plain, _TICKET_END)
        message = start + len(envelope.MARK) + len(decided.masked)
        decided, released = inspect(
            inspector, decided, plain, message, outcome.payload, outcome.size, effective_ms, key, state, context
        )
        if not decided.decision.allowed:
            return _refused(decided.decision.code, outcome, value, decided, state)
        if released is None:
            return outcome if decided is outcome.decided else outcome.variant(decided)
        released = plain[start : outcome.payload] + codec.prefixed(released)
        if len(released) - len(envelope.MARK) - len(decided.masked) > sealed.MAX_LENGTH:
            return _refused(Code.TOO_LARGE, outcome, value, decided, state)
        content = plain[4:_TICKET_END] + codec.prefixed(released)
        return outcome.variant(decided, envelope.pad(content, state.padding))
    except Exception:
        log.exception("record %s/%d at %d: unexpected", state.topics.inbound, state.partition, outcome.offset)
        return _refused(Code.INTERNAL, outcome, value, decided, state)


def _refused(
    code: Code, outcome: sealbus_native.Accepted, value: bytes, decided: DecidedProfile, state: PartitionState
) -> Outcome:
    """With its body as its agent sealed it, which the compiled steps did not keep."""
    key: AgentKey = outcome.key
    aad = state.aad + value[:52]
    nonce = state.partition.to_bytes(4, "big") + value[44:52]
    body = key.aead(value[28:44]).decrypt(nonce, value[sealed.body_start(value) :], aad)
    return refused(code, value, outcome.digest, outcome.offset, outcome.append_time, key, outcome.gap, body, decided)
