"""The SDK under trouble: a silent and a restarted broker, back-pressure, denials by the broker, close, handlers."""

import dataclasses
import os
import signal
import threading
import time

import psutil
import pytest
from confluent_kafka.admin import AdminClient
from pydantic import BaseModel
from typing_extensions import TypedDict

from bus import Bus, Denied, Refused, RetryLater
from bus.admin.apply import _delete_acls
from bus.admin.desired import Acl
from bus.codes import Code
from bus.errors import AccessRefused
from bus.settings import load
from tests.integration.oracle import account, bus_command, until, verified
from tests.integration.readers import read_in_runs

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def lone(tmp_path_factory):
    """A stack whose broker this module stops and kills; its records may travel 2 s."""
    from tests.integration.conftest import start_stack

    local = start_stack(
        tmp_path_factory.mktemp("lone") / "state", lead_ms=120_000, grace_ms=3000, max_clock_skew_ms=500
    )
    yield local
    local.down(lambda _: None, purge=True)


def settings_of(stack):
    return load({"BUS_CONFIG": str(stack.layout.settings)})


def broker_of(stack):
    return psutil.Process(stack._daemon("broker").find().pid)


def test_a_silent_broker_brings_back_pressure_at_1000_records_and_the_unknown_are_told(lone):
    me = Bus("retriever-1", settings=settings_of(lone))
    me.publish("agent_memory", {"n": "first"}, partition_key="one")
    broker = broker_of(lone)
    broker.suspend()
    until(lambda: broker.status() == psutil.STATUS_STOPPED)
    try:
        sent = []

        def fill():
            while len(sent) <= 1000:
                sent.append(me.publish("agent_memory", {"n": len(sent)}, partition_key="one", confirm="queued"))
                assert sum(not each._answered for each in sent) <= 1000

        try:
            fill()
        except RetryLater as full:
            assert "1000 records wait" in str(full)  # the other way is as good
            assert len(sent) == 1000
        else:
            assert sent[0]._answered, "there was room because the oldest one's time was over"
        oldest = next(each for each in sent if not each.stored)
        with pytest.raises(RetryLater) as unknown:
            oldest.wait_stored(20)
        assert unknown.value.code is Code.UNKNOWN
        assert unknown.value.message_id == str(oldest.id)
    finally:
        broker.resume()
    deadline = time.monotonic() + 30
    while True:  # the same process goes on as soon as the broker answers
        try:
            me.publish("agent_memory", {"n": "last"}, partition_key="one", confirm="decided")
            break
        except RetryLater:
            assert time.monotonic() < deadline
    me.close()
    told = account(lone, "agent_memory")
    by_id = [hop["message_id"] for hop in told.values()]
    assert len(by_id) == len(set(by_id)), "a resend was let through twice"


def test_a_killed_and_restarted_broker_gets_every_record_once(lone):
    settings = dataclasses.replace(settings_of(lone), grace_ms=100_000)
    with Bus("executor-1", settings=settings) as me:
        sent = [me.publish("coordination", {"n": n}, partition_key=str(n), confirm="queued") for n in range(200)]
        broker = broker_of(lone)
        os.kill(broker.pid, signal.SIGKILL)
        broker.wait(10)
        sent += [me.publish("coordination", {"n": n}, partition_key=str(n), confirm="queued") for n in range(200, 400)]
        assert bus_command(lone, "stack", "up", timeout=120).returncode == 0
        for each in sent:
            each.wait_stored(60)
    told = account(lone, "coordination", timeout=120)
    allowed = [hop["message_id"] for hop in told.values() if hop["decision"] == "ALLOW"]
    assert sorted(allowed) == sorted(str(each.id) for each in sent)
    assert verified(lone)["problems"] == []


@pytest.mark.parametrize(
    ("operation", "topic", "act"),
    [
        ("WRITE", "coordination.in", lambda me: me.publish("coordination", {"n": 1})),
        ("READ", "coordination.out", lambda me: me.subscribe("coordination").get(10)),
    ],
)
def test_a_denial_by_the_broker_names_topic_operation_and_principal_within_5_s(stack, operation, topic, act):
    """The ACL was taken behind the policy: the SDK's own check says yes, the broker no."""
    admin = AdminClient(stack.admin_connection().config())
    _delete_acls(admin, (Acl("User:executor-1", operation, "topic", topic),))
    try:
        with Bus("executor-1") as me:
            began = time.monotonic()
            with pytest.raises(AccessRefused) as refused:
                act(me)
            assert time.monotonic() - began < 5
    finally:
        bus_command(stack, "policy", "apply", "--yes")
    error = refused.value
    assert (error.principal, error.operation, error.resource) == ("executor-1", operation.lower(), topic)
    assert error.code is Code.ACL


def test_close_waits_for_what_was_queued(stack):
    session = os.urandom(4).hex()
    with Bus("executor-1") as me:
        sent = [me.publish("coordination", {"s": session, "n": n}, confirm="queued") for n in range(500)]
    assert all(each.stored for each in sent)
    with pytest.raises(Refused) as closed:
        me.publish("coordination", {})
    assert closed.value.code is Code.CLOSED


class Note(BaseModel):
    s: str
    n: int


@dataclasses.dataclass
class Point:
    s: str
    x: float


class Row(TypedDict):
    s: str
    cells: list[int]


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        (Note, lambda s: Note(s=s, n=3)),
        (Point, lambda s: Point(s, 0.5)),
        (Row, lambda s: {"s": s, "cells": [1, 2]}),
        (dict, lambda s: {"s": s, "deep": {"a": [None, True]}}),
        (bytes, lambda s: s.encode() + b"\0\xff"),
    ],
)
def test_a_payload_comes_back_as_its_type_with_its_context(stack, kind, make):
    value = make(os.urandom(6).hex())
    with Bus("executor-1") as sender, Bus("orchestrator-1") as reader:
        inbox = reader.subscribe("coordination")
        cause = sender.publish("coordination", {"cause": 1})
        sent = sender.publish("coordination", value, purpose="care", correlation="case-7", causation=[cause.id])
        deadline = time.monotonic() + 30
        while (got := inbox.get(max(0.1, deadline - time.monotonic()))) is not None and got.id != sent.id:
            pass
        assert got is not None
        assert got.value(kind) == value
        assert (got.purpose, got.correlation, got.causation) == ("care", "case-7", (cause.id,))
        if kind is Note:
            with pytest.raises(Refused, match="not a Point"):
                got.value(Point)


def test_a_raw_denial_reaches_the_agent_as_a_notice(stack, raw):
    from demo.raw import plaintext

    told, heard = [], threading.Event()
    with Bus("executor-1") as me:

        @me.on_refused
        def refused(error):
            told.append(error)
            heard.set()

        _, value = raw.sealer("executor-1", "agent_memory").seal(0, plaintext("executor-1", "agent_memory"))
        raw.produce("agent_memory.in", value)
        me._keys.refresh(force=True)
        # The agent holds no key of that domain, so its notice is sealed to nobody it could be: use a domain it may use.
        _, value = raw.sealer("executor-1", "coordination").seal(
            0, plaintext("executor-1", "coordination", target="analyst-1")
        )
        raw.produce("coordination.in", value)
        assert heard.wait(20)
    assert isinstance(told[0], Denied)
    assert (told[0].rule, told[0].code) == ("coordination.consume", Code.CONSUME)
    assert told[0].decision_id


def test_a_handler_that_fails_does_not_end_the_subscription(stack):
    session, seen, done, failures = os.urandom(6).hex(), [], threading.Event(), []
    with Bus("executor-1") as sender, Bus("orchestrator-1") as reader:
        reader.on_refused(failures.append)

        @reader.subscribe("coordination")
        def handle(note: dict) -> None:
            if note.get("s") == session:
                seen.append(note["n"])
                if note["n"] == 1:
                    raise ValueError("of the handler's own")
                if note["n"] == 2:
                    done.set()

        for number in range(3):
            sender.publish("coordination", {"s": session, "n": number}, partition_key="q", confirm="queued")
        assert done.wait(30)
    assert seen == [0, 1, 2]
    # Payloads of other tests that are no dict are told as such; of the handler's own fault there is one.
    assert [each.code for each in failures if each.code is not Code.SCHEMA] == [Code.INTERNAL]


def test_a_restart_between_bundles_repeats_nothing_acknowledged_and_loses_nothing_else(stack):
    """Each record is a bundle of its own; readers take some and close."""
    session = os.urandom(6).hex()
    with Bus("orchestrator-1") as sender:
        for number in range(24):
            sender.publish("coordination", {"s": session, "n": number}, partition_key="r", confirm="decided")
    assert read_in_runs("executor-1", "coordination", session, 24, 5) == list(range(24))
