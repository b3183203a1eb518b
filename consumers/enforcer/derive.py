"""Outcomes to records: bundles, dead letters, notices, hops and hop blocks. Pure but for randomness.

Called once per input partition and transaction, so that as many records as may be share one head, key table and
signature. Every outcome gives exactly one hop.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from bus.codes import Code
from bus.crypto.signing import hop_block_message
from bus.errors import RetryLater
from bus.policy.decide import Decision
from bus.wire import codec, hopblock, preimage, records
from bus.wire.hop import Verdict, encode_hop, encode_tail
from bus.wire.names import AgentId
from consumers.enforcer.bundle import Indexed, groups, protect
from consumers.enforcer.context import EnforcerContext, PartitionState
from consumers.enforcer.events import PartitionEvent, event_hop
from consumers.enforcer.outcome import AnyAccepted, Outcome, Refused

log = logging.getLogger("bus.enforcer")

HINTS = {
    Code.REPLAY: "this sequence was seen before",
    Code.EXPIRED: "publish anew with a later expiry",
    Code.EPOCH_LATE: "the keys of that epoch have ended; read the current bundle",
    Code.TIER_UNAVAILABLE: "this release cannot protect for the domain's tier",
}
LIMITS = frozenset({Code.THROTTLED, Code.BREAKER_OPEN, Code.TOO_LARGE})
"""Codes of rates and breakers; `too-large` only where it has a rule, a rate's `max_bytes`."""


@dataclass(slots=True)
class Derivation:
    """What one transaction writes for one input partition; ``notices`` go with the agent they are for."""

    bundles: list[bytes] = field(default_factory=list)
    dead: list[bytes] = field(default_factory=list)
    notices: list[tuple[AgentId, bytes]] = field(default_factory=list)
    blocks: list[bytes] = field(default_factory=list)
    allowed: int = 0
    size: int = 0
    """Bytes of the inputs."""
    codes: dict[Code, int] = field(default_factory=dict)
    limited: Counter[tuple[Code, str]] = field(default_factory=Counter)
    """What rates and breakers refused, by code and rule."""


def derive(
    outcomes: list[Outcome],
    start: int,
    end: int,
    state: PartitionState,
    context: EnforcerContext,
    events: Iterable[PartitionEvent] = (),
) -> Derivation:
    """Records for ``outcomes``, which cover input offsets [start, end), and hops of ``events`` before theirs.

    Raises RetryLater without an audit root.
    """
    result = Derivation()
    hops: list[bytes] = [b""] * len(outcomes)
    accepted: list[Indexed] = []
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, Refused):
            hops[index] = _refuse(outcome, state, context, result)
        else:
            accepted.append((index, outcome))
    for group in groups(accepted):
        _bundle(group, outcomes, hops, state, context, result)
    for outcome in outcomes:
        if isinstance(outcome, Refused):
            code, rule = outcome.decision.code, outcome.decision.rule
            result.codes[code] = result.codes.get(code, 0) + 1
            if rule and code in LIMITS:
                result.limited[code, rule] += 1
        else:
            result.allowed += 1
            profile = outcome.decided.profile
            if profile is not None and profile.notify:
                _notify(outcome, state, context, result)
    result.size = sum(outcome.size for outcome in outcomes)
    told = [event_hop(event, state, context) for event in events]
    offsets = [*([start] * len(told)), *(outcome.offset for outcome in outcomes)]
    result.blocks.extend(_blocks(told + hops, offsets, start, end, state, context))
    return result


def _bundle(
    group: list[Indexed],
    outcomes: list[Outcome],
    hops: list[bytes],
    state: PartitionState,
    context: EnforcerContext,
    result: Derivation,
) -> None:
    """One bundle of ``group``. A record that cannot be protected must not come back for ever, and takes no other along:
    where a bundle fails, each of its records has one of its own."""
    try:
        result.bundles.append(protect(group, state, context, hops))
    except RetryLater:
        raise
    except Exception:
        log.exception("%s/%d: %d records cannot be protected", state.topics.inbound, state.partition, len(group))
        if len(group) > 1:
            for each in group:
                _bundle([each], outcomes, hops, state, context, result)
            return
        index, outcome = group[0]
        refused = outcomes[index] = _internal(outcome)
        hops[index] = _refuse(refused, state, context, result)


def _internal(outcome: AnyAccepted) -> Refused:
    """An accepted record that is refused after all. Its plaintext is not kept: what failed may be in it."""
    return Refused(
        digest=outcome.digest,
        decision=Decision(Code.INTERNAL, "", ""),
        offset=outcome.offset,
        append_time=outcome.append_time,
        size=outcome.size,
        key=outcome.key,
        instance_sequence=outcome.instance_sequence,
        gap=outcome.gap,
        message_id=outcome.message_id,
    )


def _refuse(outcome: Refused, state: PartitionState, context: EnforcerContext, result: Derivation) -> bytes:
    """Dead letter, notice and hop of a refusal."""
    sealed = None
    if outcome.body is not None and outcome.key is not None:
        epoch = outcome.key.domain_epoch
        counter = epoch.dead.next()
        aad = preimage.dead_aad(context.deployment, state.topics.dead, state.partition, outcome.digest)
        agent = outcome.key.agent.encode()
        plaintext = len(agent).to_bytes(4, "big") + agent + outcome.body
        body = epoch.dead.seal(counter, plaintext, aad)
        sealed = records.DeadBody(epoch.epoch, epoch.dead.instance, counter, body)
    letter = records.DeadLetter(outcome.offset, outcome.append_time, outcome.digest, outcome.decision.code, sealed)
    dead = letter.encode()
    result.dead.append(dead)
    if outcome.key is not None and outcome.decision.code is not Code.UNKNOWN_KEY:
        _notify(outcome, state, context, result)
    decided = outcome.decided
    if decided is not None and decided.decision is outcome.decision:
        tail = decided.tail
    else:
        profile = decided.profile if decided is not None else None
        if decided is not None and profile is not None and decided.decision.code is Code.DELEGATION:
            profile = replace(profile, delegation=b"")  # what does not hold is told with its own refusal alone
        tail = encode_tail(context.hop_tail(state, outcome.key, profile, outcome.decision))
    return encode_hop(
        origin_digest=outcome.digest,
        output_digest=hashlib.sha256(b"\x00" + dead).digest(),
        message_id=outcome.message_id,
        instance_sequence=outcome.instance_sequence,
        partition=state.partition,
        offset=outcome.offset,
        append_time=outcome.append_time,
        decided_at=context.now_ms,
        gap=outcome.gap,
        size=outcome.size,
        session=outcome.session,
        causes=outcome.causes,
        tail=tail,
    )


def _notify(outcome: Outcome, state: PartitionState, context: EnforcerContext, result: Derivation) -> None:
    key = outcome.key
    if key is None:
        return
    decision = outcome.decision if isinstance(outcome, Refused) else outcome.decided.decision
    verdict = records.Verdict(
        instance=outcome.instance_sequence[:16],
        partition=state.partition,
        sequence=int.from_bytes(outcome.instance_sequence[16:], "big"),
        message_id=outcome.message_id,
        decided_at=context.now_ms,
        decision_id=outcome.digest[:10],
        decision=Verdict.ALLOW if decision.allowed else Verdict.DENY,
        code=decision.code,
        rule=decision.rule,
        hint="" if decision.allowed else HINTS.get(decision.code, decision.why),
        obligations=decision.obligations.names() if decision.obligations is not None else (),
    )
    aead = key.notice()
    counter = aead.next()
    header = records.notice_header(key.keys.notice_key_id, aead.instance, counter)
    body = aead.seal(counter, verdict.encode(), preimage.notice_aad(context.deployment, header))
    result.notices.append((key.agent, header + codec.prefixed(body)))


def _blocks(
    hops: list[bytes], offsets: list[int], start: int, end: int, state: PartitionState, context: EnforcerContext
) -> Iterable[bytes]:
    """Hop blocks whose intervals tile [start, end)."""
    day = context.now_ms // hopblock.DAY_MS
    aead = context.audit(day)
    first = 0
    while first < len(hops) or first == 0:
        last, size = first, 0
        while last < len(hops) and size + len(hops[last]) + 4 <= hopblock.MAX_BODY:
            size += len(hops[last]) + 4
            last += 1
        upto = offsets[last] if last < len(hops) else end
        counter = aead.next()
        header = hopblock.header(
            day=day,
            enforcer_key_id=context.signer.key_id,
            instance=context.instance,
            sequence=counter,
            partition=state.partition,
            start=start,
            end=upto,
            count=last - first,
            topic=state.topics.inbound,
        )
        aad = preimage.hop_block_aad(context.deployment, header)
        signed = header + codec.prefixed(aead.seal(counter, hopblock.join_hops(hops[first:last]), aad))
        yield signed + context.signer.sign(hop_block_message(context.deployment, signed))
        if last >= len(hops):
            return
        start, first = upto, last
