"""Detached processes with a record of their own: started in a session of their own, found and stopped by process id.

The record holds the id and the start time, so that an id which the system gave to another process is never touched.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bus.errors import StackError
from bus.files import make_folder, write_file


@dataclass(frozen=True, slots=True)
class Daemon:
    """One named background process of a state folder."""

    name: str
    run: Path

    @property
    def record(self) -> Path:
        """Where id and start time stand."""
        return self.run / f"{self.name}.json"

    @property
    def log(self) -> Path:
        """Standard output and error."""
        return self.run / f"{self.name}.log"

    def start(
        self, command: Sequence[str | Path], environ: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> int:
        """Start detached from the terminal, in ``folder``; returns the process id. A live process of this name is left
        as it is.
        """
        running = self.find()
        return running.pid if running is not None else self._start(command, environ, folder)

    def replace(self, command: Sequence[str | Path], environ: Mapping[str, str] | None = None) -> int:
        """Start a second process, then stop the first; the second waits until the first has let go of its work."""
        first = self.find()
        pid = self._start(command, environ)
        if first is not None:
            _end(first)
        return pid

    def _start(
        self, command: Sequence[str | Path], environ: Mapping[str, str] | None, folder: Path | None = None
    ) -> int:
        make_folder(self.run)
        with self.log.open("ab") as out:
            process = subprocess.Popen(
                [str(each) for each in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=folder,
                env=None if environ is None else {**os.environ, **environ},
            )
        born = psutil.Process(process.pid).create_time()
        write_file(self.record, json.dumps({"pid": process.pid, "born": born}).encode(), 0o600)
        return process.pid

    def find(self) -> psutil.Process | None:
        """The live process of the record, or None; a stale or unreadable record counts as none."""
        try:
            told = json.loads(self.record.read_bytes())
            process = psutil.Process(told["pid"])
            alive = abs(process.create_time() - told["born"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, KeyError, TypeError, psutil.Error):
            return None
        return process if alive else None

    def terminate(self) -> psutil.Process | None:
        """Ask the live process, if there is one, to end; returns it."""
        process = self.find()
        if process is not None:
            process.terminate()
        return process

    def stop(self, timeout: float = 30.0) -> bool:
        """Terminate, then kill after ``timeout`` seconds; returns whether there was something to stop."""
        process = self.find()
        if process is not None:
            _end(process, timeout)
        self.record.unlink(missing_ok=True)
        return process is not None

    def tail(self, lines: int = 12) -> str:
        """The last lines of the log."""
        if not self.log.is_file():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def wait_for(self, ready: Path, timeout: float) -> None:
        """Until ``ready`` exists. Raises StackError with the log's end when the process dies or ``timeout`` s pass."""
        deadline = time.monotonic() + timeout
        while not ready.exists():
            if self.find() is None:
                raise StackError(f"{self.name} ended while starting:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise StackError(f"{self.name} was not ready after {timeout:.0f} s:\n{self.tail()}")
            time.sleep(0.02)


def _end(process: psutil.Process, timeout: float = 30.0) -> None:
    """Terminate, then kill after ``timeout`` s."""
    process.terminate()
    if not _ended(process, timeout):
        process.kill()
        _ended(process, 10)


def _ended(process: psutil.Process, timeout: float) -> bool:
    """Whether the process ends in time. One whose parent has not asked for its exit code yet has ended."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            process.wait(0.02)
        except psutil.TimeoutExpired:
            continue
        except psutil.NoSuchProcess:
            return True
        return True
    return False
