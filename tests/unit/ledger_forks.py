"""Recorders that are killed at any statement between taking a block and having signed it."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Sequence

from bus.ledger.database import Database
from bus.ledger.store import Ledger
from tests.unit.ledger_build import DEPLOYMENT, LEDGER_SIGNER, record

STATEMENTS = 40
"""More than one block takes, its opening and its signing: some children come to their end."""


class Dying:
    """A database whose process is killed at the ``last``-th call."""

    def __init__(self, database: Database, last: int) -> None:
        self._database = database
        self._left = last

    def __getattr__(self, name: str) -> object:
        found = getattr(self._database, name)
        if name in ("rows", "run", "insert"):
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)
        return found


def work_through(opened: Callable[[], Database], blocks: Sequence[bytes], forks: int, seed: int) -> tuple[int, int]:
    """Record ``blocks``, one a process, over and over; each is killed at a random statement or comes to its end.

    Returns how many were killed, and how many came to their end.
    """
    chosen = random.Random(seed)
    killed = ended = 0
    for _ in range(forks):
        last = chosen.randint(1, STATEMENTS)
        child = os.fork()
        if child == 0:
            _child(opened, blocks, last)
        _, status = os.waitpid(child, 0)
        assert status in (0, signal.SIGKILL), status
        killed, ended = killed + (status != 0), ended + (status == 0)
    return killed, ended


def _child(opened: Callable[[], Database], blocks: Sequence[bytes], last: int) -> None:
    try:
        ledger = Ledger(Dying(opened(), last), DEPLOYMENT)
        ledger.sign_all([1], LEDGER_SIGNER)
        at = ledger.state(1)[1]
        if at < len(blocks):
            record(ledger, blocks[at : at + 1])
        ledger.sign_all([1], LEDGER_SIGNER)
        os._exit(0)
    finally:
        os._exit(1)
