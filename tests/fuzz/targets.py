"""The table of all targets, by name."""

from __future__ import annotations

from typing import Final

from tests.fuzz import enforcer, files, signed, wire
from tests.fuzz.target import Target

TARGETS: Final[dict[str, Target]] = {
    each.name: each for each in (*wire.TARGETS, *signed.TARGETS, *files.TARGETS, *enforcer.TARGETS)
}
