"""Carrying out an erasure: tombstones, their publication, the end of the wrapped roots and of their wrapping keys.

What may be erased, and when it is complete, is ``bus.authority.erasure``'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from bus.admin.desired import enforcer_name
from bus.admin.publish import publish
from bus.authority.custody import open_provider
from bus.authority.erasure import Erasure, acknowledgements, choose, judge, make_tombstone
from bus.authority.local import load_signer
from bus.authority.providers.file import FileProvider
from bus.authority.providers.pkcs11 import Pkcs11Provider
from bus.authority.rewrapping import rewrap_all
from bus.authority.roots import RootStore
from bus.authority.tombstones import Buried
from bus.crypto.signing import sign_object
from bus.files import Layout
from bus.kafka.config import Connection
from bus.policy.model import Policy
from bus.settings import Custody, Settings
from bus.wire.hop import Hop
from bus.wire.names import CONTROL
from bus.wire.objects import Tombstone

ADMINISTRATORS: Final = {
    Custody.VAULT: "rotate, bus keys rewrap, then min_decryption_version and trim of the transit key",
    Custody.AWS_KMS: "another key in aws_key, bus keys rewrap, then aws kms schedule-key-deletion of the old one",
    Custody.AZURE: "bus keys rewrap --to another provider, then delete and purge the key",
    Custody.GCP_KMS: "a new primary version, bus keys rewrap, then gcloud kms keys versions destroy of the old one",
}
"""What is left to the administrators of a provider whose keys are not ours to destroy."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What an erasure is about: tombstones that are new, and those that an earlier run stored."""

    fresh: tuple[Tombstone, ...]
    again: tuple[Buried, ...]

    @property
    def names(self) -> list[str]:
        """`<domain>/<epoch>` of each."""
        stones = sorted((*(each.tombstone for each in self.again), *self.fresh), key=lambda each: each.epoch)
        return [f"{each.domain}/{each.epoch}" for each in stones]


@dataclass(frozen=True, slots=True)
class Destroyed:
    """Names of the wrapping keys that are gone; ``left`` says what an administrator has yet to do, or is empty."""

    keks: tuple[str, ...]
    left: str


def buried(store: RootStore) -> list[Buried]:
    """Every tombstone. Raises Unverified for one that is damaged."""
    return [store.tombstones.read(place) for place in sorted(store.tombstones.places())]


def plan_erasure(
    settings: Settings,
    store: RootStore,
    policy: Policy,
    domain: str,
    *,
    number: int | None,
    before: int | None,
    now_ms: int,
) -> Planned:
    """The epoch ``number`` of ``domain``, or all that ended before ``before`` (ms since 1970).

    Raises Refused where ``number`` may not be erased, RetryLater where a root cannot be unwrapped now.
    """

    def wanted(tombstone: Tombstone) -> bool:
        asked = tombstone.epoch == number if before is None else tombstone.not_after < before
        return asked and tombstone.domain == domain

    again = tuple(each for each in buried(store) if wanted(each.tombstone))
    if again and number is not None:
        return Planned((), again)
    stored = [store.open(*place) for place in sorted(store.places()) if place[1].rpartition(".")[2] == domain]
    chosen = choose(
        [each.epoch for each in stored],
        domain,
        number=number,
        before=before,
        now_ms=now_ms,
        grace_ms=settings.grace_ms + settings.max_clock_skew_ms,
    )
    fresh = tuple(make_tombstone(each, policy.agents, now_ms) for each in stored if each.epoch in chosen)
    return Planned(fresh, again)


def carry_out(settings: Settings, store: RootStore, connection: Connection, planned: Planned) -> Destroyed:
    """Erase. Each step may be done again: a run that was cut off is finished by the next.

    1. sign the tombstones and store them: no bundle and no lease has a key of these roots from now on
    2. publish them: running enforcers drop what they hold, and acknowledge
    3. destroy the wrapped roots
    4. wrap all others anew under a new key and destroy the earlier ones, so that no copy of a root file opens
    """
    layout = Layout(settings.state)
    signer = load_signer(layout.signer("issuer"))
    keks = {(each.number, each.name): each.kek for each in store.kept() if each.name}
    stones = [*planned.again]
    for tombstone in planned.fresh:
        kek = keks.get((tombstone.epoch, f"{tombstone.zone}.{tombstone.domain}"), "")
        stones.append(store.tombstones.put(sign_object(signer, tombstone), kek))
    publish(connection, CONTROL, [each.signed for each in stones])
    store.destroy_erased()
    if left := ADMINISTRATORS.get(settings.key_provider):
        return Destroyed((), left)
    provider = open_provider(settings.key_provider, settings, layout)
    if not isinstance(provider, FileProvider | Pkcs11Provider):
        raise TypeError(f"{settings.key_provider} has no keys of ours")
    provider.rotate()
    rewrap_all(store, provider)
    gone = store.destroy_superseded(provider)
    if provider.superseded():  # a root was put under the old key while the new one was made
        rewrap_all(store, provider)
        gone += store.destroy_superseded(provider)
    return Destroyed(tuple(gone), "")


def progress(settings: Settings, stones: Iterable[Buried], hops: Iterable[Hop], now_ms: int) -> list[Erasure]:
    """How far each erasure has come, by the events among ``hops``."""
    told = acknowledgements(hops)
    enforcers = [enforcer_name(number) for number in range(1, settings.enforcers + 1)]
    judged = []
    for each in stones:
        name = f"{each.tombstone.domain}/{each.tombstone.epoch}"
        judged.append(judge(each, enforcers, told.get(name, {}), now_ms))
    return judged
