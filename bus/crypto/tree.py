"""Merkle tree hashes and proofs of RFC 6962 / RFC 9162, SHA-256: bundles of a few leaves, and proof verification.

The ledger's stored tree (``bus.ledger.merkle``) uses the same functions over tiles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from bus.errors import Unverified
from bus.native import native

HASH_LENGTH: Final = 32
MAX_SIZE: Final = 2**64 - 1
EMPTY_ROOT: Final = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(00 | data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(01 | left | right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Root over leaf hashes (RFC 6962, section 2.1)."""
    level = list(leaves)
    if not level:
        return EMPTY_ROOT
    while len(level) > 1:
        pairs = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            pairs.append(level[-1])
        level = pairs
    return level[0]


def quick_root(leaves: Sequence[bytes]) -> bytes:
    """``root``, compiled where it is installed."""
    if native is None:
        return root(leaves)
    made: bytes = native.tree_root(list(leaves))
    return made


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Audit path of leaf ``index``, lowest sibling first."""
    path = []
    level = list(leaves)
    while len(level) > 1:
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        pairs = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        if len(level) % 2:
            pairs.append(level[-1])
        level = pairs
        index >>= 1
    return path


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root_hash: bytes) -> None:
    """RFC 9162, section 2.1.3.2. Raises Unverified(inclusion) unless ``leaf`` is leaf ``index`` of ``size``."""
    # The compiled steps say yes alone; what they do not take is refused below, with its reason.
    if native is not None and 0 <= index < size <= MAX_SIZE and native.path_root(leaf, index, size, path) == root_hash:
        return
    if not 0 <= index < size or any(len(each) != HASH_LENGTH for each in (leaf, root_hash, *path)):
        raise Unverified(f"inclusion: leaf {index} is not in a tree of {size}", step="inclusion")
    at, last, value, sha256 = index, size - 1, leaf, hashlib.sha256
    for sibling in path:
        if last == 0:
            raise Unverified("inclusion: the proof is too long", step="inclusion")
        if at & 1 or at == last:
            value = sha256(b"\x01" + sibling + value).digest()
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            value = sha256(b"\x01" + value + sibling).digest()
        at >>= 1
        last >>= 1
    if last != 0 or value != root_hash:
        raise Unverified(f"inclusion: leaf {index} does not match the root", step="inclusion")


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> None:
    """RFC 9162, section 2.1.4.2. Raises Unverified(consistency) unless the first tree is a prefix of the second."""

    def refuse(why: str) -> Unverified:
        return Unverified(f"consistency {first} -> {second}: {why}", step="consistency")

    if first == second != 0:
        if proof or first_root != second_root:
            raise refuse("expected an empty proof and equal roots")
        return
    hashes = (first_root, second_root, *proof)
    if not 0 < first < second or any(len(each) != HASH_LENGTH for each in hashes):
        raise refuse("sizes or hashes are impossible")
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, first_root)
    if not path:
        raise refuse("the proof is empty")
    at, last = first - 1, second - 1
    while at & 1:
        at >>= 1
        last >>= 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise refuse("the proof is too long")
        if at & 1 or at == last:
            old = node_hash(sibling, old)
            new = node_hash(sibling, new)
            while not at & 1 and at:
                at >>= 1
                last >>= 1
        else:
            new = node_hash(new, sibling)
        at >>= 1
        last >>= 1
    if last != 0 or old != first_root or new != second_root:
        raise refuse("the roots do not match")
