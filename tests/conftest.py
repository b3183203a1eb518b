"""What all tests share: no BUS_* of the surrounding shell reaches a test."""

import os
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

# Brokers of tests live for a minute or two: Java's second compiler would take more time than it saves.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC")


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the long tests, too")


SHARED = {"test_chunks", "test_memory", "test_record_path", "test_refusals", "test_sdk", "test_stack", "test_store"}
"""Files that share the stack of tests/integration: one process runs them, one after the other."""
FIRST = (
    "shared", "test_readme", "test_audit_payload", "test_faults", "test_mpc", "test_chaos", "test_reconcile",
    "test_erasure", "test_policy_live", "test_epochs", "test_windows", "test_workload", "test_examples",
)  # fmt: skip
"""Groups with brokers that take a minute or more, the longest first: what begins last ends alone."""


def _group(path):
    """What runs in one process: a file, or those that share."""
    return "shared" if path.stem in SHARED and path.parent.name == "integration" else path.stem


def _turn(item):
    """Without brokers first, so that not all that is slow begins at once."""
    if "integration" not in item.path.parts:
        return -1
    return FIRST.index(_group(item.path)) if _group(item.path) in FIRST else len(FIRST)


class Grouped(LoadScopeScheduling):
    """Whole groups to each process. (Marks for `--dist loadgroup` are lost on pytest 9.2: pytest-xdist 3.8.)"""

    def _split_scope(self, nodeid):
        path = Path(nodeid.split("::", 1)[0])
        return str(path.with_name(_group(path)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return Grouped(config, log)


def pytest_collection_modifyitems(config, items):
    items.sort(key=_turn)
    if not config.getoption("--long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="long: make test-long"))


@pytest.fixture(autouse=True, scope="session")
def _clean_environment():
    for name in [name for name in os.environ if name.startswith("BUS_")]:
        del os.environ[name]
