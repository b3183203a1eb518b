"""What `bus probe attacks` chooses to attack, what it says of an attack, and when it attacks nothing."""

import dataclasses
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException

from bus.codes import Code
from bus.errors import Refused, StackError
from bus.policy.loader import load_policy
from bus.settings import Settings
from bus.stack.local import Stack
from probe.attacks import run
from probe.found import Row, text, tried
from probe.scene import choose

POLICIES = Path(__file__).parents[2] / "policies"
ROW = Row("one bit flipped", "executor-1", "mac", "mac", "hop x", 3, "the same unharmed", "ALLOW", holds=True)


def scene(agent=""):
    return choose(load_policy(POLICIES, development=True), agent)


def test_the_first_agent_that_has_most_to_attack_is_chosen():
    found = scene()
    assert (found.agent, found.own.domain.name, found.own.reader) == ("executor-1", "coordination", "executor-1")
    assert found.unwritable.domain.name == found.unreadable.domain.name == "agent_memory"
    assert (found.elsewhere, found.source) == ("agent_memory", None)


def test_an_agent_that_may_do_everything_leaves_nothing_of_others():
    found = scene("orchestrator-1")
    assert (found.own.domain.name, found.unwritable, found.unreadable) == ("agent_memory", None, None)


def test_an_agent_without_a_domain_to_try_is_refused():
    with pytest.raises(Refused, match="analyst-1 may write no domain that this can be tried in"):
        scene("analyst-1")
    with pytest.raises(Refused, match="no agent 'nobody'") as refused:
        scene("nobody")
    assert refused.value.hint.startswith("one of analyst-1, ")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"found": "ALLOW"}, "one bit flipped: expected mac, found ALLOW"),
        ({"found": "replay"}, "one bit flipped: expected mac, found replay"),
        ({"problems": ("no dead letter",)}, "one bit flipped: no dead letter"),
        (
            {"holds": False, "answer": "expired"},
            "one bit flipped: its control failed (the same unharmed): expired",
        ),
    ],
)
def test_what_is_not_as_it_must_be_is_told(changes, fault):
    assert ROW.faults() == []
    row = dataclasses.replace(ROW, **changes)
    assert row.faults() == [fault]
    assert row.document()["ok"] is False
    assert text([ROW, row], {"tls": "no reason"}).count("FAILED") == 1


def test_an_attempt_is_told_by_the_code_of_what_refused_it():
    def raising(error):
        def attempt():
            raise error

        return tried(attempt)[:2]

    assert tried(lambda: "stored")[:2] == ("taken", "stored")
    assert raising(Refused("no", code=Code.OPEN)) == ("open", "no")
    assert raising(KafkaException(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)))[0] == "MSG_SIZE_TOO_LARGE"
    assert raising(ConnectionResetError("gone")) == ("closed", "gone")


@pytest.mark.parametrize("bootstrap", ["", "kafka.example:9092", "192.0.2.1:9092", "127.0.0.1:1,192.0.2.1:9092"])
def test_a_broker_elsewhere_is_not_attacked(tmp_path, bootstrap):
    with pytest.raises(StackError, match="expected a broker on this machine"):
        run(Stack(dataclasses.replace(Settings(), state=tmp_path, bootstrap=bootstrap)), "", lambda _: None)


@pytest.mark.parametrize("bootstrap", ["127.0.0.1:1", "localhost:1", "[::1]:1"])
def test_a_stack_that_does_not_run_is_not_attacked(tmp_path, bootstrap):
    with pytest.raises(StackError, match="broker, issuer, bus-enforcer-1, audit of this stack do not run") as refused:
        run(Stack(dataclasses.replace(Settings(), state=tmp_path, bootstrap=bootstrap)), "", lambda _: None)
    assert refused.value.hint == "bus stack up"
