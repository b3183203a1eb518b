"""Steps 10 and 11 of accepted records: protected for their tier, up to 32 behind one head, key table and signature.

``_plain`` says what is done to each record; ``sealbus_native.Cipher.protect`` does the same for tiers with keys.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from bus.crypto import blind
from bus.crypto.dek import Dek
from bus.crypto.keyring import DomainEpoch
from bus.crypto.signing import bundle_leaf, bundle_message
from bus.native import native
from bus.policy.decide import Obligations
from bus.policy.model import Policy
from bus.tiers.base import TIERS
from bus.wire import codec, derived, released
from bus.wire.hop import encode_hop
from bus.wire.names import Tier
from consumers.enforcer.context import EnforcerContext, PartitionState
from consumers.enforcer.decided import DecidedProfile
from consumers.enforcer.outcome import AnyAccepted

Indexed = tuple[int, AnyAccepted]
"""A record and its place among the outcomes."""
Readers = tuple[tuple[str, str], ...]
Protected = tuple[bytes, bytes, bytes]
"""Entry of the bundle, leaf hash, hop."""


def groups(items: list[Indexed]) -> Iterator[list[Indexed]]:
    """Bundles in the order of the input: a new one where size or policy change."""
    group: list[Indexed] = []
    size = 0
    decided = None
    for item in items:
        outcome = item[1]
        length = outcome.length + 48
        # One head names the policy under which its records were decided (and so their tier).
        other = outcome.decided is not decided and (
            decided is None or outcome.decided.policy_digest != decided.policy_digest
        )
        if group and (len(group) >= derived.MAX_RECORDS or size + length > derived.MAX_BUNDLE or other):
            yield group
            group, size = [], 0
        decided = outcome.decided
        group.append(item)
        size += length
    if group:
        yield group


def protect(group: list[Indexed], state: PartitionState, context: EnforcerContext, hops: list[bytes]) -> bytes:
    """The bundle of ``group``; the hop of each of its records is put in its place among ``hops``."""
    first = group[0][1]
    topic = state.topics.outbound
    epoch = context.sealing(state.domain)
    head = derived.Head(
        tier=_obligations(first.decided).tier,
        epoch=epoch.epoch,
        policy_digest=first.decided.policy_digest,
        enforcer_key_id=context.signer.key_id,
        instance=context.instance,
        sequence=context.next_sequence(topic, state.partition),
        decided_at=context.now_ms,
        count=len(group),
    ).encode()
    # Profiles of one shape have the same tail, and are protected together.
    decisions: dict[tuple[bytes, Readers], list[int]] = {}
    for place, (_, outcome) in enumerate(group):
        decided = outcome.decided
        decisions.setdefault((decided.tail, decided.readers), []).append(place)
    sets: dict[Readers, tuple[bytes, Dek | None]] = {}
    entries, leaves = [b""] * len(group), [b""] * len(group)
    for (_, readers), places in decisions.items():
        found = sets.get(readers)
        if found is None:
            dek = context.dek(epoch, topic, readers) if readers else None
            number = len(sets) if dek is not None else derived.NO_SET
            found = sets[readers] = (number.to_bytes(2, "big"), dek)
        outcomes = [group[place][1] for place in places]
        made = _protect(outcomes, head, *found, state, context)
        for place, (entry, leaf, hop) in zip(places, made, strict=True):
            entries[place], leaves[place], hops[group[place][0]] = entry, leaf, hop
    table = derived.encode_key_table(
        tuple(dek.reader_set for _, dek in sets.values() if dek is not None), _index(group, epoch, context.policy)
    )
    message = bundle_message(state.out_signature, head, table, leaves)
    return derived.encode(head, table, entries, context.signer.sign(message))


def _index(group: list[Indexed], epoch: DomainEpoch, policy: Policy) -> derived.Index:
    """Blind tokens of the values that readers get to see, under the keys of each: who may not open a record cannot look
    for what is in it."""
    domain = policy.domains.get(epoch.domain)
    if domain is None or not domain.blind_index:
        return ()
    found = []
    for place, (_, outcome) in enumerate(group):
        readers = outcome.decided.readers
        values = blind.values(released.payload_of(outcome.plaintext), domain.blind_index) if readers else []
        for field, value in values[: derived.MAX_TOKENS // max(len(readers), 1)]:
            found += [(place, blind.token(epoch.index(kind, name, field), value)) for kind, name in readers]
    return tuple(sorted(set(found)))


def _obligations(decided: DecidedProfile) -> Obligations:
    if decided.decision.obligations is None:
        raise AssertionError("only allowed records are bundled")
    return decided.decision.obligations


def _protect(
    outcomes: list[AnyAccepted],
    head: bytes,
    set_number: bytes,
    dek: Dek | None,
    state: PartitionState,
    context: EnforcerContext,
) -> list[Protected]:
    """Records whose hops have the same tail, and whose readers are the same, in their order."""
    decided = outcomes[0].decided
    obligations = _obligations(decided)
    counter = dek.take(len(outcomes)) if dek is not None else 0
    commitment = dek.reader_set.commitment if dek is not None else derived.NO_COMMITMENT
    aad = state.out_aad + head + commitment
    random = os.urandom(16 * len(outcomes))
    if native is not None and dek is not None and dek.cipher is not None and obligations.tier is not Tier.PLAINTEXT:
        compiled = [each for each in outcomes if isinstance(each, native.Accepted)]
        if len(compiled) == len(outcomes):
            return dek.cipher.protect(
                compiled,
                counter,
                head,
                aad,
                set_number,
                random,
                state.partition,
                context.now_ms,
                decided.tail,
                obligations.audit_full,
            )
    return [
        _plain(
            outcome,
            dek,
            counter + (number if dek is not None else 0),
            head,
            aad,
            set_number,
            random[16 * number : 16 * number + 16],
            state.partition,
            context.now_ms,
            decided.tail,
            obligations,
        )
        for number, outcome in enumerate(outcomes)
    ]


def _plain(
    outcome: AnyAccepted,
    dek: Dek | None,
    counter: int,
    head: bytes,
    aad: bytes,
    set_number: bytes,
    record_id: bytes,
    partition: int,
    decided_at: int,
    tail: bytes,
    obligations: Obligations,
) -> Protected:
    body = TIERS[obligations.tier].protect(dek, counter, outcome.plaintext, aad + record_id)
    fixed = record_id + set_number + counter.to_bytes(8, "big")
    leaf = bundle_leaf(head, fixed, body)
    hop = encode_hop(
        origin_digest=outcome.digest,
        output_digest=leaf,
        message_id=outcome.message_id,
        instance_sequence=outcome.instance_sequence,
        partition=partition,
        offset=outcome.offset,
        append_time=outcome.append_time,
        decided_at=decided_at,
        gap=outcome.gap,
        size=outcome.size,
        session=outcome.session,
        causes=outcome.causes if obligations.audit_full else b"\x00",
        tail=tail,
    )
    return b"".join((fixed, codec.length(len(body)), body)), leaf, hop
