"""A hop as a SIEM reads it: OCSF (API Activity, 6003) as JSON, and ArcSight CEF. Pure.

https://schema.ocsf.io/1.3.0/classes/api_activity and the CEF guide (version 0). What a hop does not hold, these do not:
masks and audit levels were applied before it was written.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from importlib.metadata import version
from typing import Any, Final

from bus.codes import Code
from bus.wire.hop import Hop, Verdict

OCSF: Final = "1.3.0"
CLASS: Final = 6003
VERSION: Final = version("sealbus")
CREATE: Final = 1
GRAVE: Final = frozenset({Code.MAC, Code.REPLAY, Code.UNKNOWN_KEY, Code.DELEGATION, Code.TIER_FLOOR})
"""Refusals that no honest agent comes to: a forged, copied or foreign record."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def trace_id(hop: Hop) -> int:
    """Of the trace that a hop's session is; of its message, where it is in none."""
    name = hop.correlation_id.encode() or hop.message_id
    return int.from_bytes(hashlib.sha256(b"sealbus/trace|" + name).digest()[:16], "big") or 1


def severity(hop: Hop) -> int:
    """OCSF's severity: 1 informational, 3 medium, 4 high."""
    if hop.tail.decision is not Verdict.DENY:
        return 1
    return 4 if hop.tail.code in GRAVE else 3


def ocsf(hop: Hop) -> dict[str, Any]:
    """The event as JSON values."""
    tail = hop.tail
    message_id = str(uuid.UUID(bytes=hop.message_id)) if any(hop.message_id) else ""
    agent = tail.agent or "unknown"
    return {
        "category_uid": 6,
        "class_uid": CLASS,
        "activity_id": CREATE,
        "type_uid": CLASS * 100 + CREATE,
        "time": hop.decided_at,
        "severity_id": severity(hop),
        "status_id": 1 if tail.decision is Verdict.ALLOW else 2 if tail.decision is Verdict.DENY else 99,
        "status": tail.decision.value,
        "status_code": tail.code.value,
        "status_detail": f"{tail.rule} {tail.location}".strip(),
        "actor": {"app_name": agent, **({"user": {"uid": tail.facts["user"]}} if tail.facts.get("user") else {})},
        "api": {"operation": "publish", "service": {"name": tail.domain or tail.topic}},
        "src_endpoint": {"name": agent, **({"zone": tail.zone} if tail.zone else {})},
        "dst_endpoint": {"name": f"{tail.topic}/{hop.partition}"},
        "metadata": {
            "version": OCSF,
            "product": {"name": "sealbus", "vendor_name": "sealbus", "version": VERSION},
            "uid": hop.decision_id,
            "correlation_uid": hop.correlation_id,
        },
        "unmapped": {
            "message_id": message_id,
            "offset": hop.offset,
            "append_time": hop.append_time,
            "kind": tail.kind,
            "tool": tail.tool,
            "target": tail.target,
            "purpose": tail.purpose,
            "labels": list(tail.labels),
            "policy": tail.snapshot,
            "origin_digest": hop.origin_digest.hex(),
        },
    }


def cef(hop: Hop) -> str:
    """The event as one line."""
    tail = hop.tail
    head = [tail.code.value or "allow", f"{tail.decision.value} {tail.code.value or tail.rule}".strip()]
    told = {
        "rt": str(hop.decided_at),
        "act": tail.decision.value,
        "reason": tail.code.value,
        "suser": tail.agent or "unknown",
        "destinationServiceName": tail.domain or tail.topic,
        "externalId": hop.decision_id,
        "cs1Label": "rule" if tail.rule else "",
        "cs1": f"{tail.rule} {tail.location}".strip(),
        "cs2Label": "correlation" if hop.correlation_id else "",
        "cs2": hop.correlation_id,
        "cs3Label": "kind" if tail.kind else "",
        "cs3": tail.kind,
        "duser": tail.facts.get("user", ""),
    }
    extension = " ".join(f"{key}={_escaped(value, '=')}" for key, value in told.items() if value)
    grade = {1: 2, 3: 6, 4: 9}[severity(hop)]
    name = "|".join(_escaped(each, "|") for each in head)
    return f"CEF:0|sealbus|sealbus|{VERSION}|{name}|{grade}|{extension}"


def _escaped(value: str, sign: str) -> str:
    """A backslash before ``sign`` and backslashes; what would break a line becomes a space."""
    return _CONTROL.sub(" ", value.replace("\\", "\\\\").replace(sign, f"\\{sign}"))
