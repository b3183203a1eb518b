"""A domain that requires attestation, on the real broker: keys for who attests, a refusal for who does not.

The evidence is a software measurement: it shows that attestation is wired through, and proves nothing about a machine.
"""

import dataclasses
import json
import shutil

import pytest

from bus import Bus
from bus.attester.chosen import measured_code
from bus.authority.handed import take
from bus.authority.local import open_roots
from bus.authority.trust import read_trust
from bus.codes import Code
from bus.crypto.issued import open_issued
from bus.errors import AccessRefused, PolicyError
from bus.settings import AttesterKind, Issuing, Settings
from tests.integration.conftest import POLICIES, start_stack
from tests.integration.oracle import account, bus_command, read_topic, until, verified

pytestmark = pytest.mark.broker
ME, OTHER = "retriever-1", "orchestrator-1"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A stack whose `agent_memory` requires attestation; both of its agents may attest this code."""
    home = tmp_path_factory.mktemp("attested")
    shutil.copytree(POLICIES, home / "law")
    text, wanted = (home / "law" / "mesh.yaml").read_text(), 'allowed_roles: ["RETRIEVER", "ORCHESTRATOR"]\n'
    assert wanted in text
    (home / "law" / "mesh.yaml").write_text(text.replace(wanted, wanted + "      attestation_required: true\n"))
    accept(home / "law", ME, OTHER)
    local = start_stack(home / "state", issuing=Issuing.AUTHORITY, policies=home / "law")
    yield local
    local.down(lambda _: None, purge=True)


def accept(law, *agents) -> None:
    """This code's measurement for ``agents`` alone."""
    told = dict.fromkeys(agents, f", measurements: ['{measured_code(Settings())}']")
    rows = [
        f"  {name}: {{role: {name.split('-')[0].upper()}{told.get(name, '')}}}\n"
        for name in (OTHER, ME, "executor-1", "analyst-1")
    ]
    (law / "agents.yaml").write_text("agents:\n" + "".join(rows))


def attested(stack):
    """Settings of an agent that attests."""
    return dataclasses.replace(stack.settings, attester=AttesterKind.SOFTWARE)


def issued(stack):
    trust = read_trust(stack.layout.trust)
    return [open_issued(value, trust.anchor, trust.deployment) for _, _, value in read_topic(stack, "bus.issue")]


def refused(call) -> AccessRefused:
    with pytest.raises(AccessRefused, match="agent_memory, which requires attestation") as error:
        call()
    assert (error.value.code, error.value.resource) == (Code.ATTESTATION, "agent_memory")
    return error.value


def epochs(stack) -> int:
    """How many epochs of `agent_memory` the authority made."""
    store = open_roots(stack.settings, stack.layout, read_trust(stack.layout.trust))
    held = [each.epoch.domain for number in store.numbers() for each in store.load(number)]
    return held.count("agent_memory")


def shown(stack, agent) -> dict:
    return json.loads(bus_command(stack, "agent", "show", agent, "--json").stdout)


def test_who_attests_writes_and_reads_and_who_does_not_is_refused(served):
    doctor = json.loads(bus_command(served, "doctor", "--json", check=False).stdout)["checks"]
    (named,) = [each for each in doctor if not each["ok"]]
    assert (named["name"], f"{OTHER} needs attestation for agent_memory" in named["found"]) == ("attestation", True)
    with Bus(OTHER, settings=served.settings) as plain:
        assert refused(lambda: plain.publish("agent_memory", {"note": 0})).hint.startswith("`attester` in bus.toml")
        refused(lambda: plain.subscribe("agent_memory"))
        plain.publish("coordination", {"note": "its other domain"}, confirm="decided")
    with Bus(ME, settings=attested(served)) as me, Bus(OTHER, settings=attested(served)) as other:
        reading = other.subscribe("agent_memory")
        sent = me.publish("agent_memory", {"note": 1}, confirm="decided")
        assert next(each for each in reading if each.id == sent.id).value() == {"note": 1}
        last = shown(served, ME)["attestation"]
        assert (last["kind"], last["in_force"], last["accepted"]) == ("software", True, True)
    events = [each for each in issued(served) if each["agent"] == ME]
    assert [each["event"] for each in events if each["event"] != "leased"] == ["enrolled", "attested"]
    (attestation,) = [each for each in events if each["event"] == "attested"]
    assert {each["eat"] for each in events if "eat" in each and each["event"] == "leased"} == {attestation["eat"]}
    assert {each["agent"] for each in issued(served) if "eat" in each} == {ME, OTHER}
    found = bus_command(served, "doctor", "--json", check=False).stdout
    assert [each for each in json.loads(found)["checks"] if not each["ok"]] == []


def test_a_measurement_that_is_withdrawn_ends_the_keys_and_starts_an_epoch_and_accepted_again_they_come_back(served):
    law = served.settings.policies
    with Bus(ME, settings=attested(served)) as me, Bus(OTHER, settings=attested(served)) as other:
        reading = other.subscribe("agent_memory")
        me.publish("agent_memory", {"note": 2}, confirm="decided")
        before = epochs(served)
        accept(law, OTHER)
        served.apply(served.plan(served.load_policy()))
        until(lambda: me._leases.withheld("agent_memory"))
        assert "accepted" in str(refused(lambda: me.publish("agent_memory", {"note": 3})))
        assert epochs(served) > before
        assert other._leases.withheld("agent_memory") is None
        accept(law, ME, OTHER)
        served.apply(served.plan(served.load_policy()))
        until(lambda: me._leases.withheld("agent_memory") is None)
        sent = me.publish("agent_memory", {"note": 4}, confirm="decided")
        assert next(each for each in reading if each.id == sent.id).value() == {"note": 4}
    assert [each["event"] for each in issued(served) if each["event"] == "refused"] == ["refused"]


def test_the_ledger_verifies_and_every_record_is_accounted_for(served):
    assert verified(served)["problems"] == []
    account(served, "agent_memory")


def test_files_are_refused_before_anything_is_started(served, tmp_path):
    with pytest.raises(PolicyError, match='agent_memory: expected issuing = "authority"'):
        start_stack(tmp_path / "state", policies=served.settings.policies)
    assert not (tmp_path / "state" / "kafka").exists()


def test_keys_on_an_attestation_travel_sealed_to_the_attested_key(served, monkeypatch):
    seen = []

    def taken(sealed, *told):
        seen.append((sealed, take(sealed, *told)))
        return seen[-1][1]

    monkeypatch.setattr("bus.client.authority.take", taken)
    with Bus(ME, settings=attested(served)) as me:
        me.publish("agent_memory", {"note": "sealed"}, confirm="decided")
    assert seen
    assert all(b"sealbus.bundle" in opened and b"sealbus.bundle" not in sealed for sealed, opened in seen)
