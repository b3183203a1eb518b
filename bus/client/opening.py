"""From a downstream value to deliveries, pure: verify the signature, then open; fail closed.

Steps: (1) bounds and framing, (2) signature by a certified enforcer for this topic and partition, (3) the time between
decision and append, (4) sequence per enforcer instance only rises, (5) the reader's keys of the epoch, (6) open,
(7) decode the envelope and check that it is this domain's.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from bus.client.delivery import Delivery
from bus.codes import Code
from bus.crypto.keys import ReadingKey
from bus.crypto.signing import Trust, verify_bundle
from bus.errors import BusError, Refused, Unverified, WireError
from bus.tiers.base import TIERS
from bus.wire import codec, derived, envelope
from bus.wire.hop import decision_id
from bus.wire.names import NO_ZONE, DomainName, Tier
from bus.wire.schemas import schema

MAX_DELAY_MS = 60_000
"""decided_at and append time may differ by this much."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A verified bundle: its deliveries by index, records that are not mine (skipped), and refusals by index."""

    count: int
    instance: bytes
    sequence: int
    deliveries: tuple[tuple[int, Delivery], ...]
    skipped: int
    refusals: tuple[tuple[int, BusError], ...] = ()


def open_bundle(
    value: bytes,
    *,
    domain: DomainName,
    topic: str,
    partition: int,
    offset: int,
    append_time: int,
    trust: Trust,
    tier: Tier | None,
    highest: Callable[[bytes], int],
    reading: Callable[[int], tuple[ReadingKey, ...] | None],
) -> Opened:
    """Raises Unverified, WireError or Refused(erased) when the whole bundle is refused.

    ``tier`` is the policy's floor for the domain; ``highest`` the highest sequence seen of an instance (-1: none).
    """
    bundle = derived.parse(value)
    head = bundle.head
    verify_bundle(bundle, trust, topic, partition, zone=NO_ZONE, domain=domain)
    if abs(append_time - head.decided_at) > MAX_DELAY_MS:
        raise Unverified(f"bundle: decided {append_time - head.decided_at} ms before its append", step="time")
    if head.sequence <= highest(head.instance):
        raise Unverified(f"bundle: sequence {head.sequence} was seen before", step="replay", code=Code.REPLAY)
    if tier is not None and head.tier < tier:
        message = f"bundle: expected tier {tier.name}, found {head.tier.name}"
        raise Unverified(message, step="tier", code=Code.TIER_FLOOR)
    module = TIERS.get(head.tier)
    if module is None:
        raise Refused(f"bundle: tier {head.tier.name} cannot be opened here", code=Code.TIER_UNAVAILABLE)
    keys = () if head.tier is Tier.PLAINTEXT else reading(head.epoch)
    if keys is None:
        raise Refused(f"epoch {head.epoch} of {domain}: no reading key", code=Code.ERASED)
    plaintexts = module.open(bundle, keys, trust.deployment, topic, partition)
    deliveries, refusals = [], []
    for index, plaintext in enumerate(plaintexts):
        if plaintext is not None:
            try:
                deliveries.append((index, _delivery(plaintext, domain, head.epoch, (partition, offset, index))))
            except BusError as error:
                refusals.append((index, error))
    skipped = sum(each is None for each in plaintexts)
    return Opened(head.count, head.instance, head.sequence, tuple(deliveries), skipped, tuple(refusals))


def _delivery(plaintext: bytes, domain: DomainName, epoch: int, place: tuple[int, int, int]) -> Delivery:
    released = codec.decode(schema("released"), envelope.unpad(plaintext))
    told = envelope.decode_envelope(released["envelope"])
    profile, message = told.profile, told.message
    if profile.domain != domain:
        raise WireError(f"envelope: expected domain {domain}, found {profile.domain}", code=Code.WRONG_DOMAIN)
    return Delivery(
        id=uuid.UUID(bytes=message.message_id),
        domain=profile.domain,
        source=profile.source,
        kind=profile.kind,
        purpose=profile.purpose,
        target=profile.target,
        correlation=message.correlation_id,
        causation=tuple(uuid.UUID(bytes=each) for each in message.causation_ids),
        created_at=message.created_at,
        expires_at=message.expires_at,
        reply_to=message.reply_to,
        content_type=profile.content_type,
        metadata=profile.metadata,
        labels=profile.labels,
        decision_id=decision_id(released["decision_id"]),
        epoch=epoch,
        place=place,
        payload=told.payload,
    )
