"""`bus mpc init | totals`: a party's key, and what parties add up together."""

from __future__ import annotations

import dataclasses

import click

from bus import settings as settings_module
from bus.cli.output import emit, out, say
from bus.client.party import create_key
from bus.files import Layout
from bus.wire.names import agent_id


@click.group()
def mpc() -> None:
    """Sums over shares of several parties (tier COMPUTATION by mpc)."""


@mpc.command()
@click.option("--as", "agent", required=True, help="The agent that is to be a party.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def init(agent: str, as_json: bool) -> None:
    """Make the key of a party, or show the one that it has. On stdout: the line for `parties` in mesh.yaml.

    \b
    bus mpc init --as party-eu
    """
    settings = settings_module.load()
    name = agent_id(agent)
    key = create_key(Layout(settings.state), name, settings.owners.get(name))
    if as_json:
        emit("mpc-key", {"agent": agent, "key": key})
    else:
        click.echo(f'{agent}: {{key: "{key}"}}')
        say("the private key stays in the agent's folder: whoever has it opens this party's shares and no other's")


@mpc.command()
@click.argument("domain")
@click.option("--as", "agent", required=True, help="An agent with a role of `release_to`.")
@click.option("--timeout", default=30.0, help="Seconds to wait for parties.")
@click.option("--job", default="", help="Ask for a job again that an earlier call named.")
@click.option("--common", is_flag=True, help="Leave out batches that some party lacks.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def totals(domain: str, agent: str, timeout: float, job: str, common: bool, as_json: bool) -> None:
    """Sum, mean, variance and histogram of each field, and counts of each group. Each batch is in one job alone.

    \b
    bus mpc totals fraud_stats --as analyst-1
    """
    from bus import Bus

    with Bus(agent) as me:
        found = me.mpc.aggregate(domain, timeout=timeout, job=job, common=common)
    if as_json:
        emit("mpc-totals", {"domain": domain, **dataclasses.asdict(found)})
        return
    out.print(f"rows  {found.rows}")
    for name, each in found.fields.items():
        out.print(f"{name}  sum {each.sum:.6g}  mean {each.mean:.6g}  variance {each.variance:.6g}")
        for low, high, count in zip(each.edges, each.edges[1:], each.counts, strict=False):
            out.print(f"  {low:>12.6g} to {high:<12.6g} {count}")
    for name, counts in found.groups.items():
        out.print(f"{name}  " + "  ".join(f"{value} {count}" for value, count in counts.items()))
