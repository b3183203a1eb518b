"""Memory: a domain as keys and values on the real broker, folded into each agent's sealed store."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from bus import Bus, Kind
from bus.codes import Code
from bus.errors import Denied, Refused
from demo.observer import look
from tests.integration.oracle import bus_command, hops, until
from tests.integration.test_epochs import SHORT, short_policies

pytestmark = pytest.mark.broker
DOMAIN = "agent_memory"
SECRET = "prefers-mail-4711"


class Note(BaseModel):
    text: str


def test_what_was_written_last_is_what_everybody_reads(stack):
    with Bus("retriever-1") as me, Bus("orchestrator-1") as other:
        mine, theirs = me.memory(DOMAIN), other.memory(DOMAIN)
        sent = mine.put("customer/c-17", {"text": SECRET}, purpose="care")
        assert theirs.get("customer/c-17", kind=Note) == Note(text=SECRET)
        mine.put("customer/c-18", Note(text="second"), purpose="care")
        theirs.put("customer/c-17", {"text": "changed", "by": {"agent": "orchestrator-1"}})
        assert mine.get("customer/c-17") == {"text": "changed", "by": {"agent": "orchestrator-1"}}
        assert mine.list("customer/") == ["customer/c-17", "customer/c-18"]
        assert mine.find("customer/", **{"by.agent": "orchestrator-1"}) == [
            ("customer/c-17", {"text": "changed", "by": {"agent": "orchestrator-1"}})
        ]
        theirs.delete("customer/c-18", purpose="care")
        assert mine.get("customer/c-18", "nothing") == "nothing"
        assert mine.list("customer/") == ["customer/c-17"]
        assert mine.get("customer/none") is None
        assert me.memory(DOMAIN) is mine
    # Another process goes on where the last one stopped, and folds what came meanwhile.
    with Bus("orchestrator-1") as other:
        other.memory(DOMAIN).put("customer/c-19", None)
    with Bus("retriever-1") as me:
        assert me.memory(DOMAIN).items("customer/") == [
            ("customer/c-17", {"text": "changed", "by": {"agent": "orchestrator-1"}}),
            ("customer/c-19", None),
        ]
    found = until(lambda: [each for each in hops(stack, "--domain", DOMAIN) if each["message_id"] == str(sent.id)])
    assert (found[0]["kind"], found[0]["purpose"]) == ("MEMORY", "care")
    folders = [stack.layout.state / "kafka", *(stack.layout.agent(each) for each in ("retriever-1", "orchestrator-1"))]
    assert all(look(folder, [SECRET, "customer/c-17"]).items == frozenset() for folder in folders)


def test_what_is_no_value_is_passed_over_and_large_ones_come_whole(stack):
    with Bus("retriever-1") as me:
        memory = me.memory(DOMAIN)
        memory.put("odd/1", {"n": 1})
        for payload in ({"key": "odd/1"}, {"key": 7, "value": 1}, ["odd/1"], b"odd/1", {"key": "odd/1", "value": 2}):
            kind = Kind.MESSAGE if isinstance(payload, dict) and payload.get("value") == 2 else Kind.MEMORY
            me.publish(DOMAIN, payload, kind=kind, partition_key="odd/1", confirm="decided")
        assert memory.get("odd/1") == {"n": 1}
        memory.put("odd/large", {"data": "x" * 2_000_000})
        assert len(memory.get("odd/large")["data"]) == 2_000_000
        for key, value, why in (
            ("", 1, "expected a key of 1 to 512 bytes"),
            ("k" * 513, 1, "expected a key of 1 to 512 bytes"),
            ("k", b"bytes", "expected what JSON can hold, found bytes"),
        ):
            with pytest.raises(Refused, match=why) as refused:
                memory.put(key, value)
            assert refused.value.code is Code.SCHEMA


def test_who_may_not_read_has_no_memory_and_who_may_not_write_is_denied(stack):
    with Bus("executor-1") as other, pytest.raises(Denied):
        other.memory(DOMAIN)


@pytest.mark.timeout(300)
def test_a_value_ends_with_its_epoch(own_stack, tmp_path):
    stack = own_stack(policies=short_policies(tmp_path / "short"), **SHORT)
    with Bus("retriever-1", settings=stack.settings) as me, Bus("orchestrator-1", settings=stack.settings) as other:
        mine = me.memory(DOMAIN)
        mine.put("erased", {"text": SECRET})
        inbox = me.subscribe(DOMAIN, observe=True)
        first = next(iter(inbox)).epoch
        until(lambda: me._keys.newest() > first)
        until(lambda: max(me._keys.begun(DOMAIN, 2**62)) > first)
        # Folded late, under a newer epoch, as well as at once: both go.
        until(lambda: mine.put("kept", 1) and newest_epoch(me) > first)
        assert other.memory(DOMAIN).get("erased") == {"text": SECRET}
        asked = ("keys", "erase", "--domain", DOMAIN, "--epoch", str(first), "--yes")
        until(lambda: bus_command(stack, *asked, check=False).returncode == 0)
        for memory in (mine, other.memory(DOMAIN)):
            until(lambda memory=memory: memory.get("erased") is None)
            assert memory.list() == ["kept"]


def newest_epoch(me):
    """Of the last record of the domain."""
    inbox = me.subscribe(DOMAIN, observe=True)
    last = 0
    while (got := inbox.get(0.5)) is not None:
        last = max(last, got.epoch)
    return last


def test_the_page_shows_what_runs(stack, capsys):
    (snippet,) = (Path(__file__).resolve().parents[2] / "docs" / "memory.md").read_text().split("```python\n")[1:]
    exec(compile(snippet.partition("```")[0], "docs/memory.md", "exec"), {})  # it is this project's own
    note = "{'customer_id': 'c-17', 'text': 'prefers mail'}"
    value, keys, found = capsys.readouterr().out.splitlines()
    assert value == note
    assert "customer/c-17" in keys
    assert found == f"[('customer/c-17', {note})]"
