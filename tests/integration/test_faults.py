"""kill -9 of enforcer and audit at named points: each input has exactly one outcome and one hop."""

import os
import signal
import subprocess
import sys

import pytest

from demo.raw import RawClient, plaintext
from tests.integration.oracle import account, verified

pytestmark = pytest.mark.broker

PER_ROUND = 40


def child(stack, *arguments, instance="bus-enforcer-1"):
    """Start a process of ``children``."""
    environ = {**os.environ, "BUS_CONFIG": str(stack.layout.settings), "BUS_INSTANCE": instance}
    return subprocess.Popen([sys.executable, "-m", "tests.integration.children", *arguments], env=environ)


def write_until_end(process, raw, sealer):
    """Some records at a time until the process has ended: its next transaction needs records."""
    values = []
    while True:
        values += write(raw, sealer, 8)
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        return values


def write(raw, sealer, count):
    values = []
    for number in range(count):
        _, value = sealer.seal(number % 4, plaintext("retriever-1", "agent_memory"))
        values.append(value)
        raw.produce("agent_memory.in", value, number % 4)
    return values


@pytest.mark.timeout(300)
def test_an_enforcer_killed_between_produce_send_offsets_and_commit_loses_and_doubles_nothing(own_stack):
    stack = own_stack(services=False)
    stack.start_service("issuer")
    stack.start_service("audit")
    raw = RawClient(stack)
    sealer = raw.sealer("retriever-1", "agent_memory")
    values = []
    for point, count in [("produced", 1), ("offsets-sent", 1), ("committed", 1), ("produced", 2), ("offsets-sent", 2)]:
        process = child(stack, "enforcer", point, str(count))
        values += write(raw, sealer, PER_ROUND)
        values += write_until_end(process, raw, sealer)
        assert process.returncode == -signal.SIGKILL, point
    stack.start_service("bus-enforcer-1")
    told = account(stack, "agent_memory")
    assert len(told) == len(values)
    assert {each["code"] for each in told.values()} == {""}
    assert verified(stack)["problems"] == []


@pytest.mark.timeout(300)
def test_an_audit_consumer_killed_between_opening_appending_and_signing_keeps_every_hop_once(own_stack):
    stack = own_stack(services=False)
    stack.start_service("issuer")
    stack.start_service("bus-enforcer-1")
    raw = RawClient(stack)
    sealer = raw.sealer("retriever-1", "agent_memory")
    values = []
    for point, count in [("opened", 1), ("appended", 1), ("signed", 1), ("opened", 2), ("appended", 2)]:
        process = child(stack, "audit", point, str(count))
        values += write_until_end(process, raw, sealer)
        assert process.returncode == -signal.SIGKILL, point
    stack.start_service("audit")
    told = account(stack, "agent_memory")
    assert len(told) == len(values)
    report = verified(stack)
    assert report["problems"] == []
    assert report["leaves"] >= len(values)


@pytest.mark.timeout(300)
def test_two_enforcers_share_a_group_and_one_takes_over_what_the_other_left(own_stack):
    stack = own_stack(services=False, enforcers=2)
    for name in ("issuer", "audit", "bus-enforcer-1", "bus-enforcer-2"):
        stack.start_service(name)
    raw = RawClient(stack)
    sealer = raw.sealer("retriever-1", "agent_memory")
    values = write(raw, sealer, PER_ROUND)
    os.kill(stack._daemon("bus-enforcer-2").find().pid, signal.SIGKILL)
    values += write(raw, sealer, PER_ROUND)
    first = account(stack, "agent_memory", timeout=90)
    assert len(first) == len(values)
    stack.start_service("bus-enforcer-2")
    replays = [raw.produce("agent_memory.in", value, number % 4) for number, value in enumerate(values[:8])]
    assert len(replays) == 8
    values += write(raw, sealer, PER_ROUND)
    assert stack.stop_service("bus-enforcer-1")  # gracefully: the other goes on alone
    values += write(raw, sealer, PER_ROUND)
    told = account(stack, "agent_memory", timeout=90)
    assert len(told) == len(values)
    assert verified(stack)["problems"] == []
