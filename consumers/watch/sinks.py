"""Where alerts and hops go. Each sink raises RetryLater where it cannot take them now: they are given to it again."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from bus.codes import Code
from bus.errors import RetryLater
from bus.files import make_folder
from bus.kafka.config import Connection
from bus.ledger.alerts import Alert
from bus.ledger.siem import cef, ocsf
from bus.policy.alertfile import Send, Stream
from bus.wire.hop import Hop
from bus.wire.names import ALERTS
from consumers.posting import post

log = logging.getLogger("bus.alerts")
FINAL: Final = frozenset(range(400, 500)) - {408, 425, 429}
"""Answers of a webhook that asking again does not change."""


class Sink(Protocol):
    """Takes batches in their order; raises RetryLater where it cannot now, and is given the same batch again."""

    name: str

    def take(self, batch: Batch, /) -> None:
        """All of it."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """What was read and judged, and where the next begins: ``state`` is JSON as it is written down."""

    hops: Sequence[Hop]
    events: Sequence[dict[str, Any]]
    alerts: Sequence[Alert]
    state: bytes


class Logged:
    """A line each alert, as every service logs."""

    name = "log"

    def take(self, batch: Batch, /) -> None:
        """See ``Sink``."""
        for each in batch.alerts:
            names = ", ".join(each.decisions) or each.id
            log.warning("%s %s: %s (%s)", each.severity, each.rule, each.text, names)


class Webhook:
    """A POST of JSON each alert; any 2xx is taken for an answer. What is refused for good is told in the log."""

    def __init__(self, url: str, beat: Callable[[], None]) -> None:
        self._url = parts = urlsplit(url)
        self.name = f"webhook {parts.hostname}"
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._beat = beat
        self._sent: set[str] = set()
        """Of a batch that is given again."""

    def take(self, batch: Batch, /) -> None:
        """See ``Sink``."""
        for each in batch.alerts:
            if each.id not in self._sent:
                self._beat()
                self._send(each)
                self._sent.add(each.id)
        self._sent.clear()

    def _send(self, alert: Alert) -> None:
        body = json.dumps(alert.document()).encode()
        try:
            status, _ = post(self._url, self._path, body, "application/json", 0)
        except (OSError, http.client.HTTPException) as error:
            raise RetryLater(f"{self.name}: {type(error).__name__}", code=Code.RETRY) from None
        if status in FINAL:
            log.error("%s refused alert %s for good: %d", self.name, alert.id, status)
        elif not 200 <= status < 300:
            raise RetryLater(f"{self.name}: {status}", code=Code.RETRY)


class Topic:
    """bus.alerts, stored by all replicas; the key is the rule's name."""

    name: str = ALERTS

    def __init__(self, connection: Connection) -> None:
        self._producer = Producer(connection.config(enable_idempotence=True, acks="all", delivery_timeout_ms=10_000))

    def take(self, batch: Batch, /) -> None:
        """See ``Sink``."""
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failed.append(error)

        try:
            for each in batch.alerts:
                self._producer.produce(ALERTS, json.dumps(each.document()), each.rule, on_delivery=delivered)
        except (BufferError, KafkaException) as error:
            raise RetryLater(f"{ALERTS}: {error}", code=Code.RETRY) from None
        if self._producer.flush(15) or failed:
            raise RetryLater(f"{ALERTS}: {failed[0] if failed else 'no answer'}", code=Code.RETRY)


class Lines:
    """A file that a SIEM collects: a line each hop, appended, on the disk before more is read. Rotate it by moving it
    away."""

    def __init__(self, path: Path, line: Callable[[Hop], str]) -> None:
        self.name = str(path)
        self._path = path
        self._line = line

    def take(self, batch: Batch, /) -> None:
        """See ``Sink``. What a full disk or a crash cut off is taken back, so that no line is torn."""
        if not batch.hops:
            return
        data = "".join(f"{self._line(each)}\n" for each in batch.hops).encode()
        try:
            make_folder(self._path.parent)
            with self._path.open("a+b") as file:
                begin = file.seek(0, os.SEEK_END)
                if begin:
                    file.seek(begin - 1)
                    data = data if file.read(1) == b"\n" else b"\n" + data
                try:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                except OSError:
                    with contextlib.suppress(OSError):
                        os.ftruncate(file.fileno(), begin)
                    raise
        except OSError as error:
            raise RetryLater(f"{self._path}: {error.strerror}", code=Code.RETRY) from None


def sinks(send: Send, stream: Stream, connection: Connection, beat: Callable[[], None]) -> list[Sink]:
    """Every way that alerts and hops go. ``beat``: called before what may take seconds."""
    made: list[Sink] = [Logged()]
    if send.webhook is not None:
        made.append(Webhook(send.webhook, beat))
    if send.topic:
        made.append(Topic(connection))
    if stream.ocsf is not None:
        made.append(Lines(stream.ocsf, lambda hop: json.dumps(ocsf(hop))))
    if stream.cef is not None:
        made.append(Lines(stream.cef, cef))
    if stream.otlp is not None:
        from consumers.watch.otlp import Otlp  # its packages are an extra

        made.append(Otlp(stream.otlp, beat))
    return made
