"""Roots at rest: random per (zone, domain, epoch) and per audit day, wrapped by a key provider.

A root is created once and read back; who may not reach the provider learns nothing from where they lie
(``bus.authority.documents``). Beside each domain root stands its signed epoch object. A root can be wrapped anew in its
place: readers find the old wrapping or the new. A root that has a tombstone is not there, whoever puts a copy of it
back.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bus.authority.documents import WHOLE, Documents, Place
from bus.authority.providers.base import KeyProvider, OwnKeys, Wrapped
from bus.authority.tombstones import Tombstones, place_of
from bus.codes import Code
from bus.crypto.keys import Secret, root_digest
from bus.crypto.signing import open_object
from bus.errors import Refused, Unverified
from bus.wire import preimage
from bus.wire.names import NO_ZONE, is_lower_name
from bus.wire.objects import Epoch

_DOMAIN: Final = "sealbus.root/1"
_AUDIT: Final = "sealbus.audit-root/1"


def _domain_context(epoch: Epoch) -> bytes:
    return (
        preimage.label("root")
        + epoch.deployment
        + preimage.part(epoch.zone.encode())
        + preimage.part(epoch.domain.encode())
        + epoch.epoch.to_bytes(8, "big")
    )


def _audit_context(deployment: bytes, day: int) -> bytes:
    return preimage.label("root/audit") + deployment + day.to_bytes(4, "big")


def _document(form: str, wrapped: Wrapped, **more: str) -> bytes:
    return json.dumps({"format": form, "kek": wrapped.kek, "wrapped": wrapped.data.hex(), **more}).encode()


def _is_root(name: str) -> bool:
    """Whether a file may be a root by its name, ``<zone>.<domain>``: a copy beside it (``.bak``) is none."""
    zone, _, domain = name.partition(".")
    return is_lower_name(domain) and (zone == NO_ZONE or is_lower_name(zone))


def _parse(data: bytes, form: str, told: str) -> tuple[dict[str, Any], Wrapped]:
    try:
        document = json.loads(data)
        if document["format"] != form or not isinstance(document["kek"], str):
            raise ValueError  # noqa: TRY301  # one sentence for all that is wrong with it
        return document, Wrapped(document["kek"], bytes.fromhex(document["wrapped"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unverified(f"{told}: not a stored root: {type(error).__name__}", step="root") from None


@dataclass(frozen=True, slots=True)
class StoredEpoch:
    """An epoch with its signed bytes and its root. ``openers``: digest of who may open what it seals."""

    epoch: Epoch
    signed: bytes
    root: Secret
    openers: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """A stored root: of an epoch (``number``, ``name``) or of an audit day (no name), and the key that wrapped it."""

    number: int
    name: str
    kek: str


class RootStore:
    """Wrapped roots of domains, and of the audit. ``anchor`` is the public key that signs epochs."""

    def __init__(
        self,
        roots: Documents,
        audit: Documents,
        tombstones: Tombstones,
        provider: KeyProvider,
        deployment: bytes,
        anchor: bytes,
    ) -> None:
        self._roots = roots
        self._audit = audit
        self.tombstones = tombstones
        self._provider = provider
        self._deployment = deployment
        self._anchor = anchor

    def numbers(self) -> list[int]:
        """Epoch numbers that are stored, ascending. Raises RetryLater where the store is away."""
        return sorted({number for number, _ in self.places()})

    def places(self) -> frozenset[Place]:
        """Of every root of a domain, without those that are erased. Raises RetryLater where the store is away."""
        self._reach()
        return frozenset(place for place in self._roots.places() if _is_root(place[1])) - self.tombstones.places()

    def _reach(self) -> None:
        """A store that is away holds roots that are in use: others in their place would part it from what they seal."""
        self._roots.reach()
        self._audit.reach()
        self.tombstones.reach()

    def names(self, number: int) -> frozenset[str]:
        """Names of one epoch's roots, without those that are erased."""
        names = self._roots.names(number)
        erased = self.tombstones.places(number)
        return frozenset(name for name in names if _is_root(name) and (number, name) not in erased)

    def claim(self, new: Sequence[StoredEpoch]) -> bool:
        """Store the roots of a new epoch, which all have its number. False, and nothing stored, where another issuer
        was first with that number: its roots stay, and are read back.

        Raises Unverified for an epoch that the anchor did not sign for this deployment, Refused(erased) for a number
        that a tombstone has.
        """
        self._reach()
        documents, number = {}, 0
        with self._roots.alone():
            for each in new:
                epoch = open_object(Epoch, each.signed, self._anchor, self._deployment)
                number, name = place_of(epoch)
                if any(number == erased for erased, _ in self.tombstones.places(number)):
                    raise _erased(number, name)
                wrapped = self._provider.wrap(each.root, _domain_context(epoch))
                documents[name] = _document(_DOMAIN, wrapped, epoch=each.signed.hex(), openers=each.openers.hex())
            return self._roots.add(number, documents)

    def load(self, number: int) -> list[StoredEpoch]:
        """Every domain's root of one epoch. Raises Unverified where an object or a wrapping does not hold."""
        return [self.open(number, name) for name in sorted(self.names(number))]

    def open(self, number: int, name: str) -> StoredEpoch:
        """The root called ``name`` of ``names``. Raises Unverified, Refused(erased), or RetryLater when the provider
        cannot be reached."""
        if self.tombstones.has((number, name)):
            raise _erased(number, name)
        return self._open((number, name), self._roots.read(number, name))[0]

    def _open(self, place: Place, data: bytes) -> tuple[StoredEpoch, bytes]:
        """The root in ``data`` of ``place``, and the context that its wrapping is bound to."""
        where = f"root {place[0]}/{place[1]}"
        document, wrapped = _parse(data, _DOMAIN, where)
        try:
            signed, openers = (bytes.fromhex(document[key]) for key in ("epoch", "openers"))
        except (ValueError, KeyError, TypeError) as error:
            raise Unverified(f"{where}: not a stored root: {type(error).__name__}", step="root") from None
        epoch = open_object(Epoch, signed, self._anchor, self._deployment)
        if place_of(epoch) != place:
            raise Unverified(f"{where}: the root of another place", step="root")  # its tombstone would not be seen here
        told, context = f"root({epoch.domain}, {epoch.epoch})", _domain_context(epoch)
        root = self._provider.unwrap(wrapped, context, told)
        if root_digest(root) != epoch.root_digest:
            raise Unverified(f"{told}: does not match its epoch", step="root")
        return StoredEpoch(epoch, signed, root, openers), context

    def destroy(self, number: int) -> None:
        """Remove the wrapped roots of one epoch, if they are there."""
        with self._roots.alone():
            self._roots.remove(number)

    def destroy_erased(self) -> list[Place]:
        """Remove every wrapped root that has a tombstone, copies that were put back and what stands beside it under its
        name (``<name>.bak``) too. Returns their places."""
        self._reach()
        with self._roots.alone():
            return [place for place in sorted(self.tombstones.places()) if self._roots.discard(*place)]

    def destroy_superseded(self, provider: OwnKeys) -> list[str]:
        """Destroy every wrapping key of ``provider`` that is not its newest and wraps no root here, for good. Returns
        their names. What is wrapped at the same time waits: it is under the newest."""
        with self._roots.alone():
            used = {each.kek for each in self.kept()}
            gone = [kek for kek in provider.superseded() if kek not in used]
            for kek in gone:
                provider.destroy(kek)
        return gone

    def audit_root(self, day: int, *, create: bool = False) -> Secret:
        """root(audit, day). Raises FileNotFoundError where there is none and ``create`` is False, RetryLater where the
        store is away."""
        self._reach()
        name = f"root(audit, {day})"
        if create and not self._audit.names(day):
            root = Secret.random(name)
            with self._roots.alone():
                wrapped = self._provider.wrap(root, _audit_context(self._deployment, day))
                made = self._audit.add(day, {WHOLE: _document(_AUDIT, wrapped)})
            if made:
                return root
        return self._open_audit(day, self._audit.read(day, WHOLE))[0]

    def _open_audit(self, day: int, data: bytes) -> tuple[Secret, bytes]:
        name, context = f"root(audit, {day})", _audit_context(self._deployment, day)
        return self._provider.unwrap(_parse(data, _AUDIT, f"audit root {day}")[1], context, name), context

    def kept(self) -> Iterator[Kept]:
        """Every stored root, without a call to a provider. Raises Unverified for one that is none."""
        for store, form, places in ((self._roots, _DOMAIN, self.places()), (self._audit, _AUDIT, self._audit.places())):
            for number, name in sorted(places):
                with contextlib.suppress(FileNotFoundError):  # destroyed a moment ago
                    told = f"root {number}/{name}" if name else f"audit root {number}"
                    yield Kept(number, name, _parse(store.read(number, name), form, told)[1].kek)

    def rewrap(self, kept: Kept, provider: KeyProvider) -> bool:
        """Wrap one root anew by ``provider``. The new wrapping is opened as it takes the old one's place. False
        where the root was destroyed, or wrapped anew by someone else, meanwhile."""
        store = self._roots if kept.name else self._audit
        try:
            before = store.read(kept.number, kept.name)
        except FileNotFoundError:
            return False
        if kept.name:
            stored, context = self._open((kept.number, kept.name), before)
            root = stored.root
        else:
            root, context = self._open_audit(kept.number, before)
        wrapped = provider.wrap(root, context)
        document = json.loads(before) | {"kek": wrapped.kek, "wrapped": wrapped.data.hex()}
        with self._roots.alone():
            # Here, so that its key is not destroyed in between.
            if provider.unwrap(wrapped, context, root.name) != root:
                raise Unverified(f"{root.name}: the new wrapping holds another key", step="root")
            return store.replace(kept.number, kept.name, before, json.dumps(document).encode())


def _erased(number: int, name: str) -> Refused:
    return Refused(f"root({name.rpartition('.')[2]}, {number}) is erased", code=Code.ERASED)
