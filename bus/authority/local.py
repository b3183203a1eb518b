"""The files of a local deployment, opened: signers, trust, roots. What `bus stack up` and the services start from."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from bus.authority.custody import Custodian
from bus.authority.database import Sqlite, open_database
from bus.authority.documents import Documents, Folder
from bus.authority.providers.file import FileProvider
from bus.authority.roots import RootStore
from bus.authority.tables import AUDIT_ROOTS, ROOTS, TOMBSTONES, Table, move
from bus.authority.tombstones import StoneFolder, Stones, Tombstones, copy
from bus.authority.trust import LiveSnapshot, TrustFile, open_snapshot, read_trust
from bus.crypto.signing import Signer, sign_object
from bus.files import Layout, ensure_secret, make_folder, read_secret
from bus.settings import Custody, Issuing, Settings
from bus.wire.names import NO_ZONE
from bus.wire.objects import EnforcerCertificate

log = logging.getLogger("bus.authority")
CERTIFICATE_MS = 90 * 86_400_000
RENEW_BEFORE_MS = 7 * 86_400_000
SIGNERS = ("issuer", "policy", "ledger")


def load_signer(path: Path, *, create: bool = False) -> Signer:
    """The signing key in ``path``; made where missing if ``create``."""
    if create:
        ensure_secret(path)
    return Signer(read_secret(path))


def ensure_authority(layout: Layout, deployment: bytes, custody: Custody = Custody.FILE) -> TrustFile:
    """Make signers, the `file` provider's wrapping key and trust.json where missing; returns the trust file."""
    issuer, policy, ledger = (load_signer(layout.signer(name), create=True).public_key for name in SIGNERS)
    ensure_secret(layout.signer("session"))
    if custody is Custody.FILE:
        FileProvider.create(layout.kek)
    make_folder(layout.roots)
    make_folder(layout.audit_roots)
    make_folder(layout.tombstones)
    if not layout.trust.exists():
        TrustFile(deployment, issuer, policy, ledger).write(layout.trust)
    return read_trust(layout.trust)


def ensure_enforcer(layout: Layout, trust: TrustFile, name: str, domains: list[str], now_ms: int) -> TrustFile:
    """Make an enforcer's signing key, and a certificate for ``domains`` unless a fitting one is held."""
    signer = load_signer(layout.service(name) / "signing.key", create=True)
    held = [EnforcerCertificate.parse(each) for each in trust.certificates]
    fitting = [
        each
        for each in held
        if each.key_id == signer.key_id
        and set(domains) <= set(each.domains)
        and each.not_after - now_ms > RENEW_BEFORE_MS
    ]
    if fitting:
        return trust
    certificate = EnforcerCertificate(
        deployment=trust.deployment,
        key_id=signer.key_id,
        public_key=signer.public_key,
        not_before=min((each.not_before for each in held if each.key_id == signer.key_id), default=now_ms - 60_000),
        not_after=now_ms + CERTIFICATE_MS,
        name=name,
        zones=(NO_ZONE,),
        domains=tuple(sorted(domains)),
    )
    issuer = load_signer(layout.signer("issuer"))
    renewed = trust.with_certificate(sign_object(issuer, certificate))
    renewed.write(layout.trust)
    return renewed


def open_roots(settings: Settings, layout: Layout, trust: TrustFile) -> RootStore:
    """The root store behind the key provider of the settings. Raises SettingsError where it lacks something."""
    roots, audit, stones = _stores(settings, layout)
    tombstones = Tombstones(stones, settings.deployment_id, trust.anchor)
    return RootStore(roots, audit, tombstones, Custodian(settings, layout), settings.deployment_id, trust.anchor)


def _stores(settings: Settings, layout: Layout) -> tuple[Documents, Documents, Stones]:
    """Where wrapped roots of domains and of the audit lie, and tombstones."""
    if settings.issuing is Issuing.FILES:
        return Folder(layout.roots), Folder(layout.audit_roots), StoneFolder(layout.tombstones)
    return (
        _table(settings, layout.roots, ROOTS),
        _table(settings, layout.audit_roots, AUDIT_ROOTS),
        _table(settings, layout.tombstones, TOMBSTONES),
    )


def _table(settings: Settings, folder: Path, name: str) -> Table:
    return Table(open_database(settings, _file(folder)), name)


def _file(folder: Path) -> Path:
    """Each in its own folder: a copy of roots that is put back leaves the tombstones that are there."""
    return folder / f"{folder.name}.db"


def _ensure_tombstones(settings: Settings, layout: Layout) -> None:
    """They stay where they were, too: a copy of roots from there is closed wherever it is put."""
    here, file = StoneFolder(layout.tombstones), _file(layout.tombstones)
    if settings.issuing is Issuing.AUTHORITY:
        table = _table(settings, layout.tombstones, TOMBSTONES)
        table.setup()
        copied = copy(here, table)
    else:
        copied = copy(Table(Sqlite(file), TOMBSTONES), here) if file.exists() else 0
    if copied:
        log.info("%d tombstones copied to where %s keeps them", copied, settings.issuing)


def ensure_roots(settings: Settings, layout: Layout) -> None:
    """Make the tables of roots where the authority keeps them, and move what the other way of issuing left here.

    Tombstones go first: no root is anywhere without its own.
    """
    _ensure_tombstones(settings, layout)
    for folder, name in ((layout.roots, ROOTS), (layout.audit_roots, AUDIT_ROOTS)):
        here = Folder(folder)
        if settings.issuing is Issuing.AUTHORITY:
            table = _table(settings, folder, name)
            table.setup()
            moved = move(here, table)
        else:
            file = _file(folder)
            moved = move(Table(Sqlite(file), name), here) if file.exists() else 0
        if moved:
            log.info("%d numbers of %s moved to where %s keeps them", moved, name, settings.issuing)


def read_applied(layout: Layout, trust: TrustFile, held: LiveSnapshot | None = None) -> LiveSnapshot | None:
    """The policy that was applied last, verified, or None."""
    if not layout.snapshot.exists():
        return None
    return open_snapshot(layout.snapshot.read_bytes(), trust, held)


def read_history(layout: Layout, trust: TrustFile) -> list[LiveSnapshot]:
    """Every policy that was applied from here, verified, oldest first. Raises Unverified or WireError for another's."""
    if not layout.history.is_dir():
        return []
    return [open_snapshot(path.read_bytes(), trust) for path in sorted(layout.history.iterdir())]


def now_ms() -> int:
    """This machine's clock, ms since 1970."""
    return time.time_ns() // 1_000_000
