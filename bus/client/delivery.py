"""What a subscriber gets: an opened record, without its payload in the repr."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from bus.client.payload import decode_payload
from bus.wire.envelope import Kind

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One record. ``place`` is (partition, offset, index): where it stands in the domain's downstream log."""

    id: uuid.UUID
    domain: str
    source: str
    kind: Kind
    purpose: str
    target: str
    correlation: str
    causation: tuple[uuid.UUID, ...]
    created_at: int
    expires_at: int
    reply_to: str
    content_type: str
    metadata: Mapping[str, str]
    labels: tuple[str, ...]
    decision_id: str
    epoch: int
    place: tuple[int, int, int]
    payload: bytes = field(repr=False)

    def value(self, kind: type[T] | None = None) -> T | Any:
        """The payload as ``kind`` (pydantic model, dataclass, TypedDict, dict, bytes), else by its content type."""
        return decode_payload(self.payload, self.content_type, kind)
