"""A walk over the leaves of one partition, from the first: their tiles, and the roots that checkpoints speak of."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from bus.crypto import tree
from bus.errors import Unverified
from bus.ledger.merkle import Edge, grow
from bus.ledger.postings import SEGMENT_BITS
from bus.ledger.retention import open_retired
from bus.ledger.segments import SEGMENT
from bus.ledger.store import Ledger

CHUNK: Final = 4096
"""Leaves between two comparisons of tiles."""


class Walk:
    """``roots``: by size, at those of ``sizes`` that were come by. What does not hold is told to ``problems``."""

    def __init__(
        self, ledger: Ledger, partition: int, public_key: bytes, sizes: Collection[int], problems: list[str]
    ) -> None:
        self._deployment = ledger.deployment
        self._partition = partition
        self._key = public_key
        self._sizes = sizes
        self._problems = problems
        self._view = ledger.tree(partition)
        self._taken = ledger.retired(partition)
        self._growing = _Growing()
        self._edge = Edge(0)
        self._chunk: list[bytes] = []
        self.roots: dict[int, bytes] = {0: tree.EMPTY_ROOT}
        self.retired = 0

    @property
    def size(self) -> int:
        """Leaves so far."""
        return self._growing.size

    def entry(self, leaf: int, computed: bytes) -> None:
        """The next hop that is stored, and its leaf as its bytes give it."""
        self._skip(leaf)
        try:
            stored = self._view.leaf(leaf)
        except Unverified:
            stored = b""
        if leaf != self.size or computed != stored:
            self._problem(f"leaf {leaf} does not match")
        self._add(computed)

    def end(self, size: int) -> None:
        """There are no more, and there should be ``size``."""
        self._skip(size)
        self._compare()

    def _skip(self, upto: int) -> None:
        """Leaves of segments whose hops were taken: each has a note, over the root that its leaves have."""
        while self.size + SEGMENT <= upto:
            segment, rest = divmod(self.size, SEGMENT)
            if rest or segment not in self._taken:
                return
            told = open_retired(self._taken[segment], self._deployment, self._partition, segment, self._key)
            if told != self._view.subtree(SEGMENT_BITS, segment):
                self._problem(f"segment {segment} was taken under another root")
            for leaf in range(segment * SEGMENT, (segment + 1) * SEGMENT):
                self._add(self._view.leaf(leaf))
            self.retired += SEGMENT

    def _add(self, leaf: bytes) -> None:
        self._chunk.append(leaf)
        self._growing.append(leaf)
        if self.size in self._sizes:
            self.roots[self.size] = self._growing.root()
        if len(self._chunk) == CHUNK:
            self._compare()

    def _compare(self) -> None:
        """The tiles of a run of leaves with the stored ones."""
        self._edge, tiles = grow(self._edge, self._chunk)
        for (level, number), hashes in tiles.items():
            if self._view.tile(level, number)[: len(hashes)] != hashes:
                self._problem(f"tile {level}/{number} does not match")
        self._chunk.clear()

    def _problem(self, what: str) -> None:
        self._problems.append(f"partition {self._partition}: {what}")


class _Growing:
    """Roots of a tree while it grows: the complete subtrees of its right edge, largest first."""

    def __init__(self) -> None:
        self.size = 0
        self._edge: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """One leaf more."""
        rest = self.size
        while rest & 1:
            leaf = tree.node_hash(self._edge.pop(), leaf)
            rest >>= 1
        self._edge.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Root over all leaves (RFC 6962, section 2.1)."""
        value = self._edge[-1]
        for left in reversed(self._edge[:-1]):
            value = tree.node_hash(left, value)
        return value
