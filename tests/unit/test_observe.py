"""The dashboard and the alert file speak of metrics that services have, under labels that they have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
OBSERVE = ROOT / "docker" / "observe"
SUFFIXES = ("_total", "_bucket")
WORDS = frozenset(("and", "by", "sum", "max", "rate", "increase", "deriv", "histogram_quantile", "le", "instance"))


def declared() -> dict[str, set[str]]:
    """Metrics that services make, with their labels, from the code."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "consumers").rglob("*.py"):
        text = path.read_text()
        for match in re.finditer(r"(Counter|Gauge|Histogram|GaugeMetricFamily)\(\s*\"(sealbus_\w+)\"", text):
            rest = text[match.end() : match.end() + 300].split(")")[0]
            labels = set(re.findall(r"\"(\w+)\"(?=[,\]])", rest)) | (
                {"topic", "partition"} if "labels=place" in rest else set()
            )
            found[match[2]] = labels
    return found


def expressions() -> list[str]:
    rules = yaml.safe_load((OBSERVE / "alerts.yml").read_text())["groups"]
    dashboard = json.loads((OBSERVE / "grafana" / "sealbus.json").read_text())
    return [rule["expr"] for group in rules for rule in group["rules"]] + [
        target["expr"] for panel in dashboard["panels"] for target in panel["targets"]
    ]


@pytest.mark.parametrize("expression", expressions())
def test_what_is_asked_for_is_there(expression):
    metrics = declared()
    names = set(re.findall(r"sealbus_\w+", expression))
    if not names:
        assert expression == 'up{job="sealbus"} == 0'
        return
    known = set()
    for name in names:
        plain = (
            name if name in metrics else next((name.removesuffix(each) for each in SUFFIXES if name.endswith(each)), "")
        )
        assert plain in metrics, name
        known |= metrics[plain]
    without = re.sub(r"sealbus_\w+|\"[^\"]*\"|\[\w+\]|[0-9.]+", " ", expression)
    assert set(re.findall(r"[a-z_]+", without)) - WORDS <= known
    assert expression.count("(") == expression.count(")")


def test_every_service_that_is_scraped_listens_and_every_file_is_mounted():
    compose = yaml.safe_load((ROOT / "docker-compose.observe.yml").read_text())
    scraped = yaml.safe_load((OBSERVE / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"][0][
        "targets"
    ]
    for target in scraped:
        name, port = target.split(":")
        assert compose["services"][name]["environment"]["BUS_HTTP"] == f"0.0.0.0:{port}"
    for mount in [*compose["services"]["grafana"]["volumes"], "./docker/observe:/etc/prometheus:ro"]:
        assert (ROOT / mount.split(":")[0]).exists()


def test_every_rule_says_how_grave_it_is_and_what_it_is_about():
    for group in yaml.safe_load((OBSERVE / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("medium", "high", "critical")
            assert rule["annotations"]["summary"]
