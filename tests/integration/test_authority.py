"""Agents that lease their keys from the authority, on the real broker: records, revocation, an authority away."""

import json

import pytest

from bus import Bus
from bus.authority.trust import read_trust
from bus.client.authority import read_identity
from bus.crypto.issued import open_issued
from bus.errors import Refused, RetryLater
from bus.settings import Issuing
from tests.integration.conftest import start_stack
from tests.integration.oracle import account, bus_command, read_topic, until, verified

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    local = start_stack(tmp_path_factory.mktemp("served") / "state", issuing=Issuing.AUTHORITY)
    yield local
    local.down(lambda _: None, purge=True)


def issued(stack):
    """What stands on bus.issue, verified."""
    trust = read_trust(stack.layout.trust)
    values = [value for _, _, value in read_topic(stack, "bus.issue")]
    return [open_issued(value, trust.anchor, trust.deployment) for value in values]


def test_agents_lease_their_keys_and_each_lease_stands_in_the_log(served):
    assert not (served.layout.agent("retriever-1") / "keys").exists(), "nobody wrote keys that were not asked for"
    with Bus("retriever-1", settings=served.settings) as me, Bus("orchestrator-1", settings=served.settings) as other:
        reading = other.subscribe("agent_memory")
        sent = me.publish("agent_memory", {"note": 1}, confirm="decided")
        assert next(each for each in reading if each.id == sent.id).value() == {"note": 1}
        assert {each["agent"] for each in issued(served) if each["event"] == "leased"} == {
            "retriever-1",
            "orchestrator-1",
        }
    assert list((served.layout.agent("retriever-1") / "keys").iterdir()) == [], "wiped when it closed"
    enrolled = {each["agent"] for each in issued(served) if each["event"] == "enrolled"}
    assert enrolled == {"analyst-1", "executor-1", "orchestrator-1", "retriever-1"}


def test_the_policy_comes_from_the_broker_where_it_was_applied_elsewhere(served, tmp_path):
    kept = served.layout.snapshot.rename(tmp_path / "snapshot")
    served.stop_service("authority")
    try:
        served.start_service("authority")
        with Bus("retriever-1", settings=served.settings) as me:
            assert me.publish("agent_memory", {"note": 0}, confirm="decided").decision() != ()
    finally:
        kept.rename(served.layout.snapshot)


def test_a_store_opens_with_keys_that_are_leased_anew_and_not_without(served):
    file = served.layout.store("retriever-1")
    with Bus("retriever-1", settings=served.settings) as me:
        me.store("checkpoints", "agent_memory").put("VERYSECRET", {"text": "VERYSECRET"})
    assert list((served.layout.agent("retriever-1") / "keys").iterdir()) == []
    assert b"VERYSECRET" not in file.read_bytes()
    with Bus("retriever-1", settings=served.settings) as me:
        store = me.store("checkpoints", "agent_memory")
        assert store.items() == [("VERYSECRET", {"text": "VERYSECRET"})]
        served.stop_service("authority")
        until(lambda: me._leases.failure is not None or me._leases.wake())
        me._leases._client.wipe()  # as another process of this agent does when it ends
        me._keys.refresh(force=True)
        for call in (lambda: store.get("VERYSECRET"), lambda: store.put("other", 1), store.names):
            with pytest.raises(RetryLater):
                call()
        served.start_service("authority")
        until(lambda: me._leases.failure is None)
        me._keys.refresh(force=True)
        assert store.items() == [("VERYSECRET", {"text": "VERYSECRET"})]


def test_a_running_agent_goes_on_while_the_authority_is_away_and_a_new_one_waits(served):
    with Bus("retriever-1", settings=served.settings) as me:
        me.publish("agent_memory", {"note": 2}, confirm="decided")
        served.stop_service("authority")
        until(lambda: me._leases.failure is not None or me._leases.wake())
        for number in range(20):
            me.publish("agent_memory", {"note": number}, confirm="decided")
        served.start_service("authority")
        until(lambda: me._leases.failure is None)
        me.publish("agent_memory", {"note": "again"}, confirm="decided")
    account(served, "agent_memory")


def test_a_revoked_agent_leases_nothing_and_a_new_token_lets_it_in_again(served):
    assert bus_command(served, "agent", "revoke", "executor-1", "--why", "it was seen elsewhere").returncode == 0
    with pytest.raises(Refused, match="executor-1 is revoked: it was seen elsewhere"):
        Bus("executor-1", settings=served.settings)
    rows = json.loads(bus_command(served, "agent", "list", "--json").stdout)["agents"]
    assert {row["name"]: row["state"] for row in rows}["executor-1"] == "revoked"
    before = read_identity(served.layout.agent("executor-1"))
    token = bus_command(served, "agent", "enroll", "executor-1").stdout.strip()
    bus_command(served, "agent", "join", "executor-1", "--token", token)
    used = bus_command(served, "agent", "join", "executor-1", "--token", token, check=False)
    assert (used.returncode, "the token was used" in used.stderr) == (5, True)
    assert read_identity(served.layout.agent("executor-1")).counter == before.counter + 1
    with Bus("executor-1", settings=served.settings) as me:
        me.publish("coordination", {"note": 1}, confirm="decided")
    nobody = bus_command(served, "agent", "enroll", "nobody-1", check=False)
    assert (nobody.returncode, "not in the policy" in nobody.stderr) == (5, True)


def test_the_ledger_verifies_and_doctor_finds_nothing_missing(served):
    assert verified(served)["problems"] == []
    done = bus_command(served, "doctor", "--json", check=False)
    checks = json.loads(done.stdout)["checks"]
    assert [each for each in checks if not each["ok"]] == []
    (clock,) = [each["found"] for each in checks if each["name"] == "clock"]
    assert "as the broker's, looked at within" in clock
    assert "as the authority's, looked at within" in clock
