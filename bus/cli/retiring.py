"""`bus audit retire`: hops beyond the ledger's retention go, their leaves and every proof's checkpoint stay."""

from __future__ import annotations

import sys

import click
from rich.markup import escape

from bus import settings as settings_module
from bus.authority.local import load_signer, now_ms
from bus.cli.audit import open_query
from bus.cli.durations import duration_ms
from bus.cli.output import EXIT_NO, emit, err, out, say
from bus.errors import Refused
from bus.files import Layout
from bus.ledger import retention
from bus.ledger.opened import open_ledger
from bus.ledger.report.figures import person
from bus.ledger.retention import Due, nothing
from bus.ledger.segments import SEGMENT
from bus.policy.holdfile import HOLDS_FILE, read_holds
from bus.wire.hop import Hop


@click.command()
@click.option("--older-than", "age", required=True, help="As in 365d: hops of that age, in whole segments.")
@click.option(
    "--unreadable", is_flag=True, help="Hops of days whose keys are gone, too: nobody can say if one is held."
)
@click.option("--dry-run", is_flag=True, help="Say what would go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def retire(age: str, unreadable: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Take hops beyond the retention out of the ledger, a segment of 16,384 at a time, for good.

    Their bodies, search rows and kept records go; leaves, checkpoints and intervals stay: the ledger and every proof
    that was given out verify as before. What holds.yaml names, beside the policy, stays whole. Export first what you
    need.

    \b
    bus audit retire --older-than 365d --dry-run
    """
    settings = settings_module.load()
    now = now_ms()
    before = now - duration_ms("--older-than", age, "as in 365d")
    holds = read_holds(settings.policies)

    def held(hop: Hop) -> str:
        tail = hop.tail
        for each in holds:
            if each.covers(
                agent=tail.agent, domain=tail.domain, correlation=hop.correlation_id, person=person(hop),
                at_ms=hop.decided_at,
            ):  # fmt: skip
                return each.name
        return ""

    ledger = open_ledger(settings, read_only=False)
    try:
        query = open_query(settings, ledger)
        with err.status("reading the ledger"):
            found = list(retention.due(ledger, query, before, held if holds else nothing, unreadable=unreadable))
        going = [each for each in found if not each.held]
        if going and not dry_run:
            _confirm(len(going), len(holds), yes=yes)
            signer = load_signer(Layout(settings.state).signer("ledger"))
            with err.status("taking hops"):
                for each in going:
                    retention.retire(ledger, query, each, signer, now)
    finally:
        ledger.close()
    if as_json:
        rows = [{"partition": each.partition, "segment": each.segment, "held": each.held} for each in found]
        told = {"segments": rows, "hops": SEGMENT * len(going), "taken": not dry_run, "holds": len(holds)}
        emit("audit-retire", told)
        return
    for each in (each for each in found if each.held):
        out.print(escape(f"stays: {_told(each)}: {each.held}"))
    word = "would be taken" if dry_run else "taken"
    held_back = len(found) - len(going)
    out.print(f"{SEGMENT * len(going)} hops in {len(going)} segments {word}, {held_back} segments stay")
    out.print(escape(f"{len(holds)} holds of {settings.policies / HOLDS_FILE}"))


def _told(each: Due) -> str:
    return f"partition {each.partition}, hops {each.segment * SEGMENT} to {(each.segment + 1) * SEGMENT - 1}"


def _confirm(count: int, holds: int, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(f"hops of {count} segments are not taken without being asked", hint="--yes, where it is meant")
    say(f"{SEGMENT * count} hops in {count} segments go for good; {holds} holds were read")
    if not click.confirm("Take them?", err=True):
        raise SystemExit(EXIT_NO)
