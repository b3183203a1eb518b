"""The loop over a consumer in memory: whatever moves its position, every record is handled in order from the commit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from confluent_kafka import OFFSET_INVALID, TIMESTAMP_LOG_APPEND_TIME, KafkaError, KafkaException, TopicPartition

from bus.errors import Refused
from bus.kafka.loop import FENCED, FENCED_WITHIN_S, Committed, Loop
from bus.kafka.transaction import Staged

PLACE = ("notes.in", 0)
RECORDS = 6


class Record(SimpleNamespace):
    """A message of the input."""

    def error(self):
        return None

    def topic(self):
        return PLACE[0]

    def partition(self):
        return PLACE[1]

    def offset(self):
        return self.number

    def value(self):
        return b"value"

    def timestamp(self):
        return TIMESTAMP_LOG_APPEND_TIME, 1

    def key(self):
        return None

    headers = key


class Fatal(SimpleNamespace):
    """What librdkafka gives out once, and then nothing any more, after a static member was fenced."""

    def error(self):
        return KafkaError(KafkaError._FATAL, "static consumer fenced")


class MemoryConsumer:
    """A log with a position; ``during`` holds what happens within the next polls, before they give anything out."""

    def __init__(self, committed):
        self.during = []
        self.position = None
        self.ended = False
        self.closed = False
        self._committed = committed

    def subscribe(self, *_, **__):
        pass

    def committed(self, _places, _timeout):
        return [TopicPartition(*PLACE, self._committed)]

    def consume(self, count, _timeout):
        for happens in self.during[:1]:
            self.during.pop(0)
            happens(self)
        if self.ended:
            self.position, self.ended = None, False
            return [Fatal()]
        if self.position is None:
            return []
        found = [Record(number=number) for number in range(self.position, RECORDS)][:count]
        self.position += len(found)
        return found

    def assign(self, places):
        self.position = places[0].offset

    def seek(self, place):
        self.position = place.offset

    def unassign(self):
        self.position = None

    def pause(self, _places):
        pass

    resume = pause

    def consumer_group_metadata(self):
        return None

    def close(self):
        self.closed = True


class Handled:
    """A worker that notes what it is given; a reset takes back what was not submitted."""

    def __init__(self):
        self.offsets = []
        self.submitted = 0

    def restore(self, committed):
        return {place: told.offset for place, told in committed.items()}

    def handle(self, _place, records):
        self.offsets += records.offsets

    def stage(self):
        self.submitted = len(self.offsets)
        return Staged()

    def reset(self):
        del self.offsets[self.submitted :]

    def drop(self, _places):
        pass

    committed = paused = drop

    def idle(self):
        pass

    resumed = idle

    def pending(self):
        return False

    def topics(self):
        return [PLACE[0]]


@pytest.fixture
def loop():
    made = Loop(
        SimpleNamespace(check=lambda: None),
        "group",
        "one",
        Handled(),
        transaction_ms=20,
        transaction_bytes=1 << 20,
        max_clock_skew_ms=1000,
        signs=SimpleNamespace(beat=lambda: None, ready=lambda: None, waiting=lambda _: None),
    )
    made._consumer = MemoryConsumer(committed=2)
    made._transactor = SimpleNamespace(
        renew=lambda: None, wait=lambda: None, submit=lambda _: None, confirm_clock=lambda: None, idle=True
    )
    return made


def assigned(loop):
    return lambda consumer: loop._on_assign(consumer, [TopicPartition(*PLACE)])


def revoked_and_assigned(loop):
    def happens(consumer):
        loop._on_revoke(consumer, [TopicPartition(*PLACE)])
        assigned(loop)(consumer)

    return happens


@pytest.mark.parametrize("pending", [False, True])
def test_what_the_worker_has_to_tell_goes_out_though_nothing_came(loop, pending):
    submitted = []
    loop._transactor.submit = submitted.append
    loop._consumer.during.append(assigned(loop))
    for _ in range(4):
        loop._turn()
    submitted.clear()  # the records that were there
    loop._worker.pending = lambda: pending and not submitted
    for _ in range(3):
        loop._turn()
    assert len(submitted) == pending


def test_a_poll_of_several_transactions_shows_that_the_loop_lives_after_each(loop):
    """All that was prefetched may come at once, and take minutes where records are expensive to look at."""
    shown = []
    loop._limit = 1  # each record fills a transaction
    loop._consumer.during.append(assigned(loop))
    loop._signs.beat = lambda: shown.append(len(loop._worker.offsets))
    loop._turn()
    loop._turn()
    assert loop._worker.offsets == [2, 3, 4, 5]
    assert {1, 2, 3} <= set(shown)


@pytest.mark.parametrize("before", [(), ("void",)])
def test_an_assignment_begins_at_the_committed_offset_also_when_the_loop_stands_still_in_that_poll(loop, before):
    if before:
        loop._void(fence=True)  # a transaction failed: the next turn stands still and recovers
    loop._consumer.during.append(assigned(loop))
    for _ in range(3):
        loop._turn()
    assert loop._worker.offsets == [2, 3, 4, 5]


def test_a_rebalance_in_the_poll_after_a_failed_transaction_skips_nothing(loop):
    loop._consumer.during.append(assigned(loop))
    loop._turn()
    loop._worker.offsets.clear()  # that transaction failed
    loop._worker.submitted = 0
    loop._void(fence=True)
    loop._consumer.during.append(revoked_and_assigned(loop))
    for _ in range(3):
        loop._turn()
    assert loop._worker.offsets == [2, 3, 4, 5]


def end(consumer):
    consumer.ended = True


def lose_and_end(loop):
    def happens(consumer):
        loop._on_lost(consumer, [TopicPartition(*PLACE)])
        consumer.ended = True

    return happens


@pytest.mark.parametrize("standing", [False, True])
@pytest.mark.parametrize("lost", [False, True])
def test_a_consumer_that_ended_is_replaced_and_nothing_is_skipped(loop, standing, lost):
    first, second = loop._consumer, MemoryConsumer(committed=2)
    loop._join = lambda: second
    loop._consumer.during.append(assigned(loop))
    loop._turn()
    loop._worker.offsets.clear()  # what the first consumer's transaction held is void
    loop._worker.submitted = 0
    if standing:
        loop._void(fence=True)
    first.during.append(lose_and_end(loop) if lost else end)
    second.during.append(assigned(loop))
    for _ in range(4):
        loop._turn()
    assert first.closed
    assert loop._consumer is second
    assert loop._worker.offsets == [2, 3, 4, 5]


def ends_each(loop, clock, seconds):
    """Turns in which each consumer ends right away, so many seconds after the last one."""
    loop._join = lambda: MemoryConsumer(committed=2)
    for _ in range(2 * FENCED):
        loop._consumer.during.append(end)
        loop._turn()
        clock[0] += seconds
        loop._turn()


def test_a_consumer_that_ends_again_and_again_is_taken_for_another_process(loop, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("bus.kafka.loop.time", SimpleNamespace(monotonic=lambda: clock[0]))
    ends_each(loop, clock, FENCED_WITHIN_S / (FENCED - 1) + 1)
    with pytest.raises(Refused, match="ended 3 times in 60 s"):
        ends_each(loop, clock, FENCED_WITHIN_S / (FENCED - 1) - 1)


def times_out(*_):
    raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


def test_offsets_that_are_never_called_stable_are_left_to_the_windows(loop, monkeypatch):
    asked = []
    monkeypatch.setattr(loop._consumer, "committed", times_out)
    monkeypatch.setattr("bus.kafka.loop.unstable_offsets", lambda *_: [TopicPartition(*PLACE, 3)])
    monkeypatch.setattr(loop._worker, "restore", lambda told: asked.append(told) or {PLACE: told[PLACE].offset})
    loop._consumer.during.append(assigned(loop))
    loop._turn()
    assert asked == [{PLACE: Committed(3, "", stable=False)}]
    assert loop._worker.offsets == [3, 4, 5]


def test_no_offset_at_all_that_is_not_stable_waits(loop, monkeypatch):
    monkeypatch.setattr(loop._consumer, "committed", times_out)
    monkeypatch.setattr("bus.kafka.loop.unstable_offsets", lambda *_: [TopicPartition(*PLACE, OFFSET_INVALID)])
    loop._consumer.during.append(assigned(loop))
    loop._turn()
    assert loop._worker.offsets == []
    assert loop._stale
