"""Large inputs: near the bounds of their format, or of a shape whose cost might grow faster than its size."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from bus.policy.compiling import canonical
from bus.wire import codec, derived, envelope, hopblock
from bus.wire.names import Tier
from bus.wire.schemas import schema
from tests.fuzz import enforcer, files, signed
from tests.fuzz.world import DOCUMENT, PARTITION, raw
from tests.vectors import generate

MEBI = 1_000_000


def changed(kind: str, value: bytes, **fields: Any) -> bytes:
    """An encoded value with other fields."""
    return codec.encode(schema(kind), {**codec.decode(schema(kind), value), **fields})


def marked(kind: str, value: bytes, **fields: Any) -> bytes:
    """The same of a marked value."""
    return schema(kind).head + changed(kind, value[10:], **fields)


def frames() -> Iterator[bytes]:
    """A large payload, much padding, and every part that is stepped over as large as it may be."""
    profile, message = raw("profile.value"), raw("envelope.message")
    yield envelope.encode_plaintext(profile, message, bytes(MEBI - 2000))
    yield envelope.encode_plaintext(profile, message, b"") + bytes(MEBI - 2000)
    full = replace(
        generate.MESSAGE,
        causation_ids=(bytes(16),) * 63,
        tickets=(bytes(512),) * 16,
        field_protection=(("é" * 8000, "é" * 6500),) * 32,
    )
    yield envelope.encode_plaintext(profile, envelope.encode_message(full), b"")


def profiles() -> Iterator[bytes]:
    yield changed("profile", raw("profile.value"), labels=[""] * 16_000)
    yield changed("profile", raw("profile.value"), metadata={f"{each:04x}": "" for each in range(2500)})


def sealed() -> Iterator[bytes]:
    for plain in frames():
        value = enforcer.SEALER.seal(PARTITION, plain)[1]
        yield value[:-1] + bytes([value[-1] ^ 1])


def bundles() -> Iterator[bytes]:
    sets = (derived.ReaderSet(bytes(32), ((bytes(8), bytes(60)),) * 63),) * 32
    head = generate.head_of(Tier.RETRIEVAL, 32, 1)
    yield derived.encode(
        head, derived.encode_key_table(sets), [bytes(26) + codec.prefixed(bytes(28_000))] * 32, bytes(64)
    )


def hops() -> Iterator[bytes]:
    yield changed("hop", raw("hop.value"), labels=[""] * 500_000)
    yield changed("hop", raw("hop.value"), facts={f"{each:06x}": "" for each in range(60_000)})


def windows() -> Iterator[bytes]:
    entry = {"key_id": bytes(16), "instance": bytes(16), "highest": bytes(8), "bitmap": b""}
    yield marked("window", raw("window.value"), entries=[entry] * 24_000)
    yield marked("window", raw("window.value"), entries=[{**entry, "bitmap": b"\xff" * 128}] * 4000)


def recorded() -> Iterator[bytes]:
    count = hopblock.MAX_BODY // (len(raw("hop.value")) + 4)
    yield count.to_bytes(4, "big") + hopblock.join_hops([raw("hop.value")] * count)


def policies() -> Iterator[bytes]:
    agents = {f"a{each:05}": {"roles": ["A" * 63] * 16} for each in range(900)}
    yield canonical(json.loads(DOCUMENT) | {"agents": agents})
    yield from deep()


def proofs() -> Iterator[bytes]:
    document = json.loads(signed.PROOFS[0].to_json())
    yield json.dumps(document | {"path": ["00" * 32] * 15_000}).encode()
    yield json.dumps(document | {"hop": " " * MEBI}).encode()
    yield b"[" * MEBI


def notes() -> Iterator[bytes]:
    yield signed.NOTE.encode() + "— a AAAA\n".encode() * 80_000
    yield b"a\n" * (MEBI // 2)


def payloads() -> Iterator[bytes]:
    yield b"[" * MEBI
    yield b"9" * MEBI
    yield b'{"title":"","ranks":[' + b"1," * 490_000 + b"1]}"


def deep() -> Iterator[bytes]:
    yield b"[" * 100_000
    yield b'{"a":' * 100_000


def mesh_files() -> Iterator[bytes]:
    mesh = files.MESH.encode()
    yield mesh.replace(b"600000", b"0x" + b"f" * 3600)
    yield mesh.replace(b"  global:", b"  2026-02-30: 1\n  global:")
    yield mesh.replace(b"600000", b"1:" * 2000 + b"1")
    yield mesh + b"- " * 500


def deep_settings() -> Iterator[bytes]:
    yield b"owners = " + b"[" * 5000
    yield b"owners = " + b"{a = " * 5000
    yield b"a" + b".a" * 2000 + b" = 1"


LARGE = {
    "frame": frames, "plaintext": frames, "profile": profiles, "sealed": sealed, "enforcer": sealed, "derived": bundles,
    "hop": hops, "window": windows, "restored": windows, "recorded": recorded, "policy": policies, "proof": proofs,
    "checkpoint": notes, "payload": payloads, "typed_payload": payloads, "settings": deep_settings, "mesh": mesh_files,
    "trust": deep, "bundle": deep, "root": deep, "credential": deep,
}  # fmt: skip


def bulk(name: str) -> Iterator[bytes]:
    """Large inputs of a target, if it has some."""
    if name in LARGE:
        yield from LARGE[name]()
