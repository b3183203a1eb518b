"""The ledger beside the topics: what fits is silent, and everything else is named, both ways."""

import hashlib
from dataclasses import replace

import pytest

from bus.codes import Code
from bus.ledger.reconcile import MAX_TOLD, Topic, reconcile
from bus.wire.hop import Hop, HopTail, Verdict

OUT, DEAD, IN = "notes.out", "notes.dead", "notes.in"


def digest(*parts):
    return hashlib.sha256(repr(parts).encode()).digest()


def hop(offset, verdict=Verdict.ALLOW, partition=0, **changes):
    tail = HopTail(
        IN, verdict, Code.ALLOW if verdict is Verdict.ALLOW else Code.MAC, "", "", 1, bytes(32), domain="notes"
    )
    made = Hop(
        origin_digest=digest("in", partition, offset),
        output_digest=digest("out", partition, offset),
        message_id=bytes(16),
        instance=bytes(16),
        sequence=0,
        partition=partition,
        offset=offset,
        append_time=1000 + offset,
        decided_at=2000,
        gap=0,
        size=100,
        correlation_id="",
        causation_ids=(),
        tail=tail,
    )
    return replace(made, **changes)


class World:
    """Ten inputs in two partitions: two are refused, the others stand in two bundles."""

    def __init__(self):
        refused = {(0, 3), (1, 1)}
        self.places = [(partition, offset) for partition in (0, 1) for offset in range(5)]
        self.hops = [
            hop(offset, Verdict.DENY if (partition, offset) in refused else Verdict.ALLOW, partition)
            for partition, offset in self.places
        ]
        self.inbound = Topic(IN, {place: (digest("in", *place),) for place in self.places}, {0: 0, 1: 0})
        allowed = [place for place in self.places if place not in refused]
        out = {
            (number, 0): tuple(digest("out", *place) for place in allowed if place[0] == number) for number in (0, 1)
        }
        self.outbound = Topic(OUT, out, {0: 0, 1: 0})
        self.dead = Topic(DEAD, {place: (digest("out", *place),) for place in refused}, {0: 0, 1: 0})
        self.recorded = {0: 5, 1: 5}

    def told(self):
        return reconcile(self.hops, self.inbound, self.outbound, self.dead, self.recorded)


@pytest.fixture
def world():
    return World()


def test_what_fits_is_silent_and_counted(world):
    told = world.told()
    assert told.problems == []
    assert (told.inputs, told.hops, told.outputs, told.dead, told.later, told.gone) == (10, 10, 8, 2, 0, 0)


def test_events_of_partitions_are_no_outcomes(world):
    world.hops.append(hop(2, Verdict.RETRY))
    assert world.told().problems == []


def test_a_record_without_a_hop_is_named(world):
    del world.hops[0]
    assert f"{IN}/0@0: a record without a hop" in world.told().problems
    assert any("notes.out/0@0" in each and "no hop says" in each for each in world.told().problems)


def test_what_is_not_recorded_yet_is_counted_and_no_fault(world):
    world.inbound.digests[0, 5] = (digest("new"),)
    assert (world.told().problems, world.told().later) == ([], 1)


def test_a_hop_without_its_record_or_of_another_one_is_named(world):
    del world.inbound.digests[0, 1]
    world.inbound.digests[0, 2] = (digest("other"),)
    problems = world.told().problems
    assert [each for each in problems if each.startswith(f"{IN}/0@1: a hop without a record")]
    assert [each for each in problems if each.startswith(f"{IN}/0@2: another record than its hop names")]


@pytest.mark.parametrize(("place", "topic"), [((0, 0), OUT), ((0, 3), DEAD)])
def test_an_outcome_that_is_not_there_is_named(world, place, topic):
    held = world.outbound if topic == OUT else world.dead
    for where, digests in list(held.digests.items()):
        held.digests[where] = tuple(each for each in digests if each != digest("out", *place))
    (problem,) = world.told().problems
    assert problem.startswith(f"{IN}/{place[0]}@{place[1]}: its outcome is not in {topic}")


@pytest.mark.parametrize("topic", [OUT, DEAD])
def test_an_outcome_that_no_hop_names_is_named(world, topic):
    (world.outbound if topic == OUT else world.dead).digests[1, 7] = (digest("forged"),)
    assert world.told().problems == [f"{topic}/1@7: no hop says that it was written"]


def test_an_outcome_that_was_written_twice_is_named(world):
    world.outbound.digests[0, 9] = world.outbound.digests[0, 0]
    problems = world.told().problems
    assert len(problems) == 4
    assert all(each == f"{OUT}/0@0, {OUT}/0@9: one outcome, written 2 times" for each in problems)


def test_a_second_accept_of_one_origin_and_a_second_hop_of_one_record_are_named(world):
    again = hop(4, partition=1, origin_digest=digest("in", 0, 0))
    world.hops[-1] = again
    world.inbound.digests[1, 4] = (digest("in", 0, 0),)
    world.hops.append(hop(2))
    problems = world.told().problems
    assert f"{IN}/1@4: a second accept of what was accepted at 0@0" in problems
    assert [each for each in problems if each.startswith(f"{IN}/0@2: decided twice")]


def test_what_retention_took_is_counted_and_no_fault(world):
    del world.inbound.digests[0, 0]
    world.inbound.first[0] = 1
    held = world.outbound.digests[0, 0]
    world.outbound.digests[0, 0] = held[1:]
    world.outbound.first[0] = 1
    world.outbound.since[0] = 1001
    told = world.told()
    assert (told.problems, told.gone) == ([], 2)
    world.outbound.digests[0, 0] = ()
    assert [each for each in world.told().problems if "its outcome is not in" in each]


def test_problems_beyond_a_thousand_are_counted(world):
    world.outbound.digests.update({(1, 10 + number): (digest(number),) for number in range(MAX_TOLD + 5)})
    told = world.told()
    assert (len(told.problems), told.more) == (MAX_TOLD, 5)
