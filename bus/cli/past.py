"""`bus policy history | rollback | replay`: policies that were applied, and decisions that were made."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from bus import settings as settings_module
from bus.authority.local import read_history
from bus.authority.trust import read_trust
from bus.cli.audit import open_query
from bus.cli.law import DIRECTORY, JSON, load_files
from bus.cli.output import EXIT_CHANGES, emit, out, say
from bus.cli.plans import confirm, show
from bus.cli.recorded import flip_rows
from bus.codes import Code
from bus.errors import Refused
from bus.files import Layout
from bus.policy.diff import access_changes
from bus.policy.replay import replay
from bus.stack.local import Stack


@click.command()
@JSON
def history(as_json: bool) -> None:
    """Every policy that was applied from here, newest first, with what it changed."""
    layout = Layout(settings_module.load().state)
    held = read_history(layout, read_trust(layout.trust))
    rows: list[dict[str, Any]] = []
    for place, each in enumerate(held):
        changes = access_changes(held[place - 1].policy, each.policy) if place else []
        at = dt.datetime.fromtimestamp(each.signed.valid_from / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        rows.append({
            "number": each.signed.number,
            "digest": each.policy.digest.hex(),
            "applied": at,
            "changes": [str(change) for change in changes],
        })  # fmt: skip
    if as_json:
        emit("policy-history", {"policies": rows[::-1]})
        return
    for row in rows[::-1]:
        out.print(f"{row['number']}  {row['digest'][:12]}  {row['applied']}")
        for change in row["changes"]:
            out.print(f"   {escape(change)}")


@click.command()
@click.argument("number", type=int)
@JSON
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--allow-widening", is_flag=True, help="What it widens is meant.")
def rollback(number: int, as_json: bool, yes: bool, allow_widening: bool) -> None:
    """Apply policy NUMBER of `bus policy history` again, under a new number: numbers never go back.

    \b
    bus policy rollback 3 --yes
    """
    settings = settings_module.load()
    local = Stack(settings)
    trust = read_trust(local.layout.trust)
    found = {each.signed.number: each for each in read_history(local.layout, trust)}
    if number not in found:
        raise Refused(
            f"policy {number}: expected one of {', '.join(map(str, sorted(found))) or 'none'}",
            code=Code.POLICY,
            hint="`bus policy history` lists them",
        )
    plan = local.plan(found[number].policy)
    show(plan, as_json=as_json)
    if not plan.changes:
        return
    confirm(plan, yes=yes, allow_widening=allow_widening)
    local.apply(plan)
    say(f"applied: {len(plan.changes)} changes; the files in {settings.policies} are as they were")


@click.command(name="replay")
@DIRECTORY
@JSON
@click.option("--agent", default="", help="Only decisions on this agent's records.")
@click.option("--domain", default="", help="Only this domain.")
@click.option("--fail-on-flips", is_flag=True, help="Exit 3 when a decision would be another.")
def replay_command(directory: Path | None, as_json: bool, agent: str, domain: str, fail_on_flips: bool) -> None:
    """Decide what the ledger holds again under the files: which decisions would be others?

    \b
    bus policy replay draft/ --domain agent_memory
    """
    _, draft = load_files(directory)
    terms = {key: value for key, value in (("agent", agent), ("domain", domain)) if value}
    query = open_query(settings_module.load())
    made = replay((each.hop for each in query.search(terms)), draft)
    rows = flip_rows(made)
    if as_json:
        document = {"digest": draft.digest.hex(), "decided": made.decided, "without_facts": made.unknown, "flips": rows}
        emit("policy-replay", document)
    else:
        for row in rows:
            colour = "red" if row["after"] == "DENY" else "yellow"
            rule = f"{row['rule']} ({row['location']})" if row["location"] else row["rule"]
            text = f"{row['agent']} -> {row['domain']}: {row['before']} -> {row['after']} by {rule}"
            out.print(f"[{colour}]{row['count']}[/] {escape(text)}   as {row['example']}")
        total = sum(made.flips.values())
        out.print(f"{made.decided} decisions replayed, {total} would be others, {made.unknown} have no facts")
    if fail_on_flips and rows:
        raise SystemExit(EXIT_CHANGES)


COMMANDS = (history, rollback, replay_command)
