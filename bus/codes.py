"""The one registry of refusal and error codes.

Hops, dead letters, notices, metrics, errors and ``--json`` documents use these strings and no others, so that a
reader can search for one and find the check that raised it. A policy rule that refuses is named beside its code
(``produce`` by ``agent_memory.produce``). Codes are added, never renamed: ledgers keep them for years.
"""

from enum import StrEnum


class Code(StrEnum):
    """Why a record or a call was refused, or must wait. ``ALLOW`` is the empty code of an accepted record."""

    ALLOW = ""

    # The enforcer's steps, in their order (docs/architecture.md, section 1).
    BOUNDS = "bounds"
    VERSION = "version"
    UNKNOWN_KEY = "unknown-key"
    WRONG_DOMAIN = "wrong-domain"
    MAC = "mac"
    EPOCH_EARLY = "epoch-early"
    EPOCH_LATE = "epoch-late"
    EPOCH_RETIRED = "epoch-retired"
    REPLAY = "replay"
    TOO_MANY_INSTANCES = "too-many-instances"
    OPEN = "open"
    DECODE = "decode"
    EXPIRED = "expired"
    FUTURE = "future"
    TIER_FLOOR = "tier-floor"
    TIER_UNAVAILABLE = "tier-unavailable"
    THROTTLED = "throttled"
    BREAKER_OPEN = "breaker-open"
    RETRY = "retry"
    ERASED = "erased"
    UNVERIFIED = "unverified"
    DELEGATION = "delegation"
    TOO_LARGE = "too-large"
    SCHEMA = "schema"
    INTERNAL = "internal"

    # Events of a partition, in hops of their own (ADR 0002).
    CLOCK = "clock"
    START = "start"

    # Policy rules by name.
    TENANTS = "tenants"
    ZONES = "zones"
    DELEGATES = "delegates"
    USER = "user"
    PRODUCE = "produce"
    CONSUME = "consume"
    KINDS = "kinds"
    TOOLS = "tools"
    LABELS = "labels"
    CONDITION = "condition"
    GUARDRAIL = "guardrail"
    MASK = "mask"

    # What a client or an operator meets outside a record's way (ADR 0003).
    ACL = "acl"
    CREDENTIAL = "credential"
    ATTESTATION = "attestation"
    POLICY = "policy"
    SETTINGS = "settings"
    STACK = "stack"
    LEDGER = "ledger"
    STORE = "store"
    UNKNOWN = "unknown"
    INCOMPLETE = "incomplete"
    COHORT = "cohort"
    PARTIES = "parties"
    CLOSED = "closed"
