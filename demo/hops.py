"""What the ledger says of records, waited for until it says it."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from bus.cli.audit import open_query
from bus.client.sent import Sent
from bus.stack.local import Stack
from bus.wire.hop import Hop, Verdict

WAIT_S = 60.0
T = TypeVar("T")
Place = tuple[str, int, int]
"""Topic, partition and offset of a record that was decided."""


def by_message(stack: Stack, sent: Sequence[Sent]) -> dict[str, Hop]:
    """Hops by message id, of those of ``sent`` that have one before the wait is over."""
    wanted = {each.id.hex: str(each.id) for each in sent}

    def found() -> dict[str, Hop]:
        return {wanted[name]: hop for hop in _hops(stack) if (name := hop.message_id.hex()) in wanted}

    return _until(found, lambda told: len(told) == len(wanted))


def by_place(stack: Stack, places: Sequence[Place], since: int = 0) -> dict[Place, Hop]:
    """Hops of the records at ``places``, decided at ``since`` (ms since 1970) or later."""
    wanted = set(places)

    def found() -> dict[Place, Hop]:
        told = {
            (hop.tail.topic, hop.partition, hop.offset): hop
            for hop in open_query(stack.settings).since(since)
            if hop.tail.decision is not Verdict.RETRY
        }
        return {place: hop for place, hop in told.items() if place in wanted}

    return _until(found, lambda told: len(told) == len(wanted))


def of_value(stack: Stack, value: bytes) -> Hop | None:
    """The hop of a record by its bytes."""
    digest = hashlib.sha256(value).digest()
    return _until(lambda: next((hop for hop in _hops(stack) if hop.origin_digest == digest), None), bool)


def _hops(stack: Stack) -> list[Hop]:
    return [each.hop for each in open_query(stack.settings).search({})]


def _until(ask: Callable[[], T], holds: Callable[[T], bool]) -> T:
    deadline = time.monotonic() + WAIT_S
    while True:
        told = ask()
        if holds(told) or time.monotonic() > deadline:
            return told
        time.sleep(0.1)
