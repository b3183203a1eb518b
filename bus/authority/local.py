"""The files of a local deployment, opened: signers, trust, roots. What `bus stack up` and the services start from."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bus.authority.custody import Custodian
from bus.authority.providers.file import FileProvider
from bus.authority.roots import RootStore
from bus.authority.tombstones import Tombstones
from bus.authority.trust import LiveSnapshot, TrustFile, open_snapshot, read_trust
from bus.crypto.signing import Signer, sign_object
from bus.files import Layout, make_folder, read_secret, write_secret
from bus.settings import Custody, Settings
from bus.wire.names import NO_ZONE
from bus.wire.objects import EnforcerCertificate

CERTIFICATE_MS = 90 * 86_400_000
RENEW_BEFORE_MS = 7 * 86_400_000
SIGNERS = ("issuer", "policy", "ledger")


def load_signer(path: Path, *, create: bool = False) -> Signer:
    """The signing key in ``path``; made where missing if ``create``."""
    if create and not path.exists():
        make_folder(path.parent)
        write_secret(path, os.urandom(32))
    return Signer(read_secret(path))


def ensure_authority(layout: Layout, deployment: bytes, custody: Custody = Custody.FILE) -> TrustFile:
    """Make signers, the `file` provider's wrapping key and trust.json where missing; returns the trust file."""
    issuer, policy, ledger = (load_signer(layout.signer(name), create=True).public_key for name in SIGNERS)
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
    tombstones = Tombstones(layout.tombstones, settings.deployment_id, trust.anchor)
    provider = Custodian(settings, layout)
    return RootStore(layout.roots, layout.audit_roots, tombstones, provider, settings.deployment_id, trust.anchor)


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
