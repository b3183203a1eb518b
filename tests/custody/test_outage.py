"""A real Vault stands still for three minutes under a real broker, issuer, enforcer and audit: pauses, nothing lost.

Everything that asks a provider is restarted in the outage, so that nobody holds a key: the enforcer has no root for the
records that wait, the audit none for the hops.
"""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest

from bus.settings import Settings
from demo.raw import RawClient, plaintext
from tests.custody.sites import vault
from tests.integration.conftest import own_stack as own_stack
from tests.integration.oracle import account, bus_command, read_topic, verified, wait_for_hops

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif("CUSTODY" not in os.environ, reason="takes four minutes: make test-custody"),
]

OUTAGE_S = 180.0
SERVICES = {"issuer": "", "enforcer": "bus-enforcer-1", "audit": ""}


@pytest.fixture
def site(tmp_path):
    with vault(tmp_path) as made:
        yield made


@contextlib.contextmanager
def restarted(stack):
    """All services as new processes that nobody waits for: without keys they do not become ready."""
    for name in ("issuer", "bus-enforcer-1", "audit"):
        stack.stop_service(name)
    processes = []
    for kind, instance in SERVICES.items():
        environ = {**os.environ, "BUS_CONFIG": str(stack.layout.settings), "BUS_INSTANCE": instance}
        processes.append(subprocess.Popen([sys.executable, "-m", "bus.cli.main", "run", kind], env=environ))
    try:
        yield processes
    finally:
        for each in processes:
            each.terminate()
        for each in processes:
            each.wait(30)


def write(raw, sealer, count):
    values = []
    for number in range(count):
        _, value = sealer.seal(number % 4, plaintext("retriever-1", "agent_memory"))
        values.append(value)
        raw.produce("agent_memory.in", value, number % 4)
    return values


@pytest.mark.timeout(600)
def test_an_outage_of_three_minutes_costs_pauses_no_dead_letters_and_no_loss(site, own_stack):
    given = {
        each.name: getattr(site.settings, each.name)
        for each in dataclasses.fields(Settings)
        if each.name.startswith(("key_", "vault_"))
    }
    stack = own_stack(**given)
    assert not stack.layout.kek.exists()
    raw = RawClient(stack)
    sealer = raw.sealer("retriever-1", "agent_memory")
    values = write(raw, sealer, 20)
    wait_for_hops(stack, values)
    status = bus_command(stack, "keys", "status").stdout
    assert "vault:transit/sealbus:v1" in status

    os.kill(site.process.pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        with restarted(stack) as processes:
            assert bus_command(stack, "keys", "status", check=False).returncode == 4
            while (left := OUTAGE_S - (time.monotonic() - began)) > 0:
                values += write(raw, sealer, 8)
                time.sleep(min(left, 5))  # the fault itself, not a wait for something
            assert [each.poll() for each in processes] == [None] * 3
            os.kill(site.process.pid, signal.SIGCONT)
            told = account(stack, "agent_memory")
    finally:
        os.kill(site.process.pid, signal.SIGCONT)
    assert len(told) == len(values)
    assert {each["decision"] for each in told.values()} == {"ALLOW"}
    assert read_topic(stack, "agent_memory.dead") == []
    assert verified(stack)["problems"] == []
