"""`bus policy test | explain | who | graph`: questions to the policy files; nothing here touches a broker."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from bus import settings as settings_module
from bus.cli.audit import acting, open_query
from bus.cli.output import EXIT_NO, emit, out, say
from bus.codes import Code
from bus.errors import Refused
from bus.guardrails.engine import known_types, load_engine
from bus.policy.casechecks import check_cases, parse_time
from bus.policy.casefile import CASES_FILE, CasesFile, read_cases
from bus.policy.cases import Result, rules_of, run_cases
from bus.policy.decide import Decision
from bus.policy.explain import Explanation, explain
from bus.policy.graph import FORMATS
from bus.policy.loader import load_policy, raise_first, validate
from bus.policy.model import Policy
from bus.policy.mutants import survivors
from bus.policy.question import Action, Context
from bus.policy.replay import context_of
from bus.settings import Mode, Settings
from bus.wire.envelope import Kind
from bus.wire.hop import parse_decision_id
from bus.wire.names import AgentId, DomainName

DIRECTORY = click.argument("directory", required=False, type=click.Path(path_type=Path))
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")


def load_files(directory: Path | None) -> tuple[Path, Policy]:
    """The policy in ``directory``, or in the settings' one."""
    return read_files(settings_module.load(), directory)


def read_files(settings: Settings, directory: Path | None) -> tuple[Path, Policy]:
    """Like ``load_files``."""
    place = directory or settings.policies
    return place, load_policy(place, development=settings.mode is Mode.DEVELOPMENT, types=known_types(settings))


@click.command(name="test")
@DIRECTORY
@JSON
@click.option("--only", default="", metavar="TEXT", help="Cases whose name holds this text.")
@click.option("--mutate", is_flag=True, help="Change one rule after the other: which changes does no case notice?")
def test_command(directory: Path | None, as_json: bool, only: str, mutate: bool) -> None:
    """Run cases.yaml; exit 1 when one fails, when none is chosen, or when --mutate finds a rule that none tests.

    \b
    bus policy test policies/example
    bus policy test --only "other tenant"
    """
    settings = settings_module.load()
    place, policy = read_files(settings, directory)
    document = read_cases(place / CASES_FILE)
    file = validate(document, CasesFile)
    raise_first(check_cases(document, file, policy))
    scanners = load_engine(settings)
    results = run_cases(policy, document, file, only, scanners=scanners)
    decided = {each.decision.rule for each in results if each.decision is not None}
    uncovered = sorted(rules_of(policy) - decided)
    alive, count = survivors(policy, document, file, scanners) if mutate else ([], 0)
    failed = [each for each in results if each.failure]
    if as_json:
        rows = [{"name": r.name, "location": r.location, "failure": r.failure, "rule": _rule(r)} for r in results]
        left = [{"what": each.what, "location": each.location} for each in alive]
        emit("policy-test", {"cases": rows, "uncovered": uncovered, "mutants": count, "survivors": left})
    else:
        for each in failed:
            out.print(f"[red]FAIL[/] {escape(each.name)} ({each.location}): {escape(each.failure)}")
        for mutant in alive:
            out.print(f"[yellow]SURVIVES[/] {escape(mutant.what)} ({mutant.location}): no case notices")
        if uncovered and not only:
            out.print(f"no case is decided by: {', '.join(uncovered)}")
        told = f", {count} mutants, {len(alive)} survive" if mutate else ""
        out.print(f"{len(results)} cases, {len(failed)} failed{told}")
    if not results:
        say(f"no case {f'has {only!r} in its name' if only else 'stands in ' + CASES_FILE}")
    if failed or alive or not results:
        raise SystemExit(EXIT_NO)


def _rule(result: Result) -> str:
    return result.decision.rule if result.decision is not None else ""


@click.command(name="explain")
@DIRECTORY
@JSON
@click.option("--decision", default="", metavar="ID", help="A decision of the ledger, instead of what follows.")
@click.option("--agent", default="", help="Who asks.")
@click.option("--produce", "produced", metavar="DOMAIN", help="May it write there?")
@click.option("--consume", "consumed", metavar="DOMAIN", help="May it read there?")
@click.option("--kind", type=click.Choice([each.value for each in Kind]), default="MESSAGE")
@click.option("--target", default="", help="The agent that the record is for.")
@click.option("--tool", default="")
@click.option("--purpose", default="")
@click.option("--task-type", default="")
@click.option("--by", "delegated_by", multiple=True, help="Who delegated to it, the first giver first.")
@click.option("--label", "labels", multiple=True, help="What the record builds on; several times for several.")
@click.option("--time", "at", default="", help="ISO 8601; now where it is not given.")
@click.option("--load", type=float, default=0.0, help="The enforcer's, 1 is all its cores.")
@click.option("--size", type=int, default=0, help="Bytes.")
def explain_command(
    directory: Path | None,
    as_json: bool,
    decision: str,
    agent: str,
    produced: str | None,
    consumed: str | None,
    kind: str,
    target: str,
    tool: str,
    purpose: str,
    task_type: str,
    delegated_by: tuple[str, ...],
    labels: tuple[str, ...],
    at: str,
    load: float,
    size: int,
) -> None:
    """Why a record would be allowed or refused, rule by rule; exit 1 for DENY.

    \b
    bus policy explain --agent executor-1 --produce agent_memory --purpose care
    bus policy explain --decision 7vzoe2egjd7f2d6t
    """
    _, policy = load_files(directory)
    if decision:
        _explain_past(decision, policy, as_json=as_json)
        return
    if not agent:
        raise click.UsageError("expected --agent, or --decision")
    if (produced is None) == (consumed is None):
        raise click.UsageError("expected one of --produce and --consume")
    context = Context(
        kind=Kind(kind),
        target=target,
        tool=tool,
        task_type=task_type,
        purpose=purpose,
        labels=labels,
        delegated_by=tuple(map(AgentId, delegated_by)),
        time_ms=_time(at),
        load=load,
        size=size,
    )
    action = Action.PRODUCE if produced is not None else Action.CONSUME
    domain = DomainName(produced or consumed or "")
    _tell(
        explain(AgentId(agent), action, domain, context, policy, floor=action is Action.PRODUCE), policy, agent, as_json
    )


def _tell(told: Explanation, policy: Policy, agent: str, as_json: bool, **more: object) -> None:
    if as_json:
        emit("policy-explain", {"digest": policy.digest.hex(), **more, **_explained(told)})
    else:
        _print(told, policy, agent)
    if not told.decision.allowed:
        raise SystemExit(EXIT_NO)


def _explain_past(name: str, policy: Policy, *, as_json: bool) -> None:
    """What was decided, and rule by rule what these files would decide on the same facts."""
    parse_decision_id(name)
    found = open_query(settings_module.load()).search({"decision": name}, 1)
    if not found:
        raise Refused(f"no decision {name!r} in the ledger", code=Code.LEDGER, hint="`bus audit search` lists them")
    hop = found[0].hop
    tail = hop.tail
    recorded = {"decision": tail.decision.value, "code": tail.code.value, "rule": tail.rule, "location": tail.location}
    if not as_json:
        place = f" ({tail.location})" if tail.location else ""
        told = f"{tail.decision.value} by {tail.rule or tail.code.value}{place}"
        out.print(escape(f"then: {told}, snapshot {tail.snapshot}, {acting(tail)} -> {tail.domain}"))
        for rule, kind, count in tail.guardrails:
            out.print(escape(f"  {rule} found {kind}, {count} times"))
    context = context_of(hop, policy)
    if context is None:
        raise Refused(
            f"decision {name!r} has no facts: it was refused before it was decided, or its domain is OUTPUT_ONLY",
            code=Code.LEDGER,
        )
    told_now = explain(AgentId(tail.agent), Action.PRODUCE, DomainName(tail.domain), context, policy)
    _tell(told_now, policy, tail.agent, as_json=as_json, recorded=recorded)


def _time(text: str) -> int:
    if not text:
        return int(dt.datetime.now(dt.UTC).timestamp() * 1000)
    try:
        return parse_time(text)
    except (ValueError, OverflowError):
        raise click.UsageError(f"--time: expected ISO 8601, found {text!r}") from None


def _decided(decision: Decision) -> dict[str, Any]:
    obligations = decision.obligations
    return {
        "decision": "ALLOW" if decision.allowed else "DENY",
        "code": decision.code.value,
        "rule": decision.rule,
        "location": decision.location,
        "why": decision.why,
        "obligations": list(obligations.names()) if obligations is not None else [],
    }


def _explained(told: Explanation) -> dict[str, Any]:
    return {
        **_decided(told.decision),
        "rules": [
            {"rule": each.rule, "passes": each.refusal is None, "why": each.why, "location": each.location}
            for each in told.findings
        ],
        "roles_that_allow": list(told.roles),
        "purposes_that_allow": list(told.purposes),
        "sharing": list(told.sharing),
    }


def _print(told: Explanation, policy: Policy, agent: str) -> None:
    decision = told.decision
    colour = "green" if decision.allowed else "red"
    where = f" ({decision.location})" if decision.location else ""
    verdict = "ALLOW" if decision.allowed else "DENY"
    out.print(f"[{colour}]{verdict}[/] by {escape(decision.rule)}{where}   draft {policy.digest.hex()[:12]}")
    width = max((len(each.rule) for each in told.findings), default=0)
    for each in told.findings:
        mark = "[green]yes[/]" if each.refusal is None else "[red]NO [/]"
        place = f" ({each.location})" if each.location else ""
        out.print(f"  {mark}  {escape(each.rule.ljust(width))}  {escape(each.why)}{place}")
    if decision.obligations is not None:
        out.print(f"obligations: {escape(', '.join(decision.obligations.names()))}")
        return
    if told.roles:
        out.print(f"ALLOW if {agent} also held {' or '.join(told.roles)}")
    if told.purposes:
        out.print(f"ALLOW with purpose {escape(' or '.join(told.purposes))}")
    if told.sharing:
        out.print(f"{len(told.sharing)} other agents share this refusal: {', '.join(told.sharing[:8])}")
    out.print("(All rules are shown; the enforcer stops at the first NO.)")


@click.command()
@DIRECTORY
@JSON
@click.option("--agent", default="", help="Only this agent.")
@click.option("--domain", default="", help="Only this domain.")
def who(directory: Path | None, as_json: bool, agent: str, domain: str) -> None:
    """Who may write and who may read, by domain.

    \b
    bus policy who --domain agent_memory
    """
    _, policy = load_files(directory)
    rows = [
        {
            "domain": each.name,
            "tier": each.tier.name,
            "produce": [name for name in policy.writers(each) if policy.agents[name].roles & each.produce],
            "delegates": [name for name in policy.writers(each) if not policy.agents[name].roles & each.produce],
            "consume": policy.openers(each),
        }
        for _, each in sorted(policy.domains.items())
        if domain in ("", each.name)
    ]
    if agent:
        for row in rows:
            for key in ("produce", "delegates", "consume"):
                row[key] = [name for name in row[key] if name == agent]
        rows = [row for row in rows if row["produce"] or row["delegates"] or row["consume"]]
    if as_json:
        emit("policy-who", {"digest": policy.digest.hex(), "domains": rows})
    else:
        for row in rows:
            out.print(f"{row['domain']} ({row['tier']})")
            out.print(f"  may write: {', '.join(row['produce']) or 'nobody'}")
            if row["delegates"]:
                out.print(f"  under a delegation: {', '.join(row['delegates'])}")
            out.print(f"  may read:  {', '.join(row['consume']) or 'nobody'}")
    if not rows:
        say("nobody and nothing of that name in the policy")
        raise SystemExit(EXIT_NO)


@click.command()
@DIRECTORY
@click.option("--as", "kind", type=click.Choice(list(FORMATS)), default="mermaid", help="mermaid unless told.")
def graph(directory: Path | None, kind: str) -> None:
    """Draw agents, domains, tiers, zones and flows; the picture goes to stdout.

    \b
    bus policy graph --as svg > mesh.svg
    """
    _, policy = load_files(directory)
    sys.stdout.write(FORMATS[kind](policy))


COMMANDS = (test_command, explain_command, who, graph)
