"""`bus audit move`: the embedded ledger into the database that the settings name."""

from __future__ import annotations

from pathlib import Path

import click

from bus import settings as settings_module
from bus.authority.trust import read_trust
from bus.cli.output import EXIT_NO, err, out
from bus.errors import SettingsError
from bus.files import Layout
from bus.ledger.opened import open_ledger
from bus.ledger.sqlite import SqliteFile
from bus.ledger.store import Ledger
from bus.ledger.verify import verify_ledger


@click.command()
@click.option("--from", "source", type=click.Path(path_type=Path, exists=True), help="Unless told, the state folder's.")
def move(source: Path | None) -> None:
    """Copy the embedded ledger into `ledger_database`, which must hold none; all of it or nothing.

    Stop the audit consumer first, and start it with the database: it goes on where the file ends. Verified when done;
    the file stays.

    \b
    bus audit move
    """
    settings = settings_module.load()
    if not settings.ledger_database:
        raise SettingsError("ledger_database: expected the database to move to, found none")
    from bus.ledger.postgres import PostgresLedger  # its packages are an extra

    layout = Layout(settings.state)
    path = source or layout.ledger
    SqliteFile(path, settings.deployment_id, read_only=True).close()  # one that is there, and this deployment's
    held = SqliteFile(path, settings.deployment_id, read_only=False)  # converted, where an earlier release wrote it
    target = PostgresLedger(settings.ledger_database, settings.deployment_id, read_only=False)
    try:
        with err.status("copying the ledger"):
            target.fill(held)
    finally:
        held.close()
        target.close()
    ledger: Ledger = open_ledger(settings)
    try:
        with err.status("verifying"):
            report = verify_ledger(ledger, read_trust(layout.trust).ledger)
    finally:
        ledger.close()
    for problem in report.problems:
        out.print(problem)
    out.print(f"{report.leaves} hops, {report.checkpoints} checkpoints: {len(report.problems) or 'no'} problems")
    if report.problems:
        raise SystemExit(EXIT_NO)
