"""The compiled steps beside the plain Python: the same outcomes, sooner (docs/adr/0005).

``enforce`` runs consecutive records through ``sealbus_native`` as far as they are of senders and profiles that plain
Python accepted before, and are beyond doubt. Every other record is left untouched and goes to ``enforce_batch``, which
alone refuses and alone decides.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from bus.crypto.keys import instance_key
from bus.native import native
from bus.wire import envelope, preimage, sealed
from consumers.enforcer.context import MAX_PROFILES, EnforcerContext, PartitionState
from consumers.enforcer.inspected import inspect_compiled
from consumers.enforcer.outcome import Accepted, Outcome, Refused
from consumers.enforcer.pipeline import enforce_batch

if TYPE_CHECKING:
    import sealbus_native

MAX_RUN: Final = 32
"""Records in a row that plain Python takes when one after the other is unusual."""


def acceptor_for(state: PartitionState, context: EnforcerContext) -> sealbus_native.Acceptor | None:
    """An empty acceptor for a partition; None where plain Python does it all."""
    if native is None or not context.compiled:
        return None
    prefix = preimage.sealed_mac(context.deployment, state.topics.inbound, state.partition)
    made: sealbus_native.Acceptor = native.Acceptor(
        sealed.HEAD, envelope.MARK, state.aad, prefix, state.partition, context.max_clock_skew_ms, MAX_PROFILES
    )
    made.clear(state.padding)
    return made


def enforce(
    values: list[bytes],
    timestamps: list[int],
    offsets: list[int],
    state: PartitionState,
    context: EnforcerContext,
    *,
    foreign: Collection[int] = (),
) -> list[Outcome]:
    """Like ``enforce_batch``, and in its way only where nothing is compiled."""
    acceptor = state.acceptor
    state.under(context.policy, context.keyring.generation, context.scanners)
    inspector = state.inspector if state.inspector is not None and state.inspector.by_record else None
    if acceptor is None or (inspector is not None and inspector.by_ticket):
        return enforce_batch(values, timestamps, offsets, state, context, foreign=foreign)
    outcomes: list[Outcome] = []
    at, run, count = 0, 1, len(values)
    while at < count:
        stop = count
        if foreign:
            stop = next((place for place in range(at, count) if offsets[place] in foreign), count)
        highest = state.windows.highest_time
        accepted: list[sealbus_native.Accepted] = []
        reached = acceptor.accept(values, timestamps, offsets, at, stop, state.windows, accepted)
        if inspector is None:
            outcomes.extend(accepted)
        else:
            for place, each in zip(range(at, reached), accepted, strict=True):
                highest = max(highest, each.append_time)
                outcomes.append(inspect_compiled(each, values[place], highest, inspector, state, context))
        if reached > at:
            at, run = reached, 1
        if at == count:
            break
        part = slice(at, at + run)
        run = min(2 * run, MAX_RUN)
        some = enforce_batch(values[part], timestamps[part], offsets[part], state, context, foreign=foreign)
        outcomes.extend(_compiled(each) for each in some)
        at += len(some)
        if len(some) < len(values[part]):
            break  # a key id is unknown: the caller reads the keys again
        _learn(acceptor, state, some[-1])
    return outcomes


def _compiled(outcome: Outcome) -> Outcome:
    """An accepted record as the compiled steps protect it."""
    if isinstance(outcome, Accepted) and native is not None:
        made: Outcome = native.Accepted(*outcome)
        return made
    return outcome


def _learn(acceptor: sealbus_native.Acceptor, state: PartitionState, outcome: Outcome) -> None:
    """Have the sender and the profile of an accepted record known from now on, if the profile is one that is kept."""
    if isinstance(outcome, Refused):
        return
    key, decided = outcome.key, state.profiles.get((outcome.key, outcome.decided.prefixed))
    if decided is None:
        return
    instance = outcome.instance_sequence[:16]
    acceptor.learn(
        key.keys.key_id + instance,
        key,
        key.keys.mac.reveal(),
        instance_key(key.keys.seal, "seal", instance).reveal(),
        key.domain_epoch.opens,
        key.domain_epoch.closes,
        decided.prefixed,
        decided.masked,
        decided,
    )
