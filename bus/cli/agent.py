"""`bus agent enroll | join | list | revoke`: identities that the authority gives."""

from __future__ import annotations

import dataclasses
import datetime as dt
import sys
from pathlib import Path

import click
from rich.markup import escape

from bus import settings as settings_module
from bus.authority.enrolment import open_register
from bus.authority.local import now_ms, read_applied
from bus.authority.trust import read_trust
from bus.cli.output import EXIT_NO, emit, out, say
from bus.client.authority import enrol
from bus.codes import Code
from bus.errors import Refused
from bus.files import Layout
from bus.wire.names import AgentId, agent_id

JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")


@click.group()
def agent() -> None:
    """Enrol agents with the authority, and lock them out."""


@agent.command()
@click.argument("name")
@JSON
def enroll(name: str, as_json: bool) -> None:
    """Make a one-time token for agent NAME, good for an hour. On stdout: the token alone.

    \b
    bus agent enroll retriever-1 | ssh host 'bus agent join retriever-1'
    """
    layout = Layout(settings_module.load().state)
    found = agent_id(name)
    live = read_applied(layout, read_trust(layout.trust))
    if live is not None and found not in live.policy.agents:
        raise Refused(
            f"{name} is not in the policy that was applied", code=Code.CREDENTIAL, hint="agents.yaml, bus policy apply"
        )
    token = open_register(layout).invite(found, now_ms())
    if as_json:
        emit("agent-token", {"agent": name, "token": token})
    else:
        click.echo(token)
        say(f"it enrols {name} once, within an hour: bus agent join {name}")


@agent.command()
@click.argument("name")
@click.option("--token", default="-", help="The one-time token; read from stdin unless given.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the agent keeps its identity.")
def join(name: str, token: str, folder: Path | None) -> None:
    """Enrol agent NAME on this machine with a one-time token."""
    settings = settings_module.load()
    layout = Layout(settings.state)
    found = agent_id(name)
    text = sys.stdin.read(1024) if token == "-" else token  # noqa: S105  # means: read it
    told = enrol(folder or layout.agent(found), settings.enrolment, layout.ca.read_bytes(), text.strip())
    if told != found:
        raise Refused(f"the token is one of {told}, not of {name}", code=Code.CREDENTIAL)
    say(f"{name} is enrolled")


@agent.command(name="list")
@JSON
def list_(as_json: bool) -> None:
    """Every agent that was enrolled: state, certificate, age."""
    now = now_ms()
    rows = open_register(Layout(settings_module.load().state)).list()
    if as_json:
        emit("agents", {"agents": [dataclasses.asdict(each) for each in rows]})
        return
    for each in rows:
        colour = "green" if each.state == "active" else "red"
        until = dt.datetime.fromtimestamp(each.until / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        hours = (now - each.since) // 3_600_000
        out.print(
            f"[{colour}]{each.state:8}[/] {escape(each.name):24} certificate {each.counter} until {until}, "
            f"enrolled {hours} h ago{escape('  ' + each.why if each.why else '')}"
        )


@agent.command()
@click.argument("name")
@click.option("--why", default="an operator said so", help="Told to whoever shows its certificate.")
def revoke(name: str, why: str) -> None:
    """Give agent NAME nothing more: no certificate, no lease. Exit 1 where it was never enrolled.

    What it holds ends with its epoch; to end that at once take it out of agents.yaml and apply.
    """
    if not open_register(Layout(settings_module.load().state)).revoke(AgentId(agent_id(name)), why):
        say(f"{name} is not enrolled")
        raise SystemExit(EXIT_NO)
    say(f"{name} is revoked")
