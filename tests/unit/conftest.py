"""Unit tests see no deployment: a stack that other tests of the run started is not theirs."""

import pytest

from tests.unit.running import Run, runner


@pytest.fixture(autouse=True)
def _no_deployment(monkeypatch):
    monkeypatch.delenv("BUS_CONFIG", raising=False)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys) -> Run:
    """Runs `bus` in an empty folder."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    return runner(folder, monkeypatch, capsys)
