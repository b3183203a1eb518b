"""Broker source Docker: KAFKA_IMAGE in a container of testcontainers, with the product's settings, used as external."""

import dataclasses
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from bus.files import Layout, make_folder, write_file, write_secret
from bus.stack.broker import cluster_id, first_contact, free_ports
from bus.stack.external import reach
from bus.stack.pki import ensure_pki
from bus.stack.server import ADMIN, LOG4J, Node, properties_file, server_properties
from tests.compose.machine import ROOT

testcontainers = pytest.importorskip("testcontainers.core.container", reason="testcontainers is not installed")

pytestmark = pytest.mark.timeout(600)

INSIDE = Path("/state/kafka")


@pytest.fixture(scope="module")
def operator(machine, tmp_path_factory):
    """A broker in a container, on a port of this machine, with the files that its operator keeps."""
    from testcontainers.core.config import testcontainers_config

    testcontainers_config.ryuk_disabled = True  # its image would be pulled; the container is stopped below
    layout = Layout(tmp_path_factory.mktemp("operator") / "state")
    ports = dataclasses.replace(free_ports()[0], internal=9093, controller=9094)
    node = Node(1, ports, bind="0.0.0.0")
    folder = make_folder(layout.state / "kafka")
    ensure_pki(layout.ca.parent)
    shutil.copytree(layout.ca.parent, folder / "pki", ignore=shutil.ignore_patterns("ca.key"))
    told = server_properties(node, [node], INSIDE / "data", INSIDE / "pki", 1440)
    write_file(folder / "server.properties", properties_file(told), 0o600)
    write_file(folder / "log4j2.properties", LOG4J.encode(), 0o600)
    first = make_folder(layout.state / "first")
    write_secret(first / "password", secrets.token_hex(24).encode())
    write_file(first / "cluster", cluster_id().encode())
    container = (
        testcontainers.DockerContainer(machine.images["KAFKA_IMAGE"])
        .with_bind_ports(ports.agents, ports.agents)
        .with_volume_mapping(str(ROOT / "docker"), "/docker", "ro")
        .with_volume_mapping(str(folder), str(INSIDE), "rw")
        .with_volume_mapping(str(first), "/state/first", "ro")
        .with_kwargs(
            entrypoint=["sh", "/docker/broker"],
            user=f"{os.getuid()}:{os.getgid()}",
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
        )
    )
    with container:
        wait_for(container, b"Kafka Server started")
        address = f"127.0.0.1:{ports.agents}"
        first_contact(layout, address, first / "password", reach)
        yield SimpleNamespace(layout=layout, address=address, container=container)


def wait_for(container, line: bytes) -> None:
    """Until the container has said so; the port alone answers before Kafka does."""
    deadline = time.monotonic() + 120
    while line not in b"".join(container.get_logs()):
        wrapped = container.get_wrapped_container()
        wrapped.reload()
        assert wrapped.status in ("created", "running"), container.get_logs()
        assert time.monotonic() < deadline, container.get_logs()
        time.sleep(0.2)


def bus(home, *arguments, check=True, **more):
    environ = {key: value for key, value in os.environ.items() if not key.startswith("BUS_")}
    command = [sys.executable, "-m", "bus.cli.main", *arguments]
    done = subprocess.run(
        command, cwd=home, env={**environ, **more}, capture_output=True, text=True, timeout=150, check=False
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_a_stack_runs_on_a_broker_in_a_container_and_leaves_it_running(operator, tmp_path):
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    state = tmp_path / ".sealbus"
    for path in (operator.layout.ca, operator.layout.service(ADMIN) / "scram"):
        target = state / path.relative_to(operator.layout.state)
        target.parent.mkdir(parents=True)
        shutil.copy(path, target)
    told = json.loads(
        bus(
            tmp_path, "stack", "up", "--json", BUS_BOOTSTRAP=operator.address, BUS_SASL_MECHANISM="SCRAM-SHA-512"
        ).stdout
    )
    try:
        assert told["bootstrap"] == operator.address
        published = bus(tmp_path, "publish", "agent_memory", '{"text": "in a container"}', "--as", "retriever-1")
        assert published.stdout.startswith("ALLOW")
        refused = bus(tmp_path, "publish", "coordination", "{}", "--as", "retriever-1", check=False)
        assert refused.returncode == 1
        key = bus(tmp_path, "audit", "key").stdout.strip()
        assert json.loads(bus(tmp_path, "audit", "verify", "--key", key, "--json").stdout)["problems"] == []
        bus(tmp_path, "doctor")
    finally:
        bus(tmp_path, "stack", "down", "--purge")
    wrapped = operator.container.get_wrapped_container()
    wrapped.reload()
    assert wrapped.status == "running"
