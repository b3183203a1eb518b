"""A ledger beside the broker that it is about, and beside witnesses: `bus audit reconcile`, `bus run witness`."""

import contextlib
import json
import sqlite3
import subprocess
import sys
import time

import pytest
from confluent_kafka import Producer

from bus import Bus
from bus.crypto.seal import Sealer
from bus.errors import Denied
from bus.wire.names import DomainName
from demo.raw import plaintext
from tests.integration.conftest import start_stack
from tests.integration.oracle import bus_command, read_topic, until

pytestmark = pytest.mark.broker
DOMAIN = "agent_memory"


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    local = start_stack(tmp_path_factory.mktemp("evidence") / "state")
    yield local
    local.down(lambda _: None, purge=True)


def told(stack):
    done = bus_command(stack, "audit", "reconcile", "--domain", DOMAIN, "--json", check=False)
    document = json.loads(done.stdout)["domains"][DOMAIN]
    assert done.returncode == (1 if document["problems"] else 0), done.stderr
    return document


def report_again(stack, folder):
    """A report of the live ledger and one of an export say the same, and hold for who has the public key alone."""
    key = bus_command(stack, "audit", "key").stdout.strip()
    bus_command(stack, "audit", "export", str(folder / "export"))
    figures = []
    for name, more in (("live", ()), ("copied", ("--from", str(folder / "export")))):
        done = bus_command(stack, "audit", "report", "--for", "soc2", *more, "--json", str(folder / name))
        document = json.loads(done.stdout)
        assert document["gaps"]["problems"] == []
        figures.append({each["name"]: each["value"] for each in document["figures"]})
        assert "all hold" in bus_command(stack, "audit", "verify", "--report", str(folder / name), "--key", key).stdout
    assert figures[0] == figures[1]
    assert (figures[0]["accesses"], figures[0]["denials"]) == (40, 1)
    assert (folder / "live" / "report.pdf").stat().st_size > 1000
    data = (folder / "live" / "report.json").read_text()
    (folder / "live" / "report.json").write_text(data.replace('"value": 40', '"value": 41'))
    done = bus_command(stack, "audit", "verify", "--report", str(folder / "live"), "--key", key, check=False)
    assert (done.returncode, "not what was signed" in done.stderr) == (1, True)
    told = json.loads(bus_command(stack, "audit", "retire", "--older-than", "1d", "--yes", "--json").stdout)
    assert (told["segments"], told["hops"]) == ([], 0)
    again = bus_command(stack, "audit", "report", "--for", "gdpr", str(folder / "live"), check=False)
    assert "it is there already" in again.stderr


def test_all_fits_until_somebody_writes_past_the_enforcer(stack, tmp_path):
    with Bus("retriever-1", settings=stack.settings) as me, Bus("executor-1", settings=stack.settings) as other:
        for number in range(40):
            me.publish(DOMAIN, {"n": number}, partition_key=str(number))
        with pytest.raises(Denied):
            other.publish(DOMAIN, {})
        held = max(me._keys.begun(DomainName(DOMAIN), 2**62).values(), key=lambda each: each.epoch.epoch)
    # One that is refused: its envelope ended ten minutes ago.
    sealer = Sealer(held.own, stack.settings.deployment_id, f"{DOMAIN}.in")
    late = plaintext("retriever-1", DOMAIN, now=time.time_ns() // 1_000_000 - 600_000)
    producer = Producer(stack.admin_connection().config())
    producer.produce(f"{DOMAIN}.in", sealer.seal(1, late)[1], partition=1)
    assert producer.flush(30) == 0
    found = told(stack)
    assert found["problems"] == []
    assert (found["inputs"], found["hops"], found["outputs"], found["dead"]) == (41, 41, 40, 1)

    rows = json.loads(bus_command(stack, "map", "--json").stdout)["ways"]
    seen = {(each["agent"], each["domain"]): (each["state"], each["allowed"], each["denied"]) for each in rows}
    assert seen["retriever-1", DOMAIN] == ("used", 40, 1)
    assert seen["executor-1", "coordination"] == ("unused", 0, 0)
    assert bus_command(stack, "map", "--fail-on-changes", check=False).returncode == 3
    assert bus_command(stack, "map", "--as", "svg").stdout.startswith("<svg ")

    report_again(stack, tmp_path)

    # A bundle again, and something that no enforcer wrote; a dead letter of nothing.
    partition, _, bundle = read_topic(stack, f"{DOMAIN}.out")[0]
    producer.produce(f"{DOMAIN}.out", bundle, partition=partition)
    producer.produce(f"{DOMAIN}.out", b"forged", partition=0)
    producer.produce(f"{DOMAIN}.dead", b"forged", partition=0)
    assert producer.flush(30) == 0
    found = until(lambda: (held := told(stack))["problems"] and held)
    assert sum("one outcome, written 2 times" in each for each in found["problems"]) >= 1
    assert sum("no hop says that it was written" in each for each in found["problems"]) == 2

    done = bus_command(stack, "audit", "reconcile", "--domain", "nowhere", check=False)
    assert (done.returncode, "no domain 'nowhere'" in done.stderr) == (1, True)


def test_witnesses_co_sign_what_is_recorded_and_none_another_log(stack, tmp_path):
    log = f"{stack.settings.deployment_id.hex()}={bus_command(stack, 'audit', 'key').stdout.strip()}"
    with contextlib.ExitStack() as running:
        urls = {}
        for name in ("w1", "w2"):
            arguments = ["--log", log, "--name", name, "--state", tmp_path / name, "--listen", "127.0.0.1:0"]
            process = running.enter_context(started("run", "witness", *map(str, arguments)))
            urls[process.stdout.readline().strip()] = process.stderr.readline().split()[-1]
        rows = "".join(f'"{key}" = "{url}"\n' for key, url in urls.items())
        stack.layout.settings.write_text(f"{stack.layout.settings.read_text()}\n[witnesses]\n{rows}")
        stack.restart_service("audit")
        before = len(read_topic(stack, f"{DOMAIN}.in"))
        with Bus("retriever-1", settings=stack.settings) as me:
            for number in range(20):
                me.publish(DOMAIN, {"n": number}, confirm="decided", partition_key=str(number))
        keys = [each for key in urls for each in ("--witness", key)]

        def verified(*arguments):
            done = bus_command(stack, "audit", "verify", "--key", log[33:], *arguments, "--json", check=False)
            return json.loads(done.stdout)

        def all_co_signed():
            """All leaves, once every record has its hop."""
            told = verified(*keys)
            leaves = sum(told["witnessed"].values())
            return leaves if leaves == told["leaves"] >= before + 20 else 0

        leaves = until(all_co_signed)
        folder = tmp_path / "evidence"
        bus_command(stack, "audit", "export", str(folder))
        whole = verified("--offline", str(folder), *keys)
        assert (whole["problems"], sum(whole["witnessed"].values())) == ([], leaves)
        with contextlib.closing(sqlite3.connect(folder / "ledger.db")) as copy, copy:
            copy.execute("update cosignature set line = replace(line, '— w2', '— w1')")
        assert "witness w2: a cosignature of another key" in str(verified("--offline", str(folder), *keys)["problems"])


@contextlib.contextmanager
def started(*arguments):
    """`bus` with ``arguments`` in the foreground, until the end of the block."""
    command = [sys.executable, "-m", "bus.cli.main", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
            assert process.wait(10) == 0
