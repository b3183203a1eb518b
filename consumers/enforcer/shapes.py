"""Profiles of one agent that differ in the values of their metadata alone: decided once, masked by slicing.

An agent that puts a request id into its metadata sends another profile every time. What is decided does not depend on
those values, so that a profile with the same bytes around its metadata and the same keys needs no codec.
"""

from __future__ import annotations

from bus.errors import WireError
from bus.policy.masking import keeps
from bus.wire import codec
from bus.wire.envelope import MAX_PROFILE, Profile


class Shape:
    """What the profiles share: the bytes before their metadata, the keys in order, the bytes behind it."""

    __slots__ = ("_head", "_kept", "_keys", "_tail", "_told")

    def __init__(self, data: bytes, profile: Profile, *, masked: bool) -> None:
        told = codec.prefixed(profile.on_behalf_of)
        self._tail = b"\x00" + told + codec.prefixed(profile.delegation)
        keys = list(profile.metadata)
        entries = sum(len(codec.text(key)) + len(codec.text(value)) for key, value in profile.metadata.items())
        count = codec.length(len(keys))
        self._head = data[: len(data) - len(self._tail) - entries]
        self._keys = [(codec.text(key), not masked or keeps(key)) for key in keys]
        kept = sum(keep for _, keep in self._keys)
        # Released: the head without its count, the entries that are kept, no delegation.
        self._kept = self._head[: -len(count)] + (codec.length(kept) if kept else b"")
        self._told = b"\x00" + told + b"\x00"

    def masked(self, prefixed: bytes) -> bytes | None:
        """The masked profile, behind its length, of a profile behind its length; None for one of another shape."""
        try:
            size, start = codec.read_length(prefixed, 0)
            head = self._head
            if size > MAX_PROFILE or start + size != len(prefixed) or not prefixed.startswith(head, start):
                return None
            at = start + len(head)
            kept = [self._kept]
            for key, keep in self._keys:
                if not prefixed.startswith(key, at):
                    return None
                size, value = codec.read_length(prefixed, at + len(key))
                end = value + size
                prefixed[value:end].decode()
                if keep:
                    kept.append(prefixed[at:end])
                at = end
        except (WireError, UnicodeDecodeError):
            return None  # the codec says why
        if prefixed[at:] != self._tail:
            return None
        kept.append(self._told)
        return codec.prefixed(b"".join(kept))
