"""Delegation and users on a real broker: a chain of agents, refusals, the chain in the ledger, its end by policy."""

import json
import time

import pytest

from bus import Bus, Delegation, Kind
from bus.errors import Denied, Refused
from bus.wire.envelope import user_digest
from tests.integration.oracle import bus_command, hops, until, verified
from tests.unit.test_users import ID, document, token

pytestmark = pytest.mark.broker

MESH = """security_mesh:
  global: {tls_min_version: "1.3", credential_rotation_interval_ms: 600000, audit_scope: FULL_MESH}
  domains:
    - {name: tasks, tier: RETRIEVAL, allowed_roles: [PLANNER, WORKER, READER], produce: [PLANNER], consume: [READER],
       delegates: [WORKER], metadata_masking: true, audit_level: FULL_MESH}
    - {name: orders, tier: RETRIEVAL, allowed_roles: [PLANNER, READER], produce: [PLANNER], consume: [READER],
       user_required: true, metadata_masking: true, audit_level: FULL_MESH}
"""
AGENTS = """agents:
  planner-1: {role: PLANNER}
  worker-1: {role: WORKER}
  worker-2: {role: WORKER}
  reader-1: {role: READER}
"""


@pytest.fixture(scope="module")
def policies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policies")
    (folder / "mesh.yaml").write_text(MESH)
    (folder / "agents.yaml").write_text(AGENTS)
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory, policies):
    from tests.integration.conftest import start_stack

    issuers = policies / "users.json"
    issuers.write_text(json.dumps(document("es")))
    local = start_stack(tmp_path_factory.mktemp("delegation") / "state", policies=policies, user_issuers=issuers)
    yield local
    local.down(lambda _: None, purge=True)


def shown(stack):
    """The chain of each record that was allowed in `tasks`."""
    return sorted(each["delegation"] for each in hops(stack, "--domain", "tasks", "--verdict", "ALLOW"))


def user_token(**changes):
    return token(iat=int(time.time()), exp=int(time.time()) + 300, **changes).decode()


def test_records_on_behalf_of_a_user_need_a_token_that_holds(tasks):
    with Bus("planner-1", settings=tasks.settings) as planner, Bus("reader-1", settings=tasks.settings) as reader:
        got = reader.subscribe("orders")
        shown = user_token()
        planner.publish("orders", {"n": 1}, user_token=shown, confirm="decided")
        assert got.get(30).profile.on_behalf_of == user_digest(shown.encode())
        with pytest.raises(Denied) as early:
            planner.publish("orders", {"n": 2})
        with pytest.raises(Denied) as late:
            planner.publish("orders", {"n": 3}, user_token=user_token(aud="other"), confirm="decided")
        with pytest.raises(Refused, match="user_token: expected a JWT"):
            planner.publish("orders", {"n": 4}, user_token="not one")
        assert (early.value.rule, late.value.rule) == ("orders.user", "user.audience")
    found = until(lambda: hops(tasks, "--domain", "orders", "--verdict", "ALLOW"))
    assert [each["facts"]["user"] for each in found] == [ID]


def test_a_right_goes_from_hand_to_hand_and_ends_when_the_planner_loses_its_own(tasks, policies):
    settings = tasks.settings
    with Bus("planner-1", settings=settings) as planner, Bus("worker-1", settings=settings) as first:
        token = planner.delegate("worker-1", domains=["tasks"], kinds=[Kind.MESSAGE])
        with pytest.raises(Denied) as refused:
            first.publish("tasks", {"step": 0})
        assert refused.value.rule == "tasks.delegates"
        first.publish("tasks", {"step": 1}, delegation=Delegation.parse(str(token)), confirm="decided")
        text = str(first.delegate("worker-2", domains=["tasks"], under=token, minutes=1))
    with Bus("worker-2", settings=settings) as second, Bus("reader-1", settings=settings) as reader:
        passed = Delegation.parse(text)
        second.publish("tasks", {"step": 2}, delegation=passed, confirm="decided")
        got = reader.subscribe("tasks", observe=True)
        found = {got.get(30).source for _ in range(2)}
        assert found == {"worker-1", "worker-2"}
        chains = [["planner-1", "worker-1"], ["planner-1", "worker-1", "worker-2"]]
        until(lambda: shown(tasks) == chains)
        told = bus_command(tasks, "audit", "search", "--domain", "tasks").stdout
        assert "planner-1 > worker-1 > worker-2 ->" in told

        (policies / "agents.yaml").write_text(AGENTS.replace("planner-1: {role: PLANNER}", "planner-1: {role: READER}"))
        bus_command(tasks, "policy", "apply", str(policies), "--yes", "--allow-widening")

        def ended():
            try:
                second.publish("tasks", {"step": 3}, delegation=passed, confirm="decided")
            except Denied as error:
                return error.rule == "tasks.delegates"
            return False

        until(ended)
    assert verified(tasks)["problems"] == []
