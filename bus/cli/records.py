"""`bus publish` and `bus tail`: one record in, records out, as one agent."""

from __future__ import annotations

import json

import click
from rich.markup import escape

from bus.cli.output import emit, out
from bus.client.bus import Bus
from bus.errors import SettingsError


@click.command()
@click.argument("domain")
@click.argument("payload")
@click.option("--as", "agent", required=True, help="The agent that publishes.")
@click.option("--purpose", default="", help="Access justification.")
@click.option("--target", default="", help="The one agent that may read it.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def publish(domain: str, payload: str, agent: str, purpose: str, target: str, as_json: bool) -> None:
    """Publish one JSON payload and print the enforcer's decision."""
    try:
        value = json.loads(payload)
    except ValueError as error:
        raise SettingsError(f"PAYLOAD: expected JSON: {error}", hint="""as in '{"text": "hello"}'""") from None
    with Bus(agent) as me:
        sent = me.publish(domain, value, purpose=purpose, target=target, confirm="decided")
        obligations = sent.decision()
    if as_json:
        emit("publish", {"message_id": str(sent.id), "decision": "ALLOW", "obligations": list(obligations)})
    else:
        out.print(f"[green]ALLOW[/] {sent.id}  {escape(' '.join(obligations))}")


@click.command()
@click.argument("domain")
@click.option("--as", "agent", required=True, help="The agent that reads.")
@click.option("--once", is_flag=True, help="Print one record and end.")
@click.option("--timeout", default=0.0, help="End after so many seconds without a record.")
@click.option("--json", "as_json", is_flag=True, help="JSON Lines on stdout.")
def tail(domain: str, agent: str, once: bool, timeout: float, as_json: bool) -> None:
    """Print the records that the agent may open, from the first one; its own reading is left alone."""
    with Bus(agent) as me:
        subscription = me.subscribe(domain, observe=True)
        while (got := subscription.get(timeout or None)) is not None:
            value = got.value()
            shown = value if not isinstance(value, bytes) else value.hex()
            if as_json:
                row = {"id": str(got.id), "source": got.source, "kind": got.kind, "payload": shown}
                emit("record", {**row, "decision_id": got.decision_id, "metadata": dict(got.metadata)})
            else:
                out.print(f"{got.source} {got.kind} {escape(json.dumps(shown))}  {got.decision_id}")
            if once:
                break
