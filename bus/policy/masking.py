"""Masks: what of a profile's metadata, and of the fields of a payload (JSON, Avro), readers may see.

A domain with ``metadata_masking`` keeps an allowlist of metadata keys that say nothing about topology; all others go,
the published four (sender_ip, routing_path, internal_id, timestamp) in every case. A policy's masks name their own
allowlist, and values that are dropped, hashed under a key, cut to their last four characters or made general.
``source`` and ``created_at`` stay: they are inside the ciphertext and replies need them.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from bus.guardrails.content import read_content
from bus.guardrails.unpack import text_of
from bus.policy.model import MaskRule
from bus.wire.envelope import Profile, user_digest

NEVER_KEPT: Final = frozenset({"sender_ip", "routing_path", "internal_id", "timestamp"})
KEPT: Final = frozenset({"content_encoding", "content_language", "locale", "priority"})
HASH_BYTES: Final = 16


def keeps(key: str) -> bool:
    """Whether a masked record keeps the metadata entry of this key, where no mask of the policy says otherwise."""
    return key in KEPT and key not in NEVER_KEPT


def mask_metadata(
    metadata: Mapping[str, str], rules: Sequence[MaskRule] = (), key: bytes = b"", *, allowlist: bool = True
) -> dict[str, str]:
    """The entries of ``metadata`` that a masked record keeps; without ``allowlist`` all that no rule drops."""
    keeping = [rule.keep for rule in rules if rule.keep is not None]
    kept = frozenset().union(*keeping) if keeping else KEPT
    told = {}
    for name, value in metadata.items():
        how = _how(name, rules)
        if name in NEVER_KEPT and (allowlist or keeping or how):
            continue
        if how == "" and (name in kept or not (allowlist or keeping)):
            told[name] = value
        elif how not in ("", "drop"):
            told[name] = masked(value, how, key)
    return told


def _how(name: str, rules: Sequence[MaskRule]) -> str:
    """The strictest that a rule does to this key."""
    for how in ("drop", "hash", "generalise", "last4"):
        if any(name in getattr(rule, how) for rule in rules):
            return how
    return ""


def masked(value: str, how: str, key: bytes) -> str:
    """``value`` hashed (HMAC-SHA-256, 16 bytes as hex), cut to its "last4" or "generalise"d."""
    if how == "hash":
        return hmac.digest(key, value.encode("utf-8", "surrogatepass"), hashlib.sha256)[:HASH_BYTES].hex()
    if how == "last4":
        return "*" * min(max(len(value) - 4, 0), 8) + value[-4:] if len(value) > 8 else "****"
    return _general(value)


def _general(value: str) -> str:
    """A date's month, an address' network (/24, /48), a number's first digit; anything else says nothing."""
    if match := re.match(r"(\d{4}-\d{2})-\d{2}", value):
        return match[1]
    if re.fullmatch(r"-?\d{1,18}(\.\d+)?", value):
        whole = value.partition(".")[0].lstrip("-")
        return value[: len(value) - len(value.lstrip("-"))] + whole[0] + "0" * (len(whole) - 1)
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        return "*"
    return str(ipaddress.ip_network((value, 24 if address.version == 4 else 48), strict=False))


def mask_profile(profile: Profile, rules: Sequence[MaskRule] = (), key: bytes = b"", *, masked: bool) -> Profile:
    """``profile`` as readers get it. The delegation and the user's token are for the enforcer and never go on; of the
    latter its digest does."""
    metadata: Mapping[str, str] = profile.metadata
    if masked or rules:
        metadata = mask_metadata(metadata, rules, key, allowlist=masked)
    return replace(profile, metadata=metadata, delegation=b"", on_behalf_of=user_digest(profile.on_behalf_of))


def reads(payload: bytes) -> bool:
    """Whether ``mask_payload`` finds fields in a payload."""
    try:
        read_content(payload)
    except (ValueError, RecursionError):
        return False
    return True


def mask_payload(payload: bytes, rules: Sequence[MaskRule], key: bytes) -> bytes:
    """A payload with the fields that ``rules`` name masked. Raises ValueError where it is neither JSON nor Avro, or an
    Avro schema has no place for what a mask leaves: text, or nothing for a field that is dropped.

    A path goes through objects by key and through arrays into each element; a field that is not there is no fault.
    """
    content = read_content(payload)
    changed = [_mask(content.value, path, how, key) for rule in rules for path, how in rule.payload.items()]
    return content.written() if any(changed) else payload


def _mask(value: Any, path: tuple[str, ...], how: str, key: bytes) -> bool:
    if isinstance(value, list):
        return sum(_mask(each, path, how, key) for each in value) > 0
    if not isinstance(value, dict) or path[0] not in value:
        return False
    if path[1:]:
        return _mask(value[path[0]], path[1:], how, key)
    if how == "drop":
        del value[path[0]]
    else:
        found = value[path[0]]
        written = json.dumps(found, sort_keys=True, ensure_ascii=False, default=text_of)
        text = found if isinstance(found, str) else written
        value[path[0]] = masked(text, how, key)
    return True
