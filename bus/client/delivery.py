"""What a subscriber gets: an opened record, without its payload in the repr."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from bus.client.payload import decode_payload
from bus.wire.envelope import Chunk, Kind, Profile
from bus.wire.hop import decision_id

T = TypeVar("T")


@dataclass(frozen=True, slots=True, init=False)
class Delivery:
    """One record. ``place`` is (partition, offset, index): where it stands in the domain's downstream log.

    Times in ms since 1970. ``profile`` is shared by the deliveries whose messages have the same.
    """

    profile: Profile = field(repr=False)
    message_id: bytes
    created_at: int
    expires_at: int
    correlation: str
    causes: bytes = field(repr=False)
    reply_to: str
    decision: bytes = field(repr=False)
    epoch: int
    place: tuple[int, int, int]
    payload: bytes = field(repr=False)
    ticket: bytes = field(default=b"", repr=False)
    chunk: Chunk | None = field(default=None, repr=False)
    """Which part of its message it is, before ``bus.client.chunks`` put them together."""

    def __init__(
        self,
        profile: Profile,
        message_id: bytes,
        created_at: int,
        expires_at: int,
        correlation: str,
        causes: bytes,
        reply_to: str,
        decision: bytes,
        epoch: int,
        place: tuple[int, int, int],
        payload: bytes,
        ticket: bytes = b"",
        chunk: Chunk | None = None,
    ) -> None:
        # By its slots: the constructor of a frozen dataclass finds each by its name, at twice the cost, and a reader
        # makes one for every record.
        _profile(self, profile)
        _message_id(self, message_id)
        _created_at(self, created_at)
        _expires_at(self, expires_at)
        _correlation(self, correlation)
        _causes(self, causes)
        _reply_to(self, reply_to)
        _decision(self, decision)
        _epoch(self, epoch)
        _place(self, place)
        _payload(self, payload)
        _ticket(self, ticket)
        _chunk(self, chunk)

    @property
    def id(self) -> uuid.UUID:
        """The message's id (UUIDv7), as ``publish`` returned it."""
        return uuid.UUID(bytes=self.message_id)

    @property
    def domain(self) -> str:
        """Where it was published."""
        return self.profile.domain

    @property
    def source(self) -> str:
        """The agent that published it."""
        return self.profile.source

    @property
    def kind(self) -> Kind:
        """What it is."""
        return self.profile.kind

    @property
    def purpose(self) -> str:
        """Why its source says that it was sent."""
        return self.profile.purpose

    @property
    def target(self) -> str:
        """The one agent that it is for, or empty."""
        return self.profile.target

    @property
    def causation(self) -> tuple[uuid.UUID, ...]:
        """Ids of the messages that it follows from."""
        return tuple(uuid.UUID(bytes=self.causes[at : at + 16]) for at in range(0, len(self.causes), 16))

    @property
    def content_type(self) -> str:
        """Of the payload."""
        return self.profile.content_type

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the domain's masking left of it."""
        return self.profile.metadata

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that its source gave it."""
        return self.profile.labels

    @property
    def decision_id(self) -> str:
        """Names its hop: `bus audit trace`."""
        return decision_id(self.decision)

    def value(self, kind: type[T] | None = None) -> T | Any:
        """The payload as ``kind`` (pydantic model, dataclass, TypedDict, dict, bytes), else by its content type."""
        return decode_payload(self.payload, self.content_type, kind)


def _setters() -> Iterator[Callable[[Delivery, Any], None]]:
    return (getattr(Delivery, each.name).__set__ for each in fields(Delivery))


(
    _profile,
    _message_id,
    _created_at,
    _expires_at,
    _correlation,
    _causes,
    _reply_to,
    _decision,
    _epoch,
    _place,
    _payload,
    _ticket,
    _chunk,
) = _setters()
