"""`bus probe attacks`: attacks on the stack that runs, each beside a control."""

from __future__ import annotations

from importlib import import_module

import click
from rich.markup import escape

from bus import settings as settings_module
from bus.cli.output import EXIT_NO, emit, err, out
from bus.stack.local import Stack


@click.command()
@click.option("--as", "agent", default="", help="The agent that attacks; unless told, one that has most to attack.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def attacks(agent: str, as_json: bool) -> None:
    """Attack the stack that runs with an agent's own keys and credential, and say what each attack met.

    For who operates it: it reads the agent's folder and the roots. Needs a broker on this machine, writes some forty
    records and stops by itself. Exit 1 where one attack was not refused with the code that it must meet, its hop or
    dead letter is missing, or its control failed.

    \b
    bus stack up
    bus probe attacks
    bus probe attacks --as executor-1 --json
    """
    stack = Stack(settings_module.load())
    with err.status("attacking") as status:
        report = import_module("probe.attacks").run(stack, agent, lambda what: status.update(f"attacking: {what}"))
    failed = report.failed()
    if as_json:
        rows = [row.document() for row in report.rows]
        told = {"agent": report.agent, "domain": report.domain, "session": report.session, "attacks": rows}
        emit("probe-attacks", {**told, "not_tried": report.skipped, "failed": failed})
    else:
        out.print(escape(import_module("probe.found").text(report.rows, report.skipped)))
        out.print(f"as {report.agent} in {report.domain}: bus audit search --correlation {report.session}")
        for each in failed:
            out.print(f"[bold red]FAILED[/] {escape(each)}")
    if failed:
        raise SystemExit(EXIT_NO)
