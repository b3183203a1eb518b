"""From a downstream value to deliveries, pure: verify the signature, then open; fail closed.

Steps: (1) bounds and framing, (2) signature by a certified enforcer for this topic and partition, (3) the time between
decision and append, (4) sequence per enforcer instance only rises, (5) the reader's keys of the epoch, (6) open,
(7) decode the envelope and check that it is this domain's.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from bus.client.delivery import Delivery
from bus.codes import Code
from bus.crypto.keys import ReadingKey
from bus.crypto.signing import Trust, verify_bundle
from bus.errors import BusError, Erased, Unverified, WireError
from bus.native import native
from bus.tiers.base import TIERS
from bus.wire import codec, derived, envelope, released
from bus.wire.envelope import MAX_CACHED_PROFILE, MAX_PROFILE, Chunk, Profile, decode_profile
from bus.wire.names import NO_ZONE, DomainName, Tier

MAX_PROFILES = 1024
MAX_DELAY_MS = 60_000
"""decided_at and append time may differ by this much."""


Unwrap = Callable[[Profile, bytes, bytes], bytes]
Parts = tuple[bytes, bytes, int, int, str, bytes, str, tuple[bytes, int, int] | None, bytes]
"""Profile behind its length, message id, times of creation and expiry (ms), session, causes, reply_to, group, index and
count of a part of a message, payload."""


class Profiles:
    """Decoded profiles, found again by their bytes: an agent's messages repeat theirs. Emptied when full."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[bytes, Profile] = {}

    def decode(self, prefixed: bytes) -> Profile:
        """The profile behind its length. Raises WireError(decode)."""
        found = self._held.get(prefixed)
        if found is None:
            data, _ = codec.read_prefixed(prefixed, 0, MAX_PROFILE, code=Code.DECODE)
            found = decode_profile(data)
            if len(self._held) >= MAX_PROFILES:
                self._held.clear()
            if len(prefixed) <= MAX_CACHED_PROFILE:
                self._held[prefixed] = found
        return found


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
    profiles: Profiles,
    unwrap: Unwrap | None = None,
    only: Collection[int] | None = None,
) -> Opened:
    """All records of a bundle that are mine, or ``only`` those in these places; all of it is verified.

    Raises Unverified, WireError or Erased when the whole bundle is refused.

    ``unwrap`` makes of a profile, a message id and a payload that is whole what is delivered.
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
    keys = () if head.tier is Tier.PLAINTEXT else reading(head.epoch)
    if keys is None:
        raise Erased(f"epoch {head.epoch} of {domain}: no reading key any more", epoch=head.epoch, domain=domain)
    places: Sequence[int] = range(head.count)
    if only is not None:
        places = sorted(only)
        bundle = replace(bundle, entries=tuple(bundle.entries[place] for place in places))
    plaintexts = TIERS[head.tier].open(bundle, keys, trust.deployment, topic, partition)
    deliveries, refusals = [], []
    for index, plaintext in zip(places, plaintexts, strict=True):
        if plaintext is not None:
            try:
                deliveries.append(
                    (index, _delivery(plaintext, domain, head.epoch, (partition, offset, index), profiles, unwrap))
                )
            except BusError as error:
                refusals.append((index, error))
    skipped = sum(each is None for each in plaintexts)
    return Opened(head.count, head.instance, head.sequence, tuple(deliveries), skipped, tuple(refusals))


def _delivery(
    plain: bytes,
    domain: DomainName,
    epoch: int,
    place: tuple[int, int, int],
    profiles: Profiles,
    unwrap: Unwrap | None,
) -> Delivery:
    """A delivery from ``uint32 length | Released | zeros``."""
    found, ticket = (native.released(plain, envelope.MARK) if native is not None else None), b""
    if found is None:
        found, ticket = sliced(plain)
    prefixed, message_id, created_at, expires_at, session, causes, reply_to, part, payload = found
    profile = profiles.decode(prefixed)
    if profile.domain != domain:
        raise WireError(f"envelope: expected domain {domain}, found {profile.domain}", code=Code.WRONG_DOMAIN)
    if unwrap is not None and part is None:
        payload = unwrap(profile, message_id, payload)
    return Delivery(
        profile,
        message_id,
        created_at,
        expires_at,
        session,
        causes,
        reply_to,
        plain[released.ORIGIN],
        epoch,
        place,
        payload,
        ticket,
        Chunk(*part) if part is not None else None,
    )


def sliced(plain: bytes) -> tuple[Parts, bytes]:
    """The parts of a released plaintext, and its ticket; sliced, as every part of it has one encoding only."""
    ticket, begin, end = released.places(plain)
    prefixed, message, payload_size, session, causes, causes_end = envelope.split_at(plain, begin, end)
    _, payload = codec.read_length(plain, payload_size, code=Code.DECODE)
    reply_to = causes_end + 1
    chunk = envelope.chunk_of(plain, causes_end, payload_size)
    parts = (
        prefixed,
        plain[message : message + 16],
        int.from_bytes(plain[message + 16 : message + 24], "big"),
        int.from_bytes(plain[message + 24 : message + 32], "big"),
        session.decode(),
        plain[causes + 1 : causes_end - 1],
        plain[reply_to : reply_to + (plain[causes_end] >> 1)].decode(),
        (chunk.group, chunk.index, chunk.count) if chunk is not None else None,
        plain[payload:end],
    )
    return parts, ticket
