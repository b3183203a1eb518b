"""What a domain of tier COMPUTATION by ``mpc`` adds up, and which parties hold shares of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import rfc8785

from bus.wire.names import AgentId, RoleName

HISTOGRAM: Final = 16
"""Bins of a field unless it says how many."""


@dataclass(frozen=True, slots=True)
class Party:
    """One holder of shares: its X25519 public key (32 bytes), and where its deployment is another one, the name by
    which `peers` in bus.toml has that."""

    name: AgentId
    key: bytes
    peer: str


@dataclass(frozen=True, slots=True)
class SharedField:
    """A number within [low, high], counted in ``bins`` equal parts of that."""

    name: str
    low: float
    high: float
    bins: int


@dataclass(frozen=True, slots=True)
class SharingRule:
    """``release_to``: roles whose holders may have totals of at least ``minimum_cohort`` rows. ``digest``: SHA-256 of
    all of it but the peers' names, which differ from deployment to deployment."""

    parties: tuple[Party, ...]
    fields: tuple[SharedField, ...]
    groups: Mapping[str, tuple[str, ...]]
    minimum_cohort: int
    minimum_sources: int
    release_to: frozenset[RoleName]
    digest: bytes

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what is published, in order."""
        return (*(each.name for each in self.fields), *self.groups)

    @property
    def width(self) -> int:
        """Numbers in a share: the count of rows; of each field its sum, its sum of squares and its bins; of each group
        its counts."""
        return 1 + sum(2 + each.bins for each in self.fields) + sum(map(len, self.groups.values()))

    def place(self, agent: str) -> int | None:
        """Which of the parties ``agent`` is."""
        return next((place for place, each in enumerate(self.parties) if each.name == agent), None)


def compile_sharing(each: Mapping[str, Any]) -> SharingRule:
    """From ``mpc`` of a policy document."""
    same = {**each, "parties": {name: party["key"] for name, party in each["parties"].items()}}
    return SharingRule(
        parties=tuple(
            Party(AgentId(name), bytes.fromhex(party["key"]), party.get("peer", ""))
            for name, party in sorted(each["parties"].items())
        ),
        fields=tuple(
            SharedField(name, field["min"], field["max"], field.get("bins", HISTOGRAM))
            for name, field in sorted(each.get("fields", {}).items())
        ),
        groups={name: tuple(values) for name, values in sorted(each.get("groups", {}).items())},
        minimum_cohort=each["minimum_cohort"],
        minimum_sources=each.get("minimum_sources", 1),
        release_to=frozenset(map(RoleName, each["release_to"])),
        digest=hashlib.sha256(rfc8785.dumps(same)).digest(),
    )
