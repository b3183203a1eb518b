"""What all tests share: no BUS_* of the surrounding shell reaches a test."""

import os

import pytest


@pytest.fixture(autouse=True, scope="session")
def _clean_environment():
    for name in [name for name in os.environ if name.startswith("BUS_")]:
        del os.environ[name]
