"""The authority over real gRPC and TLS on loopback: enrolment, renewal, leases, and who is refused."""

from __future__ import annotations

import shutil
import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from bus.authority import rpc
from bus.authority.attested import Attestations
from bus.authority.attesting import Attesting
from bus.authority.bundle import read_bundle
from bus.authority.ca import CERTIFICATE_MS, AgentCa, certified_agent, make_ca, make_request, private_pem
from bus.authority.database import Sqlite
from bus.authority.issuer import Issuer
from bus.authority.local import now_ms
from bus.authority.register import TOKEN_MS, Register, State
from bus.authority.rpc import authority_v1_pb2 as pb
from bus.authority.service import AuthorityService
from bus.authority.verifiers import open_verifiers
from bus.client.authority import AuthorityClient, enrol, read_clock, read_identity
from bus.codes import Code
from bus.crypto.issued import open_issued, sign_issued
from bus.crypto.keys import Secret
from bus.crypto.signing import Signer
from bus.errors import BusError, Refused, RetryLater, StackError, Unavailable, Unverified, WireError
from bus.stack.pki import ensure_pki, issue_server
from bus.wire.names import AgentId, DomainName
from consumers.authority.server import AuthorityServer, Identity
from tests.unit.ledger_build import DEPLOYMENT, NOON, OTHER_DEPLOYMENT, domain, make_authority, make_policy

import grpc  # isort: skip  # behind bus.authority.rpc, which says which TLS it speaks
from grpc_health.v1 import health_pb2, health_pb2_grpc  # isort: skip

WRITER, READER = AgentId("writer-1"), AgentId("reader-1")
NOTES = DomainName("notes")
LOCAL = "127.0.0.1:0"


def make_attesting(home: Path, register: Register) -> Attesting:
    """As in development mode, with the makers' roots that lie in ``home/roots``."""
    key = Secret.random("attestation")
    verifiers = open_verifiers(home / "roots", key, development=True)
    return Attesting(verifiers, key, Signer.generate(), "sealbus:test", Attestations(register))


@dataclass
class Site:
    """A running authority with a clock of the test, what it recorded, and a folder for each agent."""

    home: Path
    now: int = field(default_factory=now_ms)  # TLS goes by the machine's clock
    events: list[dict] = field(default_factory=list)
    away: bool = False
    """Whether events cannot be written."""

    def __post_init__(self) -> None:
        self.made = make_authority(self.home)
        key, certificate = make_ca(DEPLOYMENT, self.now)
        self.ca = AgentCa(key, certificate, DEPLOYMENT)
        self.ca_file = ensure_pki(self.home / "pki").read_bytes()
        self.register = Register(Sqlite(self.home / "register.db"))
        self.attesting = make_attesting(self.home, self.register)
        self.service = self.replica()
        self.identity = Identity(*issue_server(self.home / "pki", rpc.SERVER_NAME), certificate)
        self.server = AuthorityServer(self.service, self.identity, LOCAL, LOCAL)

    def replica(self) -> AuthorityService:
        issuer = Issuer(self.made.layout, self.made.store, Signer.generate(), self.made.settings, {}, files=False)
        issuer._signer = self.made.issuer._signer
        return AuthorityService(
            self.ca, self.register, issuer, self.attesting, DEPLOYMENT, self.record, lambda: self.now
        )

    def record(self, event) -> None:
        if self.away:
            raise RetryLater("the broker is away", code=Code.RETRY)
        self.events.append(dict(event))

    def told(self, *keys: str) -> list[tuple]:
        return [tuple(event.get(key) for key in keys) for event in self.events]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    @property
    def enrolment(self) -> str:
        return f"127.0.0.1:{self.server.enrolment_port}"

    def folder(self, agent: str) -> Path:
        return self.home / "agents" / agent

    def join(self, agent: AgentId, folder: Path | None = None) -> AuthorityClient:
        token = self.register.invite(agent, self.now)
        folder = folder or self.folder(agent)
        assert enrol(folder, self.enrolment, self.ca_file, token) == agent
        return self.client(folder)

    def client(self, folder: Path) -> AuthorityClient:
        return AuthorityClient(folder, self.address, self.ca_file)

    def bundles(self, agent: AgentId) -> dict[int, frozenset[str]]:
        keys = self.folder(agent) / "keys"
        read = {int(path.name): read_bundle(path, agent, self.made.trust.anchor, DEPLOYMENT) for path in keys.iterdir()}
        return {number: frozenset(bundle) for number, bundle in read.items()}


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    made.service.step(make_policy())
    with made.server:
        yield made


def refused(call, match: str) -> Refused:
    with pytest.raises(Refused, match=match) as error:
        call()
    assert error.value.code is Code.CREDENTIAL
    return error.value


# Enrolment.
def test_an_agent_enrols_leases_its_keys_and_what_it_got_was_recorded(site):
    client = site.join(WRITER)
    client.lease()
    assert site.bundles(WRITER) == {1: {"notes", "plans"}}
    serial = read_identity(site.folder(WRITER)).certificate
    assert certified_agent(serial, DEPLOYMENT)[0] == WRITER
    assert site.told("event", "agent") == [("enrolled", WRITER), ("leased", WRITER)]
    assert site.events[1]["epochs"] == [1]
    secret = (site.folder(WRITER) / "identity").stat().st_mode & 0o777
    assert secret == 0o600
    assert "PRIVATE KEY" not in repr(read_identity(site.folder(WRITER)))


def test_the_same_keys_come_from_the_authority_as_from_the_local_issuer(site):
    site.join(READER).lease()
    leased = (site.folder(READER) / "keys" / "1").read_bytes()
    site.made.restart()
    site.made.issuer.step(make_policy(), site.now)
    assert (site.made.layout.agent(READER) / "keys" / "1").read_bytes() == leased


@pytest.mark.parametrize("token", ["", "a", "aaaa" * 13, "not base32!", "é" * 40])
def test_a_token_that_nobody_made_enrols_nobody(site, token, tmp_path):
    refused(lambda: enrol(tmp_path / "x", site.enrolment, site.ca_file, token), "token is not one of ours")
    assert site.events == []


def test_a_token_is_good_for_one_agent_once_and_not_for_long(site, tmp_path):
    token = site.register.invite(WRITER, site.now)
    enrol(tmp_path / "first", site.enrolment, site.ca_file, token)
    refused(lambda: enrol(tmp_path / "second", site.enrolment, site.ca_file, token), "the token was used")
    late = site.register.invite(WRITER, site.now)
    site.now += TOKEN_MS + 1
    refused(lambda: enrol(tmp_path / "third", site.enrolment, site.ca_file, late), "time is over")
    assert token.encode() not in (site.home / "register.db").read_bytes()


def test_an_answer_that_was_lost_is_given_again_and_to_nobody_else(site):
    folder = site.folder(WRITER)
    token = site.register.invite(WRITER, site.now)
    site.away = True
    with pytest.raises(RetryLater):
        enrol(folder, site.enrolment, site.ca_file, token)
    site.away = False
    assert enrol(folder, site.enrolment, site.ca_file, token) == WRITER
    client = site.client(folder)
    client.lease()
    held = read_identity(folder)
    site.away = True
    with pytest.raises(RetryLater):
        client.renew()
    site.away = False
    client.renew()
    assert read_identity(folder).counter == held.counter + 1
    client.lease()


def test_a_request_must_be_signed_by_its_own_p256_key(site):
    other = ec.generate_private_key(ec.SECP384R1())
    weak = rsa.generate_private_key(65537, 2048)
    forged = bytearray(make_request(ec.generate_private_key(ec.SECP256R1())))
    forged[200] ^= 1
    rsa_request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(weak, hashes.SHA256())

    for request in (
        b"",
        b"noise",
        bytes(9000),
        make_request(other),
        rsa_request.public_bytes(Encoding.PEM),
        bytes(forged),
    ):
        refused(lambda request=request: site.ca.issue(request, WRITER, NOON), "request: expected")


# TLS.
def test_nothing_is_answered_without_a_certificate_of_an_agent_of_this_deployment(site, tmp_path):
    site.join(WRITER)
    ask = pb.LeaseRequest()
    options = [("grpc.ssl_target_name_override", rpc.SERVER_NAME)]
    with (
        grpc.secure_channel(site.address, grpc.ssl_channel_credentials(site.ca_file), options) as channel,
        pytest.raises(grpc.RpcError) as error,
    ):
        rpc.call(channel, rpc.LEASE, ask, 5)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    key = ec.generate_private_key(ec.SECP256R1())
    foreign = AgentCa(*make_ca(DEPLOYMENT, NOON), DEPLOYMENT).issue(make_request(key), WRITER, NOON)
    credentials = grpc.ssl_channel_credentials(site.ca_file, private_pem(key), foreign.pem)
    with grpc.secure_channel(site.address, credentials, options) as channel, pytest.raises(grpc.RpcError) as error:
        rpc.call(channel, rpc.LEASE, ask, 5)
    assert error.value.code() is grpc.StatusCode.UNAVAILABLE
    assert site.told("event") == [("enrolled",)]


@pytest.mark.parametrize("port", ["port", "enrolment_port"])
def test_tls_1_3_is_spoken_and_nothing_older(site, port):
    def version(highest: ssl.TLSVersion) -> str | None:
        context = ssl.create_default_context(cadata=site.ca_file.decode())
        context.check_hostname = False
        context.maximum_version = highest
        context.set_alpn_protocols(["h2"])
        with (
            socket.create_connection(("127.0.0.1", getattr(site.server, port)), 5) as plain,
            context.wrap_socket(plain, server_hostname=rpc.SERVER_NAME) as wrapped,
        ):
            return wrapped.version()

    assert version(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        version(ssl.TLSVersion.TLSv1_2)


def test_a_server_that_could_speak_older_tls_does_not_start(site, monkeypatch):
    monkeypatch.setattr(rpc, "ONLY_TLS_1_3", False)
    with pytest.raises(StackError, match=r"it would speak TLS 1\.2"):
        AuthorityServer(site.service, site.identity, LOCAL, LOCAL)


def test_an_authority_of_another_ca_is_not_believed(site, tmp_path):
    other = ensure_pki(tmp_path / "other").read_bytes()
    site.join(WRITER)
    with pytest.raises(Unavailable):
        AuthorityClient(site.folder(WRITER), site.address, other).lease()


def test_anybody_may_ask_what_its_clock_shows(site):
    address = f"127.0.0.1:{site.server.enrolment_port}"
    for now in (site.now, site.now + 90_000):
        site.now = now
        assert read_clock(address, site.ca_file) == now
    with pytest.raises(Unavailable):
        read_clock(site.address, site.ca_file)


def test_health_is_told_and_methods_are_not_listed(site):
    client = site.join(WRITER)
    site.server.serving(ready=True)
    with client._mutual() as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="sealbus.v1.Authority"), timeout=5
        )
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = channel.unary_unary("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.RpcError) as error:
            reflection(b"", timeout=5)
        assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED


# Renewal, and clones.
def test_a_certificate_is_renewed_when_a_third_of_its_life_is_left(site):
    now = site.now
    site.now -= 2 * CERTIFICATE_MS // 3
    client = site.join(WRITER)
    first = read_identity(site.folder(WRITER))
    site.now = now
    assert not client.renew_if_due(now - CERTIFICATE_MS // 6)
    assert read_identity(site.folder(WRITER)) == first
    assert client.renew_if_due(now + 60_000)
    second = read_identity(site.folder(WRITER))
    assert (second.counter, second.key != first.key) == (first.counter + 1, True)
    client.lease()


def test_a_copied_folder_that_renews_locks_both_and_is_recorded(site, tmp_path):
    client = site.join(WRITER)
    shutil.copytree(site.folder(WRITER), tmp_path / "copy")
    thief = site.client(tmp_path / "copy")
    thief.renew()
    refused(client.lease, "replaced by a newer one")
    refused(client.renew, "there are two of it")
    refused(thief.lease, "locked")
    refused(thief.renew, "locked")
    refused(client.renew, "locked")
    (held,) = site.register.list()
    assert held.state is State.LOCKED
    assert [event["agent"] for event in site.events if event["event"] == "refused"] == [WRITER] * 3
    site.join(WRITER).lease()  # an operator looked, and made a new token
    assert site.register.list()[0].state is State.ACTIVE


def test_the_original_that_renews_first_leaves_the_copy_with_nothing(site, tmp_path):
    client = site.join(WRITER)
    shutil.copytree(site.folder(WRITER), tmp_path / "copy")
    client.renew()
    refused(site.client(tmp_path / "copy").lease, "replaced by a newer one")
    refused(site.client(tmp_path / "copy").renew, "there are two of it")
    refused(client.lease, "locked")


# Leases.
def test_leases_follow_the_policy_of_the_moment(site):
    client = site.join(READER)
    client.lease()
    assert site.bundles(READER) == {1: {"notes", "plans"}}
    narrowed = {"notes": domain(consume=["WRITER"]), "plans": domain(produce=["READER"])}
    site.service.step(make_policy(narrowed))
    client.lease()
    assert site.bundles(READER) == {1: {"plans"}}
    site.service.step(make_policy(agents={"writer-1": ["WRITER"]}))
    refused(client.lease, "not in the policy")


def test_what_is_held_already_is_not_sent_or_recorded_again(site):
    client = site.join(WRITER)
    due = client.lease()
    before = len(site.events)
    assert client.lease() == due
    assert len(site.events) == before
    (site.folder(WRITER) / "keys" / "1").write_bytes(b"broken")
    client.lease()
    assert site.bundles(WRITER) == {1: {"notes", "plans"}}
    client.wipe()
    assert site.bundles(WRITER) == {}


def test_no_lease_goes_out_that_could_not_be_recorded(site):
    client = site.join(WRITER)
    site.away = True
    with pytest.raises(RetryLater, match="the broker is away"):
        client.lease()
    assert site.bundles(WRITER) == {}


def test_a_revoked_agent_gets_nothing_and_its_tokens_are_gone(site, tmp_path):
    client = site.join(WRITER)
    token = site.register.invite(WRITER, site.now)
    assert site.register.revoke(WRITER, "it left")
    refused(client.lease, "revoked: it left")
    refused(client.renew, "revoked: it left")
    refused(lambda: enrol(tmp_path / "x", site.enrolment, site.ca_file, token), "not one of ours")
    assert not site.register.revoke(AgentId("nobody"), "")


def test_before_a_policy_was_applied_an_agent_is_asked_to_come_again(tmp_path):
    made = Site(tmp_path)
    with made.server:
        client = made.join(WRITER)
        with pytest.raises(RetryLater, match="no policy was applied yet"):
            client.lease()


def test_an_authority_that_is_away_is_unavailable(site):
    client = site.join(WRITER)
    client.lease()
    site.server.__exit__()
    with pytest.raises(Unavailable, match="did not answer"):
        client.lease()
    assert site.bundles(WRITER) == {1: {"notes", "plans"}}, "what was leased works until its time ends"


def test_two_replicas_give_the_same_roots_and_take_turns(site):
    other = site.replica()
    other.step(make_policy())
    first = site.join(WRITER)
    first.lease()
    held = (site.folder(WRITER) / "keys" / "1").read_bytes()
    with AuthorityServer(other, site.identity, LOCAL, LOCAL) as second:
        client = AuthorityClient(site.folder(WRITER), f"127.0.0.1:{second.port}", site.ca_file)
        client.wipe()
        client.lease()
        assert (site.folder(WRITER) / "keys" / "1").read_bytes() == held
        client.renew()
    first.lease()


# Names in certificates, and what is recorded.
def test_only_a_certificate_with_one_name_of_this_deployment_names_an_agent():
    key = ec.generate_private_key(ec.SECP256R1())
    ours = AgentCa(*make_ca(DEPLOYMENT, NOON), DEPLOYMENT).issue(make_request(key), WRITER, NOON).pem
    assert certified_agent(ours, DEPLOYMENT)[0] == WRITER
    theirs = AgentCa(*make_ca(OTHER_DEPLOYMENT, NOON), OTHER_DEPLOYMENT).issue(make_request(key), WRITER, NOON).pem
    odd = AgentCa(*make_ca(DEPLOYMENT, NOON), DEPLOYMENT).issue(make_request(key), AgentId("Not-A-Name"), NOON).pem
    for pem in (b"", b"noise", theirs, odd, make_ca(DEPLOYMENT, NOON)[1]):
        with pytest.raises(Unverified):
            certified_agent(pem, DEPLOYMENT)


def test_an_event_is_signed_and_one_changed_byte_is_noticed():
    signer = Signer.generate()
    value = sign_issued(signer, DEPLOYMENT, {"event": "leased", "agent": WRITER})
    assert open_issued(value, signer.public_key, DEPLOYMENT)["agent"] == WRITER
    for bad in (value[:-1], value + b"x", bytes([value[0] ^ 1]) + value[1:], b""):
        with pytest.raises((Unverified, WireError)):
            open_issued(bad, signer.public_key, DEPLOYMENT)
    with pytest.raises(Unverified):
        open_issued(value, signer.public_key, OTHER_DEPLOYMENT)
    with pytest.raises(BusError):
        open_issued(value, Signer.generate().public_key, DEPLOYMENT)
