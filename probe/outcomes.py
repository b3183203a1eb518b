"""What became of records that attack, from the ledger: each has one hop, and if refused a dead letter that it names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaException

from bus.authority.local import now_ms
from bus.crypto.tree import leaf_hash
from bus.kafka.whole import whole
from bus.stack.local import Stack
from bus.wire.hop import Hop
from bus.wire.names import DomainName, domain_of, domain_topics
from bus.wire.records import DeadLetter, parse_dead_letter
from demo.hops import Place, by_place
from probe.forged import Forged, Shot
from probe.found import Row

ALLOWED: Final = "ALLOW"
READ_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Written:
    """Where a shot went, or what the broker said of it; ``at``: when, ms since 1970."""

    shot: Shot
    at: int
    place: Place | None
    refusal: str = ""


def write(shot: Shot) -> Written:
    """Write it, once."""
    at = now_ms()
    try:
        offset = shot.by.produce(shot.topic, shot.value, shot.partition)
    except KafkaException as error:
        why = shot.by.connection.typed(error.args[0], "write", shot.topic)
        return Written(shot, at, None, str(why.code))
    return Written(shot, at, (shot.topic, shot.partition, offset))


def judge(stack: Stack, attacks: Sequence[Forged], since: int) -> list[Row]:
    """Write every attack and its control, wait for their hops, and read the dead letters."""
    written: list[tuple[Written, Written]] = []
    for each in attacks:
        if each.after:
            unharmed = write(each.unharmed)
            written.append((write(each.harmed), unharmed))
        else:
            written.append((write(each.harmed), write(each.unharmed)))
    shots = [shot for pair in written for shot in pair]
    hops = by_place(stack, [each.place for each in shots if each.place is not None], since)
    letters = dead_letters(stack, {domain_of(each.shot.topic) for each in shots}, since)
    return [
        _row(each, harmed, unharmed, hops, letters) for each, (harmed, unharmed) in zip(attacks, written, strict=True)
    ]


def dead_letters(stack: Stack, domains: set[DomainName], since: int) -> dict[Place, tuple[DeadLetter, bytes]]:
    """Dead letters of ``domains`` since then by the place of their input, each with its leaf hash."""
    connection = stack.admin_connection()
    found: dict[Place, tuple[DeadLetter, bytes]] = {}
    for domain in domains:
        topics = domain_topics(domain)
        for message in whole(connection, topics.dead, connection.identity.principal, READ_S, since):
            value = message.value() or b""
            letter = parse_dead_letter(value)
            found[topics.inbound, message.partition() or 0, letter.offset] = letter, leaf_hash(value)
    return found


def _row(
    each: Forged,
    harmed: Written,
    unharmed: Written,
    hops: dict[Place, Hop],
    letters: dict[Place, tuple[DeadLetter, bytes]],
) -> Row:
    found, control = (_outcome(shot, hops) for shot in (harmed, unharmed))
    hop = hops.get(harmed.place) if harmed.place is not None else None
    seen, ms = "no hop in the ledger", 0
    problems: tuple[str, ...] = ()
    if hop is not None:
        seen = f"hop {hop.decision_id} of {hop.tail.topic}/{hop.partition}@{hop.offset}"
        problems = tuple(_problems(harmed, hop, letters))
        ms = hop.decided_at - harmed.at
        seen += "" if problems else ", and its dead letter"
    elif harmed.refusal:
        seen = "the broker did not store it"
    return Row(
        each.attack,
        harmed.shot.by.connection.identity.principal,
        str(each.expected),
        found,
        seen,
        ms,
        each.control,
        control,
        control == ALLOWED,
        problems,
    )


def _outcome(written: Written, hops: dict[Place, Hop]) -> str:
    if written.place is None:
        return written.refusal
    hop = hops.get(written.place)
    return "no hop" if hop is None else str(hop.tail.code) or ALLOWED


def _problems(written: Written, hop: Hop, letters: dict[Place, tuple[DeadLetter, bytes]]) -> Iterator[str]:
    digest = hashlib.sha256(written.shot.value).digest()
    if hop.origin_digest != digest:
        yield "its hop is of other bytes"
    place = written.place
    if place is None or place not in letters:
        yield "no dead letter"
        return
    letter, leaf = letters[place]
    if letter.origin_digest != digest or letter.code != hop.tail.code:
        yield f"its dead letter is of other bytes, or of {letter.code} and not {hop.tail.code}"
    if hop.output_digest != leaf:
        yield "its hop names another dead letter"
