"""The ticket: what a released record's label is, shown by messages of its session that build on it. Framing only.

Unmarked (schemas/ticket.v1.avsc); its MAC is the last 32 bytes and covers ``preimage.ticket_mac``. An agent carries
tickets on unread but for the labels, which tell it how its own message will be labelled.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from bus.codes import Code
from bus.errors import WireError
from bus.wire import codec
from bus.wire.envelope import MAX_LABELS, MAX_TICKET
from bus.wire.schemas import schema

MAC_LENGTH: Final = 32
READER_LENGTH: Final = 8


@dataclass(frozen=True, slots=True)
class Ticket:
    """``readers``: digests of the reader groups, or of the one agent, that may show it; ``signed``: what is MACed."""

    epoch: int
    domain: str
    labels: tuple[str, ...]
    readers: frozenset[bytes]
    signed: bytes
    mac: bytes


def reader_digest(name: str) -> bytes:
    """A reader's name as a ticket has it (8 bytes): names alone are too long for a policy of many zones."""
    return hashlib.sha256(name.encode()).digest()[:READER_LENGTH]


def encode_ticket(epoch: int, domain: str, labels: tuple[str, ...], readers: tuple[str, ...]) -> bytes:
    """What the MAC covers. Empty where the ticket would be longer than an envelope takes: then there is none."""
    told = b"".join(sorted(map(reader_digest, readers)))
    value = {"epoch": epoch.to_bytes(8, "big"), "domain": domain, "labels": labels, "readers": told}
    data = codec.encode(schema("ticket"), {**value, "mac": bytes(MAC_LENGTH)})
    return data[:-MAC_LENGTH] if len(data) <= MAX_TICKET else b""


def parse_ticket(data: bytes) -> Ticket:
    """Unverified; raises WireError(decode, too-large)."""
    if len(data) > MAX_TICKET:
        raise WireError(f"ticket: expected at most {MAX_TICKET} bytes, found {len(data)}", code=Code.TOO_LARGE)
    value = codec.decode(schema("ticket"), data)
    if len(value["labels"]) > MAX_LABELS:
        raise WireError(f"ticket: expected at most {MAX_LABELS} labels", code=Code.DECODE)
    told = value["readers"]
    if len(told) % READER_LENGTH:
        raise WireError(f"ticket: expected readers of {READER_LENGTH} bytes each, found {len(told)}", code=Code.DECODE)
    return Ticket(
        epoch=int.from_bytes(value["epoch"], "big"),
        domain=value["domain"],
        labels=tuple(value["labels"]),
        readers=frozenset(told[at : at + READER_LENGTH] for at in range(0, len(told), READER_LENGTH)),
        signed=data[:-MAC_LENGTH],
        mac=value["mac"],
    )
