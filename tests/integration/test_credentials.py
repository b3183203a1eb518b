"""Broker credentials on a real broker: what is replaced in time goes on, what is not the agent's own is refused."""

import base64
import hashlib
import hmac
import json
import os
import threading
import time

import pytest
from confluent_kafka import KafkaException, Producer
from cryptography.hazmat.primitives import serialization
from joserfc import jwt

from bus.authority.local import now_ms
from bus.authority.tokenkeys import TokenKeys
from bus.authority.tokens import audience, mint, new_key
from bus.errors import AccessRefused, Expired, Refused
from bus.files import read_secret, write_secret
from bus.kafka.config import Connection, connect
from bus.kafka.identity import TokenFile, read_identity
from bus.settings import Mechanism
from tests.hostile.wire import Raw
from tests.integration.conftest import start_stack
from tests.rotation.load import SCRAM, SHORT, WRITER, rotate_under_load, short_policies

pytestmark = pytest.mark.broker

ROTATIONS = 20
LIFE = 600_000


class Shown:
    """An identity that shows any token, and says that it has not ended."""

    def __init__(self, token, principal=WRITER):
        self.token = token
        self.principal = principal

    def sasl(self):
        return {"sasl.mechanism": "OAUTHBEARER", "oauth_cb": lambda _: (self.token, time.time() + 300)}

    def rejected(self):
        return True


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Agents come with tokens here."""
    state = tmp_path_factory.mktemp("tokens") / "state"
    local = start_stack(state, sasl_mechanism=Mechanism.OAUTHBEARER)
    before = os.environ.get("BUS_CONFIG")
    os.environ["BUS_CONFIG"] = str(local.layout.settings)
    yield local
    os.environ.pop("BUS_CONFIG")
    if before is not None:
        os.environ["BUS_CONFIG"] = before
    local.down(lambda _: None, purge=True)


@pytest.fixture(scope="module")
def key(stack):
    """The key that the broker knows: its holder can make any token."""
    return TokenKeys.parse(read_secret(stack.layout.signer("tokens"))).signing(now_ms())


@pytest.fixture
def ours(stack):
    return audience(stack.settings.deployment_id)


def ask(stack, token):
    """Whether a client with ``token`` gets an answer. Raises AccessRefused."""
    connection = Connection(stack.settings.bootstrap, stack.layout.ca, Shown(token))
    return wait_until_up(connection, Producer(connection.config()))


def wait_until_up(connection, producer):
    for _ in range(100):
        producer.poll(0.05)
        connection.check()
        try:
            return bool(producer.list_topics(timeout=0.5).brokers)
        except KafkaException:
            continue
    return False


def raw(stack, token):
    """A connection of Kafka's own protocol that has shown ``token``. Raises ConnectionError."""
    return Raw(connect(stack.settings, WRITER), token=token)


def encoded(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def test_a_token_of_the_deployments_key_is_taken(stack, key, ours):
    assert ask(stack, mint(key, ours, WRITER, now_ms(), LIFE))


def test_an_expired_token_and_one_of_another_key_are_refused_by_the_broker(stack, key, ours):
    past = now_ms() - LIFE - stack.settings.max_clock_skew_ms - 5000
    other = new_key()
    other = type(other).import_key({**other.as_dict(private=True), "kid": key.kid})
    for token in (mint(key, ours, WRITER, past, LIFE), mint(other, ours, WRITER, now_ms(), LIFE)):
        with pytest.raises(AccessRefused) as refused:
            ask(stack, token)
        assert (refused.value.code, refused.value.principal) == ("credential", WRITER)
        assert token not in str(refused.value)


def test_what_an_attacker_makes_of_a_token_is_refused_by_the_broker(stack, key, ours):
    now = now_ms() // 1000
    good = {"iss": "sealbus-issuer", "aud": ours, "sub": WRITER, "iat": now, "nbf": now, "exp": now + 600, "jti": "1"}
    head = {"alg": "ES256", "typ": "JWT", "kid": key.kid}
    skew = stack.settings.max_clock_skew_ms // 1000

    def signed(header=head, by=key, **claims):
        return jwt.encode({**head, **header}, {**good, **claims}, by, algorithms=["ES256"])

    pem = key.public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    confused = f"{encoded({**head, 'alg': 'HS256'})}.{encoded(good)}"
    mac = base64.urlsafe_b64encode(hmac.digest(pem, confused.encode(), hashlib.sha256)).rstrip(b"=").decode()
    attacks = {
        "future": signed(nbf=now + skew + 60),
        "audience": signed(aud=audience(bytes(16))),
        "issuer": signed(iss="https://idp.example"),
        "none": f"{encoded({**head, 'alg': 'none'})}.{encoded(good)}.",
        "confusion": f"{confused}.{mac}",
        "kid": signed({"kid": "../../dev/null"}),
        "key in the token": signed({"kid": "x", "jwk": (mine := new_key()).as_dict(private=False)}, by=mine),
        "no end": jwt.encode(head, {name: good[name] for name in good if name != "exp"}, key, algorithms=["ES256"]),
    }
    with raw(stack, signed()):
        pass  # so that what is refused below is refused for its one change
    for name, token in attacks.items():
        with pytest.raises(ConnectionError, match="SASL"), raw(stack, token):
            pytest.fail(f"{name}: taken")


def test_a_connection_is_cut_when_its_token_ends(stack, key, ours):
    made = now_ms()
    answers = []

    def ask_on(connection):
        while now_ms() < made + 60_000:
            answers.append(connection.producer_id())
            threading.Event().wait(0.1)

    with raw(stack, mint(key, ours, WRITER, made, 4000)) as connection, pytest.raises(OSError):
        ask_on(connection)
    assert answers
    assert made + 2000 < now_ms() < made + 60_000


def test_another_agents_token_is_not_taken_for_ones_own_and_gives_only_that_agents_rights(stack, tmp_path):
    path = tmp_path / "token"
    write_secret(path, stack.layout.token("executor-1").read_bytes())
    with pytest.raises(Refused, match="expected a token of retriever-1"):
        TokenFile(WRITER, path).read()
    connection = Connection(stack.settings.bootstrap, stack.layout.ca, TokenFile("executor-1", path))
    told = []
    producer = Producer(connection.config(message_timeout_ms=20_000))
    producer.produce("agent_memory.out", b"x", on_delivery=lambda error, _: told.append(error))
    producer.flush(30)
    refused = connection.typed(told[0], "write", "agent_memory.out")
    assert isinstance(refused, AccessRefused)
    assert refused.principal == "executor-1"


def test_an_agent_without_a_token_or_with_one_that_has_ended_is_told_so_at_once(stack, tmp_path, key, ours):
    settings = stack.settings
    path = tmp_path / "token"
    with pytest.raises(Refused, match="no token"):
        TokenFile(WRITER, path).read()
    write_secret(path, mint(key, ours, WRITER, now_ms() - LIFE, LIFE).encode())
    with pytest.raises(Expired):
        TokenFile(WRITER, path).read()
    assert connect(settings, WRITER).identity.path == stack.layout.token(WRITER)


@pytest.mark.long
@pytest.mark.timeout(400)
def test_tokens_are_replaced_under_load_and_nothing_fails_or_is_missed(own_stack, tmp_path):
    stack = own_stack(policies=short_policies(tmp_path / "short"), **SHORT)
    told = rotate_under_load(stack, ROTATIONS)
    assert (told.failed, told.refused, told.missed) == ([], [], 0)
    assert told.rotations >= ROTATIONS
    assert told.published > 10 * ROTATIONS
    assert told.kept > 0  # by authenticating again, not by connecting again


@pytest.mark.long
@pytest.mark.timeout(400)
def test_passwords_are_replaced_under_load_and_the_one_before_opens_nothing(own_stack, tmp_path):
    stack = own_stack(policies=short_policies(tmp_path / "short"), **SCRAM)
    settings, before = stack.settings, read_identity(stack.layout.agent(WRITER), WRITER)
    told = rotate_under_load(stack, ROTATIONS)
    assert (told.failed, told.refused, told.missed) == ([], [], 0)
    assert told.rotations >= ROTATIONS
    assert told.published > 10 * ROTATIONS
    with pytest.raises(ConnectionError, match="SASL"), Raw(Connection(settings.bootstrap, stack.layout.ca, before)):
        pytest.fail("taken")
    # Who replaces them comes in, and may do nothing but that.
    rotator, answers = connect(settings, "bus-rotator"), []
    producer = Producer(rotator.config(message_timeout_ms=20_000))
    producer.produce("agent_memory.in", b"x", on_delivery=lambda error, _: answers.append(error))
    producer.flush(30)
    assert isinstance(rotator.typed(answers[0], "write", "agent_memory.in"), AccessRefused)
