"""`bus map`: who may write where, beside who did, from the policy in force and the ledger."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator
from itertools import islice

import click
from rich.markup import escape

from bus import settings as settings_module
from bus.authority.local import now_ms
from bus.cli.audit import open_query
from bus.cli.durations import duration_ms
from bus.cli.law import read_files
from bus.cli.output import EXIT_CHANGES, emit, err, out, say
from bus.policy.flowmap import FORMATS, Way, ways
from bus.settings import Settings
from bus.wire.hop import Hop

MAX_READ = 5_000_000
"""Hops; of more the newest are read."""


@click.command(name="map")
@click.option("--since", default="30d", help="How far back the ledger is read, as in 24h or 30d.")
@click.option("--as", "picture", type=click.Choice(sorted(FORMATS)), help="A picture on stdout.")
@click.option("--fail-on-changes", is_flag=True, help="Exit 3 where a grant is unused, or something undeclared tried.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def map_(since: str, picture: str | None, fail_on_changes: bool, as_json: bool) -> None:
    """Declared flows beside those that the ledger saw: unused grants, and attempts that no grant covers.

    \b
    bus map
    bus map --since 7d --as svg > map.svg
    """
    length = duration_ms("--since", since, "as in 24h or 30d")
    settings = settings_module.load()
    _, policy = read_files(settings, None)
    with err.status("reading the ledger"):
        found = ways(policy, _hops(settings, now_ms() - length))
    if picture is not None:
        click.echo(FORMATS[picture](policy, found), nl=False)
    elif as_json:
        rows = [{**dataclasses.asdict(each), "state": each.state} for each in found]
        emit("map", {"since": since, "policy": policy.digest.hex(), "ways": rows})
    else:
        for each in found:
            _show(each)
        states = [each.state for each in found]
        out.print(", ".join(f"{states.count(name)} {name}" for name in ("used", "unused", "undeclared")))
    if fail_on_changes and any(each.state != "used" for each in found):
        raise SystemExit(EXIT_CHANGES)


def _hops(settings: Settings, begin: int) -> Iterator[Hop]:
    hops = open_query(settings).since(begin)
    yield from islice(hops, MAX_READ)
    if next(hops, None) is not None:
        say(f"the newest {MAX_READ:,} hops alone")


def _show(each: Way) -> None:
    colour = {"used": "green", "unused": "yellow", "undeclared": "red"}[each.state]
    seen = dt.datetime.fromtimestamp(each.last / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M") if each.last else "never"
    counts = f"{each.allowed:>8} allowed {each.denied:>6} denied   last {seen:16}"
    out.print(
        f"[{colour}]{each.state:10}[/] {escape(f'{each.agent:20} -> {each.domain:20} {counts}  {each.location}')}"
    )
