"""`bus stack` and `bus doctor`: starts, survives, recovers, stops by its own records; says what is broken."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bus.stack.jars import aot_file, find_java
from tests.integration.commands import bus
from tests.integration.conftest import POLICIES

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A project folder with policies, as a user has it."""
    folder = tmp_path_factory.mktemp("home with space")
    (folder / "policies").symlink_to(POLICIES)
    yield folder
    bus(folder, "stack", "down", "--purge", check=False)


def pids(home):
    rows = json.loads(bus(home, "stack", "status", "--json", check=False).stdout)["services"]
    return {row["name"]: row["pid"] for row in rows}


@pytest.fixture(scope="module")
def up(home):
    """Started by a shell that ends at once, on the port that was asked for."""
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        port = each.getsockname()[1]
    told = json.loads(bus(home, "stack", "up", "--port", str(port), "--json").stdout)
    assert told["bootstrap"] == f"127.0.0.1:{port}"
    return port


def test_it_runs_after_its_shell_is_gone_and_policy_apply_finds_nothing_to_do(home, up):
    assert set(pids(home)) == {"broker", "issuer", "bus-enforcer-1", "audit"}
    assert all(psutil.Process(pid).terminal() is None and os.getsid(pid) == pid for pid in pids(home).values())
    assert "no changes" in bus(home, "policy", "apply", "--yes").stdout
    assert "up" in bus(home, "stack", "status").stdout


def test_doctor_is_content_and_every_line_names_a_check(home, up):
    checks = json.loads(bus(home, "doctor", "--json").stdout)["checks"]
    assert all(each["ok"] for each in checks), checks
    assert [each["name"] for each in checks] == [
        *("tools", "imports", "settings", "tls", "broker", "clock", "acls", "services"),
        *("keys", "attestation", "credentials", "snapshot", "windows", "ledger", "lag"),
    ]


def test_no_listener_speaks_without_tls_and_none_below_1_3(home, up):
    import ssl

    connections = {
        each.laddr.port
        for each in psutil.Process(pids(home)["broker"]).net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    }
    assert len(connections) == 3
    for port in connections:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection(("127.0.0.1", port), 5) as raw, pytest.raises((ssl.SSLError, OSError)):
            old.wrap_socket(raw)
        with socket.create_connection(("127.0.0.1", port), 5) as raw:
            # An ApiVersions request in the clear: the connection ends without a Kafka answer.
            raw.sendall(bytes.fromhex("0000000a00120000000000010000"))
            raw.settimeout(5)
            try:
                answer = raw.recv(64)
            except (ConnectionError, TimeoutError):
                answer = b""
            assert answer[:1] in (b"", b"\x15"), "a TLS alert or the end, never an answer"


def test_a_service_that_died_is_named_and_up_starts_it_again_and_leaves_the_others(home, up):
    before = pids(home)
    os.kill(before["audit"], signal.SIGKILL)
    psutil.Process(before["broker"])
    while psutil.pid_exists(before["audit"]) and psutil.Process(before["audit"]).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert bus(home, "stack", "status", check=False).returncode == 1
    down = bus(home, "doctor", check=False)
    assert down.returncode == 1
    assert "audit" in down.stdout
    assert "mend: bus stack up" in down.stdout
    bus(home, "stack", "up")
    after = pids(home)
    assert after["audit"] not in (None, before["audit"])
    assert {k: v for k, v in after.items() if k != "audit"} == {k: v for k, v in before.items() if k != "audit"}


def test_a_killed_broker_comes_back_on_its_port_from_stale_files(home, up):
    before = pids(home)
    os.kill(before["broker"], signal.SIGKILL)
    while psutil.pid_exists(before["broker"]) and psutil.Process(before["broker"]).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    told = json.loads(bus(home, "stack", "up", "--json").stdout)
    assert told["bootstrap"] == f"127.0.0.1:{up}"
    published = bus(home, "publish", "agent_memory", '{"text": "still here"}', "--as", "retriever-1")
    assert published.stdout.startswith("ALLOW")


@pytest.mark.parametrize(
    ("name", "breaks", "mend"),
    [
        ("tls", lambda home: swap(home / ".sealbus/pki/ca.pem"), "CA"),
        ("acls", None, "policy apply"),
        ("keys", lambda home: away(home / ".sealbus/keys/roots"), "mount it again"),
        ("snapshot", lambda home: away(home / ".sealbus/policy/snapshot"), "policy apply"),
        ("ledger", lambda home: away(home / ".sealbus/ledger/ledger.db"), "audit consumer"),
    ],
)
def test_doctor_names_what_is_broken_with_one_line_that_mends_it(home, up, name, breaks, mend):
    more, undo = {}, (lambda: None)
    if breaks is not None:
        undo = breaks(home)
    else:
        folder = home / "other"
        folder.mkdir()
        (folder / "mesh.yaml").write_text((POLICIES / "mesh.yaml").read_text())
        agents = (POLICIES / "agents.yaml").read_text()
        (folder / "agents.yaml").write_text(agents + "  executor-2: {role: EXECUTOR}\n")
        more = {"BUS_POLICIES": str(folder)}
    try:
        done = bus(home, "doctor", "--json", check=False, **more)
    finally:
        undo()
    checks = {each["name"]: each for each in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1
    assert not checks[name]["ok"], checks
    assert mend in checks[name]["mend"]
    assert "\n" not in checks[name]["mend"]


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and whose parent has not asked for its exit code does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def away(path: Path):
    """Move ``path`` aside; returns what puts it back."""
    aside = path.with_name(f"{path.name}.aside")
    path.rename(aside)
    return lambda: aside.rename(path)


def swap(path: Path):
    """Put another CA in the place of ``path``; returns what undoes it."""
    from bus.stack.pki import ensure_pki

    right = path.read_bytes()
    path.write_bytes(ensure_pki(path.parent / "other").read_bytes())
    return lambda: path.write_bytes(right)


def test_logs_show_each_service_and_refuse_an_unknown_one(home, up):
    assert "issuer: " in bus(home, "stack", "logs").stdout
    unknown = bus(home, "stack", "logs", "nobody", check=False)
    assert unknown.returncode == 1
    assert "bus: hint: one of broker" in unknown.stderr


def test_down_stops_what_it_started_and_nothing_else(home, up):
    stranger = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    record = home / ".sealbus/run/issuer.json"
    running = pids(home)
    bus(home, "stack", "down")
    assert not any(alive(pid) for pid in running.values())
    # A stale record that names another process's id: its start time differs, so it is left alone.
    record.write_text(json.dumps({"pid": stranger.pid, "born": 1.0}))
    bus(home, "stack", "down", "--purge")
    assert stranger.poll() is None
    assert not (home / ".sealbus").exists()
    stranger.communicate()


def test_the_broker_starts_with_classes_that_were_loaded_once(stack):
    file = aot_file(find_java())
    if file is None or not file.exists():
        pytest.skip("this Java makes no such file, or `bus stack fetch` was not run")
    (broker,) = [row for row in stack.status() if row.name == "broker"]
    assert f"-XX:AOTCache={file}" in psutil.Process(broker.pid).cmdline()
