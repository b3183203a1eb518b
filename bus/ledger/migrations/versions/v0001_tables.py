"""The ledger's tables, as the embedded ledger has them (``bus.ledger.schema``)."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
create table meta (key text primary key, value text not null);
create table state (partition bigint primary key, size bigint not null, next_offset bigint not null);
create table entry (partition bigint, leaf bigint, day bigint not null, "offset" bigint not null, hop bigint not null,
  body bytea not null, disclosure bytea not null, primary key (partition, leaf));
create table tile (partition bigint, level bigint, number bigint, hashes bytea not null,
  primary key (partition, level, number));
create table checkpoint (partition bigint, size bigint, note text not null, primary key (partition, size));
create table cosignature (partition bigint, witness text, size bigint, line text not null,
  primary key (partition, witness, size));
create table interval (topic text, input bigint, first bigint, upto bigint not null, partition bigint,
  "offset" bigint, primary key (topic, input, first, partition, "offset"));
create table retired (partition bigint, segment bigint, bound bigint not null, note text not null,
  primary key (partition, segment));
create table day (partition bigint, day bigint, primary key (partition, day));
create table posting (segment bigint, token bytea, place bigint, others bytea not null,
  primary key (segment, token, place));
create table single (segment bigint, bucket bigint, place bigint, tokens bytea not null,
  primary key (segment, bucket, place));
create table wanted (topic text, input bigint, "offset" bigint, digest bytea, size bigint not null,
  primary key (topic, input, "offset", digest));
create table payload (digest bytea primary key, sealed bytea, lost text not null);
"""
# As good as random: compressing them would cost time and save nothing.
EXTERNAL = (("entry", "body"), ("tile", "hashes"), ("single", "tokens"), ("payload", "sealed"))


def upgrade() -> None:
    """Make them."""
    for statement in filter(str.strip, TABLES.split(";")):
        op.execute(statement)
    for table, column in EXTERNAL:
        op.execute(f"alter table {table} alter column {column} set storage external")
