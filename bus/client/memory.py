"""``Memory``: a domain as keys and values: the last that anybody with the right wrote under a key is what it holds.

A value is a message of kind MEMORY, decided, masked, redacted and audited like any other, in the partition of its key.
Each agent folds the domain's log into its own store (``bus.client.store``: sealed, wiped with the agent's right), from
the place where it stopped last; every call first folds what is there by then. What a key epoch held goes when that
epoch is erased. What is older than the topic's retention, or its keys, and was never folded here is not there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer

from bus.client.delivery import Delivery
from bus.client.keystore import KeyStore
from bus.client.payload import JSON, decode_payload, encode_payload
from bus.client.publisher import partition_of
from bus.client.sent import Sent
from bus.client.store import Store
from bus.client.subscriber import Subscriber
from bus.codes import Code
from bus.errors import BusError, Refused, RetryLater
from bus.kafka.config import Connection
from bus.policy.model import Policy
from bus.wire.envelope import Kind
from bus.wire.names import DomainName, domain_topics

T = TypeVar("T")
Publish = Callable[..., Sent]
Keys = list[str]
Items = list[tuple[str, Any]]
Subscribe = Callable[[Mapping[int, tuple[int, Mapping[str, int]]]], Subscriber]
Law = Callable[[], Policy]

PLACES: Final = "places"
_KEY: Final = "k/"
MAX_KEY: Final = 512


class Memory:
    """Thread-safe. Every call raises what ``Store`` raises, and RetryLater where the log was not read to its end in
    ``timeout`` s."""

    def __init__(
        self,
        domain: DomainName,
        store: Store,
        keys: KeyStore,
        connection: Connection,
        subscribe: Subscribe,
        publish: Publish,
        law: Law,
        tell: Callable[[BusError], None],
    ) -> None:
        self.domain = domain
        self._store = store
        self._keys = keys
        self._connection = connection
        self._subscribe = subscribe
        self._publish = publish
        self._law = law
        self._tell = tell
        self._pending: Delivery | None = None
        self._topic = domain_topics(domain).outbound
        self._lock = threading.Lock()
        self._inbox: Subscriber | None = None
        self._asker: Consumer | None = None

    def put(self, key: str, value: object, *, purpose: str = "", **told: Any) -> Sent:
        """``value`` (what JSON can hold) under ``key``, in place of what was there; ``told`` as ``Bus.publish``.

        Returns once it is decided, unless ``confirm`` says else. Raises as ``Bus.publish``, and Refused(schema) for
        bytes.
        """
        data, content_type = encode_payload(value)
        if content_type != JSON:
            raise Refused("memory: expected what JSON can hold, found bytes", code=Code.SCHEMA)
        return self._write(key, {"key": key, "value": decode_payload(data, JSON, None)}, purpose, told)

    def delete(self, key: str, *, purpose: str = "", **told: Any) -> Sent:
        """Nothing is under ``key`` any more. The log keeps what was there until its epoch is erased or ends."""
        return self._write(key, {"key": key, "deleted": True}, purpose, told)

    def _write(self, key: str, document: Mapping[str, object], purpose: str, told: Mapping[str, Any]) -> Sent:
        if not _fits(key):
            raise Refused(f"memory: expected a key of 1 to {MAX_KEY} bytes", code=Code.SCHEMA)
        asked = {"confirm": "decided", **told}
        return self._publish(self.domain, document, kind=Kind.MEMORY, purpose=purpose, partition_key=key, **asked)

    def get(self, key: str, default: Any = None, *, kind: type[T] | None = None, timeout: float = 30.0) -> Any:
        """What is under ``key``, as ``kind`` where that is told, or ``default``."""
        self._fold(timeout)
        held = self._store.get(_KEY + key)
        if held is None or "value" not in held or self._erased(held):
            return default
        return _as(held["value"], kind)

    def list(self, prefix: str = "", *, timeout: float = 30.0) -> Keys:
        """Keys that begin with ``prefix``, sorted."""
        return [key for key, _ in self.items(prefix, timeout=timeout)]

    def items(self, prefix: str = "", *, timeout: float = 30.0) -> Items:
        """Keys and values, by key."""
        self._fold(timeout)
        found = self._store.items(_KEY + prefix)
        return [
            (name.removeprefix(_KEY), held["value"])
            for name, held in found
            if "value" in held and not self._erased(held)
        ]

    def find(self, prefix: str = "", *, timeout: float = 30.0, **fields: object) -> Items:
        """Keys and values that have all of ``fields``; a nested field is named with its dots."""
        return [
            (key, value)
            for key, value in self.items(prefix, timeout=timeout)
            if all(_field(value, name.split(".")) == wanted for name, wanted in fields.items())
        ]

    def _erased(self, held: Mapping[str, Any]) -> bool:
        """Whether the epoch of a value is gone before its time: newer ones are there."""
        held_epochs = self._keys.all_reading(self.domain)
        young = held["until"] + self._law().backlog_horizon_ms > time.time_ns() // 1_000_000
        return young and held["epoch"] not in held_epochs and any(each > held["epoch"] for each in held_epochs)

    def _fold(self, timeout: float) -> None:
        """Read the log from where this agent stopped to where it ends now."""
        deadline = time.monotonic() + timeout
        with self._lock:
            if self._inbox is None:
                stored = self._store.get(PLACES) or {}
                self._inbox = self._subscribe({int(number): (each[0], each[1]) for number, each in stored.items()})
            if self._asker is None:
                self._asker = Consumer(self._connection.config(group_id=self._store.name, enable_auto_commit=False))
            inbox, asker = self._inbox, self._asker
            ends = {each: self._connection.bounds(asker, self._topic, each, timeout)[1] for each in inbox.partitions}
            before = {each: inbox.reached(each) for each in ends}
            self._take_pending()
            while behind := [each for each, end in ends.items() if inbox.reached(each) < end]:
                if time.monotonic() > deadline:
                    message = f"{self.domain}: partitions {behind} were not read to their end in {timeout:g} s"
                    raise RetryLater(message, code=Code.RETRY)
                # The last one is acknowledged by asking for the next: only what was folded may be.
                self._pending = self._next(inbox)
                self._take_pending()
            if before != {each: inbox.reached(each) for each in ends}:
                self._store.put(PLACES, {str(number): inbox.place(number) for number in ends})

    def _next(self, inbox: Subscriber) -> Delivery | None:
        """The next delivery; an inbox that ended is made anew by the next call."""
        try:
            return inbox.get(0.05)
        except BusError:
            inbox.close()
            self._inbox = None
            raise

    def _take_pending(self) -> None:
        """Fold what is in hand; what can never be is told and passed over."""
        if self._pending is not None:
            try:
                self._take(self._pending)
            except Refused as refused:
                if refused.code not in (Code.SCHEMA, Code.TOO_LARGE):
                    raise
                refused.message_id = str(self._pending.id)
                self._tell(refused)
            self._pending = None

    def _take(self, got: Delivery) -> None:
        """Fold one delivery; what is no value of a memory, or not newer than what is held, is passed over."""
        if got.kind is not Kind.MEMORY or got.content_type != JSON:
            return
        document = got.value()
        if not isinstance(document, dict) or not isinstance(key := document.get("key"), str):
            return
        if ("value" in document) == ("deleted" in document) or not _fits(key):
            return
        if got.place[0] != partition_of(key, self._law().domains[self.domain].partitions):
            return  # in the order of another partition: agents would not agree on which is the last
        held = self._store.get(_KEY + key)
        place = list(got.place)
        if held is not None and held["place"][0] == place[0] and held["place"] >= place:
            return  # read again after a crash
        epoch = self._keys.held(self.domain, got.epoch)
        until = epoch.epoch.not_after if epoch is not None else got.created_at
        told = {"place": place, "epoch": got.epoch, "until": until}
        if "value" in document:
            self._store.put(_KEY + key, {**told, "value": document["value"]})
        else:  # as long as something older could be read again
            self._store.put(_KEY + key, told, expires_in=2 * self._law().backlog_horizon_ms / 1000)

    def close(self) -> None:
        """End reading. What was folded stays in the store."""
        with self._lock:
            if self._inbox is not None:
                self._inbox.close()
            if self._asker is not None:
                self._asker.close()


def _fits(key: str) -> bool:
    try:
        return 1 <= len(key.encode()) <= MAX_KEY
    except UnicodeEncodeError:  # a lone surrogate
        return False


def _as(value: Any, kind: type[T] | None) -> Any:
    if kind is None:
        return value
    return decode_payload(encode_payload(value)[0], JSON, kind)


def _field(value: Any, path: Iterable[str]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
