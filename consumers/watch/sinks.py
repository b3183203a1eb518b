"""Where alerts and hops go. Each sink raises RetryLater where it cannot take them now: they are given to it again."""

from __future__ import annotations

import http.client
import json
import logging
from collections.abc import Callable, Sequence
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

log = logging.getLogger("bus.alerts")
TIMEOUT_S: Final = 5.0
Telling = Callable[[Sequence[Alert]], None]


class Taking(Protocol):
    """Takes hops, and what bus.issue says."""

    def take(self, hops: Sequence[Hop], events: Sequence[dict[str, Any]], /) -> None:
        """All of them, or RetryLater."""
        ...


def to_log(alerts: Sequence[Alert]) -> None:
    """A line each, as every service logs."""
    for each in alerts:
        log.warning("%s %s: %s (%s)", each.severity, each.rule, each.text, ", ".join(each.decisions) or each.id)


def to_webhook(url: str) -> Telling:
    """A POST of JSON each; any 2xx is taken for an answer."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def tell(alerts: Sequence[Alert]) -> None:
        for each in alerts:
            connection = kind(parts.netloc, timeout=TIMEOUT_S)
            try:
                body = json.dumps(each.document())
                connection.request("POST", target, body, {"Content-Type": "application/json"})
                status = connection.getresponse().status
            except (OSError, http.client.HTTPException) as error:
                raise RetryLater(f"webhook {parts.hostname}: {type(error).__name__}", code=Code.RETRY) from None
            finally:
                connection.close()
            if not 200 <= status < 300:
                raise RetryLater(f"webhook {parts.hostname}: {status}", code=Code.RETRY)

    return tell


def to_topic(connection: Connection) -> Telling:
    """bus.alerts, stored by all replicas; the key is the rule's name."""
    producer = Producer(connection.config(enable_idempotence=True, acks="all", delivery_timeout_ms=10_000))

    def tell(alerts: Sequence[Alert]) -> None:
        failed: list[KafkaError] = []

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failed.append(error)

        try:
            for each in alerts:
                producer.produce(ALERTS, json.dumps(each.document()), each.rule, on_delivery=delivered)
        except (BufferError, KafkaException) as error:
            raise RetryLater(f"{ALERTS}: {error}", code=Code.RETRY) from None
        if producer.flush(15) or failed:
            raise RetryLater(f"{ALERTS}: {failed[0] if failed else 'no answer'}", code=Code.RETRY)

    return tell


class Lines:
    """A file that a SIEM collects: a line each hop, appended. Rotate it by moving it away."""

    def __init__(self, path: Path, line: Callable[[Hop], str]) -> None:
        self._path = path
        self._line = line

    def take(self, hops: Sequence[Hop], _: Sequence[dict[str, Any]], /) -> None:
        """See ``Taking``."""
        if not hops:
            return
        try:
            make_folder(self._path.parent)
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(f"{self._line(each)}\n" for each in hops)
        except OSError as error:
            raise RetryLater(f"{self._path}: {error.strerror}", code=Code.RETRY) from None


def tellers(send: Send, connection: Connection) -> list[Telling]:
    """Every way that alerts go."""
    made: list[Telling] = [to_log]
    if send.webhook is not None:
        made.append(to_webhook(send.webhook))
    if send.topic:
        made.append(to_topic(connection))
    return made


def takers(stream: Stream) -> list[Taking]:
    """Every way that hops go."""
    made: list[Taking] = []
    if stream.ocsf is not None:
        made.append(Lines(stream.ocsf, lambda hop: json.dumps(ocsf(hop))))
    if stream.cef is not None:
        made.append(Lines(stream.cef, cef))
    if stream.otlp is not None:
        from consumers.watch.otlp import Otlp  # its packages are an extra

        made.append(Otlp(stream.otlp))
    return made
