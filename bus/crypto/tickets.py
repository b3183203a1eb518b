"""Tickets made and verified: the label of a released record, bound to its session and readers by the domain's root.

A ticket lowers: without one a message has the highest label that its agent could have read. So whatever is wrong with
one of the tickets that are shown, the message counts as one without any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from bus.crypto.keyring import DomainEpoch
from bus.errors import WireError
from bus.wire import preimage
from bus.wire.ticket import Ticket, encode_ticket, parse_ticket, reader_digest

Find = Callable[[str, int], DomainEpoch | None]
"""The keys of a domain's epoch, where they are held."""


def issue(
    epoch: DomainEpoch, deployment: bytes, session: bytes, labels: tuple[str, ...], readers: tuple[str, ...]
) -> bytes:
    """The ticket of a record of ``session`` (a correlation id); empty where it would be too long."""
    signed = encode_ticket(epoch.epoch, epoch.domain, labels, readers)
    return signed + _mac(epoch, deployment, session, signed).finalize() if signed else b""


def proven(
    tickets: Iterable[bytes], find: Find, deployment: bytes, session: bytes, names: frozenset[str]
) -> tuple[str, ...] | None:
    """The labels that ``tickets`` prove, for who answers to ``names`` (its id, its reader groups).

    None where there is no ticket, or one does not hold.
    """
    labels: list[str] = []
    count = 0
    for data in tickets:
        count += 1
        try:
            ticket = parse_ticket(data)
        except WireError:
            return None
        if ticket.readers.isdisjoint(map(reader_digest, names)) or not _holds(ticket, find, deployment, session):
            return None
        labels += ticket.labels
    return tuple(sorted(set(labels))) if count else None


def _holds(ticket: Ticket, find: Find, deployment: bytes, session: bytes) -> bool:
    epoch = find(ticket.domain, ticket.epoch)
    if epoch is None:
        return False
    try:
        _mac(epoch, deployment, session, ticket.signed).verify(ticket.mac)
    except InvalidSignature:
        return False
    return True


def _mac(epoch: DomainEpoch, deployment: bytes, session: bytes, signed: bytes) -> HMAC:
    mac = HMAC(epoch.ticket.reveal(), SHA256())
    mac.update(preimage.ticket_mac(deployment, session))
    mac.update(signed)
    return mac
