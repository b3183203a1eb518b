"""`bus audit search | trace | prove | verify | key`; `bus audit payload` is ``payloads``'."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from bus import settings as settings_module
from bus.authority.local import now_ms, open_roots
from bus.authority.trust import read_trust
from bus.cli.lazy import Lazy
from bus.cli.output import EXIT_NO, emit, out, warn
from bus.codes import Code
from bus.errors import SettingsError, Unverified
from bus.files import Layout
from bus.ledger.causes import drawn, forest, mermaid
from bus.ledger.cosignature import WitnessKey, cosigners
from bus.ledger.export import verify_export
from bus.ledger.leaf import days_keys
from bus.ledger.opened import open_ledger
from bus.ledger.proof import parse_proof, verify_proof
from bus.ledger.query import Found, LedgerQuery
from bus.ledger.siem import cef, ocsf
from bus.ledger.store import Ledger
from bus.ledger.verify import Report, Witnesses, verify_ledger
from bus.settings import Settings
from bus.wire.delegation import parse_told, told
from bus.wire.hop import Hop, HopTail, Verdict

COMMANDS = {
    "export": "bus.cli.exported",
    "move": "bus.cli.moving",
    "payload": "bus.cli.payloads",
    "reconcile": "bus.cli.reconcile",
    "report": "bus.cli.reporting",
    "retire": "bus.cli.retiring",
}


@click.group(cls=Lazy, lazy=COMMANDS)
def audit() -> None:
    """The ledger: what was decided, and proof of it."""


def open_query(settings: Settings, ledger: Ledger | None = None) -> LedgerQuery:
    """Reading rights: the days' keys, from this machine's roots. ``ledger``: unless it is the deployment's own."""
    layout = Layout(settings.state)
    roots = open_roots(settings, layout, read_trust(layout.trust))
    return LedgerQuery(ledger or open_ledger(settings), days_keys(roots.audit_root), passed_over)


def passed_over(day: int) -> None:
    """Say that a search cannot know of the hops of ``day`` (days since 1970)."""
    date = dt.date(1970, 1, 1) + dt.timedelta(days=day)
    warn(f"the hops of {date} were not searched: the keys of that day are gone")


def hop_document(hop: Hop) -> dict[str, Any]:
    """A hop as JSON."""
    tail = dataclasses.asdict(hop.tail)
    document = {
        "decision_id": hop.decision_id,
        "decision": tail.pop("decision"),
        "code": tail.pop("code"),
        "rule": tail.pop("rule"),
        "message_id": str(uuid.UUID(bytes=hop.message_id)) if any(hop.message_id) else "",
        "partition": hop.partition,
        "offset": hop.offset,
        "append_time": hop.append_time,
        "decided_at": hop.decided_at,
        "gap": hop.gap,
        "size": hop.size,
        "correlation": hop.correlation_id,
        "causation": [str(uuid.UUID(bytes=each)) for each in hop.causation_ids],
        "origin_digest": hop.origin_digest.hex(),
        "output_digest": hop.output_digest.hex(),
    }
    for key, value in tail.items():
        document[key] = value.hex() if isinstance(value, bytes) else value
    chain = parse_told(hop.tail.delegation)
    document["delegation"] = list(chain.agents) if chain is not None else []
    return document


def acting(tail: HopTail) -> str:
    """The agent of a hop; under a delegation that held everyone who passed it on, the giver first."""
    chain = parse_told(tail.delegation) if tail.code is not Code.DELEGATION else None
    return told(chain.agents) if chain is not None else tail.agent or "?"


def show_hops(found: list[Found], *, as_json: bool, form: str = "list") -> None:
    """Hops as a table or JSON Lines, or as a SIEM reads them."""
    for each in found:
        if form != "list":
            click.echo(cef(each.hop) if form == "cef" else json.dumps(ocsf(each.hop)))
            continue
        hop, tail = each.hop, each.hop.tail
        if as_json:
            emit("hop", {"audit_partition": each.partition, "leaf": each.leaf, **hop_document(hop)})
            continue
        when = dt.datetime.fromtimestamp(hop.decided_at / 1000, dt.UTC).strftime("%H:%M:%S.%f")[:-3]
        place = f"{tail.topic}/{hop.partition}@{hop.offset}"
        line = f"{when} {hop.decision_id} {_verdict(hop)} {escape(f'{acting(tail)} -> {place}  {_why(hop)}')}"
        out.print(line + (f"  {escape(tail.location)}" if tail.location else ""))


def _verdict(hop: Hop) -> str:
    colour = {Verdict.ALLOW: "green", Verdict.DENY: "red"}.get(hop.tail.decision, "yellow")
    return f"[{colour}]{hop.tail.decision:5}[/]"


def _why(hop: Hop) -> str:
    code, rule = hop.tail.code, hop.tail.rule
    return f"{code} by {rule}" if code and rule else str(code) or rule


def show_tree(found: list[Found]) -> None:
    """Hops below what they followed from, with the time since their tree began."""
    for branch, node, later in drawn(forest(each.hop for each in found)):
        hop, tail = node.hop, node.hop.tail
        what = " ".join(each for each in (tail.kind, tail.tool, f"for {tail.target}" if tail.target else "") if each)
        text = f"{acting(tail)} -> {tail.domain or tail.topic}  {what}  {_why(hop)}  +{later} ms"
        also = f"  also after {', '.join(node.others)}" if node.others else ""
        out.print(f"{escape(branch)}{_verdict(hop)} {hop.decision_id} {escape(text + also)}")


@audit.command()
@click.option("--agent", default="", help="Source agent.")
@click.option("--domain", default="", help="Domain.")
@click.option("--code", default="", help="Refusal code, as `mac` or `replay`.")
@click.option("--verdict", type=click.Choice(["ALLOW", "DENY", "RETRY"]), default=None)
@click.option("--correlation", default="", help="Session.")
@click.option("--message", default="", help="Message id.")
@click.option("--kind", default="", help="As TOOL_CALL: of what the others find.")
@click.option("--rule", default="", help="The rule that decided, as no-keys: of what the others find.")
@click.option("--since", default="", help="Decided in this time, as 24h or 7d: of what the others find.")
@click.option("--limit", default=1000, help="At most so many hops.")
@click.option(
    "--as", "form", type=click.Choice(["list", "ocsf", "cef"]), default="list", help="A line each, for a SIEM."
)
@click.option("--json", "as_json", is_flag=True, help="JSON Lines on stdout.")
def search(
    agent: str,
    domain: str,
    code: str,
    verdict: str | None,
    correlation: str,
    message: str,
    kind: str,
    rule: str,
    since: str,
    limit: int,
    form: str,
    as_json: bool,
) -> None:
    """Hops that have everything that is given; exit 1 when there is none.

    Agent, domain, code, verdict, correlation and message are looked up; kind, rule and time are asked of what is found.
    """
    terms = {
        "agent": agent,
        "domain": domain,
        "code": code,
        "verdict": verdict or "",
        "correlation": correlation,
        "message": message.replace("-", ""),
    }
    begin = _begin(since)
    query, narrow = open_query(settings_module.load()), bool(kind or rule or since)
    found = query.search({k: v for k, v in terms.items() if v}, sys.maxsize if narrow else limit)
    if narrow:
        found = [each for each in found if _has(each.hop, kind, rule, begin)][:limit]
    show_hops(found, as_json=as_json, form=form)
    if not found:
        raise SystemExit(EXIT_NO)


def _begin(since: str) -> int:
    """When a duration up to now began (ms since 1970); 0 for none. Raises click.UsageError."""
    if not since:
        return 0
    from bus.cli.durations import duration_ms  # a tenth of a second, which no other search should wait

    return now_ms() - duration_ms("--since", since)


def _has(hop: Hop, kind: str, rule: str, begin: int) -> bool:
    return kind in ("", hop.tail.kind) and rule in ("", hop.tail.rule) and hop.decided_at >= begin


@audit.command()
@click.argument("name")
@click.option("--as", "form", type=click.Choice(["tree", "list", "mermaid"]), default="tree", help="How it is drawn.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines on stdout.")
def trace(name: str, form: str, as_json: bool) -> None:
    """What led to what, in the session of a decision id, message id or correlation id.

    Each message hangs below the one that its sender named as its cause, with what was decided and when.
    """
    found = open_query(settings_module.load()).trace(name)
    if form == "mermaid" and not as_json:
        click.echo(mermaid(forest(each.hop for each in found)), nl=False)
    elif form == "tree" and not as_json:
        show_tree(found)
    else:
        show_hops(found, as_json=as_json)


@audit.command()
@click.argument("decision")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the proof here instead of stdout.")
@click.option("--payload", is_flag=True, help="With the record that was decided, sealed as it was sent.")
def prove(decision: str, output: Path | None, payload: bool) -> None:
    """Disclose one hop with its inclusion proof; opens no other hop."""
    settings = settings_module.load()
    document = open_query(settings).prove(decision, payload=payload, witnesses=settings.witnesses).to_json()
    if output is None:
        click.echo(document)
    else:
        output.write_text(document + "\n")


@audit.command()
def key() -> None:
    """The ledger's public key (hex), to hand to whoever verifies."""
    click.echo(read_trust(Layout(settings_module.load().state).trust).ledger.hex())


def _public_key(text: str) -> bytes:
    try:
        path = Path(text)
        data = bytes.fromhex(path.read_text().strip() if path.is_file() else text)
    except (ValueError, OSError):  # not hex, not text, or too long for a file's name
        data = b""
    if len(data) != 32:
        raise SettingsError("--key: expected 64 hex digits, or a file of them", hint="`bus audit key` prints it")
    return data


def _deployment(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise SettingsError("--deployment: expected 32 hex digits", hint="it stands in bus.toml") from None


@audit.command()
@click.option("--key", "public_key", required=True, help="The ledger's public key: hex, or a file that holds it.")
@click.option("--proof", type=click.Path(path_type=Path, exists=True), help="Verify this proof; needs no database.")
@click.option("--offline", type=click.Path(path_type=Path, exists=True), help="Verify this export; needs nothing else.")
@click.option("--report", type=click.Path(path_type=Path, exists=True), help="Count this report again, by its proofs.")
@click.option("--ledger", "path", type=click.Path(path_type=Path, exists=True), help="Verify this copy of a ledger.")
@click.option("--deployment", default="", help="Deployment id of that copy; else from the settings.")
@click.option("--witness", "named", multiple=True, help="A witness's verifier key; again for each.")
@click.option("--quorum", default=0, help="So many witnesses must have co-signed; unless told, all that are named.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def verify(
    public_key: str,
    proof: Path | None,
    offline: Path | None,
    report: Path | None,
    path: Path | None,
    deployment: str,
    named: tuple[str, ...],
    quorum: int,
    as_json: bool,
) -> None:
    """Check a proof, an export, a report or a whole ledger; exit 1 when something does not hold.

    \b
    bus audit verify --key KEY --offline DIR      what `bus audit export DIR` wrote, on any machine
    bus audit verify --key KEY --report DIR       what `bus audit report DIR` wrote, likewise
    """
    trusted = _public_key(public_key)
    keys = tuple(dict.fromkeys(map(WitnessKey.parse, named)))
    if quorum < 0 or quorum > len(keys):
        raise SettingsError(f"--quorum: expected 1 to the number of witnesses, {len(keys)}, found {quorum}")
    if keys and report is not None:
        raise SettingsError("--witness: expected --proof, --offline or a ledger, found --report, which has none")
    witnesses = Witnesses(keys, quorum or len(keys))
    if proof is not None:
        document = parse_proof(proof.read_bytes().decode(errors="replace"))
        hop, checkpoint = verify_proof(document, trusted)
        signers = cosigners(document.checkpoint, keys)
        if len(signers) < witnesses.quorum:
            found = f"expected cosignatures of {witnesses.quorum} of {len(keys)} witnesses, found {len(signers)}"
            raise Unverified(f"proof: {found}", step="witness")
        held = len(document.payload) if document.payload is not None else None
        if as_json:
            said = {"proven": True, "size": checkpoint.size, "payload": held, "witnesses": len(signers)}
            emit("audit-verify", {**said, "hop": hop_document(hop)})
        else:
            what = f"{hop.tail.decision} {hop.tail.code or hop.tail.rule} of {hop.tail.agent or 'unknown'}"
            out.print(f"proven: decision {hop.decision_id}: {escape(what)}, under {checkpoint.size} leaves")
            if keys:
                out.print(f"co-signed by {len(signers)} of {len(keys)} witnesses")
            if held is not None:
                out.print(f"proven: its record, {held} bytes, sealed as it was sent")
        return
    if report is not None:
        from bus.cli.reporting import show_checked

        show_checked(report, trusted, as_json=as_json)
        return
    if offline is not None:
        _show_report(verify_export(offline, trusted, witnesses), witnesses, as_json=as_json)
        return
    if path is None:
        if deployment:
            raise SettingsError("--deployment: expected --ledger with it")
        ledger = open_ledger(settings_module.load())
    else:
        name = _deployment(deployment) if deployment else settings_module.load().deployment_id
        ledger = Ledger(path, name, read_only=True)
    _show_report(verify_ledger(ledger, trusted, witnesses), witnesses, as_json=as_json)


def _show_report(report: Report, witnesses: Witnesses, *, as_json: bool) -> None:
    """What was verified; ends with 1 where something does not hold."""
    if as_json:
        emit("audit-verify", dataclasses.asdict(report))
    else:
        for problem in report.problems:
            out.print(f"[red]{escape(problem)}[/]")
        told = f"{report.leaves} hops, {report.checkpoints} checkpoints, {report.intervals} intervals"
        told += f", {report.payloads} records kept, {report.lost} lost" if report.payloads or report.lost else ""
        told += f", {report.retired} retired" if report.retired else ""
        out.print(f"{told}: {len(report.problems)} problems" if report.problems else f"{told}: all hold")
        if report.witnessed:
            leaves = sum(report.witnessed.values())
            out.print(f"co-signed by {witnesses.quorum} of {len(witnesses.keys)} witnesses: {leaves} hops")
    if report.problems:
        raise SystemExit(EXIT_NO)
