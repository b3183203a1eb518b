"""What a policy asks of the broker: literal ACLs only, one group an agent, nothing on the cluster, fixed topics."""

from __future__ import annotations

from collections import Counter

import pytest

from bus.admin.desired import AUDITOR, ENFORCER_GROUP, RECONCILER, Acl, Desired, Resource, desired_state, enforcer_name
from bus.wire.derived import MAX_VALUE
from bus.wire.names import CLAIMS, CONTROL, NOTICE, POLICY
from tests.unit.ledger_build import domain, make_policy

OWN = {"bus.audit", "bus.issue", "bus.claims", "bus.notice", "bus.control", "bus.policy", "bus.alerts"}
PARTS = ("in", "out", "dead", "windows")


def mesh(*, passwords: bool, rotates: bool = False) -> Desired:
    """Three domains, four agents, two enforcers."""
    domains = {
        "notes": domain(),
        "plans": domain(produce=["READER"], consume=["WRITER"]),
        "vault": domain(tier="FHE", produce=["KEEPER"], consume=["KEEPER"], attested=True),
    }
    agents = {"writer-1": ["WRITER"], "reader-1": ["READER"], "keeper-1": ["KEEPER", "READER"], "idle-1": ["OTHER"]}
    return desired_state(
        make_policy(domains, agents, partitions=6, replication=3), 2, passwords=passwords, rotates=rotates
    )


@pytest.fixture(scope="module")
def wanted() -> Desired:
    return mesh(passwords=True)


def rights(wanted: Desired, principal: str) -> set[tuple[str, str, str]]:
    return {(acl.operation, acl.resource, acl.name) for acl in wanted.acls if acl.principal == f"User:{principal}"}


def agents_of(wanted: Desired) -> set[str]:
    return {user for user in wanted.users if not user.startswith("bus-")}


def test_every_agent_and_service_is_a_user_of_its_own(wanted):
    services = {"bus-audit", "bus-authority", "bus-reconciler", "bus-enforcer-1", "bus-enforcer-2"}
    assert wanted.users == {"writer-1", "reader-1", "keeper-1", "idle-1"} | services
    assert {acl.principal for acl in wanted.acls} == {f"User:{name}" for name in wanted.users}


def test_with_tokens_agents_have_the_same_rights_and_no_password(wanted):
    tokens = mesh(passwords=False)
    assert tokens.users == {"bus-audit", "bus-authority", "bus-reconciler", "bus-enforcer-1", "bus-enforcer-2"}
    assert (tokens.acls, tokens.topics, tokens.quotas) == (wanted.acls, wanted.topics, wanted.quotas)


def test_every_acl_is_a_literal_allow_on_something_that_has_a_name(wanted):
    topics = {topic.name for topic in wanted.topics}
    for acl in wanted.acls:
        assert (acl.permission, acl.pattern, acl.host) == ("ALLOW", "LITERAL", "*")
        if acl.resource == Resource.TOPIC:
            assert acl.name in topics
        elif acl.resource == Resource.GROUP:
            assert acl.name in wanted.users | {ENFORCER_GROUP}
        else:
            assert (acl.resource, acl.name) == (Resource.TRANSACTIONAL_ID, acl.principal.removeprefix("User:"))


def test_an_agent_reads_and_writes_topics_and_has_one_group_that_is_its_own_id(wanted):
    for agent in agents_of(wanted):
        held = rights(wanted, agent)
        assert {operation for operation, _, _ in held} <= {"READ", "WRITE"}
        assert {resource for _, resource, _ in held} == {Resource.TOPIC, Resource.GROUP}
        assert [right for right in held if right[1] == Resource.GROUP] == [("READ", Resource.GROUP, agent)]


def test_only_enforcers_have_transactional_ids_and_each_only_its_own(wanted):
    told = {acl.principal: acl.name for acl in wanted.acls if acl.resource == Resource.TRANSACTIONAL_ID}
    assert told == {f"User:{enforcer_name(number)}": enforcer_name(number) for number in (1, 2)}


def test_nobody_may_alter_delete_create_or_touch_the_cluster(wanted):
    assert {acl.operation for acl in wanted.acls} == {"READ", "WRITE", "DESCRIBE"}
    assert {acl.resource for acl in wanted.acls} == set(Resource) - {Resource.CLUSTER}


def test_who_replaces_passwords_may_alter_the_cluster_and_do_nothing_else_and_is_there_only_when_asked_for(wanted):
    asked = mesh(passwords=True, rotates=True)
    assert asked.users - wanted.users == {"bus-rotator"}
    assert asked.acls - wanted.acls == {Acl("User:bus-rotator", "ALTER", Resource.CLUSTER, "kafka-cluster")}
    assert wanted.acls < asked.acls


def test_an_agents_rights_are_those_of_its_roles_and_no_others(wanted):
    common = {
        ("READ", Resource.TOPIC, NOTICE),
        ("READ", Resource.TOPIC, POLICY),
        ("WRITE", Resource.TOPIC, CLAIMS),
    }
    domains = {
        "writer-1": {("WRITE", "notes.in"), ("READ", "notes.out"), ("READ", "plans.out")},
        "reader-1": {("READ", "notes.out"), ("WRITE", "plans.in")},
        "keeper-1": {("READ", "notes.out"), ("WRITE", "plans.in"), ("WRITE", "vault.in"), ("READ", "vault.out")},
        "idle-1": set(),
    }
    for agent, expected in domains.items():
        wide = {(operation, Resource.TOPIC, topic) for operation, topic in expected}
        assert rights(wanted, agent) == wide | common | {("READ", Resource.GROUP, agent)}


def test_no_agent_reads_an_input_or_writes_an_output(wanted):
    for agent in agents_of(wanted):
        for operation, _, name in rights(wanted, agent):
            assert not name.endswith((".dead", ".windows"))
            assert not (operation == "READ" and name.endswith(".in"))
            assert not (operation == "WRITE" and name.endswith(".out"))


def test_enforcers_read_inputs_and_write_what_comes_of_them(wanted):
    held = rights(wanted, "bus-enforcer-2")
    for name in ("notes", "plans", "vault"):
        assert {right[::2] for right in held if right[2].startswith(f"{name}.")} == {
            ("READ", f"{name}.in"),
            ("READ", f"{name}.windows"),
            ("WRITE", f"{name}.windows"),
            ("WRITE", f"{name}.out"),
            ("WRITE", f"{name}.dead"),
        }
    assert ("READ", Resource.TOPIC, CONTROL) in held
    assert ("WRITE", Resource.TOPIC, POLICY) not in held


def test_the_auditor_writes_alerts_alone(wanted):
    held = rights(wanted, AUDITOR)
    assert {operation for operation, _, _ in held} == {"READ", "DESCRIBE", "WRITE"}
    assert {name for operation, _, name in held if operation == "WRITE"} == {"bus.alerts"}


def test_the_auditor_reads_inputs_of_domains_whose_payload_it_keeps_and_no_other_domain_topic():
    kept = {"notes": {**domain(), "audit_payload": "sealed"}, "plans": domain()}
    held = rights(desired_state(make_policy(kept, {"writer-1": ["WRITER"]}), 1), AUDITOR)
    assert {name for _, resource, name in held if resource == Resource.TOPIC and not name.startswith("bus.")} == {
        "notes.in"
    }


def test_topics_are_those_of_the_domains_and_the_deployments_own(wanted):
    names = [topic.name for topic in wanted.topics]
    assert Counter(names) == Counter(
        [*(f"{name}.{part}" for name in ("notes", "plans", "vault") for part in PARTS), *OWN]
    )
    partitions = {topic.name: topic.partitions for topic in wanted.topics}
    assert {partitions[name] for name in names if name not in OWN} == {6}
    assert {name: partitions[name] for name in OWN} == {
        "bus.audit": 4,
        "bus.issue": 1,
        "bus.claims": 4,
        "bus.notice": 4,
        "bus.alerts": 1,
        "bus.control": 1,
        "bus.policy": 1,
    }
    assert {topic.replication for topic in wanted.topics} == {3}


def test_topics_take_the_brokers_time_and_the_largest_bundle(wanted):
    for topic in wanted.topics:
        config = dict(topic.config)
        assert config["message.timestamp.type"] == "LogAppendTime"
        assert int(config["max.message.bytes"]) > MAX_VALUE
        assert config["min.insync.replicas"] == "2"
        assert config["cleanup.policy"] == ("compact" if topic.name == POLICY else "delete")


@pytest.mark.parametrize(("retention", "horizon", "longest"), [(5_000, 4_000, "5000"), (4_000, 4_000, "4000")])
def test_what_the_audit_needs_is_kept_as_long_as_any_domain(retention, horizon, longest):
    policy = make_policy(retention_ms=retention, horizon_ms=horizon)
    kept = {topic.name: dict(topic.config)["retention.ms"] for topic in desired_state(policy, 1).topics}
    assert {kept[name] for name in ("bus.audit", "bus.issue", "bus.claims", "bus.control")} == {longest}
    assert {kept[f"notes.{part}"] for part in PARTS} == {str(retention)}
    assert (kept[NOTICE], kept[POLICY]) == ("3600000", "-1")


@pytest.mark.parametrize(("replication", "insync"), [(1, "1"), (2, "1"), (3, "2")])
def test_one_replica_may_be_away(replication, insync):
    topics = desired_state(make_policy(replication=replication), 1).topics
    assert {dict(topic.config)["min.insync.replicas"] for topic in topics} == {insync}


@pytest.mark.parametrize(
    ("replication", "brokers", "kept"), [(1, 1, 1), (1, 3, 3), (2, 3, 3), (3, 3, 3), (5, 3, 5), (3, 1, 3)]
)
def test_topics_are_kept_on_three_brokers_where_there_are_three_and_never_less_than_the_policy_says(
    replication, brokers, kept
):
    topics = desired_state(make_policy(replication=replication), 1, brokers).topics
    assert {topic.replication for topic in topics} == {kept}
    assert {dict(topic.config)["min.insync.replicas"] for topic in topics} == {str(max(1, kept - 1))}


def test_a_printed_acl_says_what_is_unusual_only():
    assert str(Acl("User:a", "READ", "topic", "t")) == "User:a READ topic t"
    unusual = Acl("User:a", "READ", "topic", "t", permission="DENY", pattern="PREFIXED")
    assert str(unusual) == "User:a READ topic t DENY PREFIXED"


def test_the_reconciler_reads_every_domain_and_writes_nothing(wanted):
    held = rights(wanted, RECONCILER)
    assert {operation for operation, _, _ in held} == {"READ"}
    topics = {name for _, resource, name in held if resource == Resource.TOPIC}
    inputs = {topic.name for topic in wanted.topics if topic.name.endswith(".in")}
    assert topics == {name.replace(".in", kind) for name in inputs for kind in (".in", ".out", ".dead")}
