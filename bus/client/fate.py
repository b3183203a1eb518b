"""How long what an agent stored lives: every entry with the keys of its domain and epoch, and no longer than they.

An entry is sealed under the newest epoch of its domain when it is put. When that ended half the backlog horizon ago it
is sealed anew, so that it outlives epochs for as long as the agent goes on leasing. What is sealed under an epoch whose
key is gone while a newer one is there was erased; beyond the backlog horizon the agent stayed away too long. A key that
is missed may be on its way: its entries cannot be read meanwhile, and are wiped when it is missed for a minute. Pure;
``bus.client.shelves`` does it, and wipes what the policy took away.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Final

from bus.client.storefile import StoredEpoch

LOST_MS: Final = 60_000


class Fate(Enum):
    """What becomes of what is sealed under an epoch."""

    KEEP = "keep"
    RESEAL = "reseal"
    MISSED = "missed"
    WIPE = "wipe"


@dataclass(frozen=True, slots=True)
class Terms:
    """Times (ms) that end keys: of the policy, and of the settings."""

    horizon_ms: int
    grace_ms: int
    skew_ms: int


def fate(stored: StoredEpoch, held: Collection[int], terms: Terms, now_ms: int) -> Fate:
    """``held``: the epochs of its domain that the agent has keys of and that have begun."""
    if stored.number in held:
        old = stored.ends + terms.horizon_ms // 2 < now_ms
        return Fate.RESEAL if old and max(held) > stored.number else Fate.KEEP
    if stored.ends + terms.grace_ms + terms.horizon_ms + terms.skew_ms < now_ms:
        return Fate.WIPE
    if not any(number > stored.number for number in held):
        return Fate.KEEP  # it may be away with all the others: nothing says that this one is gone
    return Fate.WIPE if stored.lost and now_ms - stored.lost >= LOST_MS else Fate.MISSED
