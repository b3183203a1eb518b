"""Three brokers: everything is kept three times, one is killed under load, nothing is lost or doubled."""

import os
import signal
import threading
from collections import Counter

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource

from bus import Bus
from bus.admin.users import TIMEOUT
from bus.errors import StackError
from bus.stack.local import Stack
from bus.stack.process import Daemon
from bus.wire.names import AUDIT
from tests.integration.conftest import start_stack
from tests.integration.oracle import account, hops, read_topic, verified

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

DOMAIN = "agent_memory"
EACH = 150
"""Messages that must be decided before the kill, and again after it."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    local = start_stack(tmp_path_factory.mktemp("three") / "state", brokers=3)
    yield local
    local.down(lambda _: None, purge=True)


class Load:
    """An agent that publishes, some hundred a second at most, until it is stopped."""

    def __init__(self, bus: Bus) -> None:
        self.sent = []
        self.failure = None
        self._bus = bus
        self._stop = threading.Event()
        self._grown = threading.Condition()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            while not self._stop.wait(0.005):
                each = self._bus.publish(DOMAIN, {"n": len(self.sent)}, partition_key=str(len(self.sent)), timeout=60)
                with self._grown:
                    self.sent.append(each)
                    self._grown.notify_all()
        except Exception as error:  # told by the test, which sees it
            with self._grown:
                self.failure = error
                self._grown.notify_all()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(90)

    def wait_for_more(self, count, timeout=60):
        """Until so many more are stored, each by two brokers at least."""
        with self._grown:
            wanted = len(self.sent) + count
            assert self._grown.wait_for(lambda: self.failure or len(self.sent) >= wanted, timeout)
            if self.failure:
                raise self.failure


def leader(stack: Stack, topic: str) -> int:
    client = AdminClient(stack.admin_connection().config())
    return client.list_topics(topic, timeout=TIMEOUT).topics[topic].partitions[0].leader


def evidence(stack: Stack) -> str:
    """What happened, for whoever reads of a failure."""
    counts = {name: len(read_topic(stack, name)) for name in (f"{DOMAIN}.in", f"{DOMAIN}.out", f"{DOMAIN}.dead", AUDIT)}
    decisions = Counter((each["decision"], each["code"]) for each in hops(stack, "--domain", DOMAIN))
    logs = [f"--- {row.name}\n{Daemon(row.name, stack.layout.state / 'run').tail(40)}" for row in stack.status()]
    return "\n".join([f"records {counts}, hops {dict(decisions)}", *logs])


def test_every_topic_is_kept_three_times_and_written_to_two(stack):
    client = AdminClient(stack.admin_connection().config())
    metadata = client.list_topics(timeout=TIMEOUT)
    assert len(metadata.brokers) == 3
    assert {"__consumer_offsets", f"{DOMAIN}.in", "bus.audit", "bus.policy"} <= set(metadata.topics)
    for topic in metadata.topics.values():
        assert {len(each.replicas) for each in topic.partitions.values()} == {3}, topic.topic
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in metadata.topics]
    configs = {each.name: f.result(TIMEOUT) for each, f in client.describe_configs(resources).items()}
    assert {name: told["min.insync.replicas"].value for name, told in configs.items()} == dict.fromkeys(configs, "2")


@pytest.mark.long
def test_a_broker_killed_under_load_stops_nothing_and_loses_and_doubles_nothing(stack):
    victim = leader(stack, f"{DOMAIN}.in")
    with Bus("retriever-1", settings=stack.settings) as me, Load(me) as load:
        load.wait_for_more(EACH)
        name = "broker" if victim == 1 else f"broker-{victim}"
        os.kill(stack._daemon(name).find().pid, signal.SIGKILL)
        before = len(load.sent)
        load.wait_for_more(EACH)
        assert leader(stack, f"{DOMAIN}.in") not in (victim, -1)
        rows = {row.name: row.pid for row in stack.status()}
        assert rows[name] is None
    assert load.failure is None
    assert before >= EACH
    stack.up(lambda _: None)
    assert all(row.pid for row in stack.status())
    try:
        told = account(stack, DOMAIN, timeout=90)
    except AssertionError:
        pytest.fail(evidence(stack))
    outcomes = Counter((each["message_id"], each["decision"]) for each in told.values())
    allowed = {message for message, decision in outcomes if decision == "ALLOW"}
    assert allowed == {str(each.id) for each in load.sent}
    assert set(outcomes.values()) == {1}
    assert {each["code"] for each in told.values() if each["decision"] == "DENY"} <= {"replay"}
    assert verified(stack)["problems"] == []


def test_a_node_whose_storage_was_lost_is_not_formatted_anew(stack):
    stack.down(lambda _: None)
    (stack.layout.state / "kafka" / "node-3" / "data" / "meta.properties").unlink()
    with pytest.raises(StackError, match="expected the storage of 3 brokers, found that of 2"):
        stack.up(lambda _: None)
