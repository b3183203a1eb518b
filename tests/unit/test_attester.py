"""The attester that settings name, and what it measures."""

from __future__ import annotations

import dataclasses

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from bus.attester.chosen import choose, measured_code
from bus.attester.software import SoftwareAttester
from bus.attester.tpm import TpmAttester
from bus.errors import Refused, SettingsError
from bus.settings import AttesterKind, Settings
from tests.attestation.made import Authority


def test_the_settings_name_the_attester(tmp_path):
    assert choose(Settings()) is None
    assert isinstance(choose(Settings(attester=AttesterKind.SOFTWARE)), SoftwareAttester)
    made = choose(Settings(attester=AttesterKind.TPM))
    assert isinstance(made, TpmAttester)
    folder = made._folder
    assert folder.stat().st_mode & 0o777 == 0o700
    del made
    assert not folder.exists()


def test_code_is_the_package_and_the_agents_own_folder(tmp_path):
    alone = measured_code(Settings())
    assert measured_code(Settings()) == alone
    (tmp_path / "agent.py").write_text("print()")
    with_code = Settings(attester_code=tmp_path)
    first = measured_code(with_code)
    (tmp_path / "agent.py").write_text("print(1)")
    assert len({alone, first, measured_code(with_code)}) == 3
    (tmp_path / "link").symlink_to(tmp_path / "agent.py")
    with pytest.raises(Refused, match="a link is not measured"):
        measured_code(with_code)


def test_intermediates_are_certificates_in_pem(tmp_path):
    settings = Settings(attester=AttesterKind.TPM, tpm_chain=tmp_path / "chain.pem")
    with pytest.raises(SettingsError, match=r"tpm_chain: .*expected certificates in PEM"):
        choose(settings)
    maker = Authority("maker")
    settings.tpm_chain.write_bytes(maker.certificate.public_bytes(Encoding.PEM))
    assert choose(settings)._intermediates == maker.der
    settings.tpm_chain.write_bytes(b"noise")
    with pytest.raises(SettingsError, match="tpm_chain"):
        choose(dataclasses.replace(settings))
