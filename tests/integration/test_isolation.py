"""Each agent is a process of its own, under a user of its own: it opens its own bundle, no other one and no root."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.integration.conftest import start_stack

pytestmark = [
    pytest.mark.broker,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give each agent a user of its own"),
]

OWNERS = {"retriever-1": 40001, "orchestrator-1": 40002, "executor-1": 40003}

AGENT = """
import os, pathlib, sys
from bus import Bus, settings
import bus.client.bus, bus.client.publisher, bus.client.subscriber, encodings.idna, encodings.utf_16_be
agent, uid = sys.argv[1], int(sys.argv[2])
loaded = settings.load()
os.setgroups([]); os.setgid(uid); os.setuid(uid)
state = loaded.state
opened = []
def attempt(path):
    try:
        with open(path, "rb") as source:
            source.read()
        opened.append(str(path.relative_to(state)))
    except OSError as error:
        assert isinstance(error, PermissionError), error
def listing(folder):
    try:
        return list(folder.iterdir())
    except PermissionError:
        return []
for path in sys.stdin.read().split("\\n"):
    attempt(pathlib.Path(path))
for folder in ("keys", "keys/roots", "agents", "signers", "services", "ledger", "kafka"):
    assert listing(state / folder) == [], folder
with Bus(agent) as me:
    sent = me.publish("coordination" if agent != "retriever-1" else "agent_memory", {"n": 1}, confirm="decided")
    print(sent.id)
print("\\n".join(sorted(opened)))
"""


@pytest.fixture(scope="module")
def shared():
    home = Path(tempfile.mkdtemp(prefix="sealbus-owners-"))
    home.chmod(0o711)
    local = start_stack(home / "state", owners=OWNERS)
    yield local
    local.down(lambda _: None, purge=True)
    shutil.rmtree(home)


@pytest.mark.parametrize("agent", sorted(OWNERS))
def test_an_agent_opens_its_own_keys_and_no_root_and_no_other_bundle(shared, agent):
    state = shared.layout.state
    secret = [path for path in state.rglob("*") if path.is_file() and path.stat().st_mode & 0o077 == 0]
    own = sorted(str(path.relative_to(state)) for path in (state / "agents" / agent).rglob("*") if path.is_file())
    assert any("keys/" in name for name in own)
    names = [str(path.relative_to(state)) for path in secret]
    assert "keys/kek" in names
    assert any(name.startswith("keys/roots/") for name in names)
    assert any(name.startswith("agents/") and name not in own for name in names)
    environ = {**os.environ, "BUS_CONFIG": str(shared.layout.settings)}
    done = subprocess.run(
        [sys.executable, "-c", AGENT, agent, str(OWNERS[agent])],
        input="\n".join(str(path) for path in secret),
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, *opened = done.stdout.split()
    assert opened == own


def test_bundles_and_roots_are_0600_and_a_bundle_that_others_may_read_is_refused(shared):
    from bus import Bus
    from bus.errors import Refused

    state = shared.layout.state
    for path in [state / "keys" / "kek", *state.glob("keys/roots/*/*"), *state.glob("agents/*/keys/*")]:
        assert path.stat().st_mode & 0o777 == 0o600, path
    path = next(state.glob("agents/orchestrator-1/keys/*"))
    path.chmod(0o640)
    os.environ["BUS_CONFIG"], before = str(shared.layout.settings), os.environ.get("BUS_CONFIG")
    try:
        with pytest.raises(Refused, match="expected mode 0600, found 0640"):
            Bus("orchestrator-1")
    finally:
        path.chmod(0o600)
        os.environ.pop("BUS_CONFIG")
        if before is not None:
            os.environ["BUS_CONFIG"] = before
