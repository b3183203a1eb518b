"""What all tests share: no BUS_* of the surrounding shell reaches a test."""

import os

import pytest

# Brokers of tests live for a minute or two: Java's second compiler would take more time than it saves.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the long tests, too")


FIRST = (
    "test_readme", "shared", "test_audit_payload", "test_faults", "test_mpc", "test_chaos", "test_reconcile",
    "test_erasure", "test_policy_live", "test_store", "test_epochs", "test_memory", "test_windows",
    "test_workload", "test_examples",
)  # fmt: skip
"""Groups with brokers that take a minute or more, the longest first: what begins last ends alone."""


def _group(item):
    """What runs in one process, one after the other: a file, or all that shares the stack of tests/integration."""
    shares = "stack" in item.fixturenames and not hasattr(item.module, "stack")
    return "shared" if shares else item.path.stem


def _turn(item):
    """Without brokers first, so that brokers of four at once do not begin with them."""
    if "integration" not in item.path.parts:
        return -1
    return FIRST.index(_group(item)) if _group(item) in FIRST else len(FIRST)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config, items):
    items.sort(key=_turn)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long: make test-long"))


@pytest.fixture(autouse=True, scope="session")
def _clean_environment():
    for name in [name for name in os.environ if name.startswith("BUS_")]:
        del os.environ[name]
