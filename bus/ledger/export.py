"""A ledger as a folder that proves itself: a copy, and a manifest over all of its partitions, signed by its key.

`manifest` is a C2SP signed note: `sealbus/<deployment>/manifest`, ms since 1970, and a line a partition: its number,
the size of its newest checkpoint and that root. Whoever has the folder and the public key needs nothing else; what was
cut off the copy since is missed by the manifest.
"""

from __future__ import annotations

import base64
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bus.crypto.signing import Signer
from bus.errors import Unverified
from bus.files import make_folder, write_file
from bus.ledger.checkpoint import open_checkpoint, open_note, sign_note
from bus.ledger.store import Ledger
from bus.ledger.verify import NOBODY, Report, Witnesses, verify_ledger

COPY: Final = "ledger.db"
MANIFEST: Final = "manifest"
MAX_MANIFEST: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a folder must hold: by partition the size and root that were signed last."""

    deployment: bytes
    made_at: int
    heads: dict[int, tuple[int, bytes]]

    @property
    def origin(self) -> str:
        """Its name."""
        return f"sealbus/{self.deployment.hex()}/{MANIFEST}"

    def sign(self, signer: Signer) -> str:
        """The signed note."""
        rows = [f"{each} {size} {base64.b64encode(root).decode()}" for each, (size, root) in sorted(self.heads.items())]
        return sign_note(self.origin, "".join(f"{row}\n" for row in (self.origin, self.made_at, *rows)), signer)


def open_manifest(note: str, public_key: bytes) -> Manifest:
    """The verified manifest. Raises Unverified (checkpoint, manifest)."""
    name, body = open_note(note, public_key)
    try:
        _, made_at, *rows = body.rstrip("\n").split("\n")
        kind, deployment, what = name.split("/")
        heads = {}
        for row in rows:
            partition, size, root = row.split(" ")
            heads[int(partition)] = int(size), base64.b64decode(root, validate=True)
        made = Manifest(bytes.fromhex(deployment), int(made_at), heads)
    except ValueError:
        raise Unverified("manifest: expected a line for each partition", step="manifest") from None
    if (kind, what) != ("sealbus", MANIFEST) or len(made.deployment) != 16:
        raise Unverified(f"manifest: expected sealbus/<deployment>/{MANIFEST}, found {name}", step="manifest")
    return made


def export(source: Ledger, folder: Path, signer: Signer, now_ms: int) -> Manifest:
    """A copy of the ledger ``source`` in ``folder``, of one moment while a recorder writes, with its manifest.

    A SQLite file, whichever database it is from. Raises FileExistsError where the folder holds one.
    """
    make_folder(folder)
    path = folder / COPY
    if path.exists():
        raise FileExistsError(path)
    source.copy(path)
    path.chmod(0o600)
    ledger = Ledger(path, source.deployment, read_only=True)
    try:
        heads = {}
        for partition in ledger.partitions():
            note = ledger.checkpoint(partition)
            if note is not None:
                checkpoint = open_checkpoint(note, signer.public_key)
                heads[partition] = checkpoint.size, checkpoint.root
    finally:
        ledger.close()
    made = Manifest(source.deployment, now_ms, heads)
    write_file(folder / MANIFEST, made.sign(signer).encode())
    return made


def read_manifest(folder: Path, public_key: bytes) -> Manifest:
    """The verified manifest of an export. Raises Unverified (checkpoint, manifest), OSError where there is none."""
    with (folder / MANIFEST).open("rb") as file:
        return open_manifest(file.read(MAX_MANIFEST).decode("utf-8", "replace"), public_key)


def open_export(folder: Path, public_key: bytes) -> Ledger:
    """The ledger of an export, unverified but for whose it is. Raises as ``verify_export``."""
    return Ledger(folder / COPY, read_manifest(folder, public_key).deployment, read_only=True)


def verify_export(folder: Path, public_key: bytes, witnesses: Witnesses = NOBODY) -> Report:
    """Everything that ``verify_ledger`` checks, and that nothing is missing which the manifest names.

    Raises Unverified for a manifest that does not hold, Refused (ledger) for no ledger, OSError for no manifest.
    """
    manifest = read_manifest(folder, public_key)
    ledger = Ledger(folder / COPY, manifest.deployment, read_only=True)
    try:
        report = verify_ledger(ledger, public_key, witnesses)
        for partition, (size, root) in sorted(manifest.heads.items()):
            there = report.sizes.get(partition, 0)
            if there < size:
                report.problems.append(
                    f"partition {partition}: leaf {there} is missing: the manifest covers {size}, {there} are there"
                )
            elif root not in _roots(ledger, partition, size, public_key):
                report.problems.append(
                    f"partition {partition}: no checkpoint has the manifest's root over {size} leaves"
                )
    finally:
        ledger.close()
    return report


def _roots(ledger: Ledger, partition: int, size: int, public_key: bytes) -> set[bytes]:
    """Roots of this size that were signed; ``verify_ledger`` tells those that do not hold."""
    found = set()
    for note in ledger.checkpoints(partition):
        with contextlib.suppress(Unverified):
            checkpoint = open_checkpoint(note, public_key)
            if checkpoint.size == size:
                found.add(checkpoint.root)
    return found
