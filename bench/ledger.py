"""The ledger alone: hops a second into SQLite and PostgreSQL beside a plain sink, proofs and searches at its end.

Hop blocks are made beforehand and given to the audit consumer's recorder again and again, at new positions, as if they
came from Kafka: what is measured is opening, sealing, hashing, indexing, committing and signing. The plain sink opens
the same blocks and writes the hops' fields, readable, into one table with the same four things to search by: what a
Kafka-to-PostgreSQL connector makes of an unsealed topic. Neither reads from a broker.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.meter import cpu
from bus.codes import Code
from bus.crypto.keys import Secret
from bus.crypto.seal import CountingAead, open_counted
from bus.crypto.signing import Signer, Trust, hop_block_message, sign_object
from bus.extras import package
from bus.ledger.leaf import DayKeys, day_keys
from bus.ledger.postgres import PostgresLedger
from bus.ledger.proof import ProofVerifier, verify_proof
from bus.ledger.query import LedgerQuery
from bus.ledger.store import Append, Entry, Interval, Ledger
from bus.wire import codec, hopblock, preimage
from bus.wire.hop import HopReader, HopTail, Verdict, decision_id, encode_hop, encode_tail
from bus.wire.names import NO_ZONE
from bus.wire.objects import EnforcerCertificate
from consumers.audit.recorder import Recorder

DEPLOYMENT: Final = bytes(16)
DAY: Final = 20_300
NOON: Final = DAY * hopblock.DAY_MS + hopblock.DAY_MS // 2
WIDTH: Final = 400
"""Hops of a block."""
BATCH: Final = 50
"""Blocks of a database transaction: what the audit consumer takes at full rate."""
MADE: Final = 250
"""Blocks that are made, and given again and again."""
PROOFS: Final = 2000
SEARCHES: Final = 50
INPUT: Final = "notes.in"


@dataclass(frozen=True, slots=True)
class Source:
    """What a recorder needs, and the hop blocks."""

    keys: DayKeys
    trust: Trust
    signer: Signer
    blocks: Sequence[bytes]
    needle: bytes
    """A block of one hop, which is recorded once."""


def make_source() -> Source:
    """Blocks of a hundred sessions of ten agents each."""
    anchor, enforcer, signer = (Signer(bytes([number]) * 32) for number in (1, 2, 3))
    keys = day_keys(DAY, Secret(bytes([9]) * 32, "audit"))
    named = EnforcerCertificate(
        deployment=DEPLOYMENT, key_id=enforcer.key_id, public_key=enforcer.public_key,
        not_before=NOON - hopblock.DAY_MS, not_after=NOON + hopblock.DAY_MS, name="bus-enforcer-1", zones=(NO_ZONE,),
        domains=("notes",),
    )  # fmt: skip
    trust = Trust(DEPLOYMENT, anchor.public_key, (sign_object(anchor, named),))
    aead = CountingAead(keys.blocks, "audit", bytes(16))

    def block(first: int, count: int) -> bytes:
        header = hopblock.header(
            day=DAY, enforcer_key_id=enforcer.key_id, instance=bytes(16), sequence=first, partition=0, start=first,
            end=first + count, count=count, topic=INPUT,
        )  # fmt: skip
        hops = hopblock.join_hops([_hop(number) for number in range(first, first + count)])
        signed = header + codec.prefixed(aead.seal(first, hops, preimage.hop_block_aad(DEPLOYMENT, header)))
        return signed + enforcer.sign(hop_block_message(DEPLOYMENT, signed))

    blocks = [block(WIDTH * number, WIDTH) for number in range(MADE)]
    return Source(keys, trust, signer, blocks, block(WIDTH * MADE, 1))


def _hop(number: int) -> bytes:
    digest = hashlib.sha256(b"record %d" % number).digest()
    tail = HopTail(
        topic=INPUT, decision=Verdict.ALLOW, code=Code.ALLOW, rule="notes.produce", location="mesh.yaml:7", snapshot=1,
        policy_digest=bytes(32), agent=f"writer-{number % 10}", domain="notes", epoch=1, kind="MESSAGE",
    )  # fmt: skip
    return encode_hop(
        origin_digest=digest, output_digest=digest[::-1], message_id=digest[:16],
        instance_sequence=bytes(16) + number.to_bytes(8, "big"), partition=0, offset=number, append_time=NOON + number,
        decided_at=NOON + number, gap=0, size=1024, session=f"session-{number // 100}".encode(), causes=b"\x00",
        tail=encode_tail(tail),
    )  # fmt: skip


def _offered(source: Source, hops: int) -> Iterator[list[tuple[int, bytes]]]:
    """(audit offset, block) in batches; the needle is in the middle."""
    middle, offset, batch = hops // WIDTH // 2, 0, []
    for number in range(hops // WIDTH):
        batch.append((offset, source.blocks[number % MADE]))
        if number == middle:
            offset += 1
            batch.append((offset, source.needle))
        offset += 1
        if len(batch) >= BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _timed(
    batches: Iterator[list[tuple[int, bytes]]], hops: int, take: Callable[[list[tuple[int, bytes]]], None]
) -> dict[str, float]:
    """Hops/s and CPU us a hop of the whole, and hops/s of the last tenth."""
    done, began, used, tenth = 0, time.perf_counter(), cpu(), None
    for batch in batches:
        if tenth is None and done >= hops * 9 // 10:
            tenth = done, time.perf_counter()
        take(batch)
        done += WIDTH * len(batch)
    ended = time.perf_counter()
    last, at = tenth or (0, began)
    return {
        "hops": hops,
        "hops_s": hops / (ended - began),
        "last_hops_s": (done - last) / (ended - at),
        "cpu_us": (cpu() - used) / hops * 1e6,
    }


def record(ledger: Ledger, source: Source, hops: int) -> dict[str, float]:
    """The audit consumer's way, with a checkpoint each batch."""
    recorder = Recorder(lambda _: source.keys)

    def take(batch: list[tuple[int, bytes]]) -> None:
        entries: list[Entry] = []
        intervals: list[Interval] = []
        for offset, block in batch:
            made = recorder.record(block, 0, offset, source.trust)
            entries += made[0]
            intervals += made[1]
        ledger.append_all([Append(0, batch[0][0], batch[-1][0] + 1, entries, intervals)])
        ledger.sign_all([0], source.signer)

    return _timed(_offered(source, hops), hops, take)


def plain_sink(address: str, source: Source, hops: int) -> dict[str, float]:
    """A table of readable hops, indexed by agent, domain, correlation and decision; COPY, one commit a batch."""
    psycopg = package("psycopg", "postgres", "bench")
    reader = HopReader()
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(
            "create table plain (audit bigint, number bigint, decided_at bigint, topic text, input bigint,"
            " at bigint, decision text, code text, rule text, location text, agent text, domain text, kind text,"
            " correlation text, decision_id text, origin bytea, output bytea, primary key (audit, number))"
        )
        for column in ("agent", "domain", "correlation", "decision_id"):
            connection.execute(f"create index on plain ({column})")

        def take(batch: list[tuple[int, bytes]]) -> None:
            with connection.transaction(), connection.cursor() as cursor, cursor.copy("copy plain from stdin") as copy:
                for offset, value in batch:
                    for number, hop in enumerate(_opened(value, source, reader)):
                        tail = hop.tail
                        copy.write_row((
                            offset, number, hop.decided_at, tail.topic, hop.partition, hop.offset, tail.decision.value,
                            tail.code.value, tail.rule, tail.location, tail.agent, tail.domain, tail.kind,
                            hop.correlation_id, hop.decision_id, hop.origin_digest, hop.output_digest,
                        ))  # fmt: skip

        made = _timed(_offered(source, hops), hops, take)
        size = connection.execute("select pg_total_relation_size('plain')").fetchone()[0]
    return {**made, "bytes": size / hops}


def _opened(value: bytes, source: Source, reader: HopReader) -> Iterator[Any]:
    block = hopblock.parse(value)
    aad = preimage.hop_block_aad(DEPLOYMENT, block.header)
    opened = open_counted(source.keys.blocks, "audit", block.instance, block.sequence, block.body, aad)
    return map(reader.read, hopblock.split_hops(opened, block.count))


def read(ledger: Ledger, source: Source) -> dict[str, float]:
    """us of a proof's verification, alone and with the checkpoint known; ms of searches for one hop."""
    query = LedgerQuery(ledger, lambda _: source.keys)
    name = decision_id(hashlib.sha256(b"record %d" % (WIDTH * MADE)).digest())
    searches = []
    for _ in range(SEARCHES):
        began = time.perf_counter()
        found = query.search({"decision": name})
        searches.append((time.perf_counter() - began) * 1000)
        if len(found) != 1:
            raise RuntimeError(f"expected one hop, found {len(found)}")
    proof = query.prove(name)
    known, key = ProofVerifier(source.signer.public_key), source.signer.public_key
    return {
        "search_ms": statistics.median(searches),
        "proof_us": _median(lambda: known(proof)),
        "proof_alone_us": _median(lambda: verify_proof(proof, key)),
        "path": len(proof.path),
    }


def _median(call: Callable[[], object]) -> float:
    """us of a call."""
    times = []
    for _ in range(PROOFS):
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1e6)
    return statistics.median(times)


def measure(folder: Path, hops: int, address: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything; PostgreSQL at ``address`` (an empty database), which may be empty: then SQLite alone."""
    source = make_source()
    say(f"bench  ledger: {hops:,} hops into SQLite")
    path = folder / "ledger.db"
    ledger = Ledger(path, DEPLOYMENT)
    told: dict[str, Any] = {"sqlite": record(ledger, source, hops)}
    told["sqlite"] |= {"bytes": path.stat().st_size / hops, **read(ledger, source)}
    ledger.close()
    if address:
        say(f"bench  ledger: {hops:,} hops into PostgreSQL, and into a plain table")
        database = PostgresLedger(address, DEPLOYMENT, read_only=False)
        shared = Ledger(database, DEPLOYMENT)
        told["postgres"] = record(shared, source, hops)
        size = database.rows(
            "select sum(pg_total_relation_size(oid))::bigint from pg_class where relkind = 'r'"
            " and relnamespace = 'public'::regnamespace"
        )[0][0]
        told["postgres"] |= {"bytes": size / hops, **read(shared, source)}
        shared.close()
        told["plain"] = plain_sink(address, source, hops)
        told["ratio"] = told["postgres"]["hops_s"] / told["plain"]["hops_s"]
    return told
