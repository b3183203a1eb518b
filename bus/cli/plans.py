"""How a plan is shown, and what it takes to carry it out: widening that is meant, a yes on a terminal."""

from __future__ import annotations

import sys

import click
from rich.markup import escape

from bus.admin.plan import Plan, Verb
from bus.cli.output import EXIT_NO, emit, out
from bus.cli.recorded import History
from bus.codes import Code
from bus.errors import Refused
from bus.policy.model import Policy
from bus.wire.names import DomainName

COLOURS = {Verb.REMOVE: "red", Verb.ADD: "green", Verb.CHANGE: "yellow", Verb.DRIFT: "magenta"}


def show(plan: Plan, *, as_json: bool, history: History | None = None) -> None:
    """Print a plan, and what it would have decided of what was recorded."""
    if as_json:
        rows = [{"verb": c.verb.value, "kind": c.kind, "name": c.name, "detail": c.detail} for c in plan.changes]
        drift = [{"kind": c.kind, "name": c.name, "detail": c.detail} for c in plan.drift]
        access = [{"sign": a.sign, "text": a.text, "location": a.location, "widens": a.widens} for a in plan.access]
        digest, keys, notes = plan.policy.digest.hex(), list(plan.keys), list(plan.notes)
        past = history.document() if history is not None else None
        parts = {"access": access, "changes": rows, "drift": drift, "keys": keys, "history": past, "notes": notes}
        emit("plan", {"digest": digest, **parts})
        return
    live = plan.live_digest.hex()[:12] if plan.live_digest else "none"
    out.print(f"live {live}  ->  draft {plan.policy.digest.hex()[:12]}   cluster {plan.cluster}, {plan.brokers} broker")
    for each in plan.access:
        out.print(f"[{COLOURS[Verb(each.sign)]}]{each.sign}[/] {escape(str(each)[2:])}")
    for flip, count in history.allowed() if history is not None else ():
        text = f"would allow {flip.agent} -> {flip.domain}: {count:,} that the live policy stops"
        out.print(f"[yellow]~[/] {escape(f'{text}  {flip.location}'.rstrip())}")
    for change in [*plan.changes, *plan.drift]:
        out.print(f"[{COLOURS[change.verb]}]{change.verb.value}[/] {escape(str(change)[2:])}")
    if plan.live is not None and plan.live_digest != plan.policy.digest:
        out.print(_keys(plan.live, plan.policy, plan.keys))
    if history is not None:
        out.print(escape(f"history: {history}"))
    for note in plan.notes:
        out.print(f"note: {escape(note)}")
    counts = f"{len(plan.changes)} changes, {len(plan.drift)} drift" if plan.changes or plan.drift else "no changes"
    widens = f", {len(plan.widens)} widen" if plan.widens else ""
    out.print(f"Plan: {counts}{widens}.")


def _keys(live: Policy, draft: Policy, keys: tuple[DomainName, ...]) -> str:
    untouched = len({*live.domains} & {*draft.domains}) - len(keys)
    told = f"{', '.join(keys)} {'re-key' if len(keys) > 1 else 're-keys'}" if keys else "no domain re-keys"
    return f"keys: {told}; {untouched} untouched"


def confirm(plan: Plan, *, yes: bool, allow_widening: bool) -> None:
    """Raises Refused for widening that is not meant; asks on a terminal."""
    if plan.widens and not allow_widening:
        raise Refused(
            f"{len(plan.widens)} changes widen what may go on or be read, first: {plan.widens[0].text}",
            code=Code.POLICY,
            hint="look at the plan; where it is meant, add --allow-widening",
        )
    if not yes and sys.stdin.isatty() and not click.confirm("Apply?", err=True):
        raise SystemExit(EXIT_NO)
