"""Sealed records that are kept with their hops: which are wanted, which were had, which cannot be had any more.

A hop's origin digest names its record, and its proof covers the digest: what is kept here needs no leaf of its own.
``wanted`` is what is not kept yet, in the transaction that stored the hop; ``payload`` is the outcome, once a digest.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from bus.ledger.database import Database

MAX_TAKEN: Final = 5000
MAX_TAKEN_BYTES: Final = 8 * 1024 * 1024

NEXT_PLACE = "select topic, input from wanted where (topic, input) > (?, ?) order by topic, input limit 1"
AT_PLACE = 'select * from wanted where topic = ? and input = ? order by "offset" limit ?'
WANT = """insert into wanted select ?, ?, ?, ?, ?
  where not exists (select 1 from payload where digest = ? and sealed is not null) on conflict do nothing"""
KEEP = """insert into payload values (?, ?, '') on conflict (digest)
  do update set sealed = excluded.sealed, lost = '' where payload.sealed is null"""
LOSE = "insert into payload values (?, null, ?) on conflict do nothing"
DONE = 'delete from wanted where topic = ? and input = ? and "offset" = ? and digest = ?'
RETIRE = "update payload set sealed = null, lost = ? where digest = ?"
EVERY = "select digest, sealed from payload where digest > ? order by digest limit ?"
EVERY_PAGE: Final = 16
"""A record has up to a megabyte."""


class Wanted(NamedTuple):
    """A record to keep: where it stands, its SHA-256, its length in bytes; all as its hop says."""

    topic: str
    partition: int
    offset: int
    digest: bytes
    size: int


class Lost(StrEnum):
    """Why a record cannot be had any more."""

    DELETED = "deleted from the topic before it was kept"
    CHANGED = "the topic holds other bytes in its place"
    RETIRED = "the retention of the ledger took it with its hop"
    REFUSED = "the policy took away the right to read it before it was kept"


@dataclass(frozen=True, slots=True)
class Payload:
    """What became of a record: ``sealed``, or why there is nothing; neither where it is still wanted."""

    sealed: bytes | None = field(repr=False)
    lost: str


def want(db: Database, records: Sequence[Wanted]) -> None:
    """Note ``records``, but for those that are kept: a record that was sent again has the same digest."""
    db.run(WANT, ((*each, each.digest) for each in records))


def wanted(db: Database, skip: Collection[tuple[str, int]] = ()) -> list[Wanted]:
    """Some that are wanted, by place: up to MAX_TAKEN, of MAX_TAKEN_BYTES together where that is one at least.

    None of the places (topic, partition) in ``skip``.
    """
    taken: list[Wanted] = []
    size, place = 0, ("", -1)
    while len(taken) < MAX_TAKEN and (rows := db.rows(NEXT_PLACE, place)):
        place = rows[0][0], rows[0][1]
        if place in skip:
            continue
        for each in map(Wanted._make, db.rows(AT_PLACE, (*place, MAX_TAKEN - len(taken)))):
            size += each.size
            if taken and size > MAX_TAKEN_BYTES:
                return taken
            taken.append(each)
    return taken


def settle(db: Database, kept: Sequence[tuple[Wanted, bytes]], lost: Sequence[tuple[Wanted, Lost]]) -> None:
    """Store the outcome of each; what is kept stays kept, whatever is said of another copy."""
    db.run(KEEP, ((each.digest, sealed) for each, sealed in kept))
    db.run(LOSE, ((each.digest, why.value) for each, why in lost))
    db.run(DONE, (each[:4] for each, _ in (*kept, *lost)))


def retire(db: Database, digests: Collection[bytes]) -> None:
    """Take the records whose hops are taken, and want none of them any more."""
    db.run("delete from wanted where digest = ?", ((each,) for each in sorted(digests)))
    db.run(RETIRE, ((Lost.RETIRED.value, each) for each in sorted(digests)))


def find(db: Database, digest: bytes) -> Payload | None:
    """What became of the record with this SHA-256; None where nobody wanted it."""
    for sealed, lost in db.rows("select sealed, lost from payload where digest = ?", (digest,)):
        return Payload(sealed, lost)
    return Payload(None, "") if db.rows("select 1 from wanted where digest = ?", (digest,)) else None


def waiting(db: Database) -> int:
    """How many are wanted."""
    return int(db.rows("select count(*) from wanted")[0][0])
