"""Two replicas of the service beside a real broker; each is killed in turn while epochs of two seconds are issued."""

from __future__ import annotations

import dataclasses
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from bus import Bus
from bus.authority.local import open_roots
from bus.authority.trust import read_trust
from bus.errors import Refused, RetryLater
from bus.settings import Issuing
from bus.stack.broker import free_ports
from bus.stack.local import Stack
from bus.stack.process import Daemon
from tests.integration.conftest import start_stack
from tests.integration.oracle import account, bus_command, until, verified
from tests.integration.test_epochs import SHORT, short_policies

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]
FIRST, SECOND = "authority", "authority-2"


@dataclass
class Pair:
    """A stack whose agents may ask either of two replicas."""

    stack: Stack
    environ: dict[str, str]

    def start(self, name: str) -> None:
        if name == FIRST:
            self.stack.start_service(FIRST)
            return
        ready = self.stack.layout.run / f"{SECOND}.ready"
        ready.unlink(missing_ok=True)
        daemon = Daemon(SECOND, self.stack.layout.run)
        daemon.start([sys.executable, "-m", "bus.cli.main", "run", "authority"], self.environ)
        daemon.wait_for(ready, 60)

    def kill(self, name: str) -> None:
        process = Daemon(name, self.stack.layout.run).find()
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    def newest(self) -> int:
        """The number of the newest epoch."""
        settings, layout = self.stack.settings, self.stack.layout
        return max(open_roots(settings, layout, read_trust(layout.trust)).numbers())


@pytest.fixture(params=["sqlite", "postgres"])
def pair(request, tmp_path) -> Iterator[Pair]:
    database = ""
    if request.param == "postgres":
        database = request.getfixturevalue("cluster").database("service")
    policies = short_policies(tmp_path / "short")
    told = {"issuing": Issuing.AUTHORITY, "authority_database": database, "policies": policies, **SHORT}
    stack = start_stack(tmp_path / "state", **told)
    ports = free_ports()[0]
    here = {"authority": f"127.0.0.1:{ports.internal}", "enrolment": f"127.0.0.1:{ports.controller}"}
    environ = {f"BUS_{key.upper()}": value for key, value in here.items()}
    environ |= {"BUS_CONFIG": str(stack.layout.settings), "BUS_INSTANCE": SECOND, "BUS_HTTP": "127.0.0.1:0"}
    made = Pair(stack, environ)
    try:
        made.start(SECOND)
        addresses = f"{stack.settings.authority},{here['authority']}"
        stack.settings = dataclasses.replace(stack.settings, authority_addresses=addresses)
        yield made
    finally:
        Daemon(SECOND, stack.layout.run).stop()
        stack.down(lambda _: None, purge=True)


@pytest.mark.long
def test_agents_go_on_while_either_replica_is_killed(pair):
    sent, stop, waited = [], threading.Event(), []

    def publish() -> None:
        with Bus("retriever-1", settings=pair.stack.settings) as me:
            while not stop.is_set():
                try:
                    sent.append(str(me.publish("agent_memory", {"note": len(sent)}, confirm="decided").id))
                except RetryLater as error:
                    waited.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        for gone in (FIRST, SECOND):
            before, count = pair.newest(), len(sent)
            pair.kill(gone)
            until(lambda: pair.newest() >= before + 3 and len(sent) > count + 20)  # noqa: B023  # asked in this turn
            pair.start(gone)
    finally:
        stop.set()
        thread.join(60)
    assert waited == []
    told = account(pair.stack, "agent_memory")
    assert {each["decision"] for each in told.values()} == {"ALLOW"}
    assert sorted(each["message_id"] for each in told.values()) == sorted(sent)
    assert verified(pair.stack)["problems"] == []
    assert bus_command(pair.stack, "keys", "status").returncode == 0
    assert bus_command(pair.stack, "doctor").returncode == 0

    # What one replica was told, both go by.
    assert bus_command(pair.stack, "agent", "revoke", "executor-1", "--why", "it left").returncode == 0
    for address in pair.stack.settings.authorities.split(","):
        settings = dataclasses.replace(pair.stack.settings, authority_addresses=address)
        with pytest.raises(Refused, match="executor-1 is revoked: it left"):
            Bus("executor-1", settings=settings)
