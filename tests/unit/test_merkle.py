"""The tree in tiles against the plain one: same roots, proofs that verify, one set of tiles however it was grown."""

from __future__ import annotations

import hashlib
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.crypto import tree
from bus.errors import Unverified
from bus.ledger.merkle import FULL, WIDTH, Edge, TreeView, grow, read_edge, root_of

SIZES = [*range(66), 127, 128, 129, 254, 255, 256, 257, 258, 300, 511, 512, 513, 599, 600]
LARGE = [65_279, 65_280, 65_281, 65_535, 65_536, 65_537, 65_792, 65_800]
Tiles = dict[tuple[int, int], bytes]


@cache
def leaf(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(4, "big")).digest()


def leaves(size: int) -> list[bytes]:
    return [leaf(number) for number in range(size)]


def grown(batches: list[int]) -> tuple[Edge, Tiles]:
    """A tree that grew by ``batches`` of leaves, and its stored tiles."""
    edge, tiles = Edge(0), {}
    for batch in batches:
        edge, stored = grow(edge, [leaf(number) for number in range(edge.size, edge.size + batch)])
        tiles |= stored
    return edge, tiles


def view(tiles: Tiles) -> TreeView:
    return TreeView(lambda level, number: tiles.get((level, number), b""))


@pytest.fixture(scope="module")
def small() -> TreeView:
    """600 leaves, one at a time."""
    return view(grown([1] * 600)[1])


@pytest.fixture(scope="module")
def large() -> TreeView:
    """65,800 leaves: three levels of tiles."""
    return view(grown([65_800])[1])


def test_every_root_up_to_600_leaves_is_the_plain_trees(small):
    for size in range(601):
        assert small.root(size) == tree.root(leaves(size)), size


@pytest.mark.parametrize("size", LARGE)
def test_roots_around_the_borders_of_the_second_level_are_the_plain_trees(large, size):
    assert large.root(size) == tree.root(leaves(size))


@pytest.mark.parametrize("size", [*SIZES, *LARGE])
def test_the_root_of_an_edge_is_the_plain_trees(size):
    assert root_of(grown([size])[0]) == tree.root(leaves(size))


@pytest.mark.parametrize("size", [*SIZES, 65_792])
def test_without_the_compiled_steps_tiles_and_roots_are_the_same(monkeypatch, size):
    compiled = grown([size])
    monkeypatch.setattr(tree, "native", None)
    assert grown([size]) == compiled
    assert root_of(compiled[0]) == tree.root(leaves(size))


def test_every_leaf_is_read_back(small):
    assert [small.leaf(number) for number in range(600)] == leaves(600)


@pytest.mark.parametrize("size", SIZES[1:])
def test_inclusion_proofs_verify_and_only_for_their_leaf(small, size):
    root = tree.root(leaves(size))
    for index in sorted({0, 1, size // 2, size - 2, size - 1, *range(0, size, 37)} & set(range(size))):
        path = small.inclusion(index, size)
        assert path == tree.inclusion_path(leaves(size), index)
        tree.verify_inclusion(leaf(index), index, size, path, root)
        with pytest.raises(Unverified):
            tree.verify_inclusion(leaf(index + 1), index, size, path, root)
        with pytest.raises(Unverified):
            tree.verify_inclusion(leaf(index), index, size, path, tree.root(leaves(size + 1)))


@pytest.mark.parametrize("size", LARGE)
def test_inclusion_proofs_verify_in_a_large_tree(large, size):
    root = large.root(size)
    for index in (0, 255, 256, 40_000, 65_279, size - 1):
        if index < size:
            tree.verify_inclusion(leaf(index), index, size, large.inclusion(index, size), root)


@pytest.mark.parametrize("second", SIZES[2:])
def test_consistency_proofs_verify_and_only_between_their_roots(small, second):
    new = tree.root(leaves(second))
    for first in sorted({1, 2, second // 2, second - 1, *range(1, second, 41)} & set(range(1, second))):
        old, proof = tree.root(leaves(first)), small.consistency(first, second)
        tree.verify_consistency(first, second, old, new, proof)
        with pytest.raises(Unverified):
            tree.verify_consistency(first, second, leaf(1_000_000), new, proof)
        with pytest.raises(Unverified):
            tree.verify_consistency(first, second, old, leaf(1_000_000), proof)


@pytest.mark.parametrize(
    ("first", "second"),
    [(1, 65_536), (255, 65_537), (256, 65_536), (65_535, 65_536), (65_536, 65_800), (65_537, 65_800)],
)
def test_consistency_proofs_verify_across_the_border_of_a_level(large, first, second):
    proof = large.consistency(first, second)
    tree.verify_consistency(first, second, large.root(first), large.root(second), proof)
    with pytest.raises(Unverified):
        tree.verify_consistency(first, second, large.root(first), large.root(second), [*proof, leaf(0)])


def test_a_tree_is_consistent_with_itself_and_with_nothing_before_it(small):
    assert small.consistency(5, 5) == small.consistency(0, 5) == []
    tree.verify_consistency(5, 5, small.root(5), small.root(5), [])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 300), max_size=12))
def test_batches_of_any_size_give_the_same_tiles(batches):
    edge, tiles = grown(batches)
    total = sum(batches)
    at_once, expected = grown([total])
    assert edge == at_once
    assert tiles == expected
    assert read_edge(total, lambda level, number: tiles.get((level, number), b"")) == edge


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, 65_535, 65_536, 65_537])
def test_an_edge_is_read_back_from_its_tiles_and_grows_on(size):
    edge, tiles = grown([size])
    held = read_edge(size, lambda level, number: tiles.get((level, number), b""))
    assert held == edge
    assert grow(held, [leaf(size)]) == grow(edge, [leaf(size)])


def test_growing_changes_nothing_that_was_handed_in():
    edge, _ = grown([300])
    before = (edge.size, edge.partial)
    grow(edge, leaves(500))
    assert (edge.size, edge.partial) == before


def test_tiles_have_the_published_shape():
    _, tiles = grown([600])
    assert {place: len(tile) for place, tile in tiles.items()} == {
        (0, 0): FULL,
        (0, 1): FULL,
        (0, 2): 88 * 32,
        (1, 0): 2 * 32,
    }
    assert tiles[1, 0][:32] == tree.root(leaves(WIDTH))


@pytest.mark.parametrize(
    ("place", "cut", "read"),
    [
        ((0, 0), 32, lambda view: view.leaf(255)),
        ((0, 2), 1, lambda view: view.root(600)),
        ((0, 2), 32, lambda view: view.inclusion(590, 600)),
        ((0, 2), 32, lambda view: view.leaf(599)),
        ((1, 0), 32, lambda view: view.root(600)),
        ((1, 0), 64, lambda view: view.consistency(600 - 1, 600)),
        ((1, 0), 1, lambda view: view.inclusion(599, 600)),
    ],
)
def test_a_truncated_tile_is_refused_where_it_is_needed(place, cut, read):
    _, tiles = grown([600])
    read(view(tiles))
    with pytest.raises(Unverified, match=f"tile {place[0]}/{place[1]} is not whole") as refused:
        read(view(tiles | {place: tiles[place][:-cut]}))
    assert refused.value.step == "tile"


@pytest.mark.parametrize("place", [(0, 2), (1, 0)])
def test_an_edge_with_a_truncated_tile_is_refused(place):
    _, tiles = grown([600])
    short = tiles | {place: tiles[place][:-1]}
    with pytest.raises(Unverified, match=f"tile {place[0]}/{place[1]} is not whole"):
        read_edge(600, lambda level, number: short.get((level, number), b""))


@pytest.mark.parametrize("size", [601, 768, 65_536])
def test_a_root_over_more_leaves_than_there_are_is_refused(small, size):
    with pytest.raises(Unverified, match="is not whole"):
        small.root(size)
