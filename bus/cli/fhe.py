"""`bus fhe init`: a key of homomorphic encryption, for a domain of tier FHE."""

from __future__ import annotations

import click

from bus import settings as settings_module
from bus.cli.output import emit, say
from bus.client.fhe import create
from bus.files import Layout
from bus.tiers.fheframe import Scheme
from bus.wire.names import agent_id


@click.group()
def fhe() -> None:
    """Keys of homomorphic encryption (tier FHE)."""


@fhe.command()
@click.option("--as", "agent", required=True, help="The agent that holds the secret and decrypts.")
@click.option(
    "--scheme", type=click.Choice([each.name for each in Scheme]), default="CKKS", help="Of what it computes."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def init(agent: str, scheme: str, as_json: bool) -> None:
    """Make a key. On stdout: the line for a domain in mesh.yaml.

    The public context goes to `contexts/` in the state folder: whoever encrypts or computes needs that file. The secret
    one stays in the agent's folder, 0600, and is nowhere else: copy it where it is to survive.

    \b
    bus fhe init --as lead-1
    """
    settings = settings_module.load()
    name = agent_id(agent)
    digest = create(Layout(settings.state), name, Scheme[scheme], settings.owners.get(name)).hex()
    if as_json:
        emit("fhe", {"agent": agent, "scheme": scheme, "fhe_context": digest})
    else:
        click.echo(f"fhe_context: {digest}")
        say(f"{agent} decrypts what is encrypted under it; the line goes into a domain of tier FHE")
