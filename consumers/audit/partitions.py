"""Which audit partitions this recorder has, and from where it reads them: the ledger's positions, never the group's.

One recorder of an embedded ledger has them all. Recorders of a shared ledger are a consumer group and have those that
Kafka gives them; one that lost a partition and does not know it yet is refused by the ledger (``Overtaken``).
"""

from __future__ import annotations

import logging

from confluent_kafka import Consumer, KafkaException, TopicPartition

from bus.codes import Code
from bus.crypto.signing import Signer
from bus.errors import Refused, RetryLater
from bus.ledger.store import Ledger
from bus.wire.names import AUDIT, AUDIT_PARTITIONS

log = logging.getLogger("bus.audit")
SHARED_CONFIG = {"session_timeout_ms": 10_000, "partition_assignment_strategy": "range"}
"""How soon the partitions of a recorder that was killed go to the others."""
TIMEOUT_S = 30.0


class Partitions:
    """``positions``: the next offset of each partition that is read."""

    def __init__(self, consumer: Consumer, ledger: Ledger, signer: Signer, *, shared: bool) -> None:
        self._consumer = consumer
        self._ledger = ledger
        self._signer = signer
        self.positions: dict[int, int] = {}
        self._held: set[int] = set()
        self._looked: set[int] = set()
        self._due = False
        if shared:
            consumer.subscribe([AUDIT], on_assign=self._given, on_revoke=self._taken, on_lost=self._taken)
        else:
            self._held = set(range(AUDIT_PARTITIONS))
            self._due = True

    def _given(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        # Nothing is read before the ledger was asked, which may be away just now.
        consumer.assign([])
        self._held, self._due = {place.partition for place in places}, True
        self.positions.clear()
        log.info("%s: partitions %s", AUDIT, sorted(self._held))

    def _taken(self, consumer: Consumer, _: list[TopicPartition]) -> None:
        consumer.unassign()
        self._held, self._due = set(), False
        self.positions.clear()

    def again(self) -> None:
        """Ask the ledger anew: what it has committed is not known any more."""
        self._due = bool(self._held)

    def settle(self) -> bool:
        """Read on from where the ledger stands, if that must be asked; returns whether it was.

        What was committed and not signed is signed first. Raises Refused (ledger) where the topic ends before the
        ledger's position, and what the ledger raises.
        """
        if not self._due:
            return False
        positions = {number: self._ledger.state(number)[1] for number in sorted(self._held)}
        for number in self._held - self._looked:
            place = TopicPartition(AUDIT, number)
            try:
                end = self._consumer.get_watermark_offsets(place, timeout=TIMEOUT_S, cached=False)[1]
            except KafkaException as error:
                raise RetryLater(f"{AUDIT}/{number}: its end is not known: {error}", code=Code.RETRY) from None
            if end < positions[number]:
                raise Refused(
                    f"{AUDIT}/{number} ends at {end}, {positions[number]} was recorded: the log was cut",
                    code=Code.LEDGER,
                    hint="nothing is signed until an operator decides",
                )
        self._looked |= self._held
        self._ledger.sign_all(sorted(self._held), self._signer)
        self._consumer.assign([TopicPartition(AUDIT, number, position) for number, position in positions.items()])
        self.positions, self._due = positions, False
        return True
