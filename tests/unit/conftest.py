"""Unit tests see no deployment: a stack that other tests of the run started is not theirs."""

import pytest


@pytest.fixture(autouse=True)
def _no_deployment(monkeypatch):
    monkeypatch.delenv("BUS_CONFIG", raising=False)
