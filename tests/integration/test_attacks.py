"""`bus probe attacks` on a running stack: every attack is refused beside its control, and whatever is not is told."""

import json

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from bus.errors import AccessRefused
from bus.kafka.config import connect
from bus.kafka.whole import whole
from tests.integration.conftest import POLICIES, start_stack
from tests.integration.oracle import account, bus_command, hops, verified

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

EXPECTED = {
    "a record again": "replay",
    "a record on another partition": "mac",
    "a record on another domain's topic": "wrong-domain",
    "one bit flipped": "mac",
    "another protocol version": "version",
    "a key id of nobody": "unknown-key",
    "a record over the limit": "bounds",
    "an envelope that expired": "expired",
    "an envelope in another agent's name": "unverified",
    "executor-1 into agent_memory, past the SDK": "produce",
    "a payload for pii_inference that is not protected": "tier-floor",
    "writes coordination.out itself": "acl",
    "writes agent_memory.in": "acl",
    "1,100,000 bytes in coordination.in": "MSG_SIZE_TOO_LARGE",
    "reads coordination.in": "acl",
    "reads agent_memory.out": "acl",
    "opens what stands in agent_memory.out": "open",
    "a wrong password": "credential",
    "a connection without TLS": "closed",
    "a connection with TLS 1.2": "TLSV1_ALERT_PROTOCOL_VERSION",
}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    """The bundled law, in which a domain of tier COMPUTATION protects at the source, and no one has to attest."""
    home = tmp_path_factory.mktemp("attacked")
    folder = home / "law"
    folder.mkdir()
    (folder / "agents.yaml").write_text((POLICIES / "agents.yaml").read_text())
    law = (POLICIES / "mesh.yaml").read_text().replace("      attestation_required: true\n", "")
    (folder / "mesh.yaml").write_text(law)
    local = start_stack(home / "state", policies=folder)
    yield local
    local.down(lambda _: None, purge=True)


def probed(stack, *arguments):
    """The exit code, and what `bus probe attacks --json` says."""
    done = bus_command(stack, "probe", "attacks", "--json", *arguments, check=False, timeout=200)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_every_attack_is_refused_with_its_code_beside_a_control_that_passes(mesh):
    code, told = probed(mesh)
    assert told["failed"] == []
    assert code == 0
    assert {each["attack"]: each["found"] for each in told["attacks"]} == EXPECTED
    assert all(each["holds"] and each["ok"] for each in told["attacks"])
    assert told["not_tried"] == {}

    # The ledger says the same to who asks it in another way, and its inputs and outcomes balance.
    refused = {each["decision_id"]: each["code"] for each in hops(mesh, "--verdict", "DENY")}
    for each in told["attacks"]:
        if each["seen"].startswith("hop "):
            assert refused[each["seen"].split()[1]] == each["expected"]
    for domain in ("coordination", "agent_memory", "pii_inference"):
        account(mesh, domain)
    assert len(hops(mesh, "--correlation", told["session"], "--verdict", "ALLOW")) >= 15
    assert verified(mesh)["problems"] == []


def test_an_agent_that_may_write_nothing_that_can_be_tried_is_told_so(mesh):
    done = bus_command(mesh, "probe", "attacks", "--as", "analyst-1", check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "analyst-1 may write no domain that this can be tried in" in done.stderr
    unknown = bus_command(mesh, "probe", "attacks", "--as", "nobody", check=False)
    assert unknown.returncode == 1
    assert "bus: hint: one of analyst-1, executor-1" in unknown.stderr


def test_a_control_that_fails_and_an_attack_that_is_not_refused_end_with_1(mesh):
    """The reader's right is taken from it behind the policy's back, and the attacker gets one."""
    admin = AdminClient(mesh.admin_connection().config())
    place = ResourceType.TOPIC, "agent_memory.out", ResourcePatternType.LITERAL, "User:orchestrator-1"
    taken = AclBindingFilter(*place, "*", AclOperation.READ, AclPermissionType.ALLOW)
    (removed,) = [each.result(30) for each in admin.delete_acls([taken]).values()]
    assert len(removed) == 1
    given = ResourceType.TOPIC, "coordination.out", ResourcePatternType.LITERAL, "User:executor-1"
    made = AclBinding(*given, "*", AclOperation.WRITE, AclPermissionType.ALLOW)
    for each in admin.create_acls([made]).values():
        each.result(30)
    with pytest.raises(AccessRefused):
        list(whole(connect(mesh.settings, "orchestrator-1"), "agent_memory.out", "orchestrator-1", 30))

    code, told = probed(mesh)
    assert code == 1
    by_name = {each["attack"]: each for each in told["attacks"]}
    assert [name for name, each in by_name.items() if not each["ok"]] == [
        "writes coordination.out itself",
        "reads agent_memory.out",
    ]
    through, alone = by_name["writes coordination.out itself"], by_name["reads agent_memory.out"]
    assert (through["found"], through["holds"]) == ("taken", True)
    assert (alone["found"], alone["holds"]) == ("acl", False), "refused to all says nothing of who is refused"
    assert len(told["failed"]) == 2
    assert "its control failed (orchestrator-1 reads it): acl" in told["failed"][1]
