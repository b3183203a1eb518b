"""`bus audit payload`: a record that the ledger keeps, opened by an operator. The opening itself is recorded first."""

from __future__ import annotations

import getpass
import json
from typing import Any

import click
from rich.markup import escape

from bus import settings as settings_module
from bus.admin.publish import publish
from bus.authority.local import load_signer, now_ms, open_roots
from bus.authority.opening import open_record
from bus.authority.trust import read_trust
from bus.cli.audit import hop_document, open_query
from bus.cli.output import emit, out
from bus.client.payload import decode_payload
from bus.crypto.issued import sign_issued
from bus.errors import Refused
from bus.files import Layout
from bus.settings import Settings
from bus.stack.local import Stack
from bus.wire.envelope import Envelope
from bus.wire.hop import Hop
from bus.wire.names import ISSUE


@click.command()
@click.argument("decision")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def payload(decision: str, as_json: bool) -> None:
    """Open the record of DECISION as its agent sent it: before masks and guardrails.

    Needs the domain's root, while there is one. Who opened what stands on bus.issue before anything is shown.
    """
    settings = settings_module.load()
    layout = Layout(settings.state)
    query = open_query(settings)
    hop = query.decided(decision).hop
    roots = open_roots(settings, layout, read_trust(layout.trust))
    envelope = open_record(roots, settings.deployment_id, hop, query.payload(hop))
    _record(settings, layout, hop)
    shown = _shown(envelope)
    if as_json:
        metadata = dict(envelope.profile.metadata)
        emit("audit-payload", {"hop": hop_document(hop), "metadata": metadata, "payload": shown})
    else:
        out.print(f"{hop.tail.agent} {envelope.profile.kind} {escape(json.dumps(shown))}  {hop.decision_id}")


def _shown(envelope: Envelope) -> Any:
    """JSON values, or hex where the payload is none, whatever its content type says."""
    try:
        value = decode_payload(envelope.payload, envelope.profile.content_type, None)
    except Refused:
        value = envelope.payload
    return json.loads(json.dumps(value, default=bytes.hex))


def _record(settings: Settings, layout: Layout, hop: Hop) -> None:
    """The access event, stored by all replicas. Raises Unavailable where that is not known."""
    event: dict[str, Any] = {
        "event": "opened", "decision": hop.decision_id, "agent": hop.tail.agent, "domain": hop.tail.domain,
        "epoch": hop.tail.epoch, "by": getpass.getuser(), "at": now_ms(),
    }  # fmt: skip
    value = sign_issued(load_signer(layout.signer("issuer")), settings.deployment_id, event)
    publish(Stack(settings).admin_connection(), ISSUE, [value])
