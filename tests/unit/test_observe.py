"""The dashboard and the alert file speak of metrics that services have, under labels that they have."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

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


def test_grafanas_own_types_hold_the_whole_dashboard():
    """Read and written again by the types that Grafana publishes, it has lost nothing: no key is misspelt."""
    document = json.loads((OBSERVE / "grafana" / "sealbus.json").read_text())
    plugins.register_default_plugins()
    held = Dashboard.from_json(document)
    assert missing(document, json.loads(JSONEncoder().encode(held))) == []
    assert missing({"title": "a", "titel": "b"}, {"title": "a"}) == ["/titel"]


def missing(told, held, place=""):
    """Where ``held`` has not what ``told`` says."""
    if isinstance(told, dict) and isinstance(held, dict):
        return [each for key, value in told.items() for each in missing(value, held.get(key), f"{place}/{key}")]
    if isinstance(told, list) and isinstance(held, list) and len(told) == len(held):
        pairs = enumerate(zip(told, held, strict=True))
        return [each for number, (one, other) in pairs for each in missing(one, other, f"{place}/{number}")]
    return [] if told == held else [place]
