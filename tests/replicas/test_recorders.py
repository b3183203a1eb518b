"""Two recorders of one PostgreSQL beside a real broker: one is killed, one stands still, the server is restarted."""

from __future__ import annotations

import json
import signal
import sys

import pytest

from bus.stack.process import Daemon
from bus.wire.names import AUDIT_PARTITIONS
from demo.observer import look
from demo.raw import RawClient
from tests.integration.conftest import start_stack
from tests.integration.oracle import account, bus_command, get, until, verified
from tests.integration.test_faults import write
from tests.replicas.conftest import NUMBERS

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]
NAMES = ("audit-1", "audit-2")


@pytest.fixture
def stack(tmp_path, cluster):
    address = cluster.database(f"r{next(NUMBERS)}")
    local = start_stack(tmp_path / "state", services=False, ledger_database=address)
    for name in ("issuer", "bus-enforcer-1"):
        local.start_service(name)
    yield local
    for name in NAMES:
        Daemon(name, local.layout.run).stop()
    local.down(lambda _: None, purge=True)


def start(stack, name):
    daemon, ready = Daemon(name, stack.layout.run), stack.layout.run / f"{name}.ready"
    ready.unlink(missing_ok=True)  # of one that was killed
    environ = {"BUS_CONFIG": str(stack.layout.settings), "BUS_INSTANCE": name, "BUS_HTTP": "127.0.0.1:0"}
    daemon.start([sys.executable, "-m", "bus.cli.main", "run", "audit"], environ)
    daemon.wait_for(ready, 60)
    return daemon


def partitions(stack, name):
    """The audit partitions that a recorder says it reads."""
    text = get(stack, name, "/metrics")[1]
    return {line for line in text.splitlines() if line.startswith("sealbus_audit_lag_records{")}


def test_recorders_share_partitions_take_over_and_write_every_hop_once(stack, cluster, tmp_path):
    first, second = (start(stack, name) for name in NAMES)
    until(lambda: [len(partitions(stack, name)) for name in NAMES] == [AUDIT_PARTITIONS // 2] * 2)
    raw = RawClient(stack)
    sealer = raw.sealer("retriever-1", "agent_memory")
    total = len(write(raw, sealer, 40))
    assert len(account(stack, "agent_memory")) == total

    first.find().send_signal(signal.SIGKILL)
    total += len(write(raw, sealer, 40))
    assert len(account(stack, "agent_memory", timeout=90)) == total

    # Its group gives its partitions to another while it stands still; woken, it has a batch or none, and no right.
    start(stack, NAMES[0])
    until(lambda: [len(partitions(stack, name)) for name in NAMES] == [AUDIT_PARTITIONS // 2] * 2)
    still = second.find()
    still.send_signal(signal.SIGSTOP)
    try:
        total += len(write(raw, sealer, 40))
        assert len(account(stack, "agent_memory", timeout=90)) == total
    finally:
        still.send_signal(signal.SIGCONT)
    total += len(write(raw, sealer, 8))
    assert len(account(stack, "agent_memory", timeout=90)) == total

    cluster.stop()
    total += len(write(raw, sealer, 40))
    until(lambda: any(get(stack, name, "/readyz")[0] == 503 for name in NAMES))
    cluster.start()
    assert len(account(stack, "agent_memory", timeout=90)) == total
    report = verified(stack)
    assert report["problems"] == []
    assert report["leaves"] >= total

    done = bus_command(stack, "audit", "export", str(tmp_path / "evidence"), "--json")
    assert json.loads(done.stdout)["leaves"] == report["leaves"]
    key = bus_command(stack, "audit", "key").stdout.strip()
    told = bus_command(stack, "audit", "verify", "--offline", str(tmp_path / "evidence"), "--key", key)
    assert "all hold" in told.stdout
    told = json.loads(bus_command(stack, "audit", "reconcile", "--json").stdout)
    assert told["domains"]["agent_memory"]["problems"] == []
    assert "hops under" in bus_command(stack, "doctor", check=False).stdout
    assert look(cluster.home / "data", ["retriever-1"]).items == set()
