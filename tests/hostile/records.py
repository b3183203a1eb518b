"""Hostile values for `.in`: crafted bytes, each with the code that the enforcer must give it ("" where it must pass).

Whatever is sealed here is sealed with the agent's own keys: the MAC holds, and what is inside is the attack.
"""

import os
import zlib

from bus.wire import codec, envelope, sealed
from bus.wire.schemas import schema
from tests.hostile.wire import batch, record, varint

LARGEST = sealed.MAX_LENGTH
BOMB_BYTES = 150 << 20
MESSAGE = envelope.encode_message(envelope.Message(bytes(16), 0, 2**63))
HUGE, NEGATIVE = b"\xfe" * 9 + b"\x01", b"\xff" * 9 + b"\x01"


def largest(agent, sealer, partition, *, extra=0):
    """A valid record of exactly the largest Sealed size, or ``extra`` bytes more."""
    frame = len(sealer.seal(partition, agent.plain(b""))[1]) - 1
    room = LARGEST + extra - frame - 2 - 2  # the two lengths before body and payload grow from 1 or 2 to 3 bytes
    value = b""
    while len(value) != LARGEST + extra:
        value = sealer.seal(partition, agent.plain(os.urandom(room)))[1]
        room += LARGEST + extra - len(value)
    return value


def spoiled(value, at, new):
    return value[:at] + new + value[at + len(new) :]


def bad_mac(value, number):
    """``value`` under another sequence: its MAC does not hold. Cheap, so that a flood can be made in advance."""
    return value[:44] + (number + (1 << 40)).to_bytes(8, "big") + value[52:]


def framing(agent, sealer, partition):
    """(name, value, code): refused before anything is decrypted."""

    def good():
        return sealer.seal(partition, agent.plain())[1]

    yield "empty", b"", "bounds"
    yield "one byte", b"\xc3", "bounds"
    yield "noise", os.urandom(500), "version"
    yield "largest noise", os.urandom(LARGEST), "version"
    yield "largest with a bad MAC", bad_mac(largest(agent, sealer, partition), 0), "mac"
    yield "above the Sealed limit", largest(agent, sealer, partition, extra=1), "bounds"
    yield "a DeadLetter's marker", spoiled(good(), 0, schema("dead_letter").head), "version"
    yield "no marker at all", spoiled(good(), 0, bytes(10)), "version"
    for suite in (0, 2, 0x0101, 0xFFFF):
        yield f"suite {suite}", spoiled(good(), 10, suite.to_bytes(2, "big")), "version"
    yield "a key id of nobody", spoiled(good(), 12, os.urandom(16)), "unknown-key"
    yield "a body length of 2^34", spoiled(good(), 84, b"\xfe\xff\xff\xff\x7f"), "bounds"
    yield "a negative body length", spoiled(good(), 84, b"\x01"), "bounds"
    yield "a length that never ends", good()[:84] + b"\xff" * 200, "bounds"


def profiles(agent):
    """(name, profile bytes): Avro that promises more than it holds, or says the same in another way."""
    honest = agent.profile()
    value = {"source": agent.name, "domain": "agent_memory"}
    head = codec.text(value["source"]) + codec.text(value["domain"]) + b"\0" * 4  # kind, target, tool, task_type
    rest = b"\0" * 7  # purpose, tier_floor, protect_at, notify, content_type, schema, metadata
    tail = b"\0\0"  # on_behalf_of, delegation
    yield "a source of 2^62 bytes", HUGE + honest[1:]
    yield "a source of negative length", NEGATIVE + honest[1:]
    yield "labels: 2^62 of them", head + HUGE + rest + tail
    yield "labels: 16,000 in one block", head + codec.length(16_000) + bytes(16_000) + b"\0" + rest + tail
    yield "labels: a block with a negative count", head + b"\x03\x04" + b"\0\0" + b"\0" + rest + tail
    yield "labels: -2^63 of them", head + NEGATIVE + HUGE + rest + tail
    yield "labels: 5,000 blocks of one", head + b"\x02\0" * 5000 + b"\0" + rest + tail
    yield "labels: 33", head + codec.length(33) + bytes(33) + b"\0" + rest + tail
    keys = [codec.text(f"{number:02}") + b"\0" for number in range(65)]
    yield "metadata: 65 keys", head + b"\0" + rest[:-1] + codec.length(65) + b"".join(keys) + b"\0" + tail
    yield "metadata: one key twice", head + b"\0" + rest[:-1] + b"\x04" + keys[0] * 2 + b"\0" + tail
    yield "metadata: keys not in order", head + b"\0" + rest[:-1] + b"\x04" + keys[1] + keys[0] + b"\0" + tail
    yield "metadata: a block with a negative count", head + b"\0" + rest[:-1] + b"\x01\x08" + keys[0] + b"\0" + tail
    yield "metadata: 2^62 keys", head + b"\0" + rest[:-1] + HUGE + tail
    yield "a kind that is none", codec.text(value["source"]) + codec.text(value["domain"]) + HUGE + honest[-16:]
    yield "no UTF-8", b"\x04\xff\xfe" + honest[1:]
    yield "over the largest size", honest + bytes(envelope.MAX_PROFILE)


def messages():
    """(name, message and payload bytes): the same for the part that the enforcer steps over."""
    fixed, rest = MESSAGE[:32], MESSAGE[32:]  # correlation, causes, reply_to, tickets, traceparent, chunk, protection
    payload = b"\x02x"
    ticket = codec.prefixed(bytes(envelope.MAX_TICKET))
    yield "tickets: 17", fixed + rest[:3] + codec.length(17) + ticket * 17 + b"\0" + rest[4:] + payload
    yield "tickets: 2^34", fixed + rest[:3] + b"\xfe\xff\xff\xff\x7f" + rest[4:] + payload
    yield "tickets: a negative count", fixed + rest[:3] + b"\x01\x02\0" + rest[4:] + payload
    yield "tickets: two blocks", fixed + rest[:3] + b"\x02\0\x02\0\0" + rest[4:] + payload
    yield "a ticket of 513 bytes", fixed + rest[:3] + b"\x02" + codec.prefixed(bytes(513)) + b"\0" + rest[4:] + payload
    yield "causes: a negative count", fixed + rest[:1] + b"\x01" + bytes(16) + b"\0" + rest[2:] + payload
    yield "causes: two blocks", fixed + rest[:1] + (b"\x02" + bytes(16)) * 2 + b"\0" + rest[2:] + payload
    yield "protection: 33 fields", fixed + rest[:-1] + codec.length(33) + bytes(66) + b"\0" + payload
    yield "protection: 2^34 fields", fixed + rest[:-1] + b"\xfe\xff\xff\xff\x7f" + payload
    yield "a payload of 2^34 bytes", fixed + rest + b"\xfe\xff\xff\xff\x7f"
    yield "a payload of negative length", fixed + rest + b"\x01x"
    yield "bytes after the payload", fixed + rest + payload + b"x"
    yield "nothing after the profile", b""


def bombs(agent):
    """(name, plaintext): correctly sealed, refused with `decode`."""
    for name, profile in profiles(agent):
        yield name, envelope.pad(envelope.MARK + codec.prefixed(profile) + MESSAGE + b"\x02x")
    honest = codec.prefixed(agent.profile())
    for name, message in messages():
        yield name, envelope.pad(envelope.MARK + honest + message)
    yield "a megabyte of padding that is not zeros", envelope.pad(envelope.MARK) + b"\x01" * 900_000
    yield "a frame longer than the record", (2**32 - 1).to_bytes(4, "big") + bytes(64)


def crowded_profile(agent, number):
    """A profile that no cache holds: nearly the largest size, every metadata key and label taken, all of them new."""
    filler = "x" * 140
    return agent.profile(
        labels=tuple(f"{number}-{place}-{filler}" for place in range(envelope.MAX_LABELS)),
        metadata={f"{place:02}-{number}": filler for place in range(envelope.MAX_METADATA)},
    )


def jumps(agent, partition, count):
    """Valid values of one instance whose sequence jumps each time by more than a hop's gap can say."""
    instance = os.urandom(16)
    for number in range(count):
        yield agent.seal_at(number << 33, partition, agent.plain(), instance)


def tiny_batch(count):
    """(record batch, values): ``count`` empty values, compressed with gzip to a few bytes each thousand."""
    data = b"".join(record(delta, b"") for delta in range(count))
    return batch(gzipped([data]), count=count, attributes=1)


def gzipped(parts):
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return b"".join([*map(packer.compress, parts), packer.flush()])


def gzip_bomb(size):
    """A batch of one record of ``size`` zero bytes: a thousandth of that on the wire."""
    head = b"\0" + varint(0) + varint(0) + varint(-1) + varint(size)
    parts = [varint(len(head) + size + 1) + head, *([bytes(1 << 20)] * (size >> 20)), b"\0"]
    return batch(gzipped(parts), count=1, attributes=1)
