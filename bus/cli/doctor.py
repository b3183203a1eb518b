"""`bus doctor`: what is broken of tools, TLS, clock and ACLs, each with one line that mends it."""

from __future__ import annotations

import click
from rich.markup import escape

from bus import settings as settings_module
from bus.cli.output import EXIT_NO, emit, out
from bus.stack.checks import run_checks


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def doctor(as_json: bool) -> None:
    """Check tools, settings, TLS, clock, policy, ACLs and services; exit 1 when something is broken."""
    results = run_checks(settings_module.load())
    if as_json:
        emit("doctor", {"checks": [{"name": r.name, "ok": r.ok, "found": r.found, "mend": r.mend} for r in results]})
    else:
        for each in results:
            mark = "[green]ok  [/]" if each.ok else "[red]FAIL[/]"
            out.print(f"{mark} {each.name:11} {escape(each.found)}")
            if not each.ok:
                out.print(f"     mend: {escape(each.mend)}")
    if not all(each.ok for each in results):
        raise SystemExit(EXIT_NO)
