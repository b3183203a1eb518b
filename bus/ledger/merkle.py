"""An RFC 6962 tree kept in tiles of 256 hashes (the shape of C2SP tlog-tiles): append, roots, proofs.

Growing is pure: ``grow`` takes the edge of a tree and new leaves and returns full tiles and the new edge; nothing is
changed in memory before the caller's database commit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bus.crypto import tree
from bus.crypto.tree import HASH_LENGTH
from bus.errors import Unverified

WIDTH: Final = 256
LEVELS: Final = 8
FULL: Final = WIDTH * HASH_LENGTH
Tiles = Callable[[int, int], bytes]
"""Hashes of tile (level, index), as many as are there."""


@dataclass(frozen=True, slots=True)
class Edge:
    """The right edge of a tree of ``size`` leaves: the unfinished tile of each level."""

    size: int
    partial: tuple[bytes, ...] = (b"",) * LEVELS


def grow(edge: Edge, leaves: Sequence[bytes]) -> tuple[Edge, dict[tuple[int, int], bytes]]:
    """(new edge, tiles to store by (level, index)), the unfinished tiles included."""
    partial = list(edge.partial)
    stored: dict[tuple[int, int], bytes] = {}
    size, at = edge.size, 0
    while at < len(leaves):
        run = leaves[at : at + WIDTH - size % WIDTH]
        size, at = size + len(run), at + len(run)
        partial[0] += b"".join(run)
        for level in range(LEVELS):
            tile = partial[level]
            if len(tile) < FULL:
                break
            stored[level, size // WIDTH ** (level + 1) - 1] = tile
            partial[level] = b""
            if level + 1 < LEVELS:
                partial[level + 1] += tree.quick_root(_hashes(tile))
    for level, tile in enumerate(partial):
        if tile:
            stored[level, size // WIDTH ** (level + 1)] = tile
    return Edge(size, tuple(partial)), stored


def root_of(edge: Edge) -> bytes:
    """Root of a whole tree, from its edge: at each level, the root of all that is right of it stands last."""
    rest: list[bytes] = []
    for tile in edge.partial:
        level = _hashes(tile) + rest
        rest = [tree.quick_root(level)] if level else []
    return rest[0] if rest else tree.EMPTY_ROOT


def read_edge(size: int, tiles: Tiles) -> Edge:
    """The edge of a stored tree."""
    partial = []
    for level in range(LEVELS):
        count = size // WIDTH**level % WIDTH
        tile = tiles(level, size // WIDTH ** (level + 1))[: count * HASH_LENGTH] if count else b""
        if len(tile) != count * HASH_LENGTH:
            raise Unverified(f"tile {level}/{size // WIDTH ** (level + 1)} is not whole", step="tile")
        partial.append(tile)
    return Edge(size, tuple(partial))


def _hashes(tile: bytes) -> list[bytes]:
    return [tile[i : i + HASH_LENGTH] for i in range(0, len(tile), HASH_LENGTH)]


class TreeView:
    """Roots and proofs of a stored tree at any size up to its own."""

    def __init__(self, tiles: Tiles) -> None:
        self._tiles = tiles

    def tile(self, level: int, number: int) -> bytes:
        """Hashes of one tile, as many as are there."""
        return self._tiles(level, number)

    def leaf(self, index: int) -> bytes:
        """Leaf hash ``index``."""
        return self._complete(0, index)

    def subtree(self, height: int, index: int) -> bytes:
        """Root of the ``index``-th complete subtree of 2^height leaves."""
        return self._complete(height, index)

    def root(self, size: int) -> bytes:
        """Root of the first ``size`` leaves."""
        return self._range(0, size)

    def inclusion(self, index: int, size: int) -> list[bytes]:
        """Audit path (RFC 6962, section 2.1.1), lowest sibling first."""
        path: list[bytes] = []
        low, high = 0, size
        while high - low > 1:
            middle = low + _split(high - low)
            if index < middle:
                path.append(self._range(middle, high))
                high = middle
            else:
                path.append(self._range(low, middle))
                low = middle
        return path[::-1]

    def consistency(self, first: int, second: int) -> list[bytes]:
        """Consistency proof (RFC 6962, section 2.1.2)."""
        if not 0 < first < second:
            return []
        path: list[bytes] = []
        low, high, whole = 0, second, True
        while first != high:
            middle = low + _split(high - low)
            if first <= middle:
                path.append(self._range(middle, high))
                high = middle
            else:
                path.append(self._range(low, middle))
                low, whole = middle, False
        if not whole:
            path.append(self._range(low, high))
        return path[::-1]

    def _range(self, low: int, high: int) -> bytes:
        """Hash over leaves [low, high)."""
        count = high - low
        if count == 0:
            return tree.EMPTY_ROOT
        if count & (count - 1) == 0 and low % count == 0:
            return self._complete(count.bit_length() - 1, low // count)
        middle = low + _split(count)
        return tree.node_hash(self._range(low, middle), self._range(middle, high))

    def _complete(self, height: int, index: int) -> bytes:
        """Root of the complete subtree of 2^height leaves at ``index``."""
        level, rest = divmod(height, 8)
        first = index << rest
        tile = self._tiles(level, first // WIDTH)
        start = first % WIDTH * HASH_LENGTH
        cut = tile[start : start + (HASH_LENGTH << rest)]
        if len(cut) != HASH_LENGTH << rest:
            raise Unverified(f"tile {level}/{first // WIDTH} is not whole", step="tile")
        return tree.quick_root(_hashes(cut))


def _split(count: int) -> int:
    """The largest power of two below ``count``."""
    return 1 << (count - 1).bit_length() - 1
