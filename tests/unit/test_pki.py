"""The development CA: a client that trusts it reaches the broker's name over TLS 1.3, and nobody else does."""

from __future__ import annotations

import datetime as dt
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from bus.stack import pki
from bus.stack.pki import BROKER_NAME, ensure_pki


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("state") / "pki"
    ensure_pki(path)
    return path


def certificates(path: Path) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(path.read_bytes())


def handshake(broker: Path, ca: Path, host: str, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> str | None:
    """The protocol of a handshake in memory. Raises ssl.SSLError where the client refuses."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.minimum_version = ssl.TLSVersion.TLSv1_3
    server.load_cert_chain(broker)
    client = ssl.create_default_context(cafile=str(ca))
    client.minimum_version = client.maximum_version = version
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ends[0].version()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_client_that_trusts_the_ca_reaches_the_broker(folder, host):
    assert handshake(folder / "broker.pem", folder / "ca.pem", host) == "TLSv1.3"


@pytest.mark.parametrize("host", ["example.org", "127.0.0.2", BROKER_NAME])
def test_the_broker_has_no_other_name(folder, host):
    with pytest.raises(ssl.SSLCertVerificationError, match=r"match|not valid"):
        handshake(folder / "broker.pem", folder / "ca.pem", host)


def test_a_client_that_trusts_another_ca_refuses(folder, tmp_path):
    other = ensure_pki(tmp_path / "pki")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(folder / "broker.pem", other, "localhost")


def test_private_keys_are_secret_and_the_certificate_is_public(folder):
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"ca.pem": 0o644, "ca.key": 0o600, "broker.pem": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o711
    assert b"PRIVATE" not in (folder / "ca.pem").read_bytes()


def test_the_ca_signs_certificates_and_the_broker_cannot(folder):
    (ca,) = certificates(folder / "ca.pem")
    broker, chained = certificates(folder / "broker.pem")
    assert chained == ca
    broker.verify_directly_issued_by(ca)
    told = {each: each.extensions.get_extension_for_class(x509.BasicConstraints) for each in (ca, broker)}
    assert [(told[each].value.ca, told[each].critical) for each in (ca, broker)] == [(True, True), (False, True)]
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    assert ca.public_key() != broker.public_key()
    assert ca.serial_number != broker.serial_number


def test_a_certificate_holds_for_a_year_and_for_clocks_that_are_behind(folder):
    now = dt.datetime.now(dt.UTC)
    for each in certificates(folder / "broker.pem"):
        assert each.not_valid_before_utc < now - dt.timedelta(minutes=4)
        assert now + dt.timedelta(days=364) < each.not_valid_after_utc < now + dt.timedelta(days=366)


def test_what_is_there_is_left_as_it_is(tmp_path):
    ca = ensure_pki(tmp_path / "pki")
    before = {path.name: path.read_bytes() for path in ca.parent.iterdir()}
    assert ensure_pki(tmp_path / "pki") == ca
    assert {path.name: path.read_bytes() for path in ca.parent.iterdir()} == before


@pytest.mark.parametrize("missing", ["ca.pem", "broker.pem"])
def test_a_missing_half_is_made_with_its_other_half(tmp_path, missing):
    ca = ensure_pki(tmp_path / "pki")
    (tmp_path / "pki" / missing).unlink()
    ensure_pki(tmp_path / "pki")
    assert handshake(tmp_path / "pki" / "broker.pem", ca, "localhost") == "TLSv1.3"


@pytest.mark.parametrize(("days", "renewed"), [(29, True), (31, False)])
def test_it_is_renewed_when_less_than_a_month_is_left(tmp_path, monkeypatch, days, renewed):
    monkeypatch.setattr(pki, "_YEAR", dt.timedelta(days=days))
    ca = ensure_pki(tmp_path / "pki")
    before = ca.read_bytes()
    monkeypatch.undo()
    ensure_pki(tmp_path / "pki")
    assert (ca.read_bytes() != before) is renewed
    assert handshake(tmp_path / "pki" / "broker.pem", ca, "localhost") == "TLSv1.3"
