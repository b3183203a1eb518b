"""`bus agent enroll | join | measure | list | show | revoke`: identities that the authority gives."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from pathlib import Path

import click
from rich.markup import escape

from bus import settings as settings_module
from bus.attester.chosen import choose, measured_code
from bus.authority.enrolment import open_register
from bus.authority.local import now_ms, read_applied
from bus.authority.sources import Source, fetch
from bus.authority.standing import Standing, standings
from bus.authority.trust import read_trust
from bus.cli.agents import line, lines, told
from bus.cli.output import EXIT_NO, emit, out, say
from bus.client.authority import enrol, enrol_attested
from bus.codes import Code
from bus.errors import Refused, SettingsError
from bus.files import Layout
from bus.wire.measurement import EvidenceKind, Measurement
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
    settings = settings_module.load()
    layout = Layout(settings.state)
    found = agent_id(name)
    live = read_applied(layout, read_trust(layout.trust))
    if live is not None and found not in live.policy.agents:
        raise Refused(
            f"{name} is not in the policy that was applied", code=Code.CREDENTIAL, hint="agents.yaml, bus policy apply"
        )
    token = open_register(settings, layout).invite(found, now_ms())
    if as_json:
        emit("agent-token", {"agent": name, "token": token})
    else:
        click.echo(token)
        say(f"it enrols {name} once, within an hour: bus agent join {name}")


@agent.command()
@click.argument("name")
@click.option("--token", default="-", help="The one-time token; read from stdin unless given.")
@click.option("--token-from", help="Fetch it: vault:…, aws-secrets:… or azure-secrets:… (bus secrets --help).")
@click.option("--attest", is_flag=True, help="Enrol by attestation, without a token: `attester` in bus.toml.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where the agent keeps its identity.")
def join(name: str, token: str, token_from: str | None, attest: bool, folder: Path | None) -> None:
    """Enrol agent NAME on this machine, with a one-time token or by attestation."""
    settings = settings_module.load()
    layout = Layout(settings.state)
    found = agent_id(name)
    place, ca = folder or layout.agent(found), layout.ca.read_bytes()
    if attest:
        attester = choose(settings)
        if attester is None:
            raise SettingsError("attester: expected one to enrol by, found none", hint='attester = "tpm" in bus.toml')
        enrol_attested(place, settings.enrolment, ca, found, attester)
    else:
        if token_from is not None:
            text = fetch(settings, Source.parse(token_from)).decode(errors="replace")
        else:
            text = sys.stdin.read(1024) if token == "-" else token  # noqa: S105  # means: read it
        told = enrol(place, settings.enrolment, ca, text.strip())
        if told != found:
            raise Refused(f"the token is one of {told}, not of {name}", code=Code.CREDENTIAL)
    say(f"{name} is enrolled")


@agent.command()
@JSON
def measure(as_json: bool) -> None:
    """The measurement of this package, `attester_code` and the interpreter; what the TPM's PCR holds once it has it.

    Either goes into `measurements` in agents.yaml.
    """
    settings = settings_module.load()
    code = measured_code(settings)
    extended = Measurement(EvidenceKind.TPM, settings.tpm_pcr, hashlib.sha256(bytes(32) + code.digest).digest())
    if as_json:
        emit("agent-measurement", {"software": str(code), "tpm": str(extended)})
    else:
        click.echo(f"{code}\n{extended}")


@agent.command(name="list")
@JSON
def list_(as_json: bool) -> None:
    """Every agent that was enrolled: state, certificate, age, what it attested last."""
    rows = [(each.enrolled, each) for each in _standings() if each.enrolled is not None]
    if as_json:
        emit("agents", {"agents": [{**dataclasses.asdict(held), **told(each)} for held, each in rows]})
        return
    for held, each in rows:
        out.print(f"[{'green' if held.state == 'active' else 'red'}]{held.state:8}[/] {escape(line(held, each))}")


@agent.command()
@click.argument("name")
@JSON
def show(name: str, as_json: bool) -> None:
    """How agent NAME stands: roles, certificate, attestation. Exit 1 where nobody knows it."""
    found = agent_id(name)
    each = next((each for each in _standings() if each.name == found), None)
    if each is None:
        say(f"{name} is not in the policy, and was never enrolled")
        raise SystemExit(EXIT_NO)
    if as_json:
        held = dataclasses.asdict(each.enrolled) if each.enrolled is not None else None
        emit("agent", {"name": name, "enrolled": held, **told(each)})
        return
    for what, text in lines(each):
        out.print(f"[bold]{what:12}[/] {escape(text)}")


def _standings() -> list[Standing]:
    settings = settings_module.load()
    layout = Layout(settings.state)
    live = read_applied(layout, read_trust(layout.trust))
    return standings(open_register(settings, layout), live.policy if live is not None else None, now_ms())


@agent.command()
@click.argument("name")
@click.option("--why", default="an operator said so", help="Told to whoever shows its certificate.")
def revoke(name: str, why: str) -> None:
    """Give agent NAME nothing more: no certificate, no lease. Exit 1 where it was never enrolled.

    What it holds ends with its epoch; to end that at once take it out of agents.yaml and apply.
    """
    settings = settings_module.load()
    if not open_register(settings, Layout(settings.state)).revoke(AgentId(agent_id(name)), why):
        say(f"{name} is not enrolled")
        raise SystemExit(EXIT_NO)
    say(f"{name} is revoked")
