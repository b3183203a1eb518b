"""The attester that the settings name, and the code that an agent measures: this package and the agent's own folder."""

from __future__ import annotations

import tempfile
import weakref
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from bus.attester.base import Attester
from bus.attester.software import SoftwareAttester, measure
from bus.attester.tpm import TpmAttester
from bus.errors import SettingsError
from bus.settings import UNSET, AttesterKind, Settings
from bus.wire.measurement import Measurement

_PACKAGE = Path(__file__).resolve().parents[1]


def measured_code(settings: Settings) -> Measurement:
    """The measurement of ``bus``, of ``attester_code`` where it is set, and of the interpreter. Raises Refused."""
    folders = {"bus": _PACKAGE}
    if settings.attester_code != UNSET:
        folders["agent"] = settings.attester_code
    return measure(folders)


def choose(settings: Settings) -> Attester | None:
    """The attester, or None where the settings name none. Raises SettingsError or Refused."""
    if settings.attester is AttesterKind.SOFTWARE:
        return SoftwareAttester(measured_code(settings))
    if settings.attester is AttesterKind.TPM:
        folder = tempfile.TemporaryDirectory(prefix="sealbus-tpm-")
        made = TpmAttester(Path(folder.name), settings.tpm_tcti, _intermediates(settings), settings.tpm_pcr)
        weakref.finalize(made, folder.cleanup)
        return made
    return None


def _intermediates(settings: Settings) -> bytes:
    """Certificates between the TPM's own and its maker's root, from PEM to DER, one behind the other."""
    if settings.tpm_chain == UNSET:
        return b""
    try:
        found = x509.load_pem_x509_certificates(settings.tpm_chain.read_bytes())
    except (OSError, ValueError) as error:
        raise SettingsError(f"tpm_chain: {settings.tpm_chain}: expected certificates in PEM: {error}") from None
    return b"".join(each.public_bytes(Encoding.DER) for each in found)
