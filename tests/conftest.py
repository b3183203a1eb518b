"""What all tests share: no BUS_* of the surrounding shell reaches a test."""

import os

import pytest

# Brokers of tests live for a minute or two: Java's second compiler would take more time than it saves.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the long tests, too")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long: make test-long"))


@pytest.fixture(autouse=True, scope="session")
def _clean_environment():
    for name in [name for name in os.environ if name.startswith("BUS_")]:
        del os.environ[name]
