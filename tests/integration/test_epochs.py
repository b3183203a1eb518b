"""Epoch change while running: short epochs on the broker's append time, counted record by record."""

import json
import os
import subprocess
import sys
import uuid

import pytest

from tests.integration.conftest import POLICIES
from tests.integration.oracle import account, verified

pytestmark = pytest.mark.broker

SHORT = {"lead_ms": 1500, "grace_ms": 15_000, "max_clock_skew_ms": 500}
"""Their grace outlasts a stall of a broker on a busy machine: a record is given up, told as such, after 14 s."""


def short_policies(folder):
    """The bundled law with epochs of two seconds."""
    folder.mkdir()
    mesh = (POLICIES / "mesh.yaml").read_text()
    assert "600000" in mesh
    (folder / "mesh.yaml").write_text(mesh.replace("600000", "2000"))
    (folder / "agents.yaml").write_text((POLICIES / "agents.yaml").read_text())
    return folder


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [6, pytest.param(20, marks=pytest.mark.long)])
def test_epochs_lose_and_refuse_nothing(own_stack, tmp_path, count):
    stack = own_stack(policies=short_policies(tmp_path / "short"), enforcers=2, **SHORT)
    environ = {**os.environ, "BUS_CONFIG": str(stack.layout.settings)}
    file = tmp_path / "published"
    command = [sys.executable, "-m", "tests.integration.children", "publisher", "retriever-1", "agent_memory"]
    subprocess.run([*command, str(count), str(file)], env=environ, check=True, timeout=200)
    published = file.read_text().split()
    told = account(stack, "agent_memory", timeout=90)
    assert sorted(each["message_id"] for each in told.values()) == sorted(published)
    assert len(set(published)) == len(published) > count
    assert {each["decision"] for each in told.values()} == {"ALLOW"}
    assert all(uuid.UUID(each).version == 7 for each in published)
    epochs = {each["epoch"] for each in told.values()}
    assert len(epochs) >= count, json.dumps(sorted(epochs))
    assert verified(stack)["problems"] == []
