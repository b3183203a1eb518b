"""The attacks of the long form. Each is prepared before it begins, runs for some seconds and tells what it did.

``expected`` counts the codes that the enforcer must give ("" = allowed), ``answers`` what the broker said to whatever
never came to an enforcer. Attacks that may end a broker or a partition have a stack of their own.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.hostile import clients, records
from tests.hostile.agent import TOPIC
from tests.hostile.clients import Told
from tests.hostile.measure import PARTITIONS

BAD_MAC_RATE = 10_000


@dataclass(frozen=True)
class Attack:
    """``prepare(agent, seconds)`` makes the records and returns what runs against the clock."""

    name: str
    prepare: Callable
    alone: bool = False


def flood(agent, cases, rate, **producer_settings):
    """Send (partition, value, code) at ``rate`` a second; the time it takes is their number over the rate."""
    producer = agent.producer(**producer_settings)

    def run():
        told = Told()

        def delivered(error, _message, value, code):
            if error is None:
                told.sent(value, code)
            else:
                told.answers[error.name()] += 1

        began, step = time.monotonic(), max(rate // 100, 1)
        for start in range(0, len(cases), step):
            ahead = began + start / rate - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
            for partition, value, code in cases[start : start + step]:
                producer.produce(
                    TOPIC,
                    value,
                    partition=partition,
                    on_delivery=lambda error, message, value=value, code=code: delivered(error, message, value, code),
                )
            producer.poll(0)
        producer.flush(60)
        return told

    return run


def spread(values, code):
    """Over all partitions in turn: a value is made for its partition."""
    return [(number % PARTITIONS, value, code) for number, value in enumerate(values)]


def largest_valid(agent, seconds):
    sealer = agent.sealer()
    values = (records.largest(agent, sealer, number % PARTITIONS) for number in range(5 * seconds))
    return flood(agent, spread(values, ""), 5)


def largest_garbage(agent, seconds):
    value = records.largest(agent, agent.sealer(), 0)
    values = (records.bad_mac(value, number) for number in range(10 * seconds))
    return flood(agent, spread(values, "mac"), 10)


def over_limits(agent, seconds):
    """Above the Sealed limit and above the broker's."""
    over = records.largest(agent, agent.sealer(), 0, extra=1)
    cases = [(number % PARTITIONS, over, "bounds") for number in range(5 * seconds)]
    cases += [(number % PARTITIONS, os.urandom(1_100_000), "") for number in range(5 * seconds)]
    return flood(agent, cases, 10, message_max_bytes=2_000_000)


def framing(agent, seconds):
    """Unknown markers and suites, lengths that lie."""
    sealer = agent.sealer()
    small = [case for case in records.framing(agent, sealer, 0) if len(case[1]) < 10_000]
    cases = [(0, value, code) for _, value, code in small] * (1000 * seconds // len(small))
    return flood(agent, cases, 1000)


def avro_bombs(agent, seconds):
    """Correctly sealed, refused when decoded."""
    sealer = agent.sealer()
    plain = [value for _, value in records.bombs(agent) if len(value) < 20_000]
    values = (sealer.seal(number % PARTITIONS, plain[number % len(plain)])[1] for number in range(500 * seconds))
    return flood(agent, spread(values, "decode"), 500)


def crowded_profiles(agent, seconds):
    """Allowed, and each a cache miss of the largest size."""
    sealer = agent.sealer()
    values = (
        sealer.seal(number % PARTITIONS, agent.plain(profile=records.crowded_profile(agent, number)))[1]
        for number in range(200 * seconds)
    )
    return flood(agent, spread(values, ""), 200)


def bad_macs(agent, seconds):
    value = agent.sealer().seal(0, agent.plain())[1]
    values = (records.bad_mac(value, number) for number in range(BAD_MAC_RATE * seconds))
    return flood(agent, spread(values, "mac"), BAD_MAC_RATE)


def empty_values(agent, seconds):
    """Nothing at all, 5,000 times a second: what is refused is smaller than its refusal."""
    return flood(agent, spread((b"" for _ in range(5000 * seconds)), "bounds"), 5000)


def instances(agent, seconds):
    """A new instance for each record: 64 pass in each partition."""
    cases = []
    for number in range(1000 * seconds):
        value = agent.sealer().seal(number % PARTITIONS, agent.plain())[1]
        cases.append((number % PARTITIONS, value, "" if number < 64 * PARTITIONS else "too-many-instances"))
    return flood(agent, cases, 1000)


def jumps(agent, seconds):
    """Valid records whose sequence jumps each time by 2^33."""
    lanes = [records.jumps(agent, number, 250 * seconds) for number in range(PARTITIONS)]
    return flood(
        agent, [(number, value, "") for row in zip(*lanes, strict=True) for number, value in enumerate(row)], 1000
    )


def replays(agent, seconds):
    value = agent.sealer().seal(0, agent.plain())[1]
    cases = [(0, value, "")] + [(0, value, "replay")] * (2000 * seconds)
    return flood(agent, cases, 2000)


ATTACKS = (
    Attack("largest valid, 5/s", largest_valid),
    Attack("largest with a bad MAC, 10/s", largest_garbage),
    Attack("over the limits, 10/s", over_limits),
    Attack("markers, suites, lengths, 1,000/s", framing),
    Attack("Avro bombs, 500/s", avro_bombs),
    Attack("crowded profiles, 200/s", crowded_profiles),
    Attack("bad MACs, 10,000/s", bad_macs),
    Attack("empty values, 5,000/s", empty_values),
    Attack("new instances, 1,000/s", instances, alone=True),
    Attack("sequence jumps, 1,000/s", jumps),
    Attack("replays, 2,000/s", replays),
    Attack("100,000 empty values, compressed", clients.compressed_tiny),
    Attack("endless transactions", clients.transactions),
    Attack("foreign groups", clients.groups),
    Attack("connections", clients.connections),
    Attack("foreign producer ids", clients.producer_ids, alone=True),
    Attack("gzip bombs", clients.gzip_bombs, alone=True),
    Attack("zstd bomb", clients.zstd_bombs, alone=True),
    Attack("announced requests of 2 MB", clients.small_announcements, alone=True),
    Attack("announced requests of 100 MB", clients.announcements, alone=True),
)
