"""Erasing epochs, decided: which may be, what their tombstones say, and how far an erasure has come. Pure.

An erasure is `shredding` until every enforcer has acknowledged it in the ledger and the leases that agents may still
hold have been taken back; then it is `erased`. It does not reach a reader who kept a key. Carrying it out is ``bus keys
erase``'s, refusing an erased root ``bus.authority.roots``'.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bus.authority.roots import StoredEpoch
from bus.authority.tombstones import Buried
from bus.codes import Code
from bus.crypto.keys import agent_keys
from bus.errors import Refused
from bus.wire.hop import Hop, Verdict
from bus.wire.objects import Epoch, Tombstone

LEASE_CACHE_MS: Final = 15_000
"""How long an agent that reaches the authority goes on with a lease: it asks every 5 s, and an answer may take 10 s."""


class State(StrEnum):
    """How far an erasure has come."""

    SHREDDING = "shredding"
    ERASED = "erased"


@dataclass(frozen=True, slots=True)
class Erasure:
    """``waiting``: enforcers that have not acknowledged. ``effective`` (ms since 1970) is known once all have; ``kek``
    names the key that wrapped the root: until that is destroyed, a copy of the root file opens."""

    tombstone: Tombstone
    kek: str
    state: State
    waiting: tuple[str, ...]
    effective: int | None


def choose(
    epochs: Iterable[Epoch], domain: str, *, number: int | None, before: int | None, now_ms: int, grace_ms: int
) -> list[Epoch]:
    """The epochs of ``domain`` to erase: the one with ``number``, or all that ended before ``before`` (ms since 1970).

    ``grace_ms`` has the clock skew in it. Raises Refused for a number that is not there, or that is still needed: its
    records are accepted until its grace is over, and enforcers seal for readers under the newest that has begun.
    """
    own = sorted((each for each in epochs if each.domain == domain), key=lambda each: each.epoch)
    newest = max((each.epoch for each in own if each.not_before + grace_ms <= now_ms), default=0)
    if number is None:
        limit = min(before if before is not None else 0, now_ms - grace_ms)
        return [each for each in own if each.not_after < limit and each.epoch < newest]
    found = next((each for each in own if each.epoch == number), None)
    if found is None:
        raise Refused(f"{domain} has no root of epoch {number}", code=Code.EPOCH_RETIRED, hint="bus keys status")
    left = found.not_after + grace_ms - now_ms
    if left >= 0:
        raise Refused(
            f"epoch {number} of {domain} is open: its records are accepted for {left // 1000 + 1} s more",
            code=Code.EPOCH_EARLY,
            hint="wait for its end: the issuer starts the next one by itself",
        )
    if number >= newest:
        raise Refused(
            f"epoch {number} is the newest of {domain}: enforcers seal under it",
            code=Code.EPOCH_EARLY,
            hint="start the issuer: once a newer one has begun, and its grace is over, this one can go",
        )
    return [found]


def make_tombstone(stored: StoredEpoch, agents: Iterable[str], now_ms: int) -> Tombstone:
    """The tombstone of a root, with the key ids that it gives ``agents``."""
    epoch = stored.epoch
    return Tombstone(
        deployment=epoch.deployment,
        epoch=epoch.epoch,
        not_after=epoch.not_after,
        erased_at=now_ms,
        zone=epoch.zone,
        domain=epoch.domain,
        key_ids=tuple(sorted(agent_keys(stored.root, agent).key_id for agent in agents)),
    )


def acknowledgements(hops: Iterable[Hop]) -> dict[str, dict[str, int]]:
    """By erased epoch (`<domain>/<epoch>`) and enforcer: when (ms) it first said that it holds nothing of it."""
    found: dict[str, dict[str, int]] = {}
    for hop in hops:
        tail = hop.tail
        if tail.decision is Verdict.RETRY and tail.code is Code.ERASED:
            for name in tail.facts.get("epochs", "").split():
                told = found.setdefault(name, {})
                enforcer = tail.facts.get("enforcer", "")
                told[enforcer] = min(told.get(enforcer, hop.decided_at), hop.decided_at)
    return found


def judge(buried: Buried, enforcers: Iterable[str], told: Mapping[str, int], now_ms: int) -> Erasure:
    """How far an erasure has come; ``told`` says when (ms) which enforcer acknowledged it."""
    tombstone, kek = buried.tombstone, buried.kek
    names = sorted(enforcers)
    waiting = tuple(name for name in names if name not in told)
    if waiting:
        return Erasure(tombstone, kek, State.SHREDDING, waiting, None)
    effective = max([tombstone.erased_at, *(told[name] for name in names)]) + LEASE_CACHE_MS
    return Erasure(tombstone, kek, State.ERASED if effective <= now_ms else State.SHREDDING, (), effective)
