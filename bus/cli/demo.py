"""`bus demo`: the main job on the local stack, told step by step; every printed figure is computed from what ran."""

from __future__ import annotations

from importlib import import_module

import click

from bus.cli.stack import fetch_with_progress


@click.command()
@click.option("--keep", is_flag=True, help="Leave the stack running.")
def demo(keep: bool) -> None:
    """A guided run: agents, masking, refusals, ACLs, observer check, ledger. Exit 1 if an expectation fails."""
    fetch_with_progress()
    failed = import_module("demo.run").run(keep=keep)
    if failed:
        raise SystemExit(1)
