"""`bus audit export`: the ledger as a folder that proves itself."""

from __future__ import annotations

from pathlib import Path

import click

from bus import settings as settings_module
from bus.authority.local import load_signer, now_ms
from bus.cli.output import emit, out
from bus.codes import Code
from bus.errors import Refused
from bus.files import Layout
from bus.ledger import export as exporting
from bus.ledger.opened import open_ledger


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def export(folder: Path, as_json: bool) -> None:
    """Copy the ledger to FOLDER, with a manifest over all of its partitions that the ledger's key signs.

    Hops in it stay sealed. Whoever has FOLDER and the public key (`bus audit key`) verifies it with nothing else.

    \b
    bus audit export evidence
    bus audit verify --offline evidence --key "$(bus audit key)"
    """
    settings = settings_module.load()
    ledger = open_ledger(settings)
    try:
        made = exporting.export(ledger, folder, load_signer(Layout(settings.state).signer("ledger")), now_ms())
    except FileExistsError as error:
        raise Refused(f"{error.args[0]}: it is there already", code=Code.LEDGER, hint="name another folder") from None
    finally:
        ledger.close()
    leaves = sum(size for size, _ in made.heads.values())
    if as_json:
        emit("audit-export", {"folder": str(folder), "partitions": len(made.heads), "leaves": leaves})
    else:
        out.print(f"{folder}: {leaves} hops of {len(made.heads)} partitions, manifest signed")
