"""`bus audit report`: figures for who must account for processing, each with its proofs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from bus import settings as settings_module
from bus.admin.desired import AUDITOR
from bus.authority.local import load_signer, now_ms, open_roots, read_applied
from bus.authority.trust import read_trust
from bus.cli.audit import open_query
from bus.cli.durations import duration_ms
from bus.cli.erasing import erasure_rows, erasures
from bus.cli.output import EXIT_NO, emit, err, out, say
from bus.codes import Code
from bus.errors import BusError, Refused
from bus.files import Layout
from bus.kafka.config import connect
from bus.kafka.whole import whole
from bus.ledger.cosignature import WitnessKey
from bus.ledger.export import open_export
from bus.ledger.opened import open_ledger
from bus.ledger.report.checked import check_report
from bus.ledger.report.events import section, within
from bus.ledger.report.figures import Framework
from bus.ledger.report.folder import write_report
from bus.ledger.report.html import gaps
from bus.ledger.report.made import Asked, make_report
from bus.ledger.verify import Witnesses
from bus.settings import Settings
from bus.wire.names import ISSUE

TIMEOUT_S = 20.0


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--for", "framework", type=click.Choice([each.value for each in Framework]), required=True, help="For whom."
)
@click.option("--since", default="30d", help="What was decided in this time, as 24h or 30d.")
@click.option("--person", default="", help="Of this person alone: the user's id, as `persons` in a report names it.")
@click.option("--proofs", default=1000, help="Of each figure the newest so many hops are shown with their proofs.")
@click.option(
    "--from", "source", type=click.Path(path_type=Path, exists=True), help="Of this export, not the live ledger."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def report(
    folder: Path, framework: str, since: str, person: str, proofs: int, source: Path | None, as_json: bool
) -> None:
    """Write a report to FOLDER: HTML, PDF, JSON, and for each figure the proofs of the hops that it counts.

    Access by person, purpose and authorization; denials; declassifications; redactions; key events; erasures; and that
    there are no gaps, which the whole ledger is verified for. The proofs disclose the hops that they are of.

    \b
    bus audit report --for gdpr --since 90d evidence
    bus audit report --for gdpr --person "$USER_ID" subject-access
    bus audit verify --report evidence --key "$(bus audit key)"
    """
    settings = settings_module.load()
    layout = Layout(settings.state)
    trust = read_trust(layout.trust)
    now = now_ms()
    live = read_applied(layout, trust)
    levels = live.policy.scheme.levels if live is not None else ()
    asked = Asked(
        Framework(framework), now - duration_ms("--since", since, "as in 24h or 30d"), now + 1, person, levels, proofs
    )
    ledger = open_export(source, trust.ledger) if source is not None else open_ledger(settings)
    try:
        with err.status("reading the ledger") as status:
            made, shown = make_report(
                ledger,
                open_query(settings, ledger),
                trust.ledger,
                asked,
                now,
                erasures=_erasures(settings),
                witnesses=_witnesses(settings),
                tell=lambda read: status.update(f"reading the ledger: {read:,} hops"),
            )
        kept: list[bytes] = []
        if (issued := None if person else _issued(settings)) is not None:  # an event names agents, and no person
            kept, rows, wrong = within(issued, trust.anchor, trust.deployment, asked.begin, asked.end)
            made = dataclasses.replace(made, events=section(asked.framework, trust.anchor, kept, rows, wrong))
        files = write_report(folder, made, shown, load_signer(layout.signer("ledger")), kept)
    except FileExistsError as error:
        raise Refused(f"{error.args[0]}: it is there already", code=Code.LEDGER, hint="name another folder") from None
    finally:
        ledger.close()
    document = made.document()
    if as_json:
        emit("audit-report", {**document, "folder": str(folder), "files": [str(each) for each in files]})
    else:
        for each in document["figures"]:
            out.print(f"{each['value']:>8}  {escape(each['title'])}  [dim]{escape(each['clause'])}[/]")
        out.print(f"gaps: {escape(gaps(document))}")
        out.print(escape(f"{folder}/report.html, signed"))
    if not any(each.name == "report.pdf" for each in files):
        say("no report.pdf: pip install 'sealbus[report]'")
    if document["gaps"]["problems"]:
        raise SystemExit(EXIT_NO)


def _issued(settings: Settings) -> list[bytes] | None:
    """Every value of bus.issue that is there; None where the broker cannot be asked."""
    try:
        connection = connect(settings, AUDITOR)
        return [message.value() or b"" for message in whole(connection, ISSUE, AUDITOR, TIMEOUT_S)]
    except BusError as error:
        say(f"without the events of {ISSUE}: {error}")
        return None


def _erasures(settings: Settings) -> list[dict[str, Any]]:
    layout = Layout(settings.state)
    found, failure = erasures(settings, open_roots(settings, layout, read_trust(layout.trust)))
    if failure:
        say(f"erasures without their acknowledgements: {failure}")
    return erasure_rows(found)


def _witnesses(settings: Settings) -> Witnesses:
    keys = tuple(map(WitnessKey.parse, settings.witnesses))
    return Witnesses(keys, len(keys))


def show_checked(folder: Path, public_key: bytes, *, as_json: bool) -> None:
    """What was counted again; ends with 1 where something does not hold."""
    checked = check_report(folder, public_key)
    if as_json:
        emit("audit-verify", dataclasses.asdict(checked))
    else:
        for problem in checked.problems:
            out.print(f"[red]{escape(problem)}[/]")
        told = f"{checked.figures} figures, {checked.counted} counted again whole, {checked.proofs} proofs"
        out.print(f"{told}: {len(checked.problems)} problems" if checked.problems else f"{told}: all hold")
    if checked.problems:
        raise SystemExit(EXIT_NO)
