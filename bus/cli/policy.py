"""`bus policy check | plan | apply`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import click
from rich.markup import escape

from bus import settings as settings_module
from bus.admin.apply import apply_plan
from bus.admin.plan import Plan, Verb
from bus.authority.local import load_signer
from bus.cli import law
from bus.cli.output import EXIT_CHANGES, EXIT_NO, emit, out, say
from bus.policy.loader import load_policy
from bus.settings import Mode, Settings
from bus.stack.local import Stack

COLOURS = {Verb.REMOVE: "red", Verb.ADD: "green", Verb.CHANGE: "yellow", Verb.DRIFT: "magenta"}


@click.group()
def policy() -> None:
    """The law of the deployment: check the files, compare with the broker, apply."""


def _stack(settings: Settings, directory: Path | None) -> Stack:
    return Stack(dataclasses.replace(settings, policies=directory) if directory else settings)


@policy.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def check(directory: Path | None, as_json: bool) -> None:
    """Read and check mesh.yaml and agents.yaml; exit 1 when refused, 2 when they cannot be read."""
    settings = settings_module.load()
    loaded = load_policy(directory or settings.policies, development=settings.mode is Mode.DEVELOPMENT)
    settings.check_interval(loaded.rotation_interval_ms)
    digest = loaded.digest.hex()
    if as_json:
        emit("policy-check", {"digest": digest, "domains": sorted(loaded.domains), "agents": sorted(loaded.agents)})
    else:
        out.print(f"ok: {len(loaded.domains)} domains, {len(loaded.agents)} agents, digest {digest[:12]}")


def show(plan: Plan, *, as_json: bool) -> None:
    """Print a plan."""
    if as_json:
        rows = [{"verb": c.verb.value, "kind": c.kind, "name": c.name, "detail": c.detail} for c in plan.changes]
        drift = [{"kind": c.kind, "name": c.name, "detail": c.detail} for c in plan.drift]
        emit("plan", {"digest": plan.policy.digest.hex(), "changes": rows, "drift": drift, "notes": list(plan.notes)})
        return
    live = plan.live_digest.hex()[:12] if plan.live_digest else "none"
    out.print(f"live {live}  ->  draft {plan.policy.digest.hex()[:12]}   cluster {plan.cluster}, {plan.brokers} broker")
    for change in [*plan.changes, *plan.drift]:
        out.print(f"[{COLOURS[change.verb]}]{change.verb.value}[/] {escape(str(change)[2:])}")
    for note in plan.notes:
        out.print(f"note: {escape(note)}")
    counts = f"{len(plan.changes)} changes, {len(plan.drift)} drift" if plan.changes or plan.drift else "no changes"
    out.print(f"Plan: {counts}.")


@policy.command(name="plan")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--prune", is_flag=True, help="Plan the removal of drift too.")
@click.option("--fail-on-changes", is_flag=True, help="Exit 3 when there are changes or drift.")
def plan_command(directory: Path | None, as_json: bool, prune: bool, fail_on_changes: bool) -> None:
    """Compare the policy files with the broker; changes nothing."""
    local = _stack(settings_module.load(), directory)
    plan = local.plan(local.load_policy(), prune=prune)
    show(plan, as_json=as_json)
    if fail_on_changes and (plan.changes or plan.drift):
        raise SystemExit(EXIT_CHANGES)


@policy.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--prune", is_flag=True, help="Remove drift too.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def apply(directory: Path | None, as_json: bool, prune: bool, yes: bool) -> None:
    """Plan, print, ask on a terminal, and carry the plan out."""
    settings = settings_module.load()
    local = _stack(settings, directory)
    loaded = local.load_policy()
    settings.check_interval(loaded.rotation_interval_ms)
    plan = local.plan(loaded, prune=prune)
    show(plan, as_json=as_json)
    if not plan.changes:
        return
    if not yes and sys.stdin.isatty() and not click.confirm("Apply?", err=True):
        raise SystemExit(EXIT_NO)
    trust = local.ensure_identities(loaded)
    signer = load_signer(local.layout.signer("policy"))
    apply_plan(plan, local.admin_connection(), local.layout, signer, trust, settings.owners)
    say(f"applied: {len(plan.changes)} changes")


for command in law.COMMANDS:
    policy.add_command(command)
