"""The override with watcher and Prometheus: what is scraped, what the rules and the dashboard say of it, and an alert.

Grafana's image is of others and is not pulled here; its dashboard is tests/unit/test_observe.py's, and its questions
are asked of this Prometheus.
"""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from typing import Any

import pytest
import yaml

from tests.compose.conftest import Project
from tests.compose.machine import ROOT
from tests.integration.oracle import until

pytestmark = pytest.mark.timeout(1200)

ASK = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9464/metrics').read().decode())"
OBSERVE = ROOT / "docker" / "observe"
PANELS = json.loads((OBSERVE / "grafana" / "sealbus.json").read_text())["panels"]
QUIET = {"Breakers and limits"}
"""Panels of what this policy does not have."""
QUESTIONS = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]


class Prometheus:
    """Its HTTP API."""

    def __init__(self, address: str) -> None:
        self._base = f"http://{address}:9090/api/v1/"

    def __call__(self, path: str, **parameters: str) -> Any:
        url = f"{self._base}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            told = json.load(answer)
        assert told["status"] == "success", told
        return told["data"]

    def up(self) -> bool:
        """Whether it answers."""
        try:
            return bool(self("status/buildinfo"))
        except OSError:
            return False


@pytest.fixture(scope="module")
def project(machine):
    machine.images["PROMETHEUS_IMAGE"] = machine.prometheus()
    made = Project(machine, "sealbus-observe", ("docker-compose.yml", "docker-compose.observe.yml"))
    try:
        made("up", "-d", "--no-build", "issuer", "publisher", "subscriber", "watch", "prometheus")
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def prometheus(project):
    made = Prometheus(project.address("prometheus", "backbone"))
    until(made.up, timeout=60)
    return made


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


def test_every_rule_fires_for_what_it_is_about_and_for_nothing_else(project):
    """Its own tests (docker/observe/alerts_test.yml), by the promtool beside the Prometheus that loads the rules."""
    project.inside("prometheus", "promtool", "check", "config", "/etc/prometheus/prometheus.yml")
    test = "TMPDIR=/prometheus promtool test rules /etc/prometheus/alerts_test.yml"  # all else is read-only
    told = project.inside("prometheus", "sh", "-c", test)
    assert "SUCCESS" in told.stdout
    tested = {
        rule["alertname"]
        for group in yaml.safe_load((OBSERVE / "alerts_test.yml").read_text())["tests"]
        for rule in group["alert_rule_test"]
        if rule.get("exp_alerts")
    }
    assert tested == {rule["alert"] for rule in rules()}


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((OBSERVE / "alerts.yml").read_text())["groups"]
    return group["rules"]


def test_prometheus_scrapes_every_service_and_evaluates_every_rule(prometheus):
    def scraped():
        targets = prometheus("targets")["activeTargets"]
        return all(each["health"] == "up" for each in targets) and targets

    found = until(scraped, timeout=60)
    assert {each["labels"]["instance"] for each in found} == {"enforcer:9464", "audit:9464", "watch:9464"}

    def evaluated():
        (group,) = prometheus("rules")["groups"]
        return all(each["health"] == "ok" for each in group["rules"]) and group["rules"]

    held = until(evaluated, timeout=60)
    assert {each["name"] for each in held} == {each["alert"] for each in rules()}


@pytest.mark.parametrize(("panel", "question"), QUESTIONS)
def test_every_question_of_the_dashboard_has_an_answer(prometheus, panel, question):
    if panel in QUIET:
        assert prometheus("query", query=question)["result"] == []
    else:
        assert until(lambda: prometheus("query", query=question)["result"], timeout=90)


def test_an_exemplar_leads_from_a_time_to_its_message(project, prometheus):
    def exemplars():
        now = prometheus("query", query="time()")["result"][0]
        asked = {"start": str(now - 600), "end": str(now + 60)}
        return prometheus("query_exemplars", query="sealbus_decision_seconds_bucket", **asked)

    labels = until(exemplars, timeout=60)[0]["exemplars"][0]["labels"]
    assert (len(labels["trace_id"]), len(labels["message_id"])) == (32, 32)
    found = project.inside("audit", "bus", "audit", "search", "--json").stdout
    assert labels["message_id"] in found.replace("-", "")


def test_a_service_that_ends_is_told_within_two_minutes(project, prometheus):
    project("stop", "audit")

    def told():
        return [
            each
            for each in prometheus("alerts")["alerts"]
            if (each["labels"]["alertname"], each["state"]) == ("SealbusGone", "firing")
        ]

    (alert,) = until(told, timeout=150)
    assert alert["labels"]["instance"] == "audit:9464"
    assert alert["annotations"]["summary"] == "audit:9464 does not answer"
