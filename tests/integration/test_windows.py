"""10,000 windows made by 10,000 sending instances, restored by a fresh process after a kill."""

import os
import signal

import pytest
import yaml
from confluent_kafka import Producer

from bus.crypto.seal import Sealer
from demo.raw import RawClient, plaintext
from tests.integration.conftest import POLICIES
from tests.integration.oracle import account, verified

pytestmark = pytest.mark.broker

INSTANCES, PARTITIONS = 64, 4


def crowd(folder, count):
    """The bundled law with 40 retrievers."""
    folder.mkdir()
    (folder / "mesh.yaml").write_text((POLICIES / "mesh.yaml").read_text())
    agents = yaml.safe_load((POLICIES / "agents.yaml").read_text())["agents"]
    agents |= {f"crowd-{number}": {"role": "RETRIEVER"} for number in range(count)}
    (folder / "agents.yaml").write_text(yaml.safe_dump({"agents": agents}))
    return folder


def send(stack, rows):
    """Write (partition, value) rows in order."""
    failures = []
    producer = Producer(stack.admin_connection().config(acks="all", enable_idempotence=True))
    for partition, value in rows:
        producer.produce(
            "agent_memory.in", value, partition=partition, on_delivery=lambda e, _: failures.append(e) if e else None
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    assert failures == []


@pytest.mark.timeout(400)
@pytest.mark.parametrize("agents", [8, pytest.param(40, marks=pytest.mark.long)])
def test_thousands_of_windows_are_restored_after_a_kill_and_every_replay_is_refused(own_stack, tmp_path, agents):
    stack = own_stack(policies=crowd(tmp_path / "crowd", agents))
    raw = RawClient(stack)
    rows = []
    for number in range(agents):
        agent = f"crowd-{number}"
        keys, _ = raw.keys(agent, "agent_memory")
        for _ in range(INSTANCES):
            for partition in range(PARTITIONS):
                sealer = Sealer(keys, raw.deployment, "agent_memory.in")
                rows.append((partition, sealer.seal(partition, plaintext(agent, "agent_memory"))[1]))
    assert len(rows) == agents * INSTANCES * PARTITIONS > 2000
    send(stack, rows)
    first = account(stack, "agent_memory", timeout=120)
    assert {each["decision"] for each in first.values()} == {"ALLOW"}
    os.kill(stack._daemon("bus-enforcer-1").find().pid, signal.SIGKILL)
    send(stack, rows)
    stack.start_service("bus-enforcer-1")
    outcomes = account(stack, "agent_memory", timeout=120)
    assert len(outcomes) == len(rows)
    assert {(each["decision"], each["code"]) for each in outcomes.values()} == {("DENY", "replay")}
    assert verified(stack)["problems"] == []
