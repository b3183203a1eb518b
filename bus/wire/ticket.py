"""The ticket: what a released record's label is, shown by messages of its session that build on it. Framing only.

Unmarked (schemas/ticket.v1.avsc); its MAC is the last 32 bytes and covers ``preimage.ticket_mac``. An agent carries
tickets on unread but for the labels, which tell it how its own message will be labelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from bus.codes import Code
from bus.errors import WireError
from bus.wire import codec
from bus.wire.envelope import MAX_LABELS, MAX_TICKET
from bus.wire.schemas import schema

MAC_LENGTH: Final = 32


@dataclass(frozen=True, slots=True)
class Ticket:
    """``readers``: reader groups, or the one agent, that may show it. ``signed``: the bytes that the MAC covers."""

    epoch: int
    domain: str
    labels: tuple[str, ...]
    readers: tuple[str, ...]
    signed: bytes
    mac: bytes


def encode_ticket(epoch: int, domain: str, labels: tuple[str, ...], readers: tuple[str, ...]) -> bytes:
    """What the MAC covers. Empty where the ticket would be longer than an envelope takes: then there is none."""
    value = {"epoch": epoch.to_bytes(8, "big"), "domain": domain, "labels": labels, "readers": readers}
    data = codec.encode(schema("ticket"), {**value, "mac": bytes(MAC_LENGTH)})
    return data[:-MAC_LENGTH] if len(data) <= MAX_TICKET else b""


def parse_ticket(data: bytes) -> Ticket:
    """Unverified; raises WireError(decode, too-large)."""
    if len(data) > MAX_TICKET:
        raise WireError(f"ticket: expected at most {MAX_TICKET} bytes, found {len(data)}", code=Code.TOO_LARGE)
    value = codec.decode(schema("ticket"), data)
    if len(value["labels"]) > MAX_LABELS:
        raise WireError(f"ticket: expected at most {MAX_LABELS} labels", code=Code.DECODE)
    return Ticket(
        epoch=int.from_bytes(value["epoch"], "big"),
        domain=value["domain"],
        labels=tuple(value["labels"]),
        readers=tuple(value["readers"]),
        signed=data[:-MAC_LENGTH],
        mac=value["mac"],
    )
