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
from bus.client.sent import Sent
from bus.client.store import Store
from bus.client.subscriber import Subscriber
from bus.codes import Code
from bus.errors import Refused, RetryLater
from bus.kafka.config import Connection
from bus.wire.envelope import Kind
from bus.wire.names import DomainName, domain_topics

T = TypeVar("T")
Publish = Callable[..., Sent]
Keys = list[str]
Items = list[tuple[str, Any]]
Subscribe = Callable[[Mapping[int, int]], Subscriber]

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
        horizon_ms: Callable[[], int],
    ) -> None:
        self.domain = domain
        self._store = store
        self._keys = keys
        self._connection = connection
        self._subscribe = subscribe
        self._publish = publish
        self._horizon_ms = horizon_ms
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
        if not 1 <= len(key.encode("utf-8", "replace")) <= MAX_KEY:
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
        young = held["created"] + self._horizon_ms() > time.time_ns() // 1_000_000
        return young and held["epoch"] not in held_epochs and any(each > held["epoch"] for each in held_epochs)

    def _fold(self, timeout: float) -> None:
        """Read the log from where this agent stopped to where it ends now."""
        deadline = time.monotonic() + timeout
        with self._lock:
            if self._inbox is None:
                stored = self._store.get(PLACES) or {}
                self._inbox = self._subscribe({int(number): offset for number, offset in stored.items()})
                self._asker = Consumer(self._connection.config(group_id=self._store.name, enable_auto_commit=False))
            inbox, asker = self._inbox, self._asker
            assert asker is not None  # noqa: S101 -- made with the inbox
            ends = {each: self._connection.end(asker, self._topic, each, timeout) for each in inbox.partitions}
            before = {each: inbox.reached(each) for each in ends}
            while behind := [each for each, end in ends.items() if inbox.reached(each) < end]:
                if time.monotonic() > deadline:
                    message = f"{self.domain}: partitions {behind} were not read to their end in {timeout:g} s"
                    raise RetryLater(message, code=Code.RETRY)
                got = inbox.get(0.05)
                if got is not None:
                    self._take(got)
            after = {each: inbox.reached(each) for each in ends}
            if after != before:
                self._store.put(PLACES, {str(number): offset for number, offset in after.items()})

    def _take(self, got: Delivery) -> None:
        """Fold one delivery; what is no value of a memory, or not newer than what is held, is passed over."""
        if got.kind is not Kind.MEMORY or got.content_type != JSON:
            return
        document = got.value()
        if not isinstance(document, dict) or not isinstance(key := document.get("key"), str):
            return
        if ("value" in document) == ("deleted" in document) or len(key.encode("utf-8", "replace")) > MAX_KEY:
            return
        held = self._store.get(_KEY + key)
        place = list(got.place)
        if held is not None and held["place"][0] == place[0] and held["place"] >= place:
            return  # read again after a crash
        value = {"value": document["value"]} if "value" in document else {}
        self._store.put(_KEY + key, {**value, "place": place, "epoch": got.epoch, "created": got.created_at})

    def close(self) -> None:
        """End reading. What was folded stays in the store."""
        with self._lock:
            if self._inbox is not None:
                self._inbox.close()
            if self._asker is not None:
                self._asker.close()


def _as(value: Any, kind: type[T] | None) -> Any:
    if kind is None:
        return value
    return decode_payload(encode_payload(value)[0], JSON, kind)


def _field(value: Any, path: Iterable[str]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
