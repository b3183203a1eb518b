"""The override with the watcher: it reads the ledger beside the audit consumer and keeps its place.

Prometheus and Grafana are images of others and are not pulled here; what they load is tests/unit/test_observe.py's.
"""

import pytest

from tests.compose.conftest import Project
from tests.integration.oracle import until

pytestmark = pytest.mark.timeout(1200)

ASK = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9464/metrics').read().decode())"


@pytest.fixture(scope="module")
def project(machine):
    made = Project(machine, "sealbus-observe", ("docker-compose.yml", "docker-compose.observe.yml"))
    try:
        made("up", "-d", "--no-build", "issuer", "publisher", "subscriber", "watch")
        yield made
    finally:
        made.down()


def test_the_watcher_reads_every_hop_and_keeps_its_place(project):
    def watched():
        done = project.inside("watch", "python3", "-c", ASK, check=False)
        lines = [line for line in done.stdout.splitlines() if line.startswith("sealbus_watched_total")]
        return lines and float(lines[0].split()[1])

    hops = until(lambda: (found := watched()) and found >= 40 and found, timeout=180)
    assert hops >= 40
    until(lambda: project.inside("watch", "test", "-s", "/state/watch/state.json", check=False).returncode == 0)
    for service in ("enforcer", "audit"):
        assert "sealbus_ready 1.0" in project.inside(service, "python3", "-c", ASK).stdout
