"""Events of an input partition that are no record's outcome and belong in the ledger all the same: each is one hop.

``pause`` and ``resume``: keys or policy could not be had, the partition stood still. ``clock``: the broker's append
time went back by more than the skew (an alarm; records are judged at the highest time seen). ``start``: the partition
was begun at offset 0 because nothing was ever committed for it. ``erased``: this process holds no key of the
epochs that it names; told at one of its partitions, of whichever domain.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from bus.codes import Code
from bus.wire import preimage
from bus.wire.envelope import NO_MESSAGE_ID
from bus.wire.hop import NO_DIGEST, NO_INSTANCE, HopTail, Verdict, encode_hop, encode_tail

if TYPE_CHECKING:
    from consumers.enforcer.context import EnforcerContext, PartitionState

log = logging.getLogger("bus.enforcer")


class EventKind(StrEnum):
    """What happened; the rule of its hop."""

    PAUSE = "pause"
    RESUME = "resume"
    CLOCK = "clock"
    START = "start"
    ERASED = "erased"


@dataclass(frozen=True, slots=True)
class PartitionEvent:
    """One event: at which input offset and when (ms since 1970)."""

    kind: EventKind
    offset: int
    at: int
    facts: Mapping[str, str] = field(default_factory=dict)


def event_hop(event: PartitionEvent, state: PartitionState, context: EnforcerContext) -> bytes:
    """The event as a hop: decision RETRY, no agent, an origin digest of its own."""
    digest = hashlib.sha256(
        preimage.event(context.deployment, state.topics.inbound, state.partition, event.kind, event.offset, event.at)
    ).digest()
    log.warning("%s/%d at %d: %s %s", state.topics.inbound, state.partition, event.offset, event.kind, event.facts)
    return encode_hop(
        origin_digest=digest,
        output_digest=NO_DIGEST,
        message_id=NO_MESSAGE_ID,
        instance_sequence=NO_INSTANCE + bytes(8),
        partition=state.partition,
        offset=event.offset,
        append_time=event.at,
        decided_at=context.now_ms,
        gap=0,
        size=0,
        session=b"",
        causes=b"\x00",
        tail=encode_tail(
            HopTail(
                topic=state.topics.inbound,
                decision=Verdict.RETRY,
                code=Code.RETRY if event.kind in (EventKind.PAUSE, EventKind.RESUME) else Code(event.kind.value),
                rule=event.kind.value,
                location="",
                snapshot=context.snapshot_number,
                policy_digest=context.policy.digest,
                domain=state.domain,
                facts=event.facts,
            )
        ),
    )
