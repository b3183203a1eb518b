"""How the command prints: data on stdout, progress and errors on stderr, colour on a terminal only, ``--json``."""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.markup import escape

from bus.codes import Code
from bus.errors import AccessRefused, BusError, PolicyError, RetryLater, SettingsError

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

EXIT_NO, EXIT_USAGE, EXIT_CHANGES, EXIT_LATER, EXIT_MAY_NOT, EXIT_BUG = 1, 2, 3, 4, 5, 70


def emit(kind: str, document: dict[str, Any]) -> None:
    """One JSON document ``{"format": "bus.<kind>/1", …}`` on stdout."""
    click.echo(json.dumps({"format": f"bus.{kind}/1", **document}, default=str))


def say(text: str) -> None:
    """A line of progress on stderr."""
    err.print(escape(text))


def warn(text: str) -> None:
    """A line on stderr: something to look at."""
    err.print(f"[yellow]bus: warning:[/] {escape(text)}")


def exit_code(error: BusError) -> int:
    """The documented exit code of an error."""
    if isinstance(error, AccessRefused) or error.code in (Code.CREDENTIAL, Code.ATTESTATION):
        return EXIT_MAY_NOT
    if isinstance(error, RetryLater):
        return EXIT_LATER
    if isinstance(error, SettingsError) or (isinstance(error, PolicyError) and not error.parsed):
        return EXIT_USAGE
    return EXIT_NO


def fail(error: BusError) -> NoReturn:
    """Print ``bus: error: …`` with its hint and end with the documented exit code."""
    err.print(f"[bold red]bus: error:[/] {escape(str(error))}")
    for note in getattr(error, "__notes__", []):
        err.print(f"[bold red]bus: error:[/] {escape(note)}")
    if error.hint:
        err.print(f"[bold]bus: hint:[/] {escape(error.hint)}")
    sys.exit(exit_code(error))
