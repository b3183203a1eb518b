"""Roots at rest: random per (zone, domain, epoch) and per audit day, wrapped by a key provider.

A root is created once and read back; who may not reach the provider learns nothing from these files. Beside each domain
root stands its signed epoch object. A root can be wrapped anew in its place: readers find the old wrapping or the new.
A root that has a tombstone is not there, whoever puts a copy of it back.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bus.authority.providers.base import KeyProvider, OwnKeys, Wrapped
from bus.authority.tombstones import Place, Tombstones
from bus.codes import Code
from bus.crypto.keys import Secret, root_digest
from bus.crypto.signing import open_object
from bus.errors import Refused, RetryLater, Unverified
from bus.files import make_folder, read_secret, write_secret
from bus.wire import preimage
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


def _parse(data: bytes, form: str, path: Path) -> tuple[dict[str, Any], Wrapped]:
    try:
        document = json.loads(data)
        if document["format"] != form or not isinstance(document["kek"], str):
            raise ValueError  # noqa: TRY301  # one sentence for all that is wrong with a file
        return document, Wrapped(document["kek"], bytes.fromhex(document["wrapped"]))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unverified(f"{path}: not a root file: {type(error).__name__}", step="root") from None


@dataclass(frozen=True, slots=True)
class StoredEpoch:
    """A verified epoch with its signed bytes and its root. ``openers``: digest of who may open what it seals."""

    epoch: Epoch
    signed: bytes
    root: Secret
    openers: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """A root file: of an epoch (``number``, ``name``) or of an audit day (no name), and the key that wrapped it."""

    number: int
    name: str
    kek: str


class RootStore:
    """Wrapped roots in folders. ``anchor`` is the public key that signs epochs."""

    def __init__(
        self,
        roots: Path,
        audit: Path,
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
        self._reach()
        # A folder without a root was left by a crash between making it and its first file, or its last and it.
        numbers = sorted(int(each.name) for each in self._roots.iterdir() if each.name.isdigit())
        erased = self.tombstones.places()
        return [number for number in numbers if self._names(number, erased)]

    def _reach(self) -> None:
        """A store that is away holds roots that are in use: others in their place would part it from what they seal."""
        for folder in (self._roots, self._audit, self.tombstones.folder):
            if not folder.is_dir():
                raise RetryLater(
                    f"{folder} is not there: the key store is away",
                    code=Code.RETRY,
                    hint="mount it again, or `bus stack up` for a new deployment",
                )

    def names(self, number: int) -> frozenset[str]:
        """Files of one epoch's roots: a domain that joins an epoch adds one. Without those that are erased."""
        return self._names(number, self.tombstones.places())

    def _names(self, number: int, erased: frozenset[Place]) -> frozenset[str]:
        try:
            names = {path.name for path in (self._roots / str(number)).iterdir() if path.suffix != ".new"}
        except FileNotFoundError:
            return frozenset()  # destroyed a moment ago
        return frozenset(name for name in names if (number, name) not in erased)

    def put(self, signed: bytes, root: Secret, openers: bytes) -> StoredEpoch:
        """Store a new epoch's root. One that is there already stays: it is read back and returned. Raises
        Refused(erased) in the place of one that was erased."""
        self._reach()
        epoch = open_object(Epoch, signed, self._anchor, self._deployment)
        path = self._roots / str(epoch.epoch) / f"{epoch.zone}.{epoch.domain}"
        self._check_erased(path)
        if path.exists():
            return self.open(epoch.epoch, path.name)
        with self._alone():
            wrapped = self._provider.wrap(root, _domain_context(epoch))
            make_folder(path.parent)
            write_secret(path, _document(_DOMAIN, wrapped, epoch=signed.hex(), openers=openers.hex()))
        return StoredEpoch(epoch, signed, root, openers)

    def load(self, number: int) -> list[StoredEpoch]:
        """Every domain's root of one epoch. Raises Unverified where an object or a wrapping does not hold."""
        return [self.open(number, name) for name in sorted(self.names(number))]

    def open(self, number: int, name: str) -> StoredEpoch:
        """The root in one file of ``names``. Raises Unverified, Refused(erased), or RetryLater when the provider cannot
        be reached."""
        path = self._roots / str(number) / name
        self._check_erased(path)
        return self._open(path, read_secret(path))[0]

    def _open(self, path: Path, data: bytes) -> tuple[StoredEpoch, bytes]:
        """The root in ``data`` of ``path``, and the context that its wrapping is bound to."""
        document, wrapped = _parse(data, _DOMAIN, path)
        try:
            signed, openers = (bytes.fromhex(document[key]) for key in ("epoch", "openers"))
        except (ValueError, KeyError, TypeError) as error:
            raise Unverified(f"{path}: not a root file: {type(error).__name__}", step="root") from None
        epoch = open_object(Epoch, signed, self._anchor, self._deployment)
        told, context = f"root({epoch.domain}, {epoch.epoch})", _domain_context(epoch)
        root = self._provider.unwrap(wrapped, context, told)
        if root_digest(root) != epoch.root_digest:
            raise Unverified(f"{told}: does not match its epoch", step="root")
        return StoredEpoch(epoch, signed, root, openers), context

    def _check_erased(self, path: Path) -> None:
        number, name = int(path.parent.name), path.name
        if self.tombstones.has((number, name)):
            raise Refused(f"root({name.rpartition('.')[2]}, {number}) is erased", code=Code.ERASED)

    def destroy(self, number: int) -> None:
        """Remove the wrapped roots of one epoch."""
        folder = self._roots / str(number)
        with self._alone():
            for path in folder.iterdir():
                path.unlink()
            folder.rmdir()

    def destroy_erased(self) -> list[Place]:
        """Remove every wrapped root that has a tombstone, copies that were put back too. Returns their places."""
        gone = []
        with self._alone():
            for number, name in sorted(self.tombstones.places()):
                path = self._roots / str(number) / name
                if path.exists():
                    path.unlink()
                    gone.append((number, name))
                    if not any(path.parent.iterdir()):
                        path.parent.rmdir()
        return gone

    def destroy_superseded(self, provider: OwnKeys) -> list[str]:
        """Destroy every wrapping key of ``provider`` that is not its newest and wraps no root here, for good. Returns
        their names. What is wrapped at the same time waits: it is under the newest."""
        with self._alone():
            used = {each.kek for each in self.kept()}
            gone = [kek for kek in provider.superseded() if kek not in used]
            for kek in gone:
                provider.destroy(kek)
        return gone

    def audit_root(self, day: int, *, create: bool = False) -> Secret:
        """root(audit, day). Raises FileNotFoundError where there is none and ``create`` is False, RetryLater where the
        store is away."""
        self._reach()
        path = self._audit / str(day)
        name, context = f"root(audit, {day})", _audit_context(self._deployment, day)
        if create and not path.exists():
            root = Secret.random(name)
            with self._alone():
                write_secret(path, _document(_AUDIT, self._provider.wrap(root, context)))
            return root
        return self._provider.unwrap(_parse(read_secret(path), _AUDIT, path)[1], context, name)

    def kept(self) -> Iterator[Kept]:
        """Every root file, without a call to a provider. Raises Unverified for one that is none."""
        for number in self.numbers():
            for name in sorted(self.names(number)):
                path = self._roots / str(number) / name
                with contextlib.suppress(FileNotFoundError):  # destroyed a moment ago
                    yield Kept(number, name, _parse(read_secret(path), _DOMAIN, path)[1].kek)
        for path in sorted(self._audit.iterdir()):
            if path.name.isdigit():
                yield Kept(int(path.name), "", _parse(read_secret(path), _AUDIT, path)[1].kek)

    def rewrap(self, kept: Kept, provider: KeyProvider) -> bool:
        """Wrap one root anew by ``provider``. The new wrapping is opened before it takes the old one's place. False
        where the root was destroyed, or wrapped anew by someone else, meanwhile."""
        path = self._roots / str(kept.number) / kept.name if kept.name else self._audit / str(kept.number)
        try:
            before = read_secret(path)
        except FileNotFoundError:
            return False
        if kept.name:
            stored, context = self._open(path, before)
            root = stored.root
        else:
            context = _audit_context(self._deployment, kept.number)
            root = self._provider.unwrap(_parse(before, _AUDIT, path)[1], context, f"root(audit, {kept.number})")
        wrapped = provider.wrap(root, context)
        if provider.unwrap(wrapped, context, root.name) != root:
            raise Unverified(f"{root.name}: the new wrapping holds another key", step="root")
        document = json.loads(before) | {"kek": wrapped.kek, "wrapped": wrapped.data.hex()}
        with self._alone():
            # A root that was destroyed while the provider worked must not come back.
            if not path.exists() or read_secret(path) != before:
                return False
            write_secret(path, json.dumps(document).encode(), path.stat().st_uid)
        return True

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time wraps, replaces or destroys: no key goes while a root is put under it."""
        descriptor = os.open(self._roots, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
