"""The services' HTTP endpoint: health, readiness and metrics over a real socket, and nothing else."""

from __future__ import annotations

import http.client
import socket

import pytest
from prometheus_client import CollectorRegistry, Counter

from bus.errors import SettingsError
from consumers import endpoint
from consumers.endpoint import Endpoint, Vitals


@pytest.fixture
def vitals(tmp_path):
    with Vitals(tmp_path / "run" / "it.ready") as made:
        yield made


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def served(tmp_path, vitals, registry):
    with Endpoint("it", "127.0.0.1:0", tmp_path / "run", vitals, registry):
        yield tmp_path / "run" / "it.http"


def get(told, path, method="GET"):
    host, _, port = told.read_text().strip().removeprefix("http://").rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_a_service_is_ready_when_it_says_so_and_tells_why_it_is_not(served, vitals, tmp_path):
    ready = tmp_path / "run" / "it.ready"
    assert get(served, "/readyz") == (503, "starting\n")
    vitals.ready()
    assert get(served, "/readyz") == (200, "ok\n")
    assert ready.exists()
    vitals.waiting("paused: keys cannot be had")
    assert get(served, "/readyz") == (503, "paused: keys cannot be had\n")
    assert not ready.exists()
    assert get(served, "/healthz") == (200, "ok\n"), "it waits, and its loop turns"


def test_a_loop_that_does_not_turn_is_neither_healthy_nor_ready(served, vitals, monkeypatch):
    vitals.ready()
    monkeypatch.setattr(endpoint, "STALE_S", -1.0)
    for path in ("/healthz", "/readyz"):
        status, body = get(served, path)
        assert (status, body.startswith("the loop has not turned")) == (503, True)
    monkeypatch.setattr(endpoint, "STALE_S", 60.0)
    assert get(served, "/healthz")[0] == 200


def test_metrics_are_prometheus_text_with_version_and_readiness(served, vitals, registry):
    Counter("sealbus_records", "Records.", ["code"], registry=registry).labels("replay").inc(3)
    status, body = get(served, "/metrics")
    assert status == 200
    assert 'sealbus_records_total{code="replay"} 3.0' in body
    assert "sealbus_ready 0.0" in body
    assert 'sealbus_build_info{service="it",version="' in body
    vitals.ready()
    assert "sealbus_ready 1.0" in get(served, "/metrics")[1]


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metrics?x=1", "/../etc/passwd", "/readyz2"])
def test_any_other_path_is_not_found(served, path):
    assert get(served, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_nothing_can_be_done_but_get(served, method):
    assert get(served, "/healthz", method)[0] == 501


def test_an_end_takes_the_files_away(tmp_path, registry):
    run = tmp_path / "run"
    with Vitals(run / "it.ready") as vitals, Endpoint("it", "127.0.0.1:0", run, vitals, registry):
        vitals.ready()
        assert sorted(each.name for each in run.iterdir()) == ["it.http", "it.ready"]
    assert list(run.iterdir()) == []


def test_without_an_address_nothing_listens(tmp_path, registry):
    run = tmp_path / "run"
    with Vitals(run / "it.ready") as vitals, Endpoint("it", "", run, vitals, registry):
        assert not (run / "it.http").exists()


@pytest.mark.parametrize("address", ["here", "127.0.0.1:", "127.0.0.1:port", "127.0.0.1:70000", "no such host:1"])
def test_an_address_that_cannot_be_taken_is_refused_with_what_was_expected(tmp_path, registry, address):
    with pytest.raises(SettingsError, match="http: expected HOST:PORT"):
        Endpoint("it", address, tmp_path, Vitals(tmp_path / "it.ready"), registry)


def test_a_taken_port_is_refused(tmp_path, registry):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match="that is free"):
            Endpoint("it", f"127.0.0.1:{port}", tmp_path, Vitals(tmp_path / "it.ready"), registry)
