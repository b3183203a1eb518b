"""The override with an authority: agents enrol, lease their keys and exchange as before."""

import pytest

from tests.compose.conftest import COUNT, Project

pytestmark = pytest.mark.timeout(1200)

FILES = ("docker-compose.yml", "docker-compose.authority.yml")


@pytest.fixture(scope="module")
def project(machine):
    made = Project(machine, "sealbus-authority", FILES)
    try:
        made.up()
        yield made
    finally:
        made.down()


def test_agents_that_enrolled_exchange_by_leased_keys_and_nobody_wrote_them(project):
    assert project.container("issuer") == ""
    told = project.inside("authority", "bus", "agent", "list").stdout
    assert told.count("active") >= 2
    found = project.inside("audit", "bus", "audit", "search", "--json", "--agent", "retriever-1").stdout
    assert len(found.splitlines()) >= COUNT
