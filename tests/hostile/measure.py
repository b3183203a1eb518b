"""What an attack did: lag of the enforcers' group, dead letters by code and their bytes, memory and CPU, latencies.

Plain consumers and the operating system; the administrator's credential is used for looking only.
"""

import contextlib
import time
from collections import Counter
from pathlib import Path

import psutil
from confluent_kafka import Consumer, KafkaException, TopicPartition

from bus.admin.desired import ENFORCER_GROUP
from bus.client.publisher import partition_of
from tests.hostile.agent import DOMAIN, TOPIC

PARTITIONS = 4
CODE_AT = 60
"""Where a dead letter's code stands (docs/wire-format.md, section 9)."""


class Looker:
    """Looks at one stack from outside."""

    def __init__(self, stack):
        self._stack = stack
        connection = stack.admin_connection()
        self._group = Consumer(connection.config(group_id=ENFORCER_GROUP, enable_auto_commit=False))
        self._reader = Consumer(
            connection.config(group_id="bus-admin", enable_auto_commit=False, isolation_level="read_committed")
        )

    def close(self):
        self._group.close()
        self._reader.close()

    def ends(self, topic):
        """The end of each partition, for read_committed readers."""
        return [
            self._reader.get_watermark_offsets(TopicPartition(topic, number), timeout=10, cached=False)[1]
            for number in range(PARTITIONS)
        ]

    def lag(self, ends):
        """Input records before ``ends`` that no committed offset covers: what came later is not the attack's."""
        places = self._group.committed([TopicPartition(TOPIC, number) for number in range(PARTITIONS)], 10)
        return sum(max(end - max(each.offset, 0), 0) for end, each in zip(ends, places, strict=True))

    def seconds_to_no_lag(self, ends, limit):
        """Until the group has decided everything before ``ends``, or None after ``limit`` s."""
        began = time.monotonic()
        while time.monotonic() - began < limit:
            with contextlib.suppress(KafkaException):
                if self.lag(ends) == 0:
                    return time.monotonic() - began
            time.sleep(0.05)
        return None

    def dead_since(self, starts):
        """(count by code, bytes of values) of the dead letters from ``starts`` to the present ends."""
        codes, size = Counter(), 0
        for number, (start, end) in enumerate(zip(starts, self.ends(f"{DOMAIN}.dead"), strict=True)):
            self._reader.assign([TopicPartition(f"{DOMAIN}.dead", number, start)])
            deadline = time.monotonic() + 60
            while self._reader.position([TopicPartition(f"{DOMAIN}.dead", number)])[0].offset < end:
                if start >= end or time.monotonic() > deadline:
                    break
                for message in self._reader.consume(1000, 0.5):
                    if message.error() is None and message.offset() < end:
                        value = message.value()
                        codes[value[CODE_AT + 1 : CODE_AT + 1 + (value[CODE_AT] >> 1)].decode()] += 1
                        size += len(value)
        return codes, size

    def processes(self):
        """(RSS in MB, CPU seconds) by process of the stack; None where it does not run."""
        told = {}
        for each in self._stack.status():
            told[each.name] = None
            if each.pid is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process = psutil.Process(each.pid)
                    cpu = process.cpu_times()
                    told[each.name] = (process.memory_info().rss >> 20, cpu.user + cpu.system)
        return told


def latencies(file, begin, end=2**63):
    """Sorted publish-to-delivery times in ms of what was published between two readings of the clock (ns)."""
    found = []
    text = Path(file).read_text() if Path(file).is_file() else ""
    for line in text[: text.rfind("\n") + 1].splitlines():  # the last line may be half written
        _, sent, got = map(int, line.split())
        if begin <= sent < end:
            found.append((got - sent) / 1e6)
    return sorted(found)


def quantile(values, share):
    """The ``share`` quantile of sorted values, or None."""
    return values[min(int(len(values) * share), len(values) - 1)] if values else None


def key_for(partition):
    """A partition key that the SDK places on ``partition``."""
    return next(str(number) for number in range(1000) if partition_of(str(number), PARTITIONS) == partition)
