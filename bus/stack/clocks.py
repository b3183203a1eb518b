"""The check of `bus doctor` on clocks: this machine's against the broker's and, where there is one, the authority's.

The broker's clock dates records, the authority's ends keys and certificates, this one dates decisions. A difference
within ``max_clock_skew_ms`` is harmless, which is what grace and sealing deadline are made for (``bus.settings``). What
is told is the difference beyond doubt: the time that an answer took is not taken for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import Consumer, Producer, TopicPartition

from bus.client.authority import read_clock
from bus.errors import Refused
from bus.kafka.clock import ahead, wall_ms
from bus.kafka.config import Connection
from bus.settings import Issuing
from bus.stack.local import Stack
from bus.wire.names import CONTROL


@dataclass(frozen=True, slots=True)
class Reading:
    """What another clock showed, and this one before and after (ms since 1970)."""

    whose: str
    began: int
    told: int
    ended: int

    @property
    def ahead(self) -> int:
        """By how many ms it is ahead of this machine's beyond doubt; negative where it is behind."""
        return ahead(self.began, self.told, self.ended)


def describe(readings: Sequence[Reading], limit_ms: int) -> str:
    """One line: each clock, by how much this machine's is off from it, and what is harmless."""
    return f"{'; '.join(_difference(each) for each in readings)} (harmless up to {limit_ms} ms)"


def _difference(reading: Reading) -> str:
    if reading.ahead:
        return f"{abs(reading.ahead)} ms {'behind' if reading.ahead > 0 else 'ahead of'} {reading.whose}'s"
    return f"as {reading.whose}'s, looked at within {reading.ended - reading.began} ms"


def mend(readings: Sequence[Reading], limit_ms: int) -> str:
    """What to do; empty where no difference is over the limit."""
    off = [each for each in readings if abs(each.ahead) > limit_ms]
    if not off:
        return ""
    rest = [each for each in readings if each not in off]
    if rest:  # this machine's agrees with one of two
        return f"set the clock of {off[0].whose} (NTP): this machine's agrees with {rest[0].whose}'s"
    return f"set this machine's clock (NTP) if it is the wrong one, else that of {off[0].whose}"


def read(stack: Stack) -> list[Reading]:
    """Ask all there are. Raises Refused or RetryLater where one does not answer."""
    readings = [_broker(stack.admin_connection())]
    settings = stack.settings
    if settings.issuing is Issuing.AUTHORITY:
        ca, began = stack.layout.ca.read_bytes(), wall_ms()
        told = read_clock(settings.enrolment, ca)
        readings.append(Reading("the authority", began, told, wall_ms()))
    return readings


def _broker(connection: Connection) -> Reading:
    """By the append time of a record that is written now."""
    offsets: list[int] = []
    producer = Producer(connection.config(acks="all", message_timeout_ms=10_000))
    began = wall_ms()
    # The probe stays on bus.control, where nobody follows what is unsigned.
    producer.produce(CONTROL, b"", partition=0, on_delivery=lambda _, message: offsets.append(message.offset() or 0))
    if producer.flush(10) or not offsets:
        raise Refused("no record could be written to the broker", hint="bus stack status")
    ended = wall_ms()
    consumer = Consumer(connection.config(group_id="bus-admin", enable_auto_commit=False))
    try:
        consumer.assign([TopicPartition(CONTROL, 0, offsets[0])])
        message = consumer.poll(10)
        if message is None or message.error() is not None:
            raise Refused("no record could be read from the broker", hint="bus stack status")
        return Reading("the broker", began, message.timestamp()[1], ended)
    finally:
        consumer.close()
