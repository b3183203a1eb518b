"""The plan: revocations before grants, drift shown and left, nothing to do the second time, refusals with a remedy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bus.admin.actual import Actual
from bus.admin.desired import Acl, Quota, Topic, desired_state
from bus.admin.plan import RENEW_BEFORE_MS, Change, Plan, Verb, make_plan
from bus.authority.trust import LiveSnapshot
from bus.codes import Code
from bus.errors import Refused
from bus.policy.model import Policy
from bus.wire.objects import SignedSnapshot
from tests.unit.ledger_build import DEPLOYMENT, NOON, domain, make_policy

EMPTY = Actual("cluster", 1, {}, frozenset({"bus-admin"}), frozenset(), None)
YEAR = 365 * 86_400_000
STRANGE = Acl("User:bob", "READ", "topic", "notes.out")


def live(policy: Policy, number: int = 1, valid_until: int = NOON + YEAR) -> LiveSnapshot:
    signed = SignedSnapshot(DEPLOYMENT, number, policy.digest, NOON, valid_until, policy.document)
    return LiveSnapshot(signed, policy)


def applied(policy: Policy, enforcers: int = 1) -> Actual:
    """The broker after ``policy`` was applied to it."""
    wanted = desired_state(policy, enforcers)
    topics = {topic.name: topic for topic in wanted.topics}
    return Actual("cluster", 1, topics, wanted.users | {"bus-admin"}, wanted.acls, live(policy), wanted.quotas)


def plan(policy: Policy, actual: Actual, *, prune: bool = False) -> Plan:
    return make_plan(policy, actual, 1, NOON, prune=prune)


def test_a_first_plan_makes_everything_and_revokes_nothing():
    policy = make_policy()
    wanted = desired_state(policy, 1)
    made = plan(policy, EMPTY)
    assert made.create_topics == wanted.topics
    assert set(made.create_users) == wanted.users
    assert set(made.grant) == wanted.acls
    assert (made.revoke, made.delete_users, made.alter_topics, made.drift, made.notes) == ((), (), (), (), ())
    assert (made.live_digest, made.live_number) == (None, 0)
    assert made.changes[-1] == Change(Verb.CHANGE, "snapshot", "1", f"{policy.digest.hex()[:12]}, the first")
    assert "bus-admin" not in made.create_users


def test_a_second_plan_has_nothing_to_do():
    policy = make_policy()
    made = plan(policy, applied(policy))
    assert (made.changes, made.drift, made.publish) == ([], (), "")
    assert (made.live_digest, made.live_number) == (policy.digest, 1)


def test_revocations_come_before_everything_else_and_the_snapshot_last():
    before = make_policy({"notes": domain()}, {"writer-1": ["WRITER"], "old-1": ["READER"]})
    after = make_policy(
        {"notes": domain(produce=["READER"]), "plans": domain()}, {"writer-1": ["WRITER"], "new-1": ["READER"]}
    )
    actual = applied(before)
    stale = actual.topics["notes.in"]
    actual = replace(actual, topics=actual.topics | {"notes.in": replace(stale, config=(("retention.ms", "1"),))})
    kinds = [(change.verb, change.kind) for change in plan(after, actual).changes]
    order = [
        (Verb.REMOVE, "acl"),
        (Verb.REMOVE, "user"),
        (Verb.ADD, "topic"),
        (Verb.CHANGE, "topic"),
        (Verb.ADD, "user"),
        (Verb.ADD, "acl"),
        (Verb.CHANGE, "snapshot"),
    ]
    assert sorted(set(kinds), key=kinds.index) == order
    assert kinds == sorted(kinds, key=order.index)


def test_domains_that_other_agents_may_open_are_rekeyed_and_no_other():
    before = make_policy()
    after = make_policy(agents={"writer-1": ["WRITER"]})
    assert plan(before, EMPTY).keys == plan(before, applied(before)).keys == ()
    assert plan(after, applied(before)).keys == ("notes", "plans")
    slower = make_policy(retention_ms=86_400_000)
    assert slower.digest != before.digest
    assert plan(slower, applied(before)).keys == ()


def test_what_the_live_policy_gave_and_the_draft_does_not_is_revoked():
    before = make_policy()
    after = make_policy({"notes": domain(consume=["WRITER"]), "plans": domain(produce=["READER"])})
    made = plan(after, applied(before))
    assert made.revoke == (Acl("User:reader-1", "READ", "topic", "notes.out"),)
    assert (made.grant, made.delete_users, made.drift) == ((), (), ())
    assert made.publish == f"{before.digest.hex()[:12]} -> {after.digest.hex()[:12]}"


def test_an_agent_that_left_loses_its_user_and_every_right():
    before = make_policy()
    after = make_policy(agents={"writer-1": ["WRITER"]})
    made = plan(after, applied(before))
    assert made.delete_users == ("reader-1",)
    gone = {acl for acl in desired_state(before, 1).acls if acl.principal == "User:reader-1"}
    assert set(made.revoke) == gone
    assert made.drift == ()


def test_a_domain_that_left_keeps_its_topics_and_loses_its_rights():
    before = make_policy()
    after = make_policy({"notes": domain()})
    made = plan(after, applied(before))
    assert {acl.name for acl in made.revoke} == {f"plans.{part}" for part in ("in", "out", "dead", "windows")}
    assert made.notes == tuple(
        f"topic plans.{part} is no longer in the policy; it stays with its data"
        for part in ("dead", "in", "out", "windows")
    )
    assert made.drift == ()


@pytest.mark.parametrize(
    "acl",
    [
        STRANGE,
        Acl("User:writer-1", "ALL", "topic", "*"),
        Acl("User:writer-1", "READ", "topic", "notes.in"),
        Acl("User:writer-1", "WRITE", "topic", "notes.", pattern="PREFIXED"),
        Acl("User:writer-1", "WRITE", "topic", "notes.in", permission="DENY"),
        Acl("User:writer-1", "WRITE", "topic", "notes.in", host="10.0.0.1"),
        Acl("User:writer-1", "ALTER", "cluster", "kafka-cluster"),
    ],
    ids=str,
)
def test_an_acl_that_no_policy_explains_is_drift_and_goes_only_with_prune(acl):
    policy = make_policy()
    actual = applied(policy)
    actual = replace(actual, acls=actual.acls | {acl})
    left = plan(policy, actual)
    assert left.changes == []
    assert left.drift == (Change(Verb.DRIFT, "acl", str(acl), "not in policy: removed only with --prune"),)
    pruned = plan(policy, actual, prune=True)
    assert (pruned.revoke, pruned.drift) == ((acl,), ())


def test_quotas_follow_the_policy_and_others_are_drift():
    before = make_policy(quotas={"default": {"producer_byte_rate": 1024}, "READER": {"request_percentage": 20}})
    after = make_policy(quotas={"default": {"producer_byte_rate": 2048}})
    writers, readers = Quota("writer-1", "producer_byte_rate", 1024), Quota("reader-1", "request_percentage", 20)
    assert desired_state(before, 2).quotas == {writers, readers}  # of agents: a service is never slowed down
    assert set(plan(before, EMPTY).set_quotas) == {writers, readers}
    assert plan(before, applied(before)).changes == []
    made = plan(after, applied(before))
    raised = (Quota("reader-1", "producer_byte_rate", 2048), Quota("writer-1", "producer_byte_rate", 2048))
    assert (made.set_quotas, made.remove_quotas, made.drift) == (raised, (readers,), ())
    strange = Quota("bus-enforcer-1", "producer_byte_rate", 5), Quota("", "consumer_byte_rate", 9)
    actual = replace(applied(after), quotas=desired_state(after, 1).quotas | set(strange))
    assert plan(after, actual).drift == tuple(
        Change(Verb.DRIFT, "quota", str(each), "not in policy: removed only with --prune") for each in sorted(strange)
    )
    pruned = plan(after, actual, prune=True)
    assert (pruned.remove_quotas, pruned.drift) == (tuple(sorted(strange)), ())


def test_a_user_that_no_policy_explains_is_drift_and_goes_only_with_prune():
    policy = make_policy()
    actual = applied(policy)
    actual = replace(actual, users=actual.users | {"bob"})
    left = plan(policy, actual)
    assert (left.delete_users, left.drift) == ((), (Change(Verb.DRIFT, "user", "bob", "not in policy"),))
    pruned = plan(policy, actual, prune=True)
    assert (pruned.delete_users, pruned.drift) == (("bob",), ())


def test_a_topic_that_no_policy_explains_is_shown_and_never_deleted():
    policy = make_policy()
    actual = applied(policy)
    actual = replace(actual, topics=actual.topics | {"other": Topic("other", 1, 1, ())})
    for prune in (False, True):
        made = plan(policy, actual, prune=prune)
        assert made.changes == []
        assert made.drift == (Change(Verb.DRIFT, "topic", "other", "not in policy: topics are never deleted here"),)


def test_without_a_live_policy_everything_found_is_drift():
    actual = replace(applied(make_policy(agents={"old-1": ["WRITER"]})), snapshot=None)
    made = plan(make_policy(), actual)
    assert (made.revoke, made.delete_users) == ((), ())
    assert {change.name for change in made.drift if change.kind == "user"} == {"old-1"}
    assert {change.name.split()[0] for change in made.drift if change.kind == "acl"} == {"User:old-1"}


def test_drift_that_a_draft_explains_is_taken_over():
    policy = make_policy(agents={"writer-1": ["WRITER"]})
    actual = applied(policy)
    actual = replace(actual, acls=actual.acls | {Acl("User:reader-1", "READ", "topic", "notes.out")})
    made = plan(make_policy(), actual)
    assert (made.drift, made.revoke) == ((), ())
    assert Acl("User:reader-1", "READ", "topic", "notes.out") not in made.grant


@pytest.mark.parametrize(("key", "changed"), [("partitions", {"partitions": 8}), ("replication", {"replication": 2})])
def test_what_kafka_cannot_follow_is_refused_with_the_remedy(key, changed):
    with pytest.raises(Refused, match=rf"topic \S+: {key}: expected {changed[key]}, found \d") as refused:
        plan(make_policy(**changed), applied(make_policy()))
    assert refused.value.code is Code.POLICY
    assert "make a new domain and move its agents" in refused.value.hint


def test_only_the_settings_that_differ_are_altered():
    policy = make_policy()
    actual = applied(policy)
    config = dict(actual.topics["notes.out"].config) | {"retention.ms": "1", "message.timestamp.type": "CreateTime"}
    odd = replace(actual.topics["notes.out"], config=tuple(config.items()))
    made = plan(policy, replace(actual, topics=actual.topics | {"notes.out": odd}))
    retention = str(7 * 86_400_000)
    assert made.alter_topics == (
        ("notes.out", (("message.timestamp.type", "LogAppendTime"), ("retention.ms", retention))),
    )
    assert [str(change) for change in made.changes] == [
        f"~ topic notes.out  message.timestamp.type=LogAppendTime, retention.ms={retention}"
    ]


@pytest.mark.parametrize(("left", "renewed"), [(RENEW_BEFORE_MS, False), (RENEW_BEFORE_MS - 1, True), (-1, True)])
def test_a_snapshot_that_ends_soon_is_published_again(left, renewed):
    policy = make_policy()
    actual = replace(applied(policy), snapshot=live(policy, 7, NOON + left))
    made = plan(policy, actual)
    assert bool(made.publish) is renewed
    if renewed:
        assert [str(change) for change in made.changes] == [
            f"~ snapshot 8  {policy.digest.hex()[:12]}, renewed: the live one ends soon"
        ]


def test_what_a_cut_off_run_left_undone_is_planned_again_and_no_more():
    policy = make_policy()
    whole = applied(policy)
    missing = sorted(whole.acls)[:3]
    half = replace(
        whole,
        acls=whole.acls - set(missing),
        users=whole.users - {"reader-1"},
        topics={name: topic for name, topic in whole.topics.items() if name != "plans.dead"},
        snapshot=None,
    )
    made = plan(policy, half)
    assert (made.grant, made.create_users) == (tuple(missing), ("reader-1",))
    assert [topic.name for topic in made.create_topics] == ["plans.dead"]
    assert (made.revoke, made.delete_users, made.drift) == ((), (), ())


def test_an_enforcer_more_gets_a_user_and_rights():
    policy = make_policy()
    made = make_plan(policy, applied(policy), 2, NOON)
    assert made.create_users == ("bus-enforcer-2",)
    assert {acl.principal for acl in made.grant} == {"User:bus-enforcer-2"}
    assert made.revoke == ()


def test_an_enforcer_less_is_drift_and_goes_only_with_prune():
    policy = make_policy()
    actual = applied(policy, 2)
    left = plan(policy, actual)
    assert left.changes == []
    assert Change(Verb.DRIFT, "user", "bus-enforcer-2", "not in policy") in left.drift
    pruned = plan(policy, actual, prune=True)
    assert pruned.delete_users == ("bus-enforcer-2",)
    assert {acl.principal for acl in pruned.revoke} == {"User:bus-enforcer-2"}
    assert set(pruned.revoke) == {acl for acl in actual.acls if acl.principal == "User:bus-enforcer-2"}


def test_an_operators_own_user_is_never_drift_nor_pruned():
    policy = make_policy()
    actual = replace(EMPTY, users=frozenset({"kafka-admin", "stranger"}), reader="kafka-admin")
    shown = make_plan(policy, actual, 1, 0)
    assert "kafka-admin" not in " ".join(str(each) for each in shown.drift)
    assert "stranger" in " ".join(str(each) for each in shown.drift)
    assert make_plan(policy, actual, 1, 0, prune=True).delete_users == ("stranger",)


def test_agents_that_come_with_tokens_lose_their_passwords_and_keep_their_rights():
    policy = make_policy()
    held = applied(policy)
    made = make_plan(policy, held, 1, NOON, passwords=False)
    assert set(made.delete_users) == set(policy.agents)
    assert (made.create_users, made.grant, made.revoke, made.drift) == ((), (), (), ())
    back = make_plan(policy, replace(held, users=held.users - set(made.delete_users)), 1, NOON)
    assert set(back.create_users) == set(policy.agents)


def test_the_right_to_replace_passwords_goes_with_the_setting():
    policy = make_policy()
    without = applied(policy)
    (asked,) = [each for each in make_plan(policy, without, 1, NOON, rotates=True).grant if each not in without.acls]
    assert str(asked) == "User:bus-rotator ALTER broker kafka-cluster"
    held = replace(without, acls=without.acls | {asked}, users=without.users | {"bus-rotator"})
    back = make_plan(policy, held, 1, NOON)
    assert (back.revoke, back.delete_users, back.drift) == ((asked,), ("bus-rotator",), ())
