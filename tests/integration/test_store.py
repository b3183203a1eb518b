"""Stores of running agents: keys from the real issuer, epochs that pass, one that is erased, rights that are lost."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from bus import Bus, Erased
from bus.errors import BusError, Denied
from tests.integration.oracle import bus_command, until
from tests.integration.test_epochs import SHORT, short_policies

pytestmark = pytest.mark.broker

DOMAIN = "agent_memory"
PAGE = Path(__file__).resolve().parents[2] / "docs" / "store.md"


def entries(stack, agent: str) -> dict[int, int]:
    """How many entries are sealed under which epoch, read past the SDK."""
    with sqlite3.connect(stack.layout.store(agent)) as db:
        query = "select number, count(*) from entry join epoch on epoch.id = entry.epoch group by number"
        return dict(db.execute(query).fetchall())


def at_rest(stack, agent: str) -> bytes:
    return b"".join(path.read_bytes() for path in stack.layout.agent(agent).glob("store.db*"))


@pytest.mark.timeout(300)
def test_a_store_lives_through_epochs_and_ends_with_erasure_and_with_the_right_to_its_domain(own_stack, tmp_path):
    policies = short_policies(tmp_path / "short")
    stack = own_stack(policies=policies, **SHORT)
    told: list[BusError] = []
    with Bus("retriever-1", settings=stack.settings) as me, Bus("orchestrator-1", settings=stack.settings) as other:
        me.on_refused(told.append)
        store, theirs = me.store("checkpoints", DOMAIN), other.store("cache", "coordination")
        theirs.put("theirs", 1)
        store.put("thread/VERYSECRET", {"text": "VERYSECRET"})
        (first,) = entries(stack, "retriever-1")

        # 1. Epochs pass: it is there, in another process too, and cannot be read at rest.
        keys = stack.layout.agent("retriever-1") / "keys"
        until(lambda: (keys / str(first + 3)).exists())
        store.put("thread/2", b"later")
        assert store.items("thread/") == [("thread/2", b"later"), ("thread/VERYSECRET", {"text": "VERYSECRET"})]
        with Bus("retriever-1", settings=stack.settings) as again:
            assert again.store("checkpoints", DOMAIN).get("thread/VERYSECRET") == {"text": "VERYSECRET"}
        assert b"VERYSECRET" not in at_rest(stack, "retriever-1")
        assert DOMAIN.encode() in at_rest(stack, "retriever-1")

        # 2. The epoch in which it was put is erased; what was put later stays.
        def erased():
            before = ("--domain", DOMAIN, "--epoch", str(first), "--yes")
            return bus_command(stack, "keys", "erase", *before, check=False).returncode == 0

        until(erased)
        until(lambda: store.get("thread/VERYSECRET") is None and any(isinstance(each, Erased) for each in told))
        assert [(each.epoch, each.domain) for each in told if isinstance(each, Erased)] == [(first, DOMAIN)]
        assert store.items() == [("thread/2", b"later")]

        # 3. One agent loses the domain, the other leaves the policy: both find nothing, and the files are empty.
        agents = (policies / "agents.yaml").read_text()
        assert "retriever-1: {role: RETRIEVER}" in agents
        agents = agents.replace("retriever-1: {role: RETRIEVER}", "retriever-1: {role: EXECUTOR}")
        agents = agents.replace("  orchestrator-1: {role: ORCHESTRATOR}\n", "")
        (policies / "agents.yaml").write_text(agents)
        bus_command(stack, "policy", "apply", str(policies), "--yes", "--prune", "--allow-widening")
        for each in (store, theirs):
            until(lambda each=each: denied(each))
        assert entries(stack, "retriever-1") == entries(stack, "orchestrator-1") == {}


def denied(store) -> bool:
    try:
        store.get("thread/2")
    except Denied:
        return True
    except BusError:
        return False
    return False


def test_the_page_shows_what_runs(stack, capsys):
    text = PAGE.read_text()
    (snippet,) = text.split("```python\n")[1:]
    exec(compile(snippet.partition("```")[0], "docs/store.md", "exec"), {})  # it is this project's own
    assert capsys.readouterr().out == "{'step': 1, 'pending': []}\n['thread-7/0001', 'thread-7/blob']\n"
