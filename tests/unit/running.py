"""Runs `bus` in this process, through the same entry point as the installed command."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from bus.cli import main as main_module


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    def document(self) -> dict[str, object]:
        return json.loads(self.out)


Run = Callable[..., Ran]


def runner(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs commands in ``folder``; environment variables as keywords."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path, **environ: str) -> Ran:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["bus", *map(str, arguments)])
        capsys.readouterr()
        try:
            main_module.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        told = capsys.readouterr()
        return Ran(code, told.out, told.err)

    return run
