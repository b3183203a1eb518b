"""A policy document (canonical JSON) to the compiled policy, and back to bytes. Pure.

Keys that a policy does not use are not in its document, so that its digest says what it says and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

import rfc8785

from bus.codes import Code
from bus.errors import WireError
from bus.policy.conditions import Condition
from bus.policy.labels import BOTTOM, Label, Propagate, Scheme
from bus.policy.model import (
    AgentPolicy,
    BreakerRule,
    DeclassifyRule,
    DomainPolicy,
    FlowRule,
    GuardrailRule,
    MaskRule,
    Policy,
    RateRule,
)
from bus.policy.sharing import compile_sharing
from bus.wire.envelope import Kind
from bus.wire.measurement import parse_measurement
from bus.wire.names import AgentId, DomainName, RoleName, Tier

FORMAT: Final = "sealbus.policy/1"
SOURCED: Final = {"COMPUTATION": "source", "FHE": "source"}
"""Where payloads are protected unless a domain says it."""
MASKINGS: Final = ("drop", "hash", "last4", "generalise")


def canonical(document: Mapping[str, Any]) -> bytes:
    """RFC 8785 bytes of a policy document."""
    return rfc8785.dumps(dict(document))


def compile_policy(document: bytes) -> Policy:
    """The policy in canonical bytes. Raises WireError(version, decode) for another format or other bytes."""
    try:
        value = json.loads(document)
        if value["format"] != FORMAT:
            raise WireError(f"policy: expected format {FORMAT}, found {value['format']!r}", code=Code.VERSION)
        if canonical(value) != document:
            raise WireError("policy: not in canonical form (RFC 8785)", code=Code.DECODE)
        return _policy(value, document)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise WireError(f"policy: not a policy document: {error!r}", code=Code.DECODE) from error


def _policy(value: dict[str, Any], document: bytes) -> Policy:
    topics = value["topics"]
    told = value.get("labels", {})
    scheme = Scheme(tuple(told.get("levels", ())), frozenset(told.get("categories", ())))
    parts = _Parts(value, scheme)
    return Policy(
        domains={DomainName(name): parts.domain(DomainName(name), each) for name, each in value["domains"].items()},
        agents={
            AgentId(name): AgentPolicy(
                AgentId(name),
                frozenset(map(RoleName, each["roles"])),
                each.get("tenant", ""),
                each.get("zone", ""),
                frozenset(map(parse_measurement, each.get("measurements", ()))),
            )
            for name, each in value["agents"].items()
        },
        rotation_interval_ms=value["global"]["credential_rotation_interval_ms"],
        replication=topics["replication"],
        backlog_horizon_ms=topics["backlog_horizon_ms"],
        quotas=value.get("quotas", {}),
        document=document,
        digest=hashlib.sha256(document).digest(),
        tenants=frozenset(value.get("tenants", ())),
        zones=frozenset(value.get("zones", ())),
        flows=tuple(_flow(each, scheme) for each in value.get("flows", ())),
        scheme=scheme,
        clearances={RoleName(role): _label(scheme, names) for role, names in value.get("clearances", {}).items()},
        propagate=Propagate(told.get("propagate", "none")),
        declassify=tuple(
            DeclassifyRule(
                id=each["id"],
                role=RoleName(each["role"]),
                above=scheme.levels.index(each["from"]),
                to=scheme.levels.index(each["to"]),
                drop=frozenset(each["drop"]),
                after=frozenset(each["after"]),
            )
            for each in told.get("declassify", ())
        ),
        inherits={RoleName(role): frozenset(map(RoleName, held)) for role, held in value.get("inherits", {}).items()},
        locations=value.get("locations", {}),
    )


def _label(scheme: Scheme, names: list[str]) -> Label:
    label = scheme.parse(names)
    if label is None:
        raise ValueError(f"labels {names} are not in the policy")
    return label


def _flow(each: dict[str, Any], scheme: Scheme) -> FlowRule:
    return FlowRule(
        id=each["id"],
        source=each["from"],
        target=each["to"],
        domains=frozenset(map(DomainName, each["domains"])),
        ceiling=scheme.levels.index(each["max_label"]) if "max_label" in each else None,
        forbid=frozenset(each.get("forbid", ())),
        location=each["location"],
    )


def _mask(name: str, each: dict[str, Any]) -> MaskRule:
    def metadata(what: str) -> frozenset[str]:
        return frozenset(key.removeprefix("metadata.") for key in each.get(what, ()) if not key.startswith("payload."))

    return MaskRule(
        name=name,
        keep=metadata("keep") if "keep" in each else None,
        drop=metadata("drop"),
        hash=metadata("hash"),
        last4=metadata("last4"),
        generalise=metadata("generalise"),
        payload={
            tuple(key.split(".")[1:]): what
            for what in MASKINGS
            for key in each.get(what, ())
            if key.startswith("payload.")
        },
    )


class _Parts:
    """What domains refer to by name, each compiled once."""

    def __init__(self, value: dict[str, Any], scheme: Scheme) -> None:
        self._topics = value["topics"]
        self._scheme = scheme
        self._conditions = {name: Condition(name, text) for name, text in value.get("conditions", {}).items()}
        self._masks = {name: _mask(name, each) for name, each in value.get("masks", {}).items()}
        # A bucket of each partition has its share: exact where records spread over all, as they do without a key.
        parts = self._topics["partitions"]
        self._rates = {
            name: RateRule(
                name, each["per"], max(each["rate"] // parts, 1), max(each["burst"] // parts, 1), each.get("max_bytes")
            )
            for name, each in value.get("rate_limits", {}).items()
        }
        self._breakers = {
            name: BreakerRule(name, each["per"], each["open_after"][0], each["open_after"][1], each["half_open_after"])
            for name, each in value.get("circuit_breakers", {}).items()
        }
        self._guardrails = {
            name: GuardrailRule(
                name, frozenset(each["detect"]), "payload" in each["on"], "metadata" in each["on"], each["then"]
            )
            for name, each in value.get("guardrails", {}).items()
        }

    def domain(self, name: DomainName, each: dict[str, Any]) -> DomainPolicy:
        tools = each.get("tools")
        return DomainPolicy(
            name=name,
            tier=Tier[each["tier"]],
            produce=frozenset(map(RoleName, each["produce"])),
            consume=frozenset(map(RoleName, each["consume"])),
            metadata_masking=each["metadata_masking"],
            audit_full=each["audit_level"] == "FULL_MESH",
            attestation_required=each["attestation_required"],
            partitions=self._topics["partitions"],
            retention_ms=self._topics["retention_ms"],
            locations=each["locations"],
            kinds=frozenset(map(Kind, each["kinds"])) if "kinds" in each else None,
            tools=None if tools is None else {tool: frozenset(map(RoleName, roles)) for tool, roles in tools.items()},
            label=_label(self._scheme, each["label"]) if "label" in each else BOTTOM,
            when=tuple(self._conditions[condition] for condition in each.get("when", ())),
            masks=tuple(self._masks[mask] for mask in each.get("masks", ())),
            rate=self._rates[each["rate_limit"]] if "rate_limit" in each else None,
            breaker=self._breakers[each["circuit_breaker"]] if "circuit_breaker" in each else None,
            guardrails=tuple(self._guardrails[rule] for rule in each.get("guardrails", ())),
            max_token_age_ms=each.get("max_token_age_ms", 0),
            padding=each.get("padding", 0),
            delegates=frozenset(map(RoleName, each.get("delegates", ()))),
            computation=each.get("computation", "tee"),
            at_source=each.get("protect_at", SOURCED.get(each["tier"])) == "source",
            fhe_context=bytes.fromhex(each.get("fhe_context", "")),
            sealed_fields={
                tuple(path.split(".")): DomainName(target) for path, target in each.get("sealed_fields", {}).items()
            },
            constant_size=each.get("constant_size", False),
            sharing=compile_sharing(each["mpc"]) if "mpc" in each else None,
            user_required=each.get("user_required", False),
            blind_index=tuple(each.get("blind_index", ())),
            payload_kept=each.get("audit_payload", "digest") == "sealed",
        )
