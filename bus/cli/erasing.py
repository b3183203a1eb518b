"""`bus keys erase`, and what `bus keys status` says of erasures."""

from __future__ import annotations

import datetime as dt
import sys
from typing import Any

import click
from rich.markup import escape

from bus import settings as settings_module
from bus.admin.erasing import buried, carry_out, plan_erasure, progress
from bus.authority.erasure import Erasure, State
from bus.authority.local import now_ms, open_roots, read_applied
from bus.authority.roots import RootStore
from bus.authority.trust import read_trust
from bus.cli.audit import open_query
from bus.cli.output import EXIT_NO, emit, out, say
from bus.codes import Code
from bus.errors import BusError, Refused, RetryLater
from bus.files import Layout
from bus.settings import Settings
from bus.stack.local import Stack
from bus.wire.hop import Hop


@click.command()
@click.option("--domain", required=True, help="Whose epochs.")
@click.option("--epoch", "number", type=int, help="This one.")
@click.option("--before", metavar="TIME", help="All that ended before, ISO 8601 with its offset: 2026-11-28T12:00Z.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def erase(domain: str, number: int | None, before: str | None, yes: bool, as_json: bool) -> None:
    """Erase the keys of ended epochs for good: nobody can read their records any more. Ended early, run it again.

    \b
    bus keys erase --domain agent_memory --epoch 12
    bus keys status                                   until it says erased
    """
    if (number is None) == (before is None):
        raise click.UsageError("expected --epoch or --before")
    until = _time(before) if before is not None else None
    settings = settings_module.load()
    layout = Layout(settings.state)
    trust = read_trust(layout.trust)
    store, live = open_roots(settings, layout, trust), read_applied(layout, trust)
    if live is None:
        raise RetryLater("no policy was applied yet", code=Code.RETRY, hint="bus policy apply")
    planned = plan_erasure(settings, store, live.policy, domain, number=number, before=until, now_ms=now_ms())
    names = planned.names
    if not names:
        raise Refused(f"{domain} has no ended epoch from before then", code=Code.EPOCH_EARLY, hint="bus keys status")
    _confirm(names, yes=yes)
    destroyed = carry_out(settings, store, Stack(settings).admin_connection(), planned)
    if as_json:
        emit("erase", {"epochs": names, "destroyed": list(destroyed.keks), "left": destroyed.left})
        return
    out.print(escape(f"shredding {', '.join(names)}: bus keys status says when enforcers have acknowledged it"))
    for kek in destroyed.keks:
        out.print(escape(f"destroyed {kek}"))
    if destroyed.left:
        out.print(escape(f"copies of the roots open until their wrapping key is gone: {destroyed.left}"))


def erasures(settings: Settings, store: RootStore) -> tuple[list[Erasure], str]:
    """How far each erasure has come; and why the ledger could not be asked, or nothing."""
    stones, failure = buried(store), ""
    hops: list[Hop] = []
    if stones:
        try:
            found = open_query(settings).search({"code": Code.ERASED, "verdict": "RETRY"})
            hops = [each.hop for each in found]
        except (BusError, OSError) as error:
            failure = str(error)
    return progress(settings, stones, hops, now_ms()), failure


def erasure_rows(found: list[Erasure]) -> list[dict[str, Any]]:
    """Erasures as JSON."""
    return [
        {
            "domain": each.tombstone.domain,
            "epoch": each.tombstone.epoch,
            "state": each.state.value,
            "waiting": list(each.waiting),
            "erased_at": each.tombstone.erased_at,
            "effective": each.effective,
            "wrapped_by": each.kek,
        }
        for each in found
    ]


def show_erasures(found: list[Erasure], failure: str) -> None:
    """Those under way, line by line, and the number of the others."""
    for each in found:
        if each.state is State.SHREDDING:
            why = f"waits for {', '.join(each.waiting)}" if each.waiting else "waits for leases to end"
            out.print(escape(f"shredding {each.tombstone.domain}/{each.tombstone.epoch}: {why}"))
    if done := sum(each.state is State.ERASED for each in found):
        out.print(f"erased    {done} epochs")
    if failure:
        out.print(escape(f"ledger    cannot be asked who has acknowledged: {failure}"))


def _time(text: str) -> int:
    try:
        told = dt.datetime.fromisoformat(text)
        if told.tzinfo is None:
            raise ValueError  # noqa: TRY301  # one sentence for all that is wrong with it
    except ValueError:
        raise click.BadParameter(f"expected ISO 8601 with its offset, found {text!r}", param_hint="--before") from None
    return int(told.timestamp() * 1000)


def _confirm(names: list[str], *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(f"{len(names)} epochs are not erased without being asked", hint="--yes, where it is meant")
    say(f"to be erased for good: {', '.join(names)}")
    if not click.confirm("Erase?", err=True):
        raise SystemExit(EXIT_NO)
