"""The enforcer's steps, pure: bytes, snapshot, keyring and clock in; an outcome for every record out.

The steps, in the order in which ``enforce_batch`` runs them for each record:

 1. bounds and framing, by slicing (`bounds`, `version`)
 2. key id -> agent, domain, epoch (`unknown-key`, `epoch-retired`, `wrong-domain`)
 3. MAC, before anything is decoded (`mac`)
 4. epoch valid at the broker's append time (`epoch-early`, `epoch-late`)
 5. sequence window: replay, gap (`replay`, `too-many-instances`)
 6. open and step over the envelope (`open`, `decode`, `expired`, `future`)
 7. decide: identity, domain, policy (`unverified`, `wrong-domain`, rules, `tier-unavailable`, `tier-floor`), then
    conditions of the moment (`condition`)
 8. guardrails over payload and metadata (`guardrail`)
 9. mask metadata, and fields of the payload (`mask`); rate and circuit breaker (`throttled`, `breaker-open`)
10. protect for the tier, and
11. hand over output and hop: both in ``derive``, where records share a bundle.

Whatever fails unexpectedly is a refusal (`internal`) of that record. ``enforce_batch`` is the seam and this plain
Python its specification: a compiled step may stand beside it and must give the same outcomes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Union

from cryptography.exceptions import InvalidSignature, InvalidTag

from bus.codes import Code
from bus.crypto.keyring import AgentKey
from bus.errors import WireError
from bus.kafka import windows
from bus.policy.decide import Decision
from bus.wire import codec, envelope, sealed
from bus.wire.hop import NO_INSTANCE
from consumers.enforcer.context import EnforcerContext, PartitionState
from consumers.enforcer.decided import NO_MOMENT, DecidedProfile, Moment
from consumers.enforcer.inspector import NONE, Denied, Inspector

if TYPE_CHECKING:
    import sealbus_native

log = logging.getLogger("bus.enforcer")


class Accepted(NamedTuple):
    """A record that goes on. ``plaintext`` = uint32 length | Released | zeros; the rest is for its hop."""

    digest: bytes
    key: AgentKey
    decided: DecidedProfile
    plaintext: bytes
    message_id: bytes
    instance_sequence: bytes
    offset: int
    append_time: int
    gap: int
    size: int
    session: bytes
    causes: bytes

    @property
    def length(self) -> int:
        """Bytes of ``plaintext``."""
        return len(self.plaintext)


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that ends here. ``body`` is the opened plaintext, from step 6 on."""

    digest: bytes
    decision: Decision
    offset: int
    append_time: int
    size: int
    key: AgentKey | None = None
    instance_sequence: bytes = NO_INSTANCE + bytes(8)
    gap: int = 0
    body: bytes | None = field(default=None, repr=False)
    decided: DecidedProfile | None = None
    message_id: bytes = envelope.NO_MESSAGE_ID
    session: bytes = b""
    causes: bytes = b"\x00"


AnyAccepted = Union[Accepted, "sealbus_native.Accepted"]
"""An accepted record of the plain or of the compiled steps: the same fields."""
Outcome = AnyAccepted | Refused


class _Refusal(Exception):
    """Leaves the steps of one record."""

    def __init__(self, code: Code, why: str = "") -> None:
        super().__init__(why)
        self.code = code


def enforce_batch(
    values: Sequence[bytes],
    timestamps: Sequence[int],
    offsets: Sequence[int],
    state: PartitionState,
    context: EnforcerContext,
    *,
    foreign: Collection[int] = (),
) -> list[Outcome]:
    """Outcomes of consecutive records of one partition, in order; append times in ms since 1970.

    ``foreign`` holds offsets that have a Kafka key, headers or no append time: refused in step 1. Fewer outcomes than
    records come back when a key id is unknown and the keys that are held were read before the batch was received: the
    caller reads the keys again and calls with the rest. Whoever may seal with a key has it after its root was stored,
    so that one reading that began after the receipt settles it.
    """
    outcomes: list[Outcome] = []
    state.under(context.policy, context.keyring.generation, context.scanners)
    find = context.keyring.find
    accept = state.windows.accept
    inspector = state.inspector if state.inspector is not None and state.inspector.by_record else None
    partition, topic, aad = state.partition, state.topics.inbound, state.aad
    partition_bytes = partition.to_bytes(4, "big")
    hot, profiles, padding = state.hot, state.profiles, state.padding
    deployment, skew = context.deployment, context.max_clock_skew_ms
    highest = state.windows.highest_time
    sha256, head, mark = hashlib.sha256, sealed.HEAD, envelope.MARK
    for value, append_time, offset in zip(values, timestamps, offsets, strict=True):
        key: AgentKey | None = None
        plain: bytes | None = None
        decided: DecidedProfile | None = None
        proven = False
        gap = 0
        append_time = max(append_time, 0)  # -1 says that there is none: such a record is foreign
        digest = sha256(value).digest()
        size = len(value)
        try:
            # 1. Bounds and framing.
            if foreign and offset in foreign:
                raise _Refusal(Code.BOUNDS, "a Kafka key, headers or no append time")
            if not value.startswith(head) or not sealed.MIN_LENGTH <= size <= sealed.MAX_LENGTH:
                sealed.check_head(value)
            body = sealed.body_start(value)
            # 2. Key id.
            key_id = value[12:28]
            key = find(key_id)
            if key is None:
                if context.refreshed_ms < context.received_ms:
                    break  # the issuer may have written this key since
                if append_time < context.now_ms - context.policy.backlog_horizon_ms:
                    raise _Refusal(Code.EPOCH_RETIRED)
                raise _Refusal(Code.UNKNOWN_KEY)
            if key.topic != topic:
                raise _Refusal(Code.WRONG_DOMAIN, "the key is of another domain")
            # 3. MAC.
            header = value[:52]
            mac = (key.macs.get(partition) or key.mac(deployment, partition)).copy()
            mac.update(header)
            mac.update(value[84:])
            mac.verify(value[52:84])
            proven = True
            # 4. Epoch, at the effective time: the broker's clock never goes back here.
            if append_time > highest:
                highest = append_time
            elif append_time + skew < highest:
                state.regressed(offset, append_time, highest)
            epoch = key.domain_epoch
            if not epoch.opens <= highest <= epoch.closes:
                raise _Refusal(Code.EPOCH_EARLY if highest < epoch.opens else Code.EPOCH_LATE)
            # 5. Sequence window.
            gap = accept(value[12:44], int.from_bytes(value[44:52], "big"))
            if gap < 0:
                raise _Refusal(Code.REPLAY if gap == windows.REPLAY else Code.TOO_MANY_INSTANCES)
            # 6. Open and step over the envelope.
            instance = value[28:44]
            aead = key.aeads.get(instance) or key.aead(instance)
            plain = aead.decrypt(partition_bytes + value[44:52], value[body:], aad + header)
            last = hot.get(key_id)
            profile, message, payload, session, causes, causes_end = envelope.split(
                plain, last.prefixed if last else b""
            )
            # 7. Decide; the same profile of the same agent was decided before.
            if inspector is not None and inspector.by_ticket:
                ticket_at, ticket_end, shown = envelope.tickets(plain, causes_end)
                decided = context.decide_proven(state, key, profile, session, shown)
            elif last is not None and profile is last.prefixed:
                decided = last
            else:
                decided = profiles.get((key, profile)) or context.decide_profile(state, key, profile)
                hot[key_id] = decided
            if int.from_bytes(plain[message + 24 : message + 32], "big") < highest:
                raise _Refusal(Code.EXPIRED)
            if int.from_bytes(plain[message + 16 : message + 24], "big") > highest + skew:
                raise _Refusal(Code.FUTURE)
            # Conditions of the moment, 8. guardrails, 9. masks of payload fields.
            released = None
            if inspector is not None:
                decided, released = _inspect(inspector, decided, plain, payload, size, highest, key, state, context)
            if decided.decision.obligations is None:
                raise _Refusal(decided.decision.code)
            # 9. Mask: the masked profile, then the rest as it stands (a canonical Avro run, step 6).
            rest = plain[message : 4 + int.from_bytes(plain[:4], "big")]
            ticket = b"\x00"
            if released is not None:
                rest = plain[message:payload] + codec.prefixed(released)
                if len(rest) > sealed.MAX_LENGTH:
                    raise _Refusal(Code.TOO_LARGE, "what stands for what was redacted is longer than a record may be")
            if inspector is not None and inspector.by_ticket:
                # Whoever reads gets the ticket of this record, and none of those that it was decided by.
                rest = rest[: ticket_at - message] + b"\x00" + rest[ticket_end - message :]
                ticket = codec.prefixed(context.ticket(key, decided.decision.obligations, session))
            length = codec.length(len(mark) + len(decided.masked) + len(rest))
            content = b"".join((digest[:10], ticket, length, mark, decided.masked, rest))
            outcomes.append(
                Accepted(
                    digest,
                    key,
                    decided,
                    envelope.pad(content, padding),
                    rest[:16],
                    value[28:52],
                    offset,
                    append_time,
                    gap,
                    size,
                    session,
                    plain[causes:causes_end],
                )
            )
        except _Refusal as refusal:
            outcomes.append(_refused(refusal.code, value, digest, offset, append_time, key, gap, plain, decided))
        except InvalidSignature:
            outcomes.append(_refused(Code.MAC, value, digest, offset, append_time))
        except InvalidTag:
            outcomes.append(_refused(Code.OPEN, value, digest, offset, append_time, key, gap))
        except WireError as error:
            outcomes.append(_refused(error.code, value, digest, offset, append_time, key, gap, plain, decided))
        except Exception:
            log.exception("record %s/%d at %d: unexpected", topic, partition, offset)
            known = key if proven else None
            outcomes.append(_refused(Code.INTERNAL, value, digest, offset, append_time, known, gap, plain, decided))
    state.windows.highest_time = highest
    return outcomes


def _inspect(
    inspector: Inspector,
    decided: DecidedProfile,
    plain: bytes,
    payload: int,
    size: int,
    effective_ms: int,
    key: AgentKey,
    state: PartitionState,
    context: EnforcerContext,
) -> tuple[DecidedProfile, bytes | None]:
    """A record that is looked at by itself: what holds for it, and its payload where that changes."""
    released, findings, decision = None, NONE, decided.decision
    moment = Moment(load=f"{context.load:.2f}") if inspector.moment else NO_MOMENT
    limits = state.windows.limits
    try:
        if inspector.moment:
            inspector.judge(decided, effective_ms, size, context.load)
        if decision.allowed:
            content_type = decided.profile.content_type if decided.profile is not None else ""
            released, findings = inspector.payload(plain, payload, content_type, key.domain_epoch.masking.reveal())
            inspector.admit(key.agent, size, effective_ms, limits)
    except Denied as denied:
        decision, findings = denied.decision, denied.findings or findings
        if denied.reopens:
            moment = moment._replace(breaker=decision.rule, reopens=denied.reopens)
    inspector.settle(decision, key.agent, effective_ms, limits)
    return context.variant(state, key, decided, decision, findings, moment), released


def _refused(
    code: Code,
    value: bytes,
    digest: bytes,
    offset: int,
    append_time: int,
    key: AgentKey | None = None,
    gap: int = 0,
    plain: bytes | None = None,
    decided: DecidedProfile | None = None,
) -> Refused:
    """A refusal. Nothing of the record is believed where its MAC was not checked (codes of steps 1 and 2)."""
    if code in (Code.BOUNDS, Code.VERSION, Code.WRONG_DOMAIN) and plain is None:
        key = None
    message_id, session, causes = envelope.NO_MESSAGE_ID, b"", b"\x00"
    if plain is not None and decided is not None:
        _, message, _, session, start, end = envelope.split(plain)
        message_id, causes = plain[message : message + 16], plain[start:end]
    decision = decided.decision if decided is not None and decided.decision.code is code else Decision(code, "", "")
    return Refused(
        digest=digest,
        decision=decision,
        offset=offset,
        append_time=append_time,
        size=len(value),
        key=key,
        instance_sequence=value[28:52] if key is not None else NO_INSTANCE + bytes(8),
        gap=max(gap, 0),
        body=plain,
        decided=decided,
        message_id=message_id,
        session=session,
        causes=causes,
    )
