"""A seeded sample of the chaos harness, and builds that are broken on purpose: the oracle must find each (`--long`).

`make chaos` runs the long form, with a new seed each time. CHAOS_SEED names another one for the sample.
"""

import os
import time

import pytest

from demo.raw import RawClient, plaintext
from tests.chaos.oracle import Oracle, Published
from tests.chaos.rounds import Chaos
from tests.chaos.site import ENFORCERS, Site
from tests.integration.oracle import read_topic

pytestmark = pytest.mark.broker

ROUNDS, ENOUGH_ROUNDS, ENOUGH_S = 3, 2, 20.0
"""A slow machine does fewer rounds, not longer ones."""
SEED = int(os.environ.get("CHAOS_SEED", "1125"))


@pytest.mark.timeout(400)
def test_a_sample_of_chaos_loses_doubles_and_refuses_nothing_and_audits_everything(tmp_path):
    print(f"CHAOS_SEED={SEED}")
    with Site(tmp_path) as site:
        chaos = Chaos(site, SEED, most=2)
        number, began = 0, time.monotonic()
        try:
            while number < ENOUGH_ROUNDS or (number < ROUNDS and time.monotonic() - began < ENOUGH_S):
                number += 1
                each = chaos.round(number)
                print(each)
                each.findings.check()
                assert each.errors == []
            found = each.findings
            assert found.published > 50 * number
            assert found.inputs == found.delivered + found.dead
            assert found.dead >= number
            assert chaos.verify() == []
        finally:
            chaos.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site whose second enforcer alone is at work: tests give it what is wrong with it."""
    with Site(tmp_path_factory.mktemp("broken")) as made:
        made.leave(ENFORCERS[0])
        yield made


class Lane:
    """Honest records of one agent on one domain, and their count."""

    def __init__(self, site, agent, domain):
        self.site = site
        self.agent = agent
        self.domain = domain
        self.raw = RawClient(site.stack)
        self.published = Published()
        self.oracle = Oracle(site.stack, [domain])
        self.oracle.forget()

    def publish(self, count=8):
        sealer = self.raw.sealer(self.agent, self.domain)
        for number in range(count):
            message_id = os.urandom(16)
            _, value = sealer.seal(number % 4, plaintext(self.agent, self.domain, message_id=message_id))
            self.raw.produce(f"{self.domain}.in", value, number % 4)
            self.published.stored[message_id] = self.domain

    def count(self, timeout=60):
        return self.oracle.count(self.published, timeout, self.site.mend)


def run_with(site, lane, **wrong):
    """Let the second enforcer run with what is ``wrong``, under load, and count."""
    site.leave(ENFORCERS[1])
    site.start(ENFORCERS[1], **wrong)
    site.wait_ready(ENFORCERS[1])
    deadline = time.monotonic() + 60
    lane.publish()
    while "point" in wrong and site.process(ENFORCERS[1]).poll() is None:
        lane.publish()
        assert time.monotonic() < deadline, "it does not come to its point"
    lane.publish()
    return lane.count(10 if "broken" in wrong else 60)


@pytest.mark.long
def test_a_build_that_keeps_the_windows_of_an_aborted_transaction_refuses_honest_records(site):
    lane = Lane(site, "executor-1", "coordination")
    sound = run_with(site, lane, fail="offsets-sent", count=1)
    sound.check()
    assert sound.delivered == sound.published
    broken = run_with(site, lane, fail="offsets-sent", count=1, broken="windows-kept")
    with pytest.raises(AssertionError, match="expected ALLOW, found replay"):
        broken.check()
    assert broken.refused_honest > 0
    assert broken.doubled == broken.unaudited == 0


@pytest.mark.long
def test_an_output_that_is_there_again_a_missing_hop_and_a_message_of_nobody_are_found(site):
    site.heal(ENFORCERS[1])
    lane = Lane(site, "orchestrator-1", "agent_memory")
    lane.publish()
    lane.count().check()

    stranger = Oracle(site.stack, ["agent_memory"])
    with pytest.raises(AssertionError, match="published by nobody"):
        stranger.count(Published(), 10).check()

    partition, _, bundle = read_topic(site.stack, "agent_memory.out")[-1]
    lane.raw.produce("agent_memory.out", bundle, partition)
    again = lane.count()
    with pytest.raises(AssertionError, match=r"outputs doubled.*does not rise"):
        again.check()
    assert again.doubled > 0
    assert again.lost == again.unaudited == 0

    lane.oracle.hops.popitem()
    forgotten = lane.count(0)
    with pytest.raises(AssertionError, match="no hop of 1"):
        forgotten.check()
    assert forgotten.unaudited > 0


@pytest.mark.parametrize("shift_ms", [90_000, 90_000_000])
def test_a_clock_that_is_off_beyond_the_skew_makes_nothing_that_readers_refuse(site, shift_ms):
    """Readers refuse bundles that were decided 60 s from their append: such an enforcer must stand still."""
    lane = Lane(site, "retriever-1", "agent_memory")
    site.leave(ENFORCERS[1])
    site.start(ENFORCERS[1], shift_ms=shift_ms)
    lane.publish()
    assert lane.count(5).unreadable == 0
    site.heal(ENFORCERS[1])
    lane.publish()
    lane.count().check()


@pytest.mark.long
def test_a_build_that_commits_offsets_outside_the_transaction_loses_records(site):
    """It runs last: what it leaves behind no sound enforcer accepts."""
    lane = Lane(site, "retriever-1", "agent_memory")
    sound = run_with(site, lane, point="offsets-sent", count=1)
    sound.check()
    broken = run_with(site, lane, point="offsets-sent", count=1, broken="offsets-outside")
    with pytest.raises(AssertionError, match="acknowledged and not delivered"):
        broken.check()
    assert broken.lost > 0
    assert broken.refused_honest == 0
