"""`bus policy check | plan | apply`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from bus import settings as settings_module
from bus.admin.saved import check_same, read_draft, save_plan
from bus.cli import law, past
from bus.cli.output import EXIT_CHANGES, emit, out, say, warn
from bus.cli.plans import confirm, show
from bus.cli.recorded import parse_window, recorded
from bus.guardrails.engine import known_types, load_engine
from bus.policy.alertfile import read_alerts
from bus.policy.attestation import check_issuing
from bus.policy.casechecks import check_cases
from bus.policy.casefile import CASES_FILE, CasesFile, read_cases
from bus.policy.holdfile import read_holds
from bus.policy.lint import lint, lint_cases
from bus.policy.loader import load_policy, raise_first, validate
from bus.settings import Issuing, Mode, Settings
from bus.stack.local import Stack


@click.group()
def policy() -> None:
    """The law of the deployment: check the files, compare with the broker, apply."""


def _stack(settings: Settings, directory: Path | None) -> Stack:
    return Stack(dataclasses.replace(settings, policies=directory) if directory else settings)


@policy.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def check(directory: Path | None, as_json: bool) -> None:
    """Read and check the files, and warn of what is probably not meant; exit 1 when refused, 2 when unreadable.

    Also cases.yaml, alerts.yaml and holds.yaml, where the folder has them.
    """
    settings = settings_module.load()
    folder = directory or settings.policies
    loaded = load_policy(folder, development=settings.mode is Mode.DEVELOPMENT, types=known_types(settings))
    settings.check_interval(loaded.rotation_interval_ms)
    check_issuing(loaded, files=settings.issuing is Issuing.FILES)
    digest = loaded.digest.hex()
    warnings = [str(each) for each in lint(loaded)]
    read_alerts(folder)
    read_holds(folder)
    cases = folder / CASES_FILE
    if cases.exists():
        document = read_cases(cases)
        file = validate(document, CasesFile)
        raise_first(check_cases(document, file, loaded))
        warnings += [str(each) for each in lint_cases(loaded, document, file, load_engine(settings))]
    if as_json:
        names = {"domains": sorted(loaded.domains), "agents": sorted(loaded.agents)}
        emit("policy-check", {"digest": digest, **names, "warnings": warnings})
    else:
        for each in warnings:
            warn(each)
        out.print(f"ok: {len(loaded.domains)} domains, {len(loaded.agents)} agents, digest {digest[:12]}")


@policy.command(name="plan")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--prune", is_flag=True, help="Plan the removal of drift too.")
@click.option("--fail-on-changes", is_flag=True, help="Exit 3 when there are changes or drift.")
@click.option(
    "--out", "file", type=click.Path(path_type=Path, dir_okay=False), help="Save it: `bus policy apply FILE`."
)
@click.option(
    "--history",
    "window",
    metavar="24h|none",
    default="24h",
    help="How much of the ledger is decided again under the files; 24h unless told.",
)
def plan_command(
    directory: Path | None,
    as_json: bool,
    prune: bool,
    fail_on_changes: bool,
    file: Path | None,
    window: str,
) -> None:
    """Compare the policy files with the broker, and with what the ledger holds; changes nothing.

    \b
    bus policy plan --out plan.json
    bus policy plan draft/ --history 7d
    """
    past = parse_window(window)
    settings = settings_module.load()
    local = _stack(settings, directory)
    plan = local.plan(local.load_policy(), prune=prune)
    show(plan, as_json=as_json, history=recorded(settings, plan, past))
    if file is not None:
        save_plan(plan, file)
        say(f"saved {file}")
    if fail_on_changes and (plan.changes or plan.drift):
        raise SystemExit(EXIT_CHANGES)


@policy.command()
@click.argument("source", metavar="[DIRECTORY|FILE]", required=False, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.option("--prune", is_flag=True, help="Remove drift too.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--allow-widening", is_flag=True, help="Changes that widen what may go on or be read are meant.")
def apply(source: Path | None, as_json: bool, prune: bool, yes: bool, allow_widening: bool) -> None:
    """Plan, print, ask on a terminal, and carry the plan out; with the file of a saved plan exactly that one.

    \b
    bus policy apply
    bus policy apply plan.json --allow-widening
    """
    settings = settings_module.load()
    saved = source is not None and source.is_file()
    local = _stack(settings, None if saved else source)
    loaded, told = read_draft(source) if saved and source is not None else (local.load_policy(), None)
    settings.check_interval(loaded.rotation_interval_ms)
    plan = local.plan(loaded, prune=prune)
    show(plan, as_json=as_json)
    if told is not None:
        check_same(plan, told)
    if not plan.changes:
        return
    confirm(plan, yes=yes, allow_widening=allow_widening)
    local.apply(plan)
    say(f"applied: {len(plan.changes)} changes")


for command in (*law.COMMANDS, *past.COMMANDS):
    policy.add_command(command)
