"""Read a small topic from its beginning (or end) and go on: what follows policies and notices. No group, no commits."""

from __future__ import annotations

import time

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, Message, TopicPartition

from bus.kafka.config import FETCH_WAIT_MS, Connection

CATCH_UP_S = 30.0


class Feed:
    """Values of one partition, in order. ``from_end`` skips what is there already; ``start`` begins at an offset, or
    at the first that is left."""

    def __init__(
        self,
        connection: Connection,
        topic: str,
        partition: int = 0,
        *,
        from_end: bool = False,
        group: str = "",
        start: int | None = None,
    ) -> None:
        self._connection = connection
        self._topic = topic
        self._partition = partition
        self._group = group
        self._connect(start if start is not None else OFFSET_END if from_end else OFFSET_BEGINNING)

    @property
    def position(self) -> int:
        """The next offset; negative before anything was read."""
        return self._next

    def _connect(self, start: int) -> None:
        self._next = start
        self._stamp, self._word = self._connection.stamp(), self._connection.word()
        self._consumer = Consumer(
            self._connection.config(
                group_id=self._group or self._connection.identity.principal,
                enable_auto_commit=False,
                enable_partition_eof=True,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
                fetch_wait_max_ms=FETCH_WAIT_MS,
            )
        )
        self._consumer.assign([TopicPartition(self._topic, self._partition, start)])

    def catch_up(self) -> list[bytes]:
        """Values up to the present end. Raises AccessRefused, or Unavailable when the broker does not answer."""
        values = []
        deadline = time.monotonic() + CATCH_UP_S
        while True:
            self._word = self._connection.follow(self._consumer, self._word)
            message = self._consumer.poll(0.1)
            if message is None:
                self._connection.check()
                if time.monotonic() < deadline:
                    continue
                raise self._connection.unavailable(f"{self._topic} cannot be read")
            error = message.error()
            self._follow(message)
            if error is None:
                values.append(message.value() or b"")
            elif error.code() == KafkaError._PARTITION_EOF:
                return values
            elif not self._passing(error):
                raise self._connection.typed(error, "read", self._topic)

    def poll(self, timeout: float) -> bytes | None:
        """The next value within ``timeout`` seconds, or None. Raises AccessRefused."""
        if self._connection.newer(self._stamp):  # what a client shows at its next connection is what it was made with
            self._consumer.close()
            self._connect(self._next)
        self._word = self._connection.follow(self._consumer, self._word)
        message = self._consumer.poll(timeout)
        if message is None:
            return None
        self._follow(message)
        error = message.error()
        if error is None:
            return message.value() or b""
        if error.code() != KafkaError._PARTITION_EOF and not self._passing(error):
            raise self._connection.typed(error, "read", self._topic)
        return None

    def _follow(self, message: Message) -> None:
        error, offset = message.error(), message.offset()
        if error is None:
            self._next = (offset or 0) + 1
        elif error.code() == KafkaError._PARTITION_EOF and offset is not None:
            self._next = offset

    def _passing(self, error: KafkaError) -> bool:
        """Whether librdkafka mends ``error`` itself; a refused credential never mends."""
        self._connection.check()
        return bool(error.retriable()) or error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN)

    def close(self) -> None:
        """Leave."""
        self._consumer.close()
