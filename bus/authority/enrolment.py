"""The files of an authority: the agents' CA, the server's key and chain, the register, the key of nonces.

Made where missing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bus.authority.ca import AgentCa, make_ca
from bus.authority.database import open_database
from bus.authority.local import now_ms
from bus.authority.register import Register
from bus.codes import Code
from bus.crypto.keys import Secret
from bus.errors import Refused
from bus.files import Layout, ensure_secret, make_folder, read_secret, write_file, write_secret
from bus.settings import Settings


@dataclass(frozen=True, slots=True)
class AuthorityFiles:
    """What the service opens. Keys and chains in PEM."""

    ca: AgentCa
    register: Register
    server_key: bytes = field(repr=False)
    server_chain: bytes
    attestation_key: Secret
    attestation_roots: Path
    """Folder of the makers' roots (``bus.authority.verifiers``); absent until an operator makes it."""


def _folder(layout: Layout) -> Path:
    return layout.state / "authority"


def ensure_authority_files(layout: Layout, deployment: bytes, issue: Callable[[], tuple[bytes, bytes]]) -> None:
    """Make what is missing; ``issue`` gives a server key and chain that agents' CA file verifies."""
    folder = make_folder(_folder(layout))
    if not (folder / "ca.key").exists():
        key, certificate = make_ca(deployment, now_ms())
        write_file(folder / "ca.pem", certificate)
        write_secret(folder / "ca.key", key)
    if not (folder / "server.key").exists():
        key, chain = issue()
        write_file(folder / "server.pem", chain)
        write_secret(folder / "server.key", key)
    ensure_secret(folder / "attestation.key")


def open_authority(settings: Settings, layout: Layout) -> AuthorityFiles:
    """Raises Refused(stack) where there is no authority in this state folder."""
    folder = _folder(layout)
    try:
        return AuthorityFiles(
            ca=AgentCa(read_secret(folder / "ca.key"), (folder / "ca.pem").read_bytes(), settings.deployment_id),
            register=_register(settings, folder),
            server_key=read_secret(folder / "server.key"),
            server_chain=(folder / "server.pem").read_bytes(),
            attestation_key=Secret(read_secret(folder / "attestation.key"), "attestation"),
            attestation_roots=folder / "roots",
        )
    except FileNotFoundError as error:
        raise Refused(f"no authority here: {error.filename}", code=Code.STACK, hint="bus stack up") from None


def open_register(settings: Settings, layout: Layout) -> Register:
    """The register alone, for who enrols and revokes. Raises Refused(stack) where there is none."""
    folder = _folder(layout)
    if not folder.is_dir() and not settings.authority_database:
        raise Refused(
            f"no authority here: {folder}", code=Code.STACK, hint='set issuing = "authority", then bus stack up'
        )
    return _register(settings, folder)


def _register(settings: Settings, folder: Path) -> Register:
    return Register(open_database(settings, folder / "register.db"))
