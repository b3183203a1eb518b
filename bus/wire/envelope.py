"""The envelope: what an agent writes and a permitted reader gets (schemas/envelope.v1.avsc, profile.v1.avsc).

A plaintext is ``uint32 length | marked Envelope | zeros``. ``split`` finds an envelope's parts without a codec: the
profile by its length, the message by its fixed places, the payload as the rest. Whatever it steps over is checked to be
canonical, because the enforcer copies it on unread. ``decode_envelope`` is the slow, complete reader.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from bus.codes import Code
from bus.errors import WireError
from bus.wire import codec
from bus.wire.names import AgentId, DomainName, Tier
from bus.wire.schemas import schema

MARK: Final = schema("envelope").head
MAX_PROFILE: Final = 16 * 1024
MAX_CACHED_PROFILE: Final = 2048
"""Bytes of a profile that is kept, decoded: bounds what one agent can fill."""
MAX_SHORT: Final = 63
"""Bytes of a correlation id, reply_to or traceparent: their length is one byte on the wire."""
MAX_CAUSES: Final = 63
MAX_TICKETS: Final = 16
MAX_TICKET: Final = 512
MAX_PROTECTED_FIELDS: Final = 32
MAX_METADATA: Final = 64
MAX_LABELS: Final = 32
NO_MESSAGE_ID: Final = bytes(16)
NOTHING_ELSE: Final = bytes(6)
"""No causation ids, reply_to, tickets, traceparent, chunk and field protection."""


class Kind(StrEnum):
    """What an envelope is. Targeted kinds are sealed to one reader, the others to roles."""

    MESSAGE = "MESSAGE"
    RPC_REQUEST = "RPC_REQUEST"
    RPC_REPLY = "RPC_REPLY"
    TOOL_CALL = "TOOL_CALL"
    TOOL_RESULT = "TOOL_RESULT"
    REASONING = "REASONING"
    MEMORY = "MEMORY"
    ARTIFACT = "ARTIFACT"

    @property
    def targeted(self) -> bool:
        """Whether this kind needs a target."""
        return self.startswith(("RPC_", "TOOL_"))


class ProtectAt(StrEnum):
    """Where the payload is protected; POLICY leaves it to the domain."""

    POLICY = "POLICY"
    SOURCE = "SOURCE"
    ENFORCER = "ENFORCER"


@dataclass(frozen=True, slots=True)
class Profile:
    """What stays the same in an agent's messages. ``on_behalf_of`` is a user's token towards the enforcer, and its
    SHA-256 (``user_digest``) behind it; or empty."""

    source: AgentId
    domain: DomainName
    kind: Kind = Kind.MESSAGE
    target: str = ""
    tool: str = ""
    task_type: str = ""
    labels: tuple[str, ...] = ()
    purpose: str = ""
    tier_floor: Tier | None = None
    protect_at: ProtectAt = ProtectAt.POLICY
    notify: bool = False
    content_type: str = "application/json"
    schema: bytes = b""
    metadata: Mapping[str, str] = field(default_factory=dict)
    on_behalf_of: bytes = b""
    delegation: bytes = b""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Part ``index`` of ``count`` of a larger payload."""

    group: bytes
    index: int
    count: int


@dataclass(frozen=True, slots=True)
class Message:
    """What differs from message to message. Ids are 16 bytes (UUIDv7), times ms since 1970."""

    message_id: bytes
    created_at: int
    expires_at: int
    correlation_id: str = ""
    causation_ids: tuple[bytes, ...] = ()
    reply_to: str = ""
    tickets: tuple[bytes, ...] = ()
    traceparent: str = ""
    chunk: Chunk | None = None
    field_protection: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Envelope:
    """A whole envelope."""

    profile: Profile
    message: Message
    payload: bytes = field(repr=False)


Split = tuple[bytes, int, int, bytes, int, int]
"""profile behind its length, message start, payload-length start, correlation id, causes start, causes end."""


def encode_profile(profile: Profile) -> bytes:
    """A profile's canonical bytes; metadata keys are sorted. Raises WireError(too-large, decode) beyond the bounds."""
    if len(profile.metadata) > MAX_METADATA or len(profile.labels) > MAX_LABELS:
        raise WireError(
            f"profile: expected at most {MAX_METADATA} metadata keys and {MAX_LABELS} labels, "
            f"found {len(profile.metadata)} and {len(profile.labels)}",
            code=Code.TOO_LARGE,
        )
    data = codec.encode(
        schema("profile"),
        {
            "source": profile.source,
            "domain": profile.domain,
            "kind": profile.kind.value,
            "target": profile.target,
            "tool": profile.tool,
            "task_type": profile.task_type,
            "labels": list(profile.labels),
            "purpose": profile.purpose,
            "tier_floor": "NONE" if profile.tier_floor is None else profile.tier_floor.name,
            "protect_at": profile.protect_at.value,
            "notify": profile.notify,
            "content_type": profile.content_type,
            "schema": profile.schema,
            "metadata": dict(sorted(profile.metadata.items())),
            "on_behalf_of": profile.on_behalf_of,
            "delegation": profile.delegation,
        },
    )
    if len(data) > MAX_PROFILE:
        raise WireError(f"profile: expected at most {MAX_PROFILE} bytes, found {len(data)}", code=Code.TOO_LARGE)
    return data


def user_digest(token: bytes) -> bytes:
    """What stands for a user's token once the enforcer verified it."""
    return hashlib.sha256(token).digest() if token else b""


def decode_profile(data: bytes) -> Profile:
    """A profile from its canonical bytes, metadata keys in order. Raises WireError(decode)."""
    if len(data) > MAX_PROFILE:
        raise WireError(f"profile: expected at most {MAX_PROFILE} bytes, found {len(data)}", code=Code.DECODE)
    value = codec.decode(schema("profile"), data)
    metadata: dict[str, str] = value["metadata"]
    if list(metadata) != sorted(metadata) or len(metadata) > MAX_METADATA or len(value["labels"]) > MAX_LABELS:
        raise WireError("profile: metadata keys not in order, or too many keys or labels", code=Code.DECODE)
    floor = value["tier_floor"]
    return Profile(
        source=AgentId(value["source"]),
        domain=DomainName(value["domain"]),
        kind=Kind(value["kind"]),
        target=value["target"],
        tool=value["tool"],
        task_type=value["task_type"],
        labels=tuple(value["labels"]),
        purpose=value["purpose"],
        tier_floor=None if floor == "NONE" else Tier[floor],
        protect_at=ProtectAt(value["protect_at"]),
        notify=value["notify"],
        content_type=value["content_type"],
        schema=value["schema"],
        metadata=metadata,
        on_behalf_of=value["on_behalf_of"],
        delegation=value["delegation"],
    )


def _short(name: str, value: str) -> bytes:
    data = value.encode()
    if len(data) > MAX_SHORT:
        raise WireError(f"{name}: expected at most {MAX_SHORT} bytes, found {len(data)}", code=Code.TOO_LARGE)
    return bytes((len(data) << 1,)) + data


def _array(items: list[bytes], limit: int, name: str) -> bytes:
    if not items:
        return b"\x00"
    if len(items) > limit:
        raise WireError(f"{name}: expected at most {limit}, found {len(items)}", code=Code.TOO_LARGE)
    return codec.length(len(items)) + b"".join(items) + b"\x00"


def encode_message(message: Message) -> bytes:
    """A message's canonical bytes. Raises WireError(too-large) beyond the bounds."""
    chunk = b"\x00"
    if message.chunk is not None:
        order = message.chunk.index.to_bytes(4, "big") + message.chunk.count.to_bytes(4, "big")
        chunk = b"\x02" + message.chunk.group + order
    if any(len(ticket) > MAX_TICKET for ticket in message.tickets):
        raise WireError(f"ticket: expected at most {MAX_TICKET} bytes", code=Code.TOO_LARGE)
    return b"".join(
        (
            message.message_id,
            message.created_at.to_bytes(8, "big"),
            message.expires_at.to_bytes(8, "big"),
            _short("correlation id", message.correlation_id),
            _array(list(message.causation_ids), MAX_CAUSES, "causation ids"),
            _short("reply_to", message.reply_to),
            _array([codec.prefixed(each) for each in message.tickets], MAX_TICKETS, "tickets"),
            _short("traceparent", message.traceparent),
            chunk,
            _array(
                [codec.text(path) + codec.text(how) for path, how in message.field_protection],
                MAX_PROTECTED_FIELDS,
                "field protection",
            ),
        )
    )


def encode_plain_message(message_id: bytes, created_at: int, expires_at: int, correlation_id: str) -> bytes:
    """Like ``encode_message`` for a message that says no more. Raises WireError(too-large)."""
    data = correlation_id.encode()
    size = len(data)
    if size > MAX_SHORT:
        _short("correlation id", correlation_id)  # raises
    times = (created_at << 64 | expires_at).to_bytes(16, "big")
    return b"".join((message_id, times, bytes((size << 1,)), data, NOTHING_ELSE))


def join_plaintext(prefixed: bytes, message: bytes, payload: bytes, cell: int = 0) -> bytes:
    """Like ``encode_plaintext``, for a profile behind its length."""
    size = codec.length(len(payload))
    total = len(MARK) + len(prefixed) + len(message) + len(size) + len(payload)
    fill = bytes(-(4 + total) % cell) if cell else b""
    return b"".join((total.to_bytes(4, "big"), MARK, prefixed, message, size, payload, fill))


def encode_plaintext(profile: bytes, message: bytes, payload: bytes, cell: int = 0) -> bytes:
    """uint32 length | marked Envelope | zeros up to a multiple of ``cell`` bytes (0: none)."""
    size = codec.length(len(profile)), codec.length(len(payload))
    data = b"".join((MARK, size[0], profile, message, size[1], payload))
    return pad(data, cell)


def pad(data: bytes, cell: int = 0) -> bytes:
    """``data`` behind its length (uint32), filled with zeros to a multiple of ``cell``."""
    framed = len(data).to_bytes(4, "big") + data
    return framed + bytes(-len(framed) % cell) if cell else framed


def unpad(plain: bytes) -> bytes:
    """What ``pad`` framed. Raises WireError(decode) where the length or the padding is wrong."""
    end = content_end(plain)
    return plain[4:end]


def content_end(plain: bytes) -> int:
    """Where the content of a padded plaintext ends; the rest is checked to be zeros."""
    end = 4 + int.from_bytes(plain[:4], "big")
    size = len(plain)
    if end != size and (end > size or plain.count(0, end) != size - end):
        raise WireError("plaintext: its length or its padding is wrong", code=Code.DECODE)
    return end


def split(plain: bytes, known: bytes = b"") -> Split:
    """Find the parts of a plaintext without decoding them; all that is stepped over is canonical Avro.

    ``known`` is a profile behind its length that the plaintext probably begins with. Raises WireError(decode).
    """
    return split_at(plain, 4, content_end(plain), known)


def split_at(plain: bytes, begin: int, end: int, known: bytes = b"") -> Split:
    """``split`` of an envelope that stands at ``plain[begin:end]``; places are those in ``plain``."""
    if not plain.startswith(MARK, begin):
        raise WireError("envelope: another marker", code=Code.DECODE)
    try:
        at = begin + len(MARK)
        if known and plain.startswith(known, at):
            profile = known
            at += len(known)
        else:
            start = at
            profile_size, at = codec.read_length(plain, at, code=Code.DECODE)
            at += profile_size
            profile = plain[start:at]
        message = at
        at += 32
        size = plain[at]
        correlation = at + 1
        at = correlation + (size >> 1)
        odd = size
        session = plain[correlation:at]
        session.decode()
        causes = at
        size = plain[at]
        at += 1
        if size:
            odd |= size
            at += 8 * size + 1
            if plain[at - 1]:  # not the array's end: a second block
                odd = 1
        causes_end = at
        size = plain[at]
        odd |= size
        at += 1
        if size:
            reply_to = plain[at : at + (size >> 1)]
            reply_to.decode()
            at += size >> 1
        at = at + 1 if plain[at] == 0 else _step_tickets(plain, at)
        size = plain[at]
        odd |= size
        at += 1
        if size:
            trace = plain[at : at + (size >> 1)]
            trace.decode()
            at += size >> 1
        size = plain[at]
        if size:
            at += 24
            if size != 2:
                odd = 1
        at += 1
        at = at + 1 if plain[at] == 0 else _step_protection(plain, at)
        payload_size, payload = codec.read_length(plain, at, code=Code.DECODE)
    except (IndexError, UnicodeDecodeError) as error:
        raise WireError(f"envelope: not decodable: {type(error).__name__}", code=Code.DECODE) from error
    if odd & 0x81 or payload + payload_size != end:
        raise WireError("envelope: a length is negative, too long or not the rest", code=Code.DECODE)
    return profile, message, at, session, causes, causes_end


def tickets(plain: bytes, causes_end: int) -> tuple[int, int, tuple[bytes, ...]]:
    """Start and end of the array of tickets behind the causes of a plaintext that ``split`` took, and the tickets."""
    start = at = causes_end + 1 + (plain[causes_end] >> 1)
    if plain[at] == 0:
        return start, start + 1, ()
    count, at = codec.read_length(plain, at, code=Code.DECODE)
    found = []
    for _ in range(count):
        ticket, at = codec.read_prefixed(plain, at, MAX_TICKET, code=Code.DECODE)
        found.append(ticket)
    return start, at + 1, tuple(found)


def chunk_of(plain: bytes, causes_end: int, payload_size: int) -> Chunk | None:
    """Which part of a message a plaintext is that ``split`` took; None where it is all of it.

    ``causes_end`` and ``payload_size`` (where the payload's length stands) are ``split``'s.
    """
    if payload_size - causes_end == len(NOTHING_ELSE) - 1:  # no reply_to, tickets, traceparent, chunk and protection
        return None
    _, at, _ = tickets(plain, causes_end)
    at += 1 + (plain[at] >> 1)
    if plain[at] == 0:
        return None
    group = plain[at + 1 : at + 17]
    return Chunk(
        group, int.from_bytes(plain[at + 17 : at + 21], "big"), int.from_bytes(plain[at + 21 : at + 25], "big")
    )


def is_part(plain: bytes, message: int, payload_size: int) -> bool:
    """Whether a plaintext that ``split`` took is one part of a message; ``message`` is where its message begins."""
    causes = message + 33 + (plain[message + 32] >> 1)
    if payload_size - causes == len(NOTHING_ELSE):
        return False
    end = causes + 2 + 8 * plain[causes] if plain[causes] else causes + 1
    return chunk_of(plain, end, payload_size) is not None


def _step_tickets(plain: bytes, at: int) -> int:
    count, at = codec.read_length(plain, at, code=Code.DECODE)
    if count > MAX_TICKETS:
        raise WireError(f"tickets: expected at most {MAX_TICKETS}, found {count}", code=Code.DECODE)
    for _ in range(count):
        _, at = codec.read_prefixed(plain, at, MAX_TICKET, code=Code.DECODE)
    return _step_end(plain, at)


def _step_protection(plain: bytes, at: int) -> int:
    count, at = codec.read_length(plain, at, code=Code.DECODE)
    if count > MAX_PROTECTED_FIELDS:
        raise WireError(f"field protection: expected at most {MAX_PROTECTED_FIELDS}, found {count}", code=Code.DECODE)
    for _ in range(2 * count):
        text, at = codec.read_prefixed(plain, at, MAX_PROFILE, code=Code.DECODE)
        text.decode()
    return _step_end(plain, at)


def _step_end(plain: bytes, at: int) -> int:
    if plain[at]:
        raise WireError("array: expected one block", code=Code.DECODE)
    return at + 1


def decode_envelope(content: bytes) -> Envelope:
    """A whole envelope from its marked bytes (without length and padding). Raises WireError(version, decode)."""
    split(pad(content))  # bounds and canonical form, as the enforcer checked them
    value = codec.decode_marked(schema("envelope"), content)
    parts = value["message"]
    chunk = parts["chunk"]
    message = Message(
        message_id=parts["message_id"],
        created_at=int.from_bytes(parts["created_at"], "big"),
        expires_at=int.from_bytes(parts["expires_at"], "big"),
        correlation_id=parts["correlation_id"],
        causation_ids=tuple(parts["causation_ids"]),
        reply_to=parts["reply_to"],
        tickets=tuple(parts["tickets"]),
        traceparent=parts["traceparent"],
        chunk=None
        if chunk is None
        else Chunk(
            chunk["group"],
            int.from_bytes(chunk["index"], "big"),
            int.from_bytes(chunk["count"], "big"),
        ),
        field_protection=tuple((each["path"], each["protection"]) for each in parts["field_protection"]),
    )
    return Envelope(decode_profile(value["profile"]), message, value["payload"])
