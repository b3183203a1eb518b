"""Groups whose commands are imported when they are asked for: who searches the ledger waits for no broker's tools."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class Lazy(click.Group):
    """``lazy``: the module of each command that is not in the group itself; the command has its name there,
    with an underscore behind it where Python has the name."""

    def __init__(self, *arguments: Any, lazy: Mapping[str, str], **told: Any) -> None:
        super().__init__(*arguments, **told)
        self._lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names."""
        return sorted([*self._lazy, *super().list_commands(ctx)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None."""
        if cmd_name not in self._lazy:
            return super().get_command(ctx, cmd_name)
        module = importlib.import_module(self._lazy[cmd_name])
        found: click.Command = getattr(module, cmd_name, None) or getattr(module, f"{cmd_name}_")
        return found
