"""Checks of `bus doctor` on what is stored: keys, credentials, policy snapshot, replay windows, ledger, and the lag."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from confluent_kafka import Consumer, TopicPartition

from bus.admin.desired import ENFORCER_GROUP
from bus.authority.bundle import make_bundle
from bus.authority.enrolment import open_register
from bus.authority.local import now_ms, open_roots, read_applied
from bus.authority.register import State
from bus.authority.tokenfiles import token_life
from bus.authority.tokens import audience, public_keys, verify
from bus.authority.trust import read_trust
from bus.codes import Code
from bus.crypto.signing import verify_window
from bus.errors import Refused, RetryLater, Unverified
from bus.files import read_secret
from bus.kafka.identity import TokenFile, read_identity
from bus.kafka.kerberos import Keytab
from bus.kafka.restore import WindowReader, snapshot_offset
from bus.kafka.transaction import Place
from bus.kafka.windows import restored
from bus.ledger.checkpoint import open_checkpoint
from bus.ledger.opened import open_ledger
from bus.policy.model import Policy
from bus.settings import Issuing, Mechanism
from bus.stack.local import Stack
from bus.wire.hopblock import DAY_MS
from bus.wire.names import AUDIT, AUDIT_PARTITIONS, DomainName, domain_of, domain_topics
from bus.wire.records import parse_window

MAX_LAG: Final = 100_000
"""Records: some seconds of work for one enforcer. A backlog that grows past it is not being worked off."""
TURNS: Final = 5


def keys(stack: Stack) -> str:
    """Every domain has a root of an epoch that is open now, the audit has today's, every agent the bundle it is due."""
    settings, layout = stack.settings, stack.layout
    store = open_roots(settings, layout, read_trust(layout.trust))
    now, policy = now_ms(), stack.load_policy()
    held = [each for number in store.numbers() for each in store.load(number)]
    open_now = [each.epoch for each in held if each.epoch.not_before <= now <= each.epoch.not_after]
    if missing := sorted(set(policy.domains) - {DomainName(each.domain) for each in open_now}):
        raise Refused(f"no key epoch is open for {', '.join(missing)}", hint="does the issuer run? bus stack up")
    try:
        store.audit_root(now // DAY_MS)
    except FileNotFoundError:
        raise Refused("the audit has no key for today", hint="does the issuer run? bus stack up") from None
    newest = max(each.epoch for each in open_now)
    if settings.issuing is Issuing.AUTHORITY:
        _enrolled(stack, policy)
    for number in sorted({each.epoch for each in open_now} if settings.issuing is Issuing.FILES else ()):
        roots = [each for each in held if each.epoch.epoch == number]
        for agent in sorted(policy.agents):
            due = make_bundle(agent, policy, roots, sending=True) is not None
            if due and not (layout.agent(agent) / "keys" / str(number)).is_file():
                raise Refused(f"{agent} has no keys of epoch {number}", hint="does the issuer run? bus stack up")
    ends = min(each.not_after for each in open_now)
    domains = {each.domain for each in open_now}
    return f"epoch {newest}, {len(domains)} domains, {(ends - now) // 1000} s to its end; {len(held)} roots held"


def _enrolled(stack: Stack, policy: Policy) -> None:
    held = {each.name: each for each in open_register(stack.settings, stack.layout).list()}
    for agent in sorted(policy.agents):
        found = held.get(agent)
        if found is None or found.state is not State.ACTIVE:
            why = "is not enrolled" if found is None else f"is {found.state}: {found.why}"
            raise Refused(f"{agent} {why}", hint=f"bus agent enroll {agent}")


def credentials(stack: Stack) -> str:
    """Every agent has its broker credential: a token that holds and has not ended, a password, or a keytab."""
    settings, layout, policy, now = stack.settings, stack.layout, stack.load_policy(), now_ms()
    mend = "does the issuer run? bus stack up"
    life = token_life(policy.rotation_interval_ms)
    if settings.sasl_mechanism is Mechanism.SCRAM:
        for agent in sorted(policy.agents):
            read_identity(layout.agent(agent), agent)
        by = "the rotator replaces them" if settings.rotates else "nothing replaces them"
        return f"{len(policy.agents)} passwords; {by}"
    if settings.sasl_mechanism is Mechanism.KERBEROS:
        for agent in sorted(policy.agents):
            Keytab(agent, layout.keytab(agent), settings.kerberos_service).check()
        return f"{len(policy.agents)} keytabs"
    known, ours, left = public_keys(layout.jwks.read_bytes()), audience(settings.deployment_id), life
    for agent in sorted(policy.agents):
        TokenFile(agent, layout.token(agent)).read()
        token = read_secret(layout.token(agent))
        try:
            claims = verify(token, known, ours, now, skew_ms=settings.max_clock_skew_ms, life_ms=life)
        except Unverified as error:
            raise Refused(f"{agent}: {error}", code=error.code, hint=mend) from error
        left = min(left, claims.ends - now)
    return f"{len(policy.agents)} tokens, the first to end in {left // 1000} s"


def snapshot(stack: Stack) -> str:
    """The policy that was applied last verifies, is valid now, and is the one on the broker."""
    live = read_applied(stack.layout, read_trust(stack.layout.trust))
    if live is None:
        raise Refused("no policy was applied here", hint="bus policy apply")
    live.check_validity(now_ms(), stack.settings.max_clock_skew_ms)
    plan = stack.plan(live.policy)
    if plan.live_number != live.signed.number:
        raise Refused(
            f"applied here is snapshot {live.signed.number}, on the broker {plan.live_number}", hint="bus policy apply"
        )
    days = (live.signed.valid_until - now_ms()) // DAY_MS
    return f"number {live.signed.number} is on the broker, valid for {days} more days"


def windows(stack: Stack) -> str:
    """The windows of every partition verify and end where its offset was committed."""
    trust = read_trust(stack.layout.trust).trust()
    for turn in range(TURNS):
        committed = _committed(stack)
        asked: dict[Place, int] = {
            (domain_topics(domain_of(each.topic)).windows, each.partition): snapshot_offset(each.metadata)
            for each in committed
        }
        values = WindowReader(stack.admin_connection()).read(asked) if asked else {}
        held = 0
        try:
            for each in committed:
                domain = domain_of(each.topic)
                topic = domain_topics(domain).windows
                parsed = [parse_window(value) for value in values[topic, each.partition] or []]
                for window in parsed:
                    verify_window(window, trust, topic, each.partition, domain)
                held += len(restored(parsed, each.offset)) if parsed else 0
        except RetryLater:
            if turn == TURNS - 1:
                raise
            continue  # an enforcer went on between the two readings
        break
    return f"{held} windows in {len(committed)} partitions, up to their committed offsets"


def ledger(stack: Stack) -> str:
    """The newest checkpoint of every partition verifies and is the root of the stored tree."""
    trust = read_trust(stack.layout.trust)
    store = open_ledger(stack.settings)
    try:
        leaves = 0
        for partition in store.partitions():
            note = store.checkpoint(partition)
            if note is None:
                continue
            signed = open_checkpoint(note, trust.ledger)
            if store.tree(partition).root(signed.size) != signed.root:
                raise Unverified(f"partition {partition}: the tree is not the one that was signed", step="root")
            leaves += signed.size
        return f"{leaves} hops under {len(store.partitions())} checkpoints (the whole: bus audit verify)"
    finally:
        store.close()


def lag(stack: Stack) -> str:
    """How far enforcers and audit are behind."""
    committed = _committed(stack)
    ends = _ends(stack, [(each.topic, each.partition) for each in committed])
    enforcers = sum(max(ends[each.topic, each.partition] - each.offset, 0) for each in committed)
    places: list[Place] = [(AUDIT, number) for number in range(AUDIT_PARTITIONS)]
    store = open_ledger(stack.settings)
    try:
        recorded = {place: store.state(place[1])[1] for place in places}
    finally:
        store.close()
    audit = sum(max(end - recorded[place], 0) for place, end in _ends(stack, places).items())
    found = f"enforcers {enforcers} records, audit {audit} blocks behind"
    if max(enforcers, audit) > MAX_LAG:
        raise Refused(found, code=Code.STACK, hint="do they run? else see docs/operations.md")
    return found


def _consumer(stack: Stack, group: str) -> Consumer:
    return Consumer(stack.admin_connection().config(group_id=group, enable_auto_commit=False))


def _committed(stack: Stack) -> list[TopicPartition]:
    """Committed offsets of the enforcers' group, of partitions that have one."""
    policy = stack.load_policy()
    asked = [
        TopicPartition(domain_topics(domain).inbound, number)
        for domain, each in sorted(policy.domains.items())
        for number in range(each.partitions)
    ]
    consumer = _consumer(stack, ENFORCER_GROUP)
    try:
        return [each for each in consumer.committed(asked, 15) if each.offset >= 0]
    finally:
        consumer.close()


def _ends(stack: Stack, places: Sequence[Place]) -> dict[Place, int]:
    consumer = _consumer(stack, "bus-admin")
    deadline = time.monotonic() + 30
    try:
        found = {}
        for topic, number in places:
            left = max(deadline - time.monotonic(), 1)
            _, found[topic, number] = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=left)
        return found
    finally:
        consumer.close()
