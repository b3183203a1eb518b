"""`bus audit reconcile`: the ledger beside the topics on the broker, both ways. Ciphertext alone is read of these."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import sys
import time
from collections.abc import Callable

import click
from confluent_kafka import Consumer
from rich.markup import escape

from bus import settings as settings_module
from bus.admin.desired import RECONCILER
from bus.cli.audit import open_query
from bus.cli.output import EXIT_NO, emit, err, out
from bus.codes import Code
from bus.crypto.signing import bundle_leaf
from bus.errors import Refused, RetryLater, WireError
from bus.kafka.config import Connection, connect
from bus.kafka.whole import whole
from bus.ledger.opened import open_ledger
from bus.ledger.reconcile import Reconciled, Topic
from bus.ledger.reconcile import reconcile as compare
from bus.settings import Settings
from bus.stack.local import Stack
from bus.wire import derived
from bus.wire.names import DomainName, domain_topics

Digests = Callable[[bytes], tuple[bytes, ...]]


@click.command()
@click.option("--domain", "domains", multiple=True, help="This domain alone; may be given several times.")
@click.option("--timeout", default=120.0, help="Seconds for each topic, and for what is not recorded yet.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def reconcile(domains: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Compare the ledger with .in, .out and .dead on the broker; exit 1 when something does not fit.

    Named are a record without a hop, a hop without its record or its outcome, an outcome without a hop or written
    twice, a record that was accepted twice. Reads every topic once, as `bus-reconciler`, which may read every domain's
    topics and has no key to open what is in them.

    \b
    bus audit reconcile
    bus audit reconcile --domain agent_memory --json
    """
    settings = settings_module.load()
    known = sorted(map(str, Stack(settings).load_policy().domains))
    for name in domains:
        if name not in known:
            raise Refused(f"no domain {name!r}", code=Code.POLICY, hint=f"one of {', '.join(known)}")
    told = {}
    for name in domains or known:
        with err.status(f"reading {name}"):
            told[name] = reconciled(settings, name, timeout)
    if as_json:
        emit("audit-reconcile", {"domains": {name: dataclasses.asdict(each) for name, each in told.items()}})
    else:
        for name, each in told.items():
            _show(name, each)
    if any(each.problems for each in told.values()):
        raise SystemExit(EXIT_NO)


def _show(name: str, told: Reconciled) -> None:
    for problem in told.problems:
        out.print(f"[red]{escape(problem)}[/]")
    if told.more:
        out.print(f"[red]and {told.more} more[/]")
    line = f"{name}  {told.inputs} records, {told.hops} hops, {told.outputs} outputs, {told.dead} dead letters"
    line += f", {told.later} not recorded yet" if told.later else ""
    line += f", {told.gone} beyond retention" if told.gone else ""
    found = len(told.problems) + told.more
    out.print(f"{line}: {f'{found} problems' if found else 'all fit'}")


def reconciled(settings: Settings, name: str, timeout: float) -> Reconciled:
    """One domain. Raises what reading raises, RetryLater where the ledger does not follow in ``timeout`` s."""
    connection = connect(settings, RECONCILER)
    topics = domain_topics(DomainName(name))
    # Inputs first: whatever they lead to is on the broker and in the ledger when those are read.
    inbound = read(connection, topics.inbound, _input, timeout)
    recorded = _recorded(settings, inbound, timeout)
    outbound = read(connection, topics.outbound, _leaves, timeout)
    dead = read(connection, topics.dead, _dead, timeout)
    hops = (found.hop for found in open_query(settings).search({"domain": name}, sys.maxsize))
    return compare(hops, inbound, outbound, dead, recorded)


def read(connection: Connection, topic: str, digests: Digests, timeout: float) -> Topic:
    """All of a topic."""
    found, since = {}, dict[int, int]()
    with contextlib.closing(whole(connection, topic, RECONCILER, timeout)) as messages:
        for message in messages:
            place = message.partition() or 0, message.offset() or 0
            since.setdefault(place[0], message.timestamp()[1])
            found[place] = digests(message.value() or b"")
    consumer = Consumer(connection.config(group_id=RECONCILER, enable_auto_commit=False))
    try:
        numbers = connection.partitions(consumer, topic, timeout)
        first = {number: connection.bounds(consumer, topic, number, timeout)[0] for number in numbers}
    finally:
        consumer.close()
    now = time.time_ns() // 1_000_000
    return Topic(topic, found, first, {number: since.get(number, now) for number in numbers})


def _input(value: bytes) -> tuple[bytes, ...]:
    return (hashlib.sha256(value).digest(),)


def _dead(value: bytes) -> tuple[bytes, ...]:
    return (hashlib.sha256(b"\0" + value).digest(),)


def _leaves(value: bytes) -> tuple[bytes, ...]:
    """Of the records of a bundle; what is no bundle is one thing that no hop names."""
    try:
        bundle = derived.parse(value)
    except WireError:
        return _input(value)
    return tuple(bundle_leaf(bundle.head_bytes, each.fixed, each.body) for each in bundle.entries)


def _recorded(settings: Settings, inbound: Topic, timeout: float) -> dict[int, int]:
    """By partition, up to where the ledger has hops, once that is the end of what was read."""
    ends: dict[int, int] = {}
    for partition, offset in inbound.digests:
        ends[partition] = max(ends.get(partition, 0), offset + 1)
    deadline = time.monotonic() + timeout
    while True:
        ledger = open_ledger(settings)
        try:
            held = {
                number: intervals[-1][1]
                for (topic, number), intervals in ledger.intervals().items()
                if topic == inbound.name
            }
        finally:
            ledger.close()
        if all(held.get(partition, 0) >= end for partition, end in ends.items()):
            return held
        if time.monotonic() > deadline:
            raise RetryLater(
                f"{inbound.name}: not all of it is in the ledger after {timeout:g} s",
                code=Code.RETRY,
                hint="do the enforcers and the audit consumer run? bus stack status",
            )
        time.sleep(0.2)
