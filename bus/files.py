"""Where a local deployment keeps its files, and the only functions that write secret ones.

A secret file is 0600, written whole to a temporary name and renamed; reading one that others may read is refused.
The state folder may be entered (0711) but not listed, so that an agent under a user of its own reaches
only its own folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bus.codes import Code
from bus.errors import Refused

CLIENT = "client.pem"
SECRET_LENGTH: Final = 32
"""Bytes of a key, or of a seed that a key is made of."""
ENROLLED = "identity"
"""Key, client certificate and counter of an agent that the authority knows."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths under one state folder."""

    state: Path

    @property
    def settings(self) -> Path:
        """bus.toml of the local stack."""
        return self.state / "bus.toml"

    @property
    def ca(self) -> Path:
        """The development CA's certificate (public)."""
        return self.state / "pki" / "ca.pem"

    @property
    def clients_ca(self) -> Path:
        """The certificate of the CA that brokers check client certificates with (public)."""
        return self.state / "clients" / "ca.pem"

    @property
    def kek(self) -> Path:
        """Key of the `file` provider."""
        return self.state / "keys" / "kek"

    @property
    def roots(self) -> Path:
        """Wrapped roots of domains, one folder an epoch."""
        return self.state / "keys" / "roots"

    @property
    def audit_roots(self) -> Path:
        """Wrapped roots of the audit, one file a day."""
        return self.state / "keys" / "audit"

    @property
    def tombstones(self) -> Path:
        """What says which roots are erased, one file each."""
        return self.state / "keys" / "tombstones"

    @property
    def snapshot(self) -> Path:
        """The signed policy that was applied last (public)."""
        return self.state / "policy" / "snapshot"

    @property
    def history(self) -> Path:
        """Every signed policy that was applied from here, by number (public)."""
        return self.state / "policy" / "history"

    @property
    def trust(self) -> Path:
        """Anchors and enforcer certificates (public)."""
        return self.state / "trust.json"

    @property
    def contexts(self) -> Path:
        """Public contexts of homomorphic encryption, by their SHA-256."""
        return self.state / "contexts"

    @property
    def ledger(self) -> Path:
        """The embedded ledger."""
        return self.state / "ledger" / "ledger.db"

    @property
    def run(self) -> Path:
        """Process ids, logs and ready files of what runs on this machine."""
        return self.state / "run"

    def signer(self, name: str) -> Path:
        """Private seed of the issuer, the policy signer or the ledger; the keys that sign broker tokens."""
        return self.state / "signers" / f"{name}.key"

    def agent(self, name: str) -> Path:
        """An agent's folder: scram, token or keytab, client.pem, keys/<epoch>."""
        return self.state / "agents" / name

    def store(self, agent: str) -> Path:
        """What an agent keeps for itself, sealed (``bus.client.storefile``)."""
        return self.agent(agent) / "store.db"

    def service(self, name: str) -> Path:
        """A service's folder: scram, client.pem, and an enforcer's signing.key and certificate."""
        return self.state / "services" / name

    def principal(self, name: str) -> Path:
        """Folder of an agent or, with the reserved prefix, of a service."""
        return self.service(name) if name.startswith("bus-") else self.agent(name)

    def certificate(self, name: str) -> Path:
        """Private key and client certificate for the broker, in one file."""
        return self.principal(name) / CLIENT

    def certificates(self) -> list[Path]:
        """Every agent's client certificate that is there."""
        return sorted((self.state / "agents").glob(f"*/{CLIENT}"))

    @property
    def jwks(self) -> Path:
        """Public keys that brokers check tokens with, in a folder of its own: a broker sees nothing beside it."""
        return self.state / "jwks" / "jwks.json"

    def token(self, agent: str) -> Path:
        """An agent's broker token."""
        return self.agent(agent) / "token"

    def keytab(self, agent: str) -> Path:
        """An agent's Kerberos keytab, which the realm's administrator puts there."""
        return self.agent(agent) / "keytab"

    def tokens(self) -> list[Path]:
        """Every token that is there."""
        return sorted((self.state / "agents").glob("*/token"))


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One process at a time, and one thread of it: whoever else asks for ``folder`` waits."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def make_folder(path: Path, mode: int = 0o700, owner: int | None = None) -> Path:
    """``path`` with ``mode``, parents made 0711."""
    if not path.parent.is_dir():
        make_folder(path.parent, 0o711)
    path.mkdir(exist_ok=True)
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)
    if owner is not None and path.stat().st_uid != owner:
        os.chown(path, owner, -1)
    return path


def write_secret(path: Path, data: bytes, owner: int | None = None) -> None:
    """``data`` to ``path``, 0600, whole or not at all."""
    write_file(path, data, 0o600, owner)


def ensure_secret(path: Path) -> None:
    """A secret file of ``SECRET_LENGTH`` random bytes at ``path``, where there is none."""
    if not path.exists():
        make_folder(path.parent)
        write_secret(path, os.urandom(SECRET_LENGTH))


def write_file(path: Path, data: bytes, mode: int = 0o644, owner: int | None = None) -> None:
    """``data`` to ``path`` with ``mode``; readers see the old bytes or the new ones, after a crash too."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as out:
            os.fchmod(descriptor, mode)  # whatever the umask is
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        if owner is not None:
            os.chown(temporary, owner, -1)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


Stamp = tuple[int, int]
"""Another one when a file was replaced."""
NO_STAMP: Final[Stamp] = (0, 0)


def stamp_of(path: Path) -> Stamp:
    """Which file is at ``path`` now; NO_STAMP where none is."""
    try:
        found = path.stat()
    except OSError:
        return NO_STAMP
    return found.st_ino, found.st_mtime_ns


def read_secret(path: Path) -> bytes:
    """A secret file's bytes. Raises Refused(credential) where others may read it, OSError where it cannot be read."""
    with path.open("rb") as source:
        mode = stat.S_IMODE(os.fstat(source.fileno()).st_mode)
        if mode & 0o077:
            raise Refused(
                f"{path}: expected mode 0600, found {mode:04o}", code=Code.CREDENTIAL, hint=f"chmod 600 {path}"
            )
        return source.read()
