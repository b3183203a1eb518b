"""Roots at rest: random per (zone, domain, epoch) and per audit day, wrapped by a key provider.

A root is created once and read back; who may not reach the provider learns nothing from these files. Beside each domain
root stands its signed epoch object.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from bus.authority.providers.base import KeyProvider
from bus.codes import Code
from bus.crypto.keys import Secret, root_digest
from bus.crypto.signing import open_object
from bus.errors import RetryLater, Unverified
from bus.files import make_folder, read_secret, write_secret
from bus.wire import preimage
from bus.wire.objects import Epoch


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


@dataclass(frozen=True, slots=True)
class StoredEpoch:
    """A verified epoch with its signed bytes and its root. ``openers``: digest of who may open what it seals."""

    epoch: Epoch
    signed: bytes
    root: Secret
    openers: bytes


class RootStore:
    """Wrapped roots in folders. ``anchor`` is the public key that signs epochs."""

    def __init__(self, roots: Path, audit: Path, provider: KeyProvider, deployment: bytes, anchor: bytes) -> None:
        self._roots = roots
        self._audit = audit
        self._provider = provider
        self._deployment = deployment
        self._anchor = anchor

    def numbers(self) -> list[int]:
        """Epoch numbers that are stored, ascending. Raises RetryLater where the store is away."""
        self._reach()
        # A folder without a root was left by a crash between making it and its first file, or its last and it.
        numbers = sorted(int(each.name) for each in self._roots.iterdir() if each.name.isdigit())
        return [number for number in numbers if self.names(number)]

    def _reach(self) -> None:
        """A store that is away holds roots that are in use: others in their place would part it from what they seal."""
        for folder in (self._roots, self._audit):
            if not folder.is_dir():
                raise RetryLater(
                    f"{folder} is not there: the key store is away",
                    code=Code.RETRY,
                    hint="mount it again, or `bus stack up` for a new deployment",
                )

    def names(self, number: int) -> frozenset[str]:
        """Files of one epoch's roots: a domain that joins an epoch adds one."""
        try:
            return frozenset(path.name for path in (self._roots / str(number)).iterdir() if path.suffix != ".new")
        except FileNotFoundError:
            return frozenset()  # destroyed a moment ago

    def put(self, signed: bytes, root: Secret, openers: bytes) -> StoredEpoch:
        """Store a new epoch's root. One that is there already stays: it is read back and returned."""
        self._reach()
        epoch = open_object(Epoch, signed, self._anchor, self._deployment)
        wrapped = self._provider.wrap(root, _domain_context(epoch))
        document = {
            "format": "sealbus.root/1",
            "kek": self._provider.kek_id,
            "epoch": signed.hex(),
            "wrapped": wrapped.hex(),
            "openers": openers.hex(),
        }
        folder = make_folder(self._roots / str(epoch.epoch))
        name = f"{epoch.zone}.{epoch.domain}"
        if (folder / name).exists():
            return self.open(epoch.epoch, name)
        write_secret(folder / name, json.dumps(document).encode())
        return StoredEpoch(epoch, signed, root, openers)

    def load(self, number: int) -> list[StoredEpoch]:
        """Every domain's root of one epoch. Raises Unverified where an object or a wrapping does not hold."""
        return [self.open(number, name) for name in sorted(self.names(number))]

    def open(self, number: int, name: str) -> StoredEpoch:
        """The root in one file of ``names``. Raises Unverified, or RetryLater when the provider cannot be reached."""
        path = self._roots / str(number) / name
        try:
            document = json.loads(read_secret(path))
            signed, wrapped, openers = (bytes.fromhex(document[key]) for key in ("epoch", "wrapped", "openers"))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Unverified(f"{path}: not a root file: {type(error).__name__}", step="root") from None
        epoch = open_object(Epoch, signed, self._anchor, self._deployment)
        told = f"root({epoch.domain}, {epoch.epoch})"
        root = self._provider.unwrap(wrapped, _domain_context(epoch), told)
        if root_digest(root) != epoch.root_digest:
            raise Unverified(f"{told}: does not match its epoch", step="root")
        return StoredEpoch(epoch, signed, root, openers)

    def destroy(self, number: int) -> None:
        """Remove the wrapped roots of one epoch."""
        folder = self._roots / str(number)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()

    def audit_root(self, day: int, *, create: bool = False) -> Secret:
        """root(audit, day). Raises FileNotFoundError where there is none and ``create`` is False, RetryLater where the
        store is away."""
        self._reach()
        path = self._audit / str(day)
        context = _audit_context(self._deployment, day)
        if create and not path.exists():
            write_secret(path, self._provider.wrap(Secret.random("audit"), context))
        return self._provider.unwrap(read_secret(path), context, f"root(audit, {day})")
