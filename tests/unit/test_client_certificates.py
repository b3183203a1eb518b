"""Client certificates for the broker: written, renewed and withdrawn in time; shown newest; none in development."""

from __future__ import annotations

import dataclasses
import json
import ssl
import stat

import pytest
from cryptography import x509

from bus.authority.ca import CERTIFICATE_MS, AgentCa, certified_agent, make_ca
from bus.authority.clientcerts import SERVICE_MS, CertificateIssuer, ensure_clients_ca, ensure_service_certificates
from bus.authority.local import now_ms
from bus.crypto.keys import Secret
from bus.errors import AccessRefused, Expired, Refused, Unverified
from bus.files import Layout, make_folder, write_file, write_secret
from bus.kafka.certificate import CertificateFile
from bus.kafka.config import Connection, shown_by
from bus.kafka.identity import Identity
from bus.settings import Issuing, Mode, Settings
from tests.unit.ledger_build import DEPLOYMENT, NOON

AGENT = "writer-1"


@pytest.fixture
def layout(tmp_path) -> Layout:
    return Layout(tmp_path)


def held(layout: Layout, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(layout.certificate(name).read_bytes())


def ends(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_after_utc.timestamp() * 1000)


class Told:
    """What librdkafka tells an error callback."""

    def __init__(self, code, text):
        self._code, self._text = code, text

    def code(self):
        return self._code

    def str(self):
        return self._text


def test_each_agent_gets_one_of_its_own_that_only_it_may_read(layout):
    issuer = CertificateIssuer(layout, DEPLOYMENT, {}, NOON)
    issuer.step([AGENT, "reader-1"], NOON)
    assert layout.certificate(AGENT).read_bytes() != layout.certificate("reader-1").read_bytes()
    assert stat.S_IMODE(layout.certificate(AGENT).stat().st_mode) == 0o600
    assert stat.S_IMODE(layout.clients_ca.stat().st_mode) == 0o644
    assert b"PRIVATE" not in layout.clients_ca.read_bytes()
    assert certified_agent(layout.certificate(AGENT).read_bytes(), DEPLOYMENT)[0] == AGENT
    held(layout, AGENT).verify_directly_issued_by(x509.load_pem_x509_certificate(layout.clients_ca.read_bytes()))
    assert ends(held(layout, AGENT)) == NOON + CERTIFICATE_MS


def test_it_is_replaced_in_its_last_third_and_not_before_by_a_later_issuer_too(layout):
    issuer = CertificateIssuer(layout, DEPLOYMENT, {}, NOON)
    due = issuer.step([AGENT], NOON)
    first = held(layout, AGENT)
    assert NOON + CERTIFICATE_MS // 2 < due < NOON + CERTIFICATE_MS * 3 // 4
    assert issuer.step([AGENT], due - 1) == due
    assert CertificateIssuer(layout, DEPLOYMENT, {}, due - 1).step([AGENT], due - 1) == due
    assert held(layout, AGENT) == first
    issuer.step([AGENT], due)
    assert ends(held(layout, AGENT)) == due + CERTIFICATE_MS


def test_a_missing_one_one_of_another_ca_and_one_from_the_future_are_replaced(layout):
    issuer = CertificateIssuer(layout, DEPLOYMENT, {}, NOON)
    issuer.step([AGENT], NOON)
    layout.certificate(AGENT).unlink()
    issuer.step([AGENT], NOON)
    assert ends(held(layout, AGENT)) == NOON + CERTIFICATE_MS
    key, made = AgentCa(*make_ca(DEPLOYMENT, NOON), DEPLOYMENT).own("agent", AGENT, NOON, CERTIFICATE_MS)
    write_secret(layout.certificate(AGENT), key + made.pem)
    CertificateIssuer(layout, DEPLOYMENT, {}, NOON).step([AGENT], NOON)
    assert held(layout, AGENT) != x509.load_pem_x509_certificate(made.pem)
    before = NOON - 3 * CERTIFICATE_MS  # the clock was set back
    issuer.step([AGENT], before)
    assert ends(held(layout, AGENT)) == before + CERTIFICATE_MS


def test_who_left_the_policy_loses_it(layout):
    issuer = CertificateIssuer(layout, DEPLOYMENT, {}, NOON)
    issuer.step([AGENT, "reader-1"], NOON)
    issuer.step(["reader-1"], NOON)
    assert not layout.certificate(AGENT).exists()
    assert layout.certificate("reader-1").exists()


def test_services_have_longer_ones_that_the_authority_does_not_take_for_an_agents(layout):
    ca = ensure_clients_ca(layout, DEPLOYMENT, NOON)
    ensure_service_certificates(layout, ca, ["bus-audit"], NOON)
    first = held(layout, "bus-audit")
    assert ends(first) == NOON + SERVICE_MS
    with pytest.raises(Unverified, match="an agent of this deployment"):
        certified_agent(layout.certificate("bus-audit").read_bytes(), DEPLOYMENT)
    ensure_service_certificates(layout, ca, ["bus-audit"], NOON + SERVICE_MS // 2)
    assert held(layout, "bus-audit") == first
    ensure_service_certificates(layout, ca, ["bus-audit"], NOON + SERVICE_MS * 3 // 4)
    assert held(layout, "bus-audit") != first


def test_the_ca_stays_and_is_the_authoritys_where_there_is_one(layout):
    first = ensure_clients_ca(layout, DEPLOYMENT, NOON)
    assert ensure_clients_ca(layout, DEPLOYMENT, NOON).certificate_pem == first.certificate_pem
    key, certificate = make_ca(DEPLOYMENT, NOON)
    make_folder(layout.state / "authority")
    write_secret(layout.state / "authority" / "ca.key", key)
    write_file(layout.state / "authority" / "ca.pem", certificate)
    assert ensure_clients_ca(layout, DEPLOYMENT, NOON).certificate_pem == certificate == layout.clients_ca.read_bytes()


def settings(layout, **changes) -> Settings:
    return dataclasses.replace(Settings(state=layout.state, mode=Mode.PRODUCTION), **changes)


def test_in_development_nobody_shows_one_and_outside_everybody(layout):
    assert shown_by(settings(layout, mode=Mode.DEVELOPMENT), AGENT) is None
    with pytest.raises(Refused, match=f"{AGENT}: no client certificate") as refused:
        shown_by(settings(layout), AGENT)
    assert "issuer" in refused.value.hint
    CertificateIssuer(layout, DEPLOYMENT, {}, now_ms()).step([AGENT], now_ms())
    assert shown_by(settings(layout), AGENT) == CertificateFile(AGENT, layout.certificate(AGENT))


def test_with_an_authority_agents_show_what_they_enrolled_as_and_services_their_own(layout):
    given = settings(layout, issuing=Issuing.AUTHORITY)
    ca = ensure_clients_ca(layout, DEPLOYMENT, now_ms())
    key, made = ca.own("agent", AGENT, now_ms(), CERTIFICATE_MS)
    identity = {"key": key.decode(), "certificate": made.pem.decode(), "counter": 1}
    make_folder(layout.agent(AGENT))
    write_secret(layout.agent(AGENT) / "identity", json.dumps(identity).encode())
    ensure_service_certificates(layout, ca, ["bus-audit"], now_ms())
    shown = shown_by(given, AGENT)
    assert shown is not None
    assert shown.settings() == {"ssl.key.pem": key.decode(), "ssl.certificate.pem": made.pem.decode()}
    service = shown_by(given, "bus-audit")
    assert service is not None
    assert service.path == layout.certificate("bus-audit")


@pytest.mark.parametrize("data", [b"", b"hello", b"{}", b"[1]", b"\xff", b"-----BEGIN CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_refused_by_name(layout, data):
    for name in ("client.pem", "identity"):
        make_folder(layout.agent(AGENT))
        write_secret(layout.agent(AGENT) / name, data)
        with pytest.raises(Refused, match=f"{AGENT}: .*: not a client certificate"):
            CertificateFile(AGENT, layout.agent(AGENT) / name).settings()


def test_one_that_others_may_read_and_one_that_has_ended_are_refused(layout):
    CertificateIssuer(layout, DEPLOYMENT, {}, now_ms()).step([AGENT], now_ms())
    file = CertificateFile(AGENT, layout.certificate(AGENT))
    file.path.chmod(0o644)
    with pytest.raises(Refused, match="expected mode 0600"):
        file.settings()
    past = now_ms() - 2 * CERTIFICATE_MS
    CertificateIssuer(layout, DEPLOYMENT, {}, past).step([AGENT], past)
    with pytest.raises(Expired, match=f"{AGENT}: the client certificate"):
        file.settings()


@pytest.fixture
def connection(layout) -> Connection:
    CertificateIssuer(layout, DEPLOYMENT, {}, now_ms()).step([AGENT], now_ms())
    identity = Identity(AGENT, Secret(b"x", "password"))
    return Connection("x:1", layout.ca, identity, certificate=shown_by(settings(layout), AGENT))


def renew(layout) -> None:
    layout.certificate(AGENT).unlink()
    CertificateIssuer(layout, DEPLOYMENT, {}, now_ms()).step([AGENT], now_ms())


def test_the_next_client_shows_the_newest_and_who_made_one_is_told_that_it_is_there(layout, connection):
    stamp, first = connection.stamp(), connection.config()["ssl.certificate.pem"]
    assert not connection.newer(stamp)
    renew(layout)
    assert connection.newer(stamp)
    assert connection.config()["ssl.certificate.pem"] != first
    assert not connection.newer(connection.stamp())
    layout.certificate(AGENT).unlink()
    assert not connection.newer(stamp)
    write_secret(layout.certificate(AGENT), b"half a file")
    assert not connection.newer(stamp)


def test_a_refused_certificate_is_final_unless_a_newer_one_is_there(layout, connection):
    alert = "Receive failed: error:0A000415:SSL routines::sslv3 alert certificate expired: SSL alert number 45"
    connection.config()
    renew(layout)
    connection.on_error(Told(-195, alert))
    connection.check()
    connection.config()
    for told in (Told(-195, "Connection refused"), Told(-195, "SSL alert number 80"), Told(1, alert)):
        connection.on_error(told)
        connection.check()
    connection.on_error(Told(-195, alert))
    with pytest.raises(AccessRefused, match=f"client certificate, and {AGENT} showed one that ended"):
        connection.check()
    without = Connection("x:1", layout.ca, connection.identity)
    without.on_error(Told(-195, "SSL alert number 116"))
    with pytest.raises(AccessRefused, match=f"{AGENT} has none"):
        without.check()


def test_agents_wait_for_the_next_certificate_and_services_end_to_be_started_with_it(layout, connection):
    ended, alert = now_ms() - 2 * CERTIFICATE_MS, Told(-195, "SSL alert number 45")
    connection.config()
    layout.certificate(AGENT).unlink()
    CertificateIssuer(layout, DEPLOYMENT, {}, ended).step([AGENT], ended)
    connection.on_error(alert)
    connection.check()
    assert "client certificate has ended" in str(connection.unavailable("x"))
    layout.certificate(AGENT).unlink()  # it left the policy
    connection.on_error(alert)
    with pytest.raises(AccessRefused):
        connection.check()
    ensure_service_certificates(layout, ensure_clients_ca(layout, DEPLOYMENT, now_ms()), ["bus-audit"], now_ms())
    service = Connection("x:1", layout.ca, Identity("bus-audit", Secret(b"x", "password")))
    service.certificate = shown_by(settings(layout), "bus-audit")
    service.on_error(alert)
    with pytest.raises(AccessRefused, match="bus-audit showed one that ended"):
        service.check()


def test_python_and_librdkafka_take_key_and_certificate_from_the_same_file(layout, connection):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(layout.certificate(AGENT))
    assert "PRIVATE" not in repr(connection)
