"""Sealed records that are kept with their hops: which are wanted, which were had, which cannot be had any more. SQLite.

A hop's origin digest names its record, and its proof covers the digest: what is kept here needs no leaf of its own.
``wanted`` is what is not kept yet, in the transaction that stored the hop; ``payload`` is the outcome, once a digest.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

MAX_TAKEN: Final = 5000
MAX_TAKEN_BYTES: Final = 8 * 1024 * 1024

SCHEMA = """
create table if not exists wanted (topic text, input integer, offset integer, digest blob not null,
  size integer not null, primary key (topic, input, offset, digest)) without rowid;
create table if not exists payload (digest blob primary key, sealed blob, lost text not null);
"""

NEXT_PLACE = "select topic, input from wanted where (topic, input) > (?, ?) order by topic, input limit 1"
AT_PLACE = "select * from wanted where topic = ? and input = ? order by offset limit ?"


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
    REFUSED = "the policy took away the right to read it before it was kept"


@dataclass(frozen=True, slots=True)
class Payload:
    """What became of a record: ``sealed``, or why there is nothing; neither where it is still wanted."""

    sealed: bytes | None = field(repr=False)
    lost: str


def want(db: sqlite3.Connection, records: Sequence[Wanted]) -> None:
    """Note ``records``, but for those that are kept: a record that was sent again has the same digest."""
    db.executemany(
        "insert or ignore into wanted select ?1, ?2, ?3, ?4, ?5"
        " where not exists (select 1 from payload where digest = ?4 and sealed is not null)",
        records,
    )


def wanted(db: sqlite3.Connection, skip: Collection[tuple[str, int]] = ()) -> list[Wanted]:
    """Some that are wanted, by place: up to MAX_TAKEN, of MAX_TAKEN_BYTES together where that is one at least.

    None of the places (topic, partition) in ``skip``.
    """
    taken: list[Wanted] = []
    size, place = 0, ("", -1)
    while len(taken) < MAX_TAKEN and (row := db.execute(NEXT_PLACE, place).fetchone()) is not None:
        place = row
        if place in skip:
            continue
        for each in map(Wanted._make, db.execute(AT_PLACE, (*place, MAX_TAKEN - len(taken)))):
            size += each.size
            if taken and size > MAX_TAKEN_BYTES:
                return taken
            taken.append(each)
    return taken


def settle(db: sqlite3.Connection, kept: Sequence[tuple[Wanted, bytes]], lost: Sequence[tuple[Wanted, Lost]]) -> None:
    """Store the outcome of each; what is kept stays kept, whatever is said of another copy."""
    db.executemany(
        "insert into payload values (?, ?, '') on conflict (digest)"
        " do update set sealed = excluded.sealed, lost = '' where sealed is null",
        ((each.digest, sealed) for each, sealed in kept),
    )
    db.executemany("insert or ignore into payload values (?, null, ?)", ((each.digest, why) for each, why in lost))
    db.executemany(
        "delete from wanted where topic = ? and input = ? and offset = ? and digest = ?",
        (each[:4] for each, _ in (*kept, *lost)),
    )


def find(db: sqlite3.Connection, digest: bytes) -> Payload | None:
    """What became of the record with this SHA-256; None where nobody wanted it."""
    row = db.execute("select sealed, lost from payload where digest = ?", (digest,)).fetchone()
    if row is not None:
        return Payload(*row)
    row = db.execute("select 1 from wanted where digest = ?", (digest,)).fetchone()
    return Payload(None, "") if row is not None else None


def everything(db: sqlite3.Connection) -> Iterator[tuple[bytes, bytes | None]]:
    """(digest, sealed) of every outcome; None where it was lost."""
    return iter(db.execute("select digest, sealed from payload order by rowid"))


def waiting(db: sqlite3.Connection) -> int:
    """How many are wanted."""
    return int(db.execute("select count(*) from wanted").fetchone()[0])


def exists(db: sqlite3.Connection) -> bool:
    """Whether the file has these tables: one that an earlier release wrote has none."""
    return db.execute("select 1 from sqlite_master where name = 'payload'").fetchone() is not None
