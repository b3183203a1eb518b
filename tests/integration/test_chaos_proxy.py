"""The fault proxy: a plain transactional producer whose EndTxn is delayed, lost and held on the way."""

import os
import time

import pytest
from confluent_kafka import KafkaException, Producer

from tests.chaos.proxy import Action, Api, Proxy, Rule
from tests.integration.oracle import read_topic

pytestmark = pytest.mark.broker

TOPIC = "coordination.windows"  # no test of the shared stack reads it, and this partition is nobody's input


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A broker without services: what is written here is no window."""
    from tests.integration.conftest import start_stack

    local = start_stack(tmp_path_factory.mktemp("proxied") / "state", services=False)
    yield local
    local.down(lambda _: None, purge=True)


@pytest.fixture
def proxy(own):
    with Proxy(own.layout.state / "pki", int(own.settings.bootstrap.rpartition(":")[2])) as made:
        yield made


@pytest.fixture
def producer(own, proxy):
    connection = own.admin_connection()
    connection.bootstrap = proxy.bootstrap
    made = Producer(connection.config(transactional_id=os.urandom(4).hex(), transaction_timeout_ms=10_000))
    made.init_transactions(20)
    return made


def begin(producer):
    value = os.urandom(16)
    producer.begin_transaction()
    producer.produce(TOPIC, value, partition=0)
    producer.flush(20)
    return value


def times_seen(own, value):
    return [each for _, _, each in read_topic(own, TOPIC)].count(value)


def test_without_rules_a_transaction_goes_through_the_proxy_and_meets_nothing(own, proxy, producer):
    value = begin(producer)
    producer.commit_transaction(20)
    assert times_seen(own, value) == 1
    assert proxy.met() == []
    assert producer.list_topics(timeout=20).brokers[1].port == proxy.port, "the client knows the broker's own address"


@pytest.mark.parametrize("action", [Action.DELAY_ANSWER, Action.DROP_ANSWER, Action.HOLD_REQUEST])
def test_an_end_of_transaction_that_meets_a_fault_is_carried_out_once(own, proxy, producer, action):
    value = begin(producer)
    proxy.arm(Rule(Api.END_TXN, action, 0.3))
    producer.commit_transaction(20)
    assert proxy.met() == [(Api.END_TXN, action)]
    assert times_seen(own, value) == 1
    proxy.disarm()
    aborted = begin(producer)
    producer.abort_transaction(20)
    assert times_seen(own, aborted) == 0


def test_a_producer_that_gives_a_held_commit_up_finds_it_carried_out_all_the_same(own, proxy, producer):
    value = begin(producer)
    proxy.arm(Rule(Api.END_TXN, Action.HOLD_REQUEST, 2.0))
    with pytest.raises(KafkaException):
        producer.commit_transaction(0.5)
    assert times_seen(own, value) == 0
    del producer
    deadline = time.monotonic() + 30
    while times_seen(own, value) != 1:
        assert time.monotonic() < deadline
