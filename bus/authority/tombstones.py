"""Tombstones at rest, beside the roots: what says that a root is erased, whatever copy of it comes back.

``tombstones/<epoch>.<zone>.<domain>`` holds the signed object, and the name of the key that wrapped the root. The name
of the file closes its root: one that was damaged does so too, and only what it says is not believed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bus.crypto.signing import open_object
from bus.errors import Unverified
from bus.files import write_file
from bus.wire.objects import Tombstone

FORMAT: Final = "sealbus.tombstone/1"
Place = tuple[int, str]
"""An epoch's number, and the name of a root's file in it: ``<zone>.<domain>``."""


def place_of(tombstone: Tombstone) -> Place:
    """Where the root stood."""
    return tombstone.epoch, f"{tombstone.zone}.{tombstone.domain}"


@dataclass(frozen=True, slots=True)
class Buried:
    """A verified tombstone with its signed bytes. ``kek`` names the key that wrapped the root last."""

    tombstone: Tombstone
    signed: bytes
    kek: str


class Tombstones:
    """The tombstones of a deployment; ``anchor`` is the public key that signs them."""

    def __init__(self, folder: Path, deployment: bytes, anchor: bytes) -> None:
        self.folder = folder
        self._deployment = deployment
        self._anchor = anchor

    def places(self) -> frozenset[Place]:
        """Of every root that is erased."""
        found = (path.name.partition(".") for path in self.folder.iterdir() if path.suffix != ".new")
        return frozenset((int(number), name) for number, _, name in found if number.isdigit())

    def has(self, place: Place) -> bool:
        """Whether the root of this place is erased."""
        return self._path(place).exists()

    def put(self, signed: bytes, kek: str) -> Buried:
        """Store one. Raises Unverified unless the anchor signed it for this deployment."""
        buried = Buried(open_object(Tombstone, signed, self._anchor, self._deployment), signed, kek)
        document = {"format": FORMAT, "tombstone": signed.hex(), "kek": kek}
        # Public, as it is on bus.control: a service under another user must be able to read it.
        write_file(self._path(place_of(buried.tombstone)), json.dumps(document).encode())
        return buried

    def read(self, place: Place) -> Buried:
        """The tombstone of ``place``. Raises Unverified or WireError for one that is not this root's, or is damaged."""
        path = self._path(place)
        try:
            document = json.loads(path.read_bytes())
            if document["format"] != FORMAT or not isinstance(document["kek"], str):
                raise ValueError  # noqa: TRY301  # one sentence for all that is wrong with a file
            signed, kek = bytes.fromhex(document["tombstone"]), document["kek"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Unverified(f"{path}: not a tombstone: {type(error).__name__}", step="tombstone") from None
        tombstone = open_object(Tombstone, signed, self._anchor, self._deployment)
        if place_of(tombstone) != place:
            raise Unverified(f"{path}: the tombstone of another root", step="tombstone")
        return Buried(tombstone, signed, kek)

    def _path(self, place: Place) -> Path:
        return self.folder / f"{place[0]}.{place[1]}"
