"""The difference between what a policy wants and what the broker holds. Pure; ``apply`` carries it out.

An ACL on the broker that neither the live snapshot nor the draft explains is drift: shown, and removed only with
``prune``. What the live policy gave and the draft does not is a revocation, and revocations come before grants.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from bus.admin.actual import Actual
from bus.admin.desired import Acl, Desired, Quota, Topic, desired_state
from bus.codes import Code
from bus.errors import Refused
from bus.policy.diff import AccessChange, access_changes
from bus.policy.model import Policy
from bus.policy.rekeying import rekeyed
from bus.wire.names import DomainName

RENEW_BEFORE_MS = 30 * 86_400_000
UNPLANNED = "not in policy: removed only with --prune"


class Verb(StrEnum):
    """What happens to a thing."""

    REMOVE = "-"
    ADD = "+"
    CHANGE = "~"
    DRIFT = "!"


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a plan."""

    verb: Verb
    kind: str
    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.kind} {self.name}" + (f"  {self.detail}" if self.detail else "")


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that ``apply`` will do, in order, and drift that it leaves."""

    policy: Policy
    live: Policy | None
    live_number: int
    cluster: str
    brokers: int
    revoke: tuple[Acl, ...]
    delete_users: tuple[str, ...]
    create_topics: tuple[Topic, ...]
    alter_topics: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    create_users: tuple[str, ...]
    grant: tuple[Acl, ...]
    set_quotas: tuple[Quota, ...]
    remove_quotas: tuple[Quota, ...]
    drift: tuple[Change, ...]
    access: tuple[AccessChange, ...] = ()
    publish: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def live_digest(self) -> bytes | None:
        """Of the live policy; None before the first."""
        return self.live.digest if self.live is not None else None

    @property
    def keys(self) -> tuple[DomainName, ...]:
        """Domains that other agents may open than under the live policy. A first policy re-keys nothing."""
        return rekeyed(self.live, self.policy) if self.live is not None else ()

    @property
    def widens(self) -> list[AccessChange]:
        """Changes that let something go on, or be read, that the live policy stops. A first policy widens nothing."""
        return [each for each in self.access if each.widens]

    @property
    def changes(self) -> list[Change]:
        """What apply does, in its order: revocations first."""
        return [
            *(Change(Verb.REMOVE, "acl", str(acl)) for acl in self.revoke),
            *(Change(Verb.REMOVE, "user", name) for name in self.delete_users),
            *(
                Change(Verb.ADD, "topic", topic.name, f"{topic.partitions} partitions, replication {topic.replication}")
                for topic in self.create_topics
            ),
            *(
                Change(Verb.CHANGE, "topic", name, ", ".join(f"{key}={value}" for key, value in config))
                for name, config in self.alter_topics
            ),
            *(Change(Verb.ADD, "user", name) for name in self.create_users),
            *(Change(Verb.ADD, "acl", str(acl)) for acl in self.grant),
            *(Change(Verb.REMOVE, "quota", str(each)) for each in self.remove_quotas),
            *(Change(Verb.CHANGE, "quota", str(each)) for each in self.set_quotas),
            *([Change(Verb.CHANGE, "snapshot", str(self.live_number + 1), self.publish)] if self.publish else []),
        ]


def make_plan(
    draft: Policy,
    actual: Actual,
    enforcers: int,
    now_ms: int,
    *,
    brokers: int = 1,
    prune: bool = False,
    passwords: bool = True,
    rotates: bool = False,
) -> Plan:
    """Compare. Without ``passwords`` agents have none.

    Raises Refused(policy) where Kafka cannot follow (partitions, replication), with the remedy.
    """
    wanted = desired_state(draft, enforcers, brokers, passwords=passwords, rotates=rotates)
    live = actual.snapshot
    explained = (
        desired_state(live.policy, enforcers, rotates=True)
        if live is not None
        else Desired((), frozenset(), frozenset())
    )
    create, alter = _topic_changes(wanted, actual)
    surplus = actual.acls - wanted.acls
    foreign = frozenset() if prune else frozenset(acl for acl in surplus if acl not in explained.acls)
    lifted, strange_quotas = _surplus_quotas(wanted, explained, actual, prune=prune)
    strangers = actual.users - wanted.users - explained.users - {"bus-admin", actual.reader}
    known = {topic.name for topic in wanted.topics} | {topic.name for topic in explained.topics}
    unknown_topics = sorted(set(actual.topics) - known)
    drift = [
        *(Change(Verb.DRIFT, "acl", str(acl), UNPLANNED) for acl in sorted(foreign)),
        *(Change(Verb.DRIFT, "user", name, "not in policy") for name in sorted(strangers) if not prune),
        *(Change(Verb.DRIFT, "quota", str(each), UNPLANNED) for each in strange_quotas),
        *(Change(Verb.DRIFT, "topic", name, "not in policy: topics are never deleted here") for name in unknown_topics),
    ]
    gone = {topic.name for topic in explained.topics} - {topic.name for topic in wanted.topics}
    return Plan(
        policy=draft,
        live=live.policy if live is not None else None,
        live_number=live.signed.number if live is not None else 0,
        cluster=actual.cluster,
        brokers=actual.brokers,
        revoke=tuple(sorted(surplus - foreign)),
        delete_users=tuple(sorted((actual.users & explained.users) - wanted.users | (strangers if prune else set()))),
        create_topics=tuple(create),
        alter_topics=tuple(alter),
        create_users=tuple(sorted(wanted.users - actual.users)),
        grant=tuple(sorted(wanted.acls - actual.acls)),
        set_quotas=tuple(sorted(wanted.quotas - actual.quotas)),
        remove_quotas=tuple(lifted),
        drift=tuple(drift),
        access=tuple(access_changes(live.policy, draft)) if live is not None else (),
        publish=_publish(draft, actual, now_ms),
        notes=tuple(f"topic {name} is no longer in the policy; it stays with its data" for name in sorted(gone)),
    )


def _surplus_quotas(
    wanted: Desired, explained: Desired, actual: Actual, *, prune: bool
) -> tuple[list[Quota], list[Quota]]:
    """What is removed, and what is drift. A limit that is wanted with another value is set, not removed."""
    kept = {(each.user, each.key) for each in wanted.quotas}
    surplus = sorted(each for each in actual.quotas if (each.user, each.key) not in kept)
    ours = {(each.user, each.key) for each in explained.quotas}
    removed = [each for each in surplus if prune or (each.user, each.key) in ours]
    return removed, [each for each in surplus if each not in removed]


def _publish(draft: Policy, actual: Actual, now_ms: int) -> str:
    live = actual.snapshot
    if live is None:
        return f"{draft.digest.hex()[:12]}, the first"
    if live.policy.digest != draft.digest:
        return f"{live.policy.digest.hex()[:12]} -> {draft.digest.hex()[:12]}"
    if live.signed.valid_until - now_ms < RENEW_BEFORE_MS:
        return f"{draft.digest.hex()[:12]}, renewed: the live one ends soon"
    return ""


def _topic_changes(
    wanted: Desired, actual: Actual
) -> tuple[list[Topic], list[tuple[str, tuple[tuple[str, str], ...]]]]:
    create, alter = [], []
    for topic in wanted.topics:
        held = actual.topics.get(topic.name)
        if held is None:
            create.append(topic)
            continue
        for what, have, want in (
            ("partitions", held.partitions, topic.partitions),
            ("replication", held.replication, topic.replication),
        ):
            if have != want:
                raise Refused(
                    f"topic {topic.name}: {what}: expected {want}, found {have}",
                    code=Code.POLICY,
                    hint="sequence windows and bundles are bound to partitions: "
                    "make a new domain and move its agents, or set the policy's value back",
                )
        config = tuple((key, value) for key, value in topic.config if dict(held.config).get(key) != value)
        if config:
            alter.append((topic.name, config))
    return create, alter
