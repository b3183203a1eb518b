"""The enforcer's steps, pure: bytes, snapshot, keyring and clock in; an outcome for every record out.

The steps, in the order in which ``enforce_batch`` runs them for each record:

 1. bounds and framing, by slicing (`bounds`, `version`)
 2. key id -> agent, domain, epoch (`unknown-key`, `epoch-retired`, `erased`, `wrong-domain`)
 3. MAC, before anything is decoded (`mac`)
 4. epoch valid at the broker's append time (`epoch-early`, `epoch-late`)
 5. sequence window: replay, gap (`replay`, `too-many-instances`)
 6. open and step over the envelope (`open`, `decode`, `expired`, `future`)
 7. decide: identity, domain, delegation, policy (`unverified`, `wrong-domain`, `delegation`, rules,
    `tier-unavailable`, `tier-floor`), then conditions of the moment (`condition`)
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

from cryptography.exceptions import InvalidSignature, InvalidTag

from bus.codes import Code
from bus.crypto.keyring import AgentKey
from bus.errors import WireError
from bus.kafka import windows
from bus.wire import codec, envelope, sealed
from consumers.enforcer.context import EnforcerContext, PartitionState
from consumers.enforcer.decided import DecidedProfile
from consumers.enforcer.inspected import inspect
from consumers.enforcer.outcome import Accepted, Outcome, refused
from consumers.enforcer.rights import Unread

log = logging.getLogger("bus.enforcer")


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
    records come back when a key id, or the epoch of a delegation, is unknown and the keys that are held were read
    before the batch was received: the caller reads the keys again and calls with the rest. Whoever may seal with a key
    has it after its root was stored, so that one reading that began after the receipt settles it.
    """
    outcomes: list[Outcome] = []
    state.under(context.policy, context.keyring.generation, context.scanners)
    find, erased = context.keyring.find, context.keyring.erased
    accept, seen = state.windows.accept, state.seen
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
                if key_id in erased:
                    raise _Refusal(Code.ERASED)
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
            gap = accept(value[12:44], int.from_bytes(value[44:52], "big")) if offset not in seen else seen.pop(offset)
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
                decided = context.decide_proven(state, key, profile, highest, session, shown)
            elif last is not None and profile is last.prefixed:
                decided = last
            else:
                decided = profiles.get((key, profile)) or context.decide_profile(state, key, profile, highest)
                if decided.lasting:
                    hot[key_id] = decided
            if int.from_bytes(plain[message + 24 : message + 32], "big") < highest:
                raise _Refusal(Code.EXPIRED)
            if int.from_bytes(plain[message + 16 : message + 24], "big") > highest + skew:
                raise _Refusal(Code.FUTURE)
            # Conditions of the moment, 8. guardrails, 9. masks of payload fields.
            released = None
            if inspector is not None:
                decided, released = inspect(
                    inspector, decided, plain, message, payload, size, highest, key, state, context
                )
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
        except Unread:
            seen[offset] = gap
            break
        except _Refusal as refusal:
            outcomes.append(refused(refusal.code, value, digest, offset, append_time, key, gap, plain, decided))
        except InvalidSignature:
            outcomes.append(refused(Code.MAC, value, digest, offset, append_time))
        except InvalidTag:
            outcomes.append(refused(Code.OPEN, value, digest, offset, append_time, key, gap))
        except WireError as error:
            outcomes.append(refused(error.code, value, digest, offset, append_time, key, gap, plain, decided))
        except Exception:
            log.exception("record %s/%d at %d: unexpected", topic, partition, offset)
            known = key if proven else None
            outcomes.append(refused(Code.INTERNAL, value, digest, offset, append_time, known, gap, plain, decided))
    state.windows.highest_time = highest
    return outcomes
