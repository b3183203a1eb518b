"""What is kept in the corpus: of many inputs, the few that together reach every line that any of them reaches."""

from __future__ import annotations

import hashlib
import logging
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from random import Random
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.mutate import mutated
from tests.fuzz.target import CORPUS, PRODUCT, Target, signature
from tests.fuzz.world import VECTORS

TRIED = 3000
"""Mutated inputs that are looked at beside the found ones."""
MAX_KEPT = 1024
"""Bytes of a kept input: the corpus is read by every test run."""

Arc = tuple[CodeType, int, int]


def arcs(target: Target, data: bytes) -> set[Arc]:
    """Steps from line to line of the product that ``data`` takes. Inputs at fault take none: they are kept as such."""
    found: set[Arc] = set()

    def follow(frame: FrameType, event: str, _argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(PRODUCT):
            return None
        last = 0

        def line(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal last
            if event == "line":
                found.add((frame.f_code, last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line

    sys.settrace(follow)
    try:
        target.check(data)
    except Exception:
        return set()
    finally:
        sys.settrace(None)
    return found


def smallest(target: Target, candidates: Iterable[bytes], reached: set[Arc]) -> list[bytes]:
    """Those of ``candidates``, short ones first, that add to ``reached``, which is extended."""
    kept = []
    for data in sorted(set(candidates), key=lambda each: (len(each), each)):
        fresh = arcs(target, data) - reached
        if fresh:
            reached |= fresh
            kept.append(data)
    return kept


def keep(target: Target, found: Path, seed: int) -> int:
    """Add to the corpus what the guided part left in ``found``, and mutated inputs, where they reach something new."""
    logging.disable(logging.CRITICAL)
    random = Random(f"{seed}/{target.name}/keep")
    samples = target.samples()
    candidates = [path.read_bytes() for path in found.glob("*")] if found.is_dir() else []
    candidates += [bytes.fromhex(each["value"]) for each in VECTORS["malformed"] if each["of"] == target.name]
    candidates += [mutated(random, samples, target.tokens, target.limit) for _ in range(TRIED)]
    reached: set[Arc] = set()
    smallest(target, samples, reached)
    smallest(target, samples, reached)  # what only a first call reaches is no input's merit
    kept = smallest(target, [each for each in candidates if len(each) <= MAX_KEPT], reached)
    folder = CORPUS / target.name
    folder.mkdir(parents=True, exist_ok=True)
    for data in kept:
        name = hashlib.sha256(data).hexdigest()[:16]
        with suppress(FileExistsError), (folder / name).open("xb") as file:
            file.write(data)
    return len(kept)


def shrunk(target: Target, data: bytes, told: str) -> bytes:
    """The smallest part of ``data`` that cutting pieces out leads to and that is at the same fault; of time and memory,
    ``data`` as it is."""

    def faulty(part: bytes) -> bool:
        try:
            target.check(part)
        except Exception as error:
            return signature(error) == told
        return False

    size = len(data) if faulty(data) else 0
    while size := size // 2:
        at = 0
        while at < len(data):
            part = data[:at] + data[at + size :]
            if faulty(part):
                data = part
            else:
                at += size
    return data
