"""The register on every database: a token is used once, a counter goes on once, whoever asks at the same moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from bus.authority.register import TOKEN_MS, Register, State
from bus.errors import Refused, RetryLater
from bus.wire.names import AgentId

NOW = 1_000_000
WRITER, READER = AgentId("writer-1"), AgentId("reader-1")
REPLICAS = 4


@pytest.fixture
def registers(open_again) -> list[Register]:
    """One for each replica."""
    return [Register(open_again()) for _ in range(REPLICAS)]


def joined(register: Register, agent: AgentId = WRITER, serial: str = "a1") -> int:
    _, counter = register.enrol(register.invite(agent, NOW), b"request", NOW)
    register.certified(agent, counter, serial, NOW + 1000)
    return counter


def at_once(registers, ask) -> list:
    """What each replica answers to ``ask`` at the same moment: a value, or the error."""
    barrier = Barrier(len(registers))

    def one(numbered):
        barrier.wait()
        try:
            return ask(*numbered)
        except Refused as error:
            return error

    with ThreadPoolExecutor(len(registers)) as pool:
        return list(pool.map(one, enumerate(registers)))


def test_a_token_enrols_once_and_its_user_again(registers):
    first, second, *_ = registers
    token = first.invite(WRITER, NOW)
    assert second.enrol(token, b"mine", NOW) == (WRITER, 1)
    assert first.enrol(token, b"mine", NOW) == (WRITER, 1)
    with pytest.raises(Refused, match="the token was used"):
        first.enrol(token, b"theirs", NOW)
    with pytest.raises(Refused, match="its time is over"):
        first.enrol(first.invite(READER, NOW), b"mine", NOW + TOKEN_MS + 1)
    with pytest.raises(Refused, match="not one of ours"):
        second.enrol("aaaa", b"mine", NOW)
    assert second.enrol(second.invite(WRITER, NOW), b"next", NOW) == (WRITER, 2)
    with pytest.raises(Refused, match="the token was used"):
        first.enrol(token, b"mine", NOW)


@pytest.mark.parametrize("turn", range(5))
def test_of_replicas_that_are_shown_one_token_by_different_keys_one_enrols(registers, turn):
    token = registers[0].invite(WRITER, NOW)
    told = at_once(registers, lambda number, register: register.enrol(token, b"key %d" % number, NOW))
    assert sorted(map(str, told)) == sorted([str((WRITER, 1)), *["the token was used"] * (REPLICAS - 1)])


@pytest.mark.parametrize("turn", range(5))
def test_one_renewal_that_reaches_all_replicas_is_one_and_is_answered_alike(registers, turn):
    counter = joined(registers[0])
    told = at_once(registers, lambda _, register: register.renew(WRITER, "a1", counter, b"next"))
    assert told == [counter + 1] * REPLICAS
    assert registers[0].find(WRITER).counter == counter + 1


def test_of_two_answers_to_one_request_the_later_is_in_force_and_the_earlier_is_not_given(registers):
    slow, quick, *_ = registers
    counter = joined(slow)
    for each in (slow, quick):
        following = each.renew(WRITER, "a1", counter, b"next")
    quick.certified(WRITER, following, "b2", NOW + 3000)
    with pytest.raises(RetryLater, match="another replica answered meanwhile"):
        slow.certified(WRITER, following, "c3", NOW + 2000)
    slow.check(WRITER, "b2")
    assert quick.renew(WRITER, "b2", following, b"third") == following + 1
    with pytest.raises(RetryLater, match="another replica"):
        slow.certified(WRITER, following, "c3", NOW + 4000)


@pytest.mark.parametrize("turn", range(5))
def test_of_clones_that_renew_at_once_one_goes_on_and_the_agent_is_locked(registers, turn):
    counter = joined(registers[0])
    told = at_once(registers, lambda number, register: register.renew(WRITER, "a1", counter, b"clone %d" % number))
    assert [each for each in told if not isinstance(each, Refused)] == [counter + 1]
    assert all("is locked" in str(each) for each in told if isinstance(each, Refused))
    assert registers[1].find(WRITER).state is State.LOCKED
    with pytest.raises(Refused, match="is locked"):
        registers[2].check(WRITER, "a1")


def test_what_one_replica_is_told_the_others_go_by(registers):
    first, second, third, _ = registers
    joined(first)
    second.check(WRITER, "a1")
    with pytest.raises(Refused, match="replaced by a newer one"):
        second.check(WRITER, "b2")
    with pytest.raises(Refused, match="not enrolled"):
        second.check(READER, "a1")
    assert third.revoke(WRITER, "it left")
    with pytest.raises(Refused, match="revoked: it left"):
        first.check(WRITER, "a1")
    with pytest.raises(Refused, match="revoked: it left"):
        first.renew(WRITER, "a1", 1, b"next")
    with pytest.raises(Refused, match="not enrolled"):
        first.renew(READER, "a1", 1, b"next")
    joined(second, READER, "c3")
    assert [(each.name, each.state) for each in first.list()] == [(READER, State.ACTIVE), (WRITER, State.REVOKED)]
    assert not second.revoke(AgentId("nobody"), "")


def test_a_replica_behind_a_newer_policy_is_held_back(registers):
    first, second, *_ = registers
    first.follow(3)
    second.follow(3)
    second.follow(4)
    with pytest.raises(RetryLater, match="a newer policy than snapshot 3"):
        first.follow(3)
    first.follow(5)
