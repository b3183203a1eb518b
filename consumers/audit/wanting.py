"""From an opened hop block to the records that are to be kept with its hops. Pure but for the policies it asks for.

A record whose MAC did not hold, or whose key nobody knows, is no agent's and opens for nobody: its hop names no agent,
and it is not kept, so that whoever may write to a topic cannot fill the ledger with noise. Dead letters do the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from bus.ledger.payloads import Wanted
from bus.wire import hopblock
from bus.wire.hop import HopReader, Verdict
from bus.wire.names import domain_of
from consumers.audit.laws import Laws


class Wanting:
    """Reads hops of domains that keep records, and of no other."""

    def __init__(self, laws: Laws) -> None:
        self._laws = laws
        self._reader = HopReader()

    def of(self, block: hopblock.HopBlock, opened: bytes, met: Iterable[int]) -> list[Wanted]:
        """What is wanted of a block that verified; ``met``: numbers of policies that were not met before.

        Raises RetryLater or AccessRefused where a policy cannot be read now.
        """
        domain = domain_of(block.topic)
        if not self._laws.ever(met, domain):
            return []
        hops = map(self._reader.read, hopblock.split_hops(opened, block.count))
        return [
            Wanted(hop.tail.topic, hop.partition, hop.offset, hop.origin_digest, hop.size)
            for hop in hops
            if hop.tail.agent and hop.tail.decision is not Verdict.RETRY and self._laws.keeps(hop.tail.snapshot, domain)
        ]
