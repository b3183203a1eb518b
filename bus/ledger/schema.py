"""The embedded ledger's tables, and the statements over them that are more than a line."""

from __future__ import annotations

from bus.ledger.postings import LEAF_BITS, SEGMENT_BITS

SCHEMA = """
create table if not exists meta (key text primary key, value text) without rowid;
create table if not exists state (partition integer primary key, size integer not null, next_offset integer not null);
create table if not exists entry (partition integer, leaf integer, day integer, "offset" integer, hop integer,
  body blob not null, disclosure blob not null, primary key (partition, leaf)) without rowid;
create table if not exists tile (partition integer, level integer, number integer, hashes blob not null,
  primary key (partition, level, number)) without rowid;
create table if not exists checkpoint (partition integer, size integer, note text not null,
  primary key (partition, size)) without rowid;
create table if not exists cosignature (partition integer, witness text, size integer, line text not null,
  primary key (partition, witness, size)) without rowid;
create table if not exists interval (topic text, input integer, first integer, upto integer, partition integer,
  "offset" integer, primary key (topic, input, first, partition, "offset")) without rowid;
create table if not exists retired (partition integer, segment integer, bound integer not null, note text not null,
  primary key (partition, segment)) without rowid;
create table if not exists day (partition integer, day integer, primary key (partition, day)) without rowid;
create table if not exists posting (segment integer, token blob, place integer, others blob not null,
  primary key (segment, token, place)) without rowid;
create table if not exists single (segment integer, bucket integer, place integer, tokens blob not null,
  primary key (segment, bucket, place)) without rowid;
create table if not exists wanted (topic text, input integer, "offset" integer, digest blob not null,
  size integer not null, primary key (topic, input, "offset", digest)) without rowid;
create table if not exists payload (digest blob primary key, sealed blob, lost text not null);
"""
# A batch at full rate is some 10 MiB of pages. What is committed is on the disk either way (synchronous=FULL); these
# decide how often a page is written, and read again.
TUNING = """
pragma synchronous = full;
pragma cache_size = -65536;
pragma wal_autocheckpoint = 4096;
"""
# Before segments, a posting was a row for each leaf, with the token's number.
CONVERSION = """
insert or ignore into posting
  select (partition << :leaf_bits | leaf) >> :segment_bits, value, partition << :leaf_bits | leaf, x''
  from numbered_posting join token on numbered_posting.token = token.id
"""
# Before there was a table of days.
DAYS = "insert into day select distinct partition, day from entry"
FIND = """
with recursive segment (number, last, size) as (
  select partition << :leaf_bits >> :segment_bits, (partition << :leaf_bits | size - 1) >> :segment_bits, size
    from state where size > 0
  union all select number + 1, last, size from segment where number < last)
select place, others, x'', size from segment cross join posting on posting.segment = number where token = :token
union all
select place, x'', tokens, size from segment cross join single on single.segment = number
  where bucket = :bucket and instr(tokens, :token)
"""
BITS = {"leaf_bits": LEAF_BITS, "segment_bits": SEGMENT_BITS}
