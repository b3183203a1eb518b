"""Metadata masking: what of a profile readers may see.

A domain with ``metadata_masking`` keeps an allowlist of metadata keys that say nothing about topology; all others go,
the published four (sender_ip, routing_path, internal_id, timestamp) in every case. ``source`` and ``created_at`` stay:
they are inside the ciphertext and replies need them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from bus.wire.envelope import Profile

NEVER_KEPT: Final = frozenset({"sender_ip", "routing_path", "internal_id", "timestamp"})
KEPT: Final = frozenset({"content_encoding", "content_language", "locale", "priority"})


def keeps(key: str) -> bool:
    """Whether a masked record keeps the metadata entry of this key."""
    return key in KEPT and key not in NEVER_KEPT


def mask_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """The entries of ``metadata`` that a masked record keeps."""
    return {key: value for key, value in metadata.items() if keeps(key)}


def mask_profile(profile: Profile, *, masked: bool) -> Profile:
    """``profile`` as readers get it. The delegation token is for the enforcer and never goes on."""
    metadata = mask_metadata(profile.metadata) if masked else profile.metadata
    return replace(profile, metadata=metadata, delegation=b"")
