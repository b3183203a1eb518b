"""Client certificates at a real broker: asked of everybody outside development, and nobody comes in without."""

import dataclasses
import json
import threading
import time

import pytest
from confluent_kafka import KafkaException, Producer

from bus import Bus
from bus.authority.ca import AgentCa, make_ca
from bus.authority.local import now_ms
from bus.errors import AccessRefused, Expired, Refused
from bus.files import read_secret, write_secret
from bus.kafka.certificate import CertificateFile
from bus.kafka.config import connect
from bus.settings import Issuing, Mechanism, Mode
from tests.hostile.wire import Raw
from tests.integration.commands import bus
from tests.integration.conftest import start_stack
from tests.rotation.load import connections

pytestmark = pytest.mark.broker

WRITER, READER, DOMAIN = "retriever-1", "orchestrator-1", "agent_memory"
HOUR = 3_600_000


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A stack that is not for development."""
    state = tmp_path_factory.mktemp("certificates") / "state"
    local = start_stack(state, mode=Mode.PRODUCTION, sasl_mechanism=Mechanism.OAUTHBEARER)
    yield local
    local.down(lambda _: None, purge=True)


@pytest.fixture
def ca(stack):
    """The CA that the broker knows."""
    certificate = stack.layout.clients_ca.read_bytes()
    return AgentCa(read_secret(stack.layout.signer("clients")), certificate, stack.settings.deployment_id)


def shows(stack, path):
    return dataclasses.replace(connect(stack.settings, WRITER), certificate=path and CertificateFile(WRITER, path))


def write(path, key, certificate):
    write_secret(path, key + certificate.pem)
    return path


@pytest.mark.timeout(400)
def test_agents_and_services_work_and_each_has_a_certificate_of_its_own(stack):
    with Bus(READER, settings=stack.settings) as reader, Bus(WRITER, settings=stack.settings) as writer:
        subscription = reader.subscribe(DOMAIN)
        assert subscription.wait_assigned(60)
        sent = writer.publish(DOMAIN, {"n": 1}, confirm="decided")
        assert next(iter(subscription)).id == sent.id
    names = [WRITER, READER, "bus-admin", "bus-audit", "bus-enforcer-1"]
    assert len({stack.layout.certificate(each).read_bytes() for each in names}) == len(names)
    home = stack.layout.state.parent
    checks = json.loads(bus(home, "doctor", "--json", BUS_CONFIG=str(stack.layout.settings)).stdout)["checks"]
    assert [each for each in checks if not each["ok"]] == []


def test_no_certificate_a_foreign_and_an_ended_one_are_refused_before_any_token_is_looked_at(stack, ca, tmp_path):
    now, deployment = now_ms(), stack.settings.deployment_id
    foreign = AgentCa(*make_ca(deployment, now), deployment)
    broker = stack.layout.ca.parent / "broker.pem"  # of the CA that the other listeners ask for
    refused = {
        "none": None,
        "foreign": write(tmp_path / "foreign.pem", *foreign.own("agent", WRITER, now, HOUR)),
        "ended": write(tmp_path / "ended.pem", *ca.own("agent", WRITER, now - 2 * HOUR, HOUR)),
        "broker's": broker,
    }
    good = write(tmp_path / "good.pem", *ca.own("agent", WRITER, now, HOUR))
    with Raw(shows(stack, good)):
        pass  # so that what is refused below is refused for its certificate
    for name, path in refused.items():
        with pytest.raises(OSError), Raw(shows(stack, path)):
            pytest.fail(f"{name}: taken")


def test_who_is_refused_is_told_that_the_certificate_is_why(stack, tmp_path):
    now, deployment = now_ms(), stack.settings.deployment_id
    foreign = AgentCa(*make_ca(deployment, now), deployment)
    path = write(tmp_path / "client.pem", *foreign.own("agent", WRITER, now, HOUR))
    connection = shows(stack, path)
    producer = Producer(connection.config())

    def ask():
        for _ in range(100):
            producer.poll(0.05)
            connection.check()
            try:
                producer.list_topics(timeout=0.5)
            except KafkaException:
                continue
            pytest.fail("taken")

    with pytest.raises(AccessRefused, match="client certificate") as told:
        ask()
    assert told.value.principal == WRITER


@pytest.mark.timeout(400)
def test_who_runs_on_shows_the_next_certificate_and_nothing_is_lost_over_it(stack, ca):
    sent, seen, others = set(), set(), connections(stack)
    with Bus(READER, settings=stack.settings) as reader, Bus(WRITER, settings=stack.settings) as writer:
        subscription = reader.subscribe(DOMAIN)
        subscription(lambda _payload, delivery: seen.add(str(delivery.id)))
        assert subscription.wait_assigned(60)
        sent.add(str(writer.publish(DOMAIN, {"n": 0}).id))
        before = connections(stack) - others
        assert len(before) >= 6  # two feeds each, the consumer, the producer; more with the coordinator's
        for name in (WRITER, READER):
            write(stack.layout.certificate(name), *ca.own("agent", name, now_ms(), HOUR))
        pause = threading.Event()
        deadline = time.monotonic() + 120
        while (before & connections(stack) or not sent <= seen) and time.monotonic() < deadline:
            sent.add(str(writer.publish(DOMAIN, {"n": len(sent)}).id))
            pause.wait(0.1)
        assert not before & connections(stack)  # no client of the old certificate is left
        assert sent <= seen


def test_a_missing_and_an_ended_certificate_are_told_without_asking_the_broker(stack, ca, tmp_path):
    path = stack.layout.certificate("executor-1")
    kept = read_secret(path)
    path.rename(path.with_suffix(".kept"))
    try:
        with pytest.raises(Refused, match="executor-1: no client certificate"):
            connect(stack.settings, "executor-1")
        write(path, *ca.own("agent", "executor-1", now_ms() - 2 * HOUR, HOUR))
        with pytest.raises(Expired, match="client certificate"):
            connect(stack.settings, "executor-1")
    finally:
        write_secret(path, kept)
        path.with_suffix(".kept").unlink()
    assert connect(stack.settings, "executor-1").certificate is not None


@pytest.mark.long
@pytest.mark.timeout(400)
def test_with_an_authority_agents_show_what_they_enrolled_for(own_stack):
    stack = own_stack(mode=Mode.PRODUCTION, issuing=Issuing.AUTHORITY, sasl_mechanism=Mechanism.OAUTHBEARER)
    assert connect(stack.settings, WRITER).certificate.path.name == "identity"
    assert not stack.layout.certificates()
    with Bus(WRITER, settings=stack.settings) as writer:
        writer.publish(DOMAIN, {"n": 1}, confirm="decided")
        with pytest.raises(OSError), Raw(dataclasses.replace(connect(stack.settings, WRITER), certificate=None)):
            pytest.fail("taken")
