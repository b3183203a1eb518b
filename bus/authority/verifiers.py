"""Which evidence this authority can appraise: one verifier for each kind whose makers' roots it was given.

Roots are files ``<kind>/<name>.pem`` of one certificate each, in a folder of the authority's; a kind without any is
refused. Software evidence has no root, and proves nothing about a machine: it is taken in development mode alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cryptography import x509

from bus.attestation.chain import Roots
from bus.attestation.evidence import Verifier
from bus.attestation.nitro import NitroVerifier
from bus.attestation.snp import SnpVerifier
from bus.attestation.software import SoftwareVerifier
from bus.attestation.tpm import TpmVerifier
from bus.codes import Code
from bus.crypto.keys import Secret
from bus.errors import Refused
from bus.wire.measurement import EvidenceKind


def open_verifiers(folder: Path, key: Secret, *, development: bool) -> Mapping[EvidenceKind, Verifier]:
    """Verifiers by kind. ``key``: what TPM challenges are derived from. Raises Refused(settings) for another file."""
    made: dict[EvidenceKind, Verifier] = {}
    if development:
        made[EvidenceKind.SOFTWARE] = SoftwareVerifier()
    if roots := _roots(folder, EvidenceKind.TPM):
        made[EvidenceKind.TPM] = TpmVerifier(roots, key)
    if roots := _roots(folder, EvidenceKind.SNP):
        made[EvidenceKind.SNP] = SnpVerifier(roots)
    if roots := _roots(folder, EvidenceKind.NITRO):
        made[EvidenceKind.NITRO] = NitroVerifier(roots)
    return made


def _roots(folder: Path, kind: EvidenceKind) -> Roots:
    found = {}
    for path in sorted((folder / kind).glob("*.pem")):
        try:
            found[path.stem] = x509.load_pem_x509_certificate(path.read_bytes())
        except ValueError:
            raise Refused(f"{path}: expected one certificate in PEM", code=Code.SETTINGS) from None
    return found
