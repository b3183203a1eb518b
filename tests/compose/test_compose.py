"""docker-compose.yml: agents in two zones exchange records, and no container sees or may do more than its part."""

import json
from pathlib import Path

import pytest

from tests.compose.conftest import COUNT, Project
from tests.compose.machine import run

pytestmark = pytest.mark.timeout(1200)

LASTING = ("broker", "issuer", "enforcer", "audit")
AGENTS = ("publisher", "subscriber")

FILES = "import os; print(*sorted(os.path.join(at, n) for at, _, ns in os.walk('/state') for n in ns), sep='\\n')"
REACH = """
import socket
for address in {addresses}:
    try:
        socket.create_connection(address, 3).close()
        print('yes')
    except OSError:
        print('no')
"""
RIGHTS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


@pytest.fixture(scope="module")
def project(machine):
    made = Project(machine, "sealbus-test")
    try:
        made.up()
        yield made
    finally:
        made.down()


def verified(project) -> dict:
    """What the audit's own container says of its ledger."""
    key = project.inside("audit", "bus", "audit", "key").stdout.strip()
    return json.loads(project.inside("audit", "bus", "audit", "verify", "--key", key, "--json").stdout)


def files(project, service: str) -> set[str]:
    return set(project.python(service, FILES).splitlines())


def reached(project, service: str, *addresses: tuple[str, int]) -> list[str]:
    return project.python(service, REACH.format(addresses=list(addresses))).splitlines()


def test_every_message_came_through_and_the_ledger_holds_it(project):
    assert f"retriever-1: publish {COUNT} of agent_memory" in project.log("publisher")
    assert f"orchestrator-1: receive {COUNT} of agent_memory" in project.log("subscriber")
    report = verified(project)
    assert report["problems"] == []
    found = project.inside("audit", "bus", "audit", "search", "--json", "--agent", "retriever-1").stdout
    decisions = [json.loads(line)["decision"] for line in found.splitlines()]
    assert decisions.count("ALLOW") == COUNT
    assert report["leaves"] >= COUNT


def test_an_agent_is_refused_what_the_policy_does_not_give_it(project):
    words = ["publish", "coordination", "{}", "--as", "retriever-1"]
    done = project("run", "--rm", "--no-deps", "-T", "--entrypoint", "bus", "publisher", *words, check=False)
    assert done.returncode == 1
    assert "bus: error: " in done.stderr + done.stdout


def test_an_agent_sees_what_is_public_and_its_own_keys_and_no_more(project):
    public = {
        f"/state/{name}"
        for name in ("bus.toml", "trust.json", "policy/snapshot", "policy/history/00000001", "pki/ca.pem")
    }
    for service, agent in (("publisher", "retriever-1"), ("subscriber", "orchestrator-1")):
        own = f"/state/agents/{agent}/"
        seen = files(project, service)
        assert seen == public | {path for path in seen if path.startswith(own)}
        assert {f"{own}token", f"{own}keys/1"} <= seen


def test_each_service_sees_its_own_signer_and_only_the_roots_that_it_needs(project):
    seen = {service: files(project, service) for service in ("issuer", "enforcer", "audit")}
    signers = {name: {path for path in paths if path.startswith("/state/signers")} for name, paths in seen.items()}
    assert signers == {
        "issuer": {f"/state/signers/{name}.key" for name in ("issuer", "session", "tokens")},
        "enforcer": set(),
        "audit": {"/state/signers/ledger.key"},
    }
    roots = {name: any(path.startswith("/state/keys/roots/") for path in paths) for name, paths in seen.items()}
    assert roots == {"issuer": True, "enforcer": True, "audit": False}
    agents = {name: any(path.startswith("/state/agents/") for path in paths) for name, paths in seen.items()}
    assert agents == {"issuer": True, "enforcer": False, "audit": False}
    everywhere = {path for paths in seen.values() for path in paths}
    assert not {path for path in everywhere if path.endswith(("ca.key", "broker.pem", "bus-admin/scram", "password"))}


def test_a_zone_reaches_the_broker_and_neither_the_other_zone_nor_the_backbone(project):
    own, other = project.address("broker", "zone-a"), project.address("broker", "zone-b")
    behind = project.address("broker", "backbone")
    assert len({own, other, behind}) == 3
    assert reached(project, "publisher", ("broker", 9092), (own, 9092)) == ["yes", "yes"]
    assert reached(project, "publisher", (other, 9092), (behind, 9092), ("enforcer", 9092)) == ["no"] * 3
    assert reached(project, "subscriber", (other, 9092), (own, 9092), (behind, 9092)) == ["yes", "no", "no"]
    assert reached(project, "publisher", (own, 9093), (own, 9094)) == ["no", "no"], "only agents' own listener is there"


def test_no_container_reaches_the_outside_and_none_is_reached_from_it(project):
    for name in ("backbone", "zone-a", "zone-b"):
        assert (
            run("docker", "network", "inspect", "-f", "{{.Internal}}", f"{project.name}_{name}").stdout.strip()
            == "true"
        )
    for service in LASTING:
        ports = run("docker", "inspect", "-f", "{{json .NetworkSettings.Ports}}", project.container(service)).stdout
        assert not any(json.loads(ports).values())


@pytest.mark.parametrize("service", LASTING)
def test_a_running_service_is_nobody_on_a_root_that_cannot_be_written(project, service):
    told = dict(line.split(":\t", 1) for line in project.inside(service, "cat", "/proc/1/status").stdout.splitlines())
    check_rights(told)
    for place in ("/x", "/etc/x", "/opt/x"):
        refused = project.inside(service, "touch", place, check=False)
        assert refused.returncode != 0
        assert "Read-only file system" in refused.stderr
    assert project.inside(service, "touch", "/tmp/x").returncode == 0, "the probe itself works"


@pytest.mark.parametrize("service", AGENTS)
def test_an_agent_is_nobody_on_a_root_and_a_state_that_cannot_be_written(project, service):
    code = """
import errno, pathlib
print(pathlib.Path('/proc/1/status').read_text())
for place in ('/x', '/state/x', '/opt/sealbus/x', '/state/agents/x'):
    try:
        open(place, 'w')
    except OSError as error:
        assert error.errno in (errno.EROFS, errno.EACCES), error
    else:
        raise AssertionError(place)
open('/tmp/x', 'w')
"""
    check_rights(dict(line.split(":\t", 1) for line in project.python(service, code).splitlines()))


def check_rights(told: dict[str, str]) -> None:
    """Of /proc/1/status: no capability, no way to gain one, not root."""
    assert {told[name] for name in RIGHTS} == {"0" * 16}
    assert told["NoNewPrivs"] == "1"
    assert set(told["Uid"].split()) == {"10001"}


def test_a_killed_enforcer_and_a_second_up_lose_and_double_nothing(project):
    run("docker", "kill", "-s", "KILL", project.container("enforcer"))
    before = verified(project)
    project.up()
    after = verified(project)
    assert after["problems"] == []
    assert after["leaves"] >= before["leaves"] + COUNT
    found = project.inside("audit", "bus", "audit", "search", "--json", "--agent", "retriever-1").stdout
    rows = [json.loads(line) for line in found.splitlines()]
    allowed = [row["message_id"] for row in rows if row["decision"] == "ALLOW"]
    assert len(allowed) == len(set(allowed)) == 2 * COUNT


def test_the_files_hold_for_either_compose_and_name_the_kafka_of_the_lock(machine):
    text = Path("docker-compose.yml").read_text()
    lock = Path("bus/stack/kafka.lock").read_text()
    version = next(line.split(":")[2].split()[0] for line in lock.splitlines() if ":kafka_2.13:" in line)
    assert f"${{KAFKA_IMAGE:-apache/kafka:{version}}}" in text
    for files_ in (("docker-compose.yml",), ("docker-compose.yml", "docker-compose.three-brokers.yml")):
        Project(machine, "sealbus-valid", files_)("config", "-q")
