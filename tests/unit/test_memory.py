"""Memory without a broker: what is folded, what is passed over, and what a failure in between leaves."""

import json
from collections import deque
from types import SimpleNamespace

import pytest
import uuid_utils

from bus.client.delivery import Delivery
from bus.client.memory import MAX_KEY, PLACES, Memory
from bus.client.payload import JSON, decode_payload, encode_payload
from bus.client.publisher import partition_of
from bus.codes import Code
from bus.errors import Refused, RetryLater, Unavailable
from bus.wire.envelope import Kind, Profile
from bus.wire.names import AgentId, DomainName

DOMAIN = DomainName("notes")
EPOCH = SimpleNamespace(epoch=SimpleNamespace(not_after=2**52))


class Kept:
    """A store in memory; ``fail`` is raised by the next ``put``."""

    def __init__(self):
        self.name, self.held, self.fail = "memory-notes", {}, None

    def put(self, name, value, **_):
        if self.fail is not None:
            error, self.fail = self.fail, None
            raise error
        self.held[name] = encode_payload(value)

    def get(self, name, default=None, *, kind=None):
        found = self.held.get(name)
        return default if found is None else decode_payload(*found, kind)

    def items(self, prefix=""):
        return [(name, self.get(name)) for name in sorted(self.held) if name.startswith(prefix)]


class Log:
    """One partition of a domain, read as a subscriber reads it: the last delivery is acknowledged by the next call."""

    def __init__(self, places=None):
        self.waiting, self.offset, self.hand, self.closed, self.fail = deque(), 0, False, False, None
        self.begun = dict(places or {})
        self.offset = self.begun.get(0, (0, {}))[0]

    partitions = (0,)

    def get(self, _timeout):
        if self.fail is not None:
            raise self.fail
        if self.hand:
            self.waiting.popleft()
            self.offset += 1
            self.hand = False
        if not self.waiting:
            return None
        self.hand = True
        return self.waiting[0]

    def reached(self, _):
        return self.offset

    def place(self, _):
        return self.offset, {"enforcer": 7}

    def close(self):
        self.closed = True


class Site:
    def __init__(self, monkeypatch, log=None, store=None, partitions=1):
        self.log, self.store, self.told, self.end = log or Log(), store or Kept(), [], 0
        self.epochs = {3: ("reader",)}
        monkeypatch.setattr("bus.client.memory.Consumer", lambda _: SimpleNamespace(close=lambda: None))
        law = SimpleNamespace(domains={DOMAIN: SimpleNamespace(partitions=partitions)}, backlog_horizon_ms=86_400_000)
        keys = SimpleNamespace(
            all_reading=lambda _: self.epochs,
            held=lambda _, epoch: EPOCH if epoch in self.epochs else None,
        )
        connection = SimpleNamespace(config=lambda **_: {}, bounds=lambda *_: (0, self.end))
        self.memory = Memory(DOMAIN, self.store, keys, connection, self._subscribe, None, lambda: law, self.told.append)

    def _subscribe(self, places):
        if self.log.closed:
            self.log = Log(places)
        else:
            self.log.begun = dict(places)
        return self.log

    def say(self, document, *, raw=None, kind=Kind.MEMORY, epoch=3):
        data = json.dumps(document).encode() if raw is None else raw
        profile = Profile(AgentId("writer-1"), DOMAIN, kind=kind, content_type=JSON)
        place = (0, self.end, 0)
        message_id = uuid_utils.uuid7().bytes
        self.log.waiting.append(Delivery(profile, message_id, 1, 2, "s", b"", "", b"d" * 10, epoch, place, data))
        self.end += 1


@pytest.fixture
def site(monkeypatch):
    return Site(monkeypatch)


def test_the_last_value_is_what_is_there_and_places_follow(site):
    site.say({"key": "a", "value": 1})
    site.say({"key": "b", "value": 2})
    site.say({"key": "a", "value": 3})
    assert site.memory.items() == [("a", 3), ("b", 2)]
    assert site.store.get(PLACES) == {"0": [3, {"enforcer": 7}]}
    site.say({"key": "b", "deleted": True})
    assert site.memory.list() == ["a"]


def test_what_could_not_be_stored_is_folded_by_the_next_call_and_never_passed_over(site):
    site.say({"key": "a", "value": 1})
    site.say({"key": "b", "value": 2})
    site.store.fail = RetryLater("busy", code=Code.STORE)
    with pytest.raises(RetryLater, match="busy"):
        site.memory.get("b")
    assert PLACES not in site.store.held
    assert site.memory.items() == [("a", 1), ("b", 2)]


def test_what_is_no_value_is_passed_over_and_told_where_it_claims_to_be_one(site):
    site.say(None, raw=b'{"key": "a", "value": NaN}')
    site.say(None, raw=b"{broken")
    site.say({"key": "a\ud800", "value": 1})
    site.say({"key": "", "value": 1})
    site.say({"key": "k" * (MAX_KEY + 1), "value": 1})
    site.say({"key": "a", "value": 1, "deleted": True})
    site.say({"key": "a", "value": 1}, kind=Kind.MESSAGE)
    site.say({"key": "b", "value": 2})
    assert site.memory.items() == [("b", 2)]
    assert {each.code for each in site.told} <= {Code.SCHEMA}
    assert site.store.get(PLACES)["0"][0] == 8


def test_a_key_counts_in_its_own_partition_alone(monkeypatch):
    site = Site(monkeypatch, partitions=8)
    key = next(f"k{number}" for number in range(100) if partition_of(f"k{number}", 8) == 0)
    other = next(f"k{number}" for number in range(100) if partition_of(f"k{number}", 8) != 0)
    site.say({"key": key, "value": 1})
    site.say({"key": other, "value": 1})
    assert site.memory.list() == [key]


def test_a_value_of_an_epoch_that_is_gone_before_its_time_is_gone(site):
    site.say({"key": "a", "value": 1}, epoch=3)
    assert site.memory.get("a") == 1
    site.epochs = {4: ("reader",)}
    assert site.memory.get("a") is None
    assert site.memory.list() == []
    site.epochs = {}
    assert site.memory.get("a") == 1, "away with all the others: nothing says that it was erased"


def test_an_inbox_that_ended_is_made_anew_where_it_stopped(site):
    site.say({"key": "a", "value": 1})
    assert site.memory.get("a") == 1
    first, first.fail = site.log, Unavailable("gone")
    site.end += 1
    with pytest.raises(Unavailable):
        site.memory.get("a")
    assert first.closed
    site.end -= 1
    assert site.memory.get("a") == 1
    assert site.log is not first
    assert site.log.begun == {0: (1, {"enforcer": 7})}


def test_a_log_that_is_not_read_to_its_end_in_time_is_said(site):
    site.end = 5
    with pytest.raises(RetryLater, match=r"partitions \[0\] were not read to their end"):
        site.memory.get("a", timeout=0.0)


@pytest.mark.parametrize("key", ["", "k" * (MAX_KEY + 1), "\ud800"])
def test_keys_that_cannot_be_are_refused_before_anything_is_sent(site, key):
    with pytest.raises(Refused, match="expected a key of 1 to 512 bytes"):
        site.memory.put(key, 1)
