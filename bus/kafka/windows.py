"""Replay windows of one input partition: highest sequence and a bitmap of 1,024 per sending instance. Pure.

Rates and breakers (``bus.kafka.limits``) ride along: they are staged, written and restored together.

``accept`` stages; ``take_delta`` gives what a transaction must write to the `.windows` topic. After an abort the owner
throws the object away and restores it from the topic (``restored``), so nothing has to be undone here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from bus.codes import Code
from bus.errors import RetryLater
from bus.kafka.limits import PartitionLimits
from bus.wire.records import MAX_LIMIT_ENTRIES, MAX_WINDOW_ENTRIES, LimitEntry, Window, WindowEntry

WIDTH: Final = 1024
_MASK: Final = (1 << WIDTH) - 1
MAX_INSTANCES: Final = 64
"""Per agent, domain, epoch and partition."""
MAX_WINDOWS: Final = 200_000
"""Per partition: some 50 MB; beyond it a new instance is refused until epochs end."""

REPLAY: Final = -1
TOO_MANY: Final = -2


class PartitionWindows:
    """Windows by key id and instance (32 bytes together). ``highest_time`` is the effective time so far (ms)."""

    __slots__ = ("_instances", "_touched", "_windows", "highest_time", "limits")

    def __init__(self) -> None:
        self._windows: dict[bytes, list[int]] = {}
        self._instances: dict[bytes, int] = {}
        self._touched: set[bytes] = set()
        self.highest_time = 0
        self.limits = PartitionLimits()

    def __len__(self) -> int:
        return len(self._windows)

    def accept(self, name: bytes, sequence: int) -> int:
        """Take ``sequence`` of instance ``name``: the gap before it (0 or more), or REPLAY or TOO_MANY."""
        window = self._windows.get(name)
        if window is None:
            key_id = name[:16]
            held = self._instances.get(key_id, 0)
            if held >= MAX_INSTANCES or len(self._windows) >= MAX_WINDOWS:
                return TOO_MANY
            self._instances[key_id] = held + 1
            self._windows[name] = [sequence, 1]
            self._touched.add(name)
            return sequence
        ahead = sequence - window[0]
        if ahead > 0:
            window[1] = (window[1] << ahead | 1) & _MASK if ahead < WIDTH else 1
            window[0] = sequence
            self._touched.add(name)
            return ahead - 1
        behind = -ahead
        if behind >= WIDTH or window[1] >> behind & 1:
            return REPLAY
        window[1] |= 1 << behind
        self._touched.add(name)
        return 0

    def drop(self, ended: Callable[[bytes], bool]) -> int:
        """Forget the windows of key ids for which ``ended`` says so; returns how many."""
        gone = [name for name in self._windows if ended(name[:16])]
        for name in gone:
            del self._windows[name]
            self._instances.pop(name[:16], None)
            self._touched.discard(name)
        return len(gone)

    def take_delta(self, enforcer_key_id: bytes, upto: int) -> list[Window]:
        """Records for the windows that changed since the last call; at least one, so that ``upto`` is written."""
        entries = self._entries(sorted(self._touched))
        self._touched.clear()
        return self._records(entries, self.limits.delta(), enforcer_key_id, upto, snapshot=False)

    def snapshot(self, enforcer_key_id: bytes, upto: int) -> list[Window]:
        """Records for every window; a reader may start at the first of them."""
        self._touched.clear()
        entries = self._entries(self._windows)
        return self._records(entries, self.limits.snapshot(), enforcer_key_id, upto, snapshot=True)

    def _entries(self, names: Iterable[bytes]) -> list[WindowEntry]:
        return [WindowEntry(name[:16], name[16:], *self._windows[name]) for name in names]

    def _records(
        self, entries: list[WindowEntry], limits: list[LimitEntry], enforcer: bytes, upto: int, *, snapshot: bool
    ) -> list[Window]:
        count = max(-(-len(entries) // MAX_WINDOW_ENTRIES), -(-len(limits) // MAX_LIMIT_ENTRIES), 1)
        return [
            Window(
                enforcer,
                upto,
                self.highest_time,
                part,
                count,
                snapshot,
                tuple(entries[part * MAX_WINDOW_ENTRIES : (part + 1) * MAX_WINDOW_ENTRIES]),
                tuple(limits[part * MAX_LIMIT_ENTRIES : (part + 1) * MAX_LIMIT_ENTRIES]),
            )
            for part in range(count)
        ]


def restored(records: Iterable[Window], committed: int) -> PartitionWindows:
    """Windows from a partition's verified records, in order. Raises RetryLater unless they end at ``committed``."""
    windows = PartitionWindows()
    upto = part = parts = 0
    for record in records:
        # A set is written in one transaction: its parts stand together, in order, from 0.
        follows = record.part == part and (record.upto, record.parts) == (upto, parts)
        if not (record.part == 0 and part == parts) and not (record.part and follows):
            raise RetryLater(
                f"windows: part {record.part} of {record.parts} follows {part} of {parts}", code=Code.RETRY
            )
        if record.snapshot and record.part == 0:
            windows = PartitionWindows()
        windows.highest_time = max(windows.highest_time, record.highest_time)
        for entry in record.entries:
            name = entry.key_id + entry.instance
            if name not in windows._windows:
                windows._instances[entry.key_id] = windows._instances.get(entry.key_id, 0) + 1
            windows._windows[name] = [entry.highest, entry.bitmap]
        for limit in record.limits:
            windows.limits.restore(limit)
        upto, part, parts = record.upto, record.part + 1, record.parts
    if upto != committed or part != parts:
        raise RetryLater(
            f"windows hold input up to {upto} (part {part} of {parts}), committed is {committed}", code=Code.RETRY
        )
    return windows
