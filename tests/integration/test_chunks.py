"""Messages of several records on a real broker: delivered whole and once, over restarts in their midst."""

import os
import threading

import pytest

from bus import Bus
from bus.client import chunks
from bus.codes import Code
from bus.errors import TooLarge
from tests.integration.oracle import account, hops, until
from tests.integration.readers import read_in_runs

pytestmark = pytest.mark.broker
DOMAIN = "coordination"


def between(publisher, act):
    """``act`` once the broker has each record that ``publisher`` sends."""
    sender = publisher._sender()
    send = sender.send

    def told(domain, partition, plaintext, done):
        stored = threading.Event()
        key = send(domain, partition, plaintext, lambda error: (done(error), stored.set()))
        assert stored.wait(30)
        act()
        return key

    sender.send = told


def test_a_message_in_parts_comes_whole_and_once_whoever_restarts_between_its_parts(stack):
    session, data, number = os.urandom(6).hex(), os.urandom(1_300_000).hex(), iter(range(99))

    def note():
        other.publish(DOMAIN, {"s": session, "n": next(number)}, partition_key="p")

    with Bus("orchestrator-1") as me, Bus("executor-1") as other:
        between(me, note)
        sent = [
            me.publish(DOMAIN, {"s": session, "n": name, "data": data}, partition_key="p", confirm="decided")
            for name in ("large", "larger")
        ]
        assert [each.decision() for each in sent]
    # The log: a part, a note, a part, a note, the last part, a note; and the same again.
    assert read_in_runs("executor-1", DOMAIN, session, 8, 1) == [0, 1, "large", 2, 3, 4, "larger", 5]
    with Bus("executor-1") as reader:
        inbox = reader.subscribe(DOMAIN)
        again = [each.value() for each in iter(lambda: inbox.get(2), None)]
        assert not any(isinstance(each, dict) and each.get("s") == session for each in again), "nothing comes twice"

    ids = {str(each.id) for each in sent}
    until(
        lambda: (
            [hop["decision"] for hop in hops(stack, "--domain", DOMAIN) if hop["message_id"] in ids] == ["ALLOW"] * 2
        )
    )


def test_a_message_whose_rest_never_comes_is_told_and_holds_nobody_up(stack, monkeypatch):
    monkeypatch.setattr(chunks, "PATIENCE_MS", 200)
    session, told, seen = os.urandom(6).hex(), [], []
    with Bus("orchestrator-1") as me, Bus("executor-1") as reader:
        sender = me._sender()
        send, left = sender.send, iter([True, False, False])
        sender.send = lambda *arguments: send(*arguments) if next(left) else None
        lost = me.publish(DOMAIN, {"s": session, "data": "x" * 2_500_000}, partition_key="p", confirm="queued")
        sender.send = send
        reader.on_refused(told.append)
        reader.subscribe(DOMAIN)(lambda payload: seen.append(payload))

        def given_up():
            me.publish(DOMAIN, {"s": session}, partition_key="p")
            return given_up_of(told)

        until(given_up)
        until(lambda: {"s": session} in seen)
    (only,) = given_up_of(told)
    assert (only.message_id, str(only)) == (str(lost.id), "message of orchestrator-1: 1 of its 3 parts came")
    assert not any("data" in each for each in seen if each.get("s") == session)


def given_up_of(told):
    return [each for each in told if each.code is Code.INCOMPLETE]


def test_a_payload_for_more_parts_than_there_may_be_is_refused_before_sending(stack):
    with Bus("retriever-1") as me, pytest.raises(TooLarge) as refused:
        me.publish("agent_memory", {"data": "x" * 70_000_000})
    assert refused.value.limit == 60_000_000


def test_every_part_has_one_outcome_and_one_hop(stack):
    account(stack, DOMAIN)
