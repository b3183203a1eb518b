"""Tombstones at rest, beside the roots: what says that a root is erased, whatever copy of it comes back.

Each holds the signed object, and the name of the key that wrapped the root: in files here, in a table that replicas
share by ``bus.authority.tables``. Its place closes the root: one that was damaged does so too, and only what it says is
not believed. None is removed, and the first in a place stays.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from bus.authority.documents import Place, reach
from bus.crypto.signing import open_object
from bus.errors import Unverified
from bus.files import write_file
from bus.wire.objects import Epoch, Tombstone

FORMAT: Final = "sealbus.tombstone/1"


def place_of(told: Epoch | Tombstone) -> Place:
    """Where the root stands, or stood."""
    return told.epoch, f"{told.zone}.{told.domain}"


class Stones(Protocol):
    """Bytes by place. Every method raises RetryLater where the store is away."""

    def reach(self) -> None:
        """Raise RetryLater where the store is away."""
        ...

    def places(self, since: int = 0) -> frozenset[Place]:
        """Of every one, of epoch ``since`` and later."""
        ...

    def read(self, number: int, name: str) -> bytes:
        """One. Raises FileNotFoundError."""
        ...

    def put(self, number: int, name: str, data: bytes) -> None:
        """Store one; where one is, it stays."""
        ...


class StoneFolder:
    """``<epoch>.<zone>.<domain>``, a file each. Public, as they are on bus.control: a service under another user must
    be able to read them."""

    def __init__(self, path: Path) -> None:
        self._folder = path

    def reach(self) -> None:
        """See ``Stones``."""
        reach(self._folder)

    def places(self, since: int = 0) -> frozenset[Place]:
        """See ``Stones``."""
        self.reach()
        found = (path.name.partition(".") for path in self._folder.iterdir() if path.suffix != ".new")
        return frozenset((int(number), name) for number, _, name in found if number.isdigit() and int(number) >= since)

    def read(self, number: int, name: str) -> bytes:
        """See ``Stones``."""
        return self._path(number, name).read_bytes()

    def put(self, number: int, name: str, data: bytes) -> None:
        """See ``Stones``."""
        self.reach()
        if not self._path(number, name).exists():
            write_file(self._path(number, name), data)

    def _path(self, number: int, name: str) -> Path:
        return self._folder / f"{number}.{name}"


@dataclass(frozen=True, slots=True)
class Buried:
    """A verified tombstone with its signed bytes. ``kek`` names the key that wrapped the root last."""

    tombstone: Tombstone
    signed: bytes
    kek: str


class Tombstones:
    """The tombstones of a deployment; ``anchor`` is the public key that signs them."""

    def __init__(self, stones: Stones, deployment: bytes, anchor: bytes) -> None:
        self._stones = stones
        self._deployment = deployment
        self._anchor = anchor

    def reach(self) -> None:
        """Raise RetryLater where the store is away."""
        self._stones.reach()

    def places(self, since: int = 0) -> frozenset[Place]:
        """Of every root that is erased, of epoch ``since`` and later. Raises RetryLater where the store is away."""
        return self._stones.places(since)

    def has(self, place: Place) -> bool:
        """Whether the root of this place is erased."""
        return place in self._stones.places(place[0])

    def put(self, signed: bytes, kek: str) -> Buried:
        """Store one, and return the one that stands there. Raises Unverified unless the anchor signed it for this
        deployment."""
        place = place_of(open_object(Tombstone, signed, self._anchor, self._deployment))
        document = {"format": FORMAT, "tombstone": signed.hex(), "kek": kek}
        self._stones.put(*place, json.dumps(document).encode())
        return self.read(place)

    def read(self, place: Place) -> Buried:
        """The tombstone of ``place``. Raises Unverified or WireError for one that is not this root's, or is damaged."""
        told, data = f"tombstone {place[0]}/{place[1]}", self._stones.read(*place)
        try:
            document = json.loads(data)
            if document["format"] != FORMAT or not isinstance(document["kek"], str):
                raise ValueError  # noqa: TRY301  # one sentence for all that is wrong with a file
            signed, kek = bytes.fromhex(document["tombstone"]), document["kek"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Unverified(f"{told}: not a tombstone: {type(error).__name__}", step="tombstone") from None
        tombstone = open_object(Tombstone, signed, self._anchor, self._deployment)
        if place_of(tombstone) != place:
            raise Unverified(f"{told}: the tombstone of another root", step="tombstone")
        return Buried(tombstone, signed, kek)


def copy(source: Stones, target: Stones) -> int:
    """Put every tombstone of ``source`` beside those of ``target``; how many are new there."""
    missing = source.places() - target.places()
    for place in missing:
        target.put(*place, source.read(*place))
    return len(missing)
