"""The override with three brokers: one is killed, the agents go on."""

import json

import pytest

from tests.compose.conftest import COUNT, Project
from tests.compose.machine import run

pytestmark = pytest.mark.timeout(1200)

FILES = ("docker-compose.yml", "docker-compose.three-brokers.yml")


@pytest.fixture(scope="module")
def project(machine):
    made = Project(machine, "sealbus-three", FILES)
    try:
        made.up()
        yield made
    finally:
        made.down()


def allowed(project) -> list[str]:
    found = project.inside("audit", "bus", "audit", "search", "--json", "--agent", "retriever-1").stdout
    return [row["message_id"] for row in map(json.loads, found.splitlines()) if row["decision"] == "ALLOW"]


def test_with_one_of_three_brokers_killed_the_agents_exchange_as_before(project):
    assert len(set(allowed(project))) == COUNT
    run("docker", "kill", "-s", "KILL", project.container("broker-2"))
    for agent in ("subscriber", "publisher"):
        run("docker", "start", project.container(agent))
    for agent in ("publisher", "subscriber"):
        assert run("docker", "wait", project.container(agent), timeout=180).stdout.strip() == "0", project.log(agent)
    again = allowed(project)
    assert len(again) == len(set(again)) == 2 * COUNT
    key = project.inside("audit", "bus", "audit", "key").stdout.strip()
    assert (
        json.loads(project.inside("audit", "bus", "audit", "verify", "--key", key, "--json").stdout)["problems"] == []
    )
