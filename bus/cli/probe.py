"""`bus probe`: recorded traces of agents over a stack of their own, and what each observer finds in them.

`bus probe attacks` is ``attacks``'.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from bus.cli.lazy import Lazy
from bus.cli.output import EXIT_NO, emit, err, out, say
from bus.cli.stack import fetch_with_progress


@click.group(cls=Lazy, lazy={"attacks": "bus.cli.attacks"}, invoke_without_command=True)
@click.option(
    "--traces",
    type=click.Path(exists=True, path_type=Path),
    help="JSON lines (.gz too), a JSON document, or a folder of these; unless told, those of the demo.",
)
@click.option("--report", type=click.Path(path_type=Path), help="Write a page with the figures and plots (.html).")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def probe(context: click.Context, traces: Path | None, report: Path | None, as_json: bool) -> None:
    """Replay traces over a stack of its own and count private items that each observer can read.

    Exit 1 where somebody sees what they must not, or the controls miss what is there. Needs the extra `plot`. The
    command `attacks` attacks the stack that runs instead.

    \b
    bus probe
    bus probe --traces traces.jsonl.gz --report leaks.html
    bus probe attacks
    """
    if context.invoked_subcommand is not None:
        if traces is not None or report is not None or as_json:
            raise click.UsageError(f"options of {context.invoked_subcommand} stand behind its name")
        return
    fetch_with_progress()
    run, pages = import_module("probe.run"), import_module("probe.report")
    messages = import_module("probe.traces").read(traces or import_module("demo.traces").DATA)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("starting a stack", total=None)
        document = run.run(
            messages, lambda what, at, of: progress.update(task, description=what, completed=at, total=of)
        )
    failed = run.failures(document)
    if report is not None:
        report.write_text(pages.page(document, failed), encoding="utf-8")
        say(f"written to {report}")
    if as_json:
        emit("probe", {**document, "failed": failed})
    else:
        out.print(pages.text(document))
        for each in failed:
            out.print(f"[bold red]FAILED[/] {each}")
    if failed:
        raise SystemExit(EXIT_NO)
