"""Delegations: the right of one agent to write one domain, passed on and narrowed block by block. Framing and caveats.

Unmarked (schemas/delegation.v1.avsc); who may have written the blocks is told by the MAC, which
``bus.crypto.delegations`` makes and verifies. What holds is the intersection of all blocks, so that none can widen; one
that claims more than the block before it is refused all the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from bus.codes import Code
from bus.errors import WireError
from bus.wire import codec
from bus.wire.envelope import Kind
from bus.wire.names import AgentId, DomainName
from bus.wire.schemas import schema

MAC_LENGTH: Final = 32
MAX_BLOCKS: Final = 4
MAX_DELEGATION: Final = 2048
"""Bytes: it stands in every profile that uses it."""
MAX_TIME: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Block:
    """One hand-over. ``kinds`` and ``tools`` say nothing where they are empty; ``not_after`` in ms since 1970."""

    to: AgentId
    not_after: int
    kinds: frozenset[Kind] = frozenset()
    tools: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Chain:
    """What the blocks say together, unverified. ``giver`` is whose right it is, and ``epoch`` whose root proves it."""

    epoch: int
    domain: DomainName
    giver: AgentId
    blocks: tuple[Block, ...]

    @property
    def agents(self) -> tuple[AgentId, ...]:
        """Everyone who held it, the giver first, its user last."""
        return (self.giver, *(each.to for each in self.blocks))

    @property
    def not_after(self) -> int:
        """Its end, ms since 1970."""
        return min((each.not_after for each in self.blocks), default=0)

    @property
    def kinds(self) -> frozenset[Kind] | None:
        """Kinds that may be written; None where no block says any."""
        told = [each.kinds for each in self.blocks if each.kinds]
        return told[0].intersection(*told[1:]) if told else None

    @property
    def tools(self) -> frozenset[str] | None:
        """Tools that may be named; None where no block says any."""
        told = [each.tools for each in self.blocks if each.tools]
        return told[0].intersection(*told[1:]) if told else None

    def with_block(self, block: Block) -> Chain:
        """One more hand-over."""
        return replace(self, blocks=(*self.blocks, block))

    def claims_more(self) -> str:
        """The first caveat in which a block claims more than those before it left: "" where none does."""
        for count in range(1, len(self.blocks)):
            before, block = replace(self, blocks=self.blocks[:count]), self.blocks[count]
            if block.not_after > before.not_after:
                return "not_after"
            for name, given, left in (("kinds", block.kinds, before.kinds), ("tools", block.tools, before.tools)):
                if left is not None and not given <= left:
                    return name
        return ""

    def refuses(self, agent: str, kind: Kind, tool: str, at_ms: int) -> str:
        """Which caveat keeps ``agent`` from writing a record of this kind and tool at ``at_ms``; "" where none does."""
        kinds, tools = self.kinds, self.tools
        if not self.blocks or self.blocks[-1].to != agent:
            return "audience"
        if at_ms > self.not_after:
            return "expired"
        if kinds is not None and kind not in kinds:
            return "kinds"
        if tools is not None and tool not in tools and (tool or kind is Kind.TOOL_CALL):
            return "tools"
        return ""


def encode_signed(chain: Chain) -> bytes:
    """What the MAC of the last block covers: everything before it. Raises WireError(too-large)."""
    blocks = [
        {
            "to": each.to,
            "not_after": each.not_after.to_bytes(8, "big"),
            "kinds": sorted(kind.value for kind in each.kinds),
            "tools": sorted(each.tools),
        }
        for each in chain.blocks
    ]
    value: dict[str, Any] = {"epoch": chain.epoch.to_bytes(8, "big"), "domain": chain.domain, "giver": chain.giver}
    data = codec.encode(schema("delegation"), {**value, "blocks": blocks, "mac": bytes(MAC_LENGTH)})
    if len(data) > MAX_DELEGATION:
        raise WireError(f"delegation: expected at most {MAX_DELEGATION} bytes, found {len(data)}", code=Code.TOO_LARGE)
    return data[:-MAC_LENGTH]


def parse(data: bytes) -> tuple[Chain, bytes]:
    """A chain and its MAC, unverified. Raises WireError(decode, too-large)."""
    if len(data) > MAX_DELEGATION:
        raise WireError(f"delegation: expected at most {MAX_DELEGATION} bytes, found {len(data)}", code=Code.TOO_LARGE)
    value = codec.decode(schema("delegation"), data)
    chain = Chain(
        int.from_bytes(value["epoch"], "big"),
        DomainName(value["domain"]),
        AgentId(value["giver"]),
        tuple(
            Block(
                AgentId(each["to"]),
                int.from_bytes(each["not_after"], "big"),
                frozenset(map(Kind, each["kinds"])),
                frozenset(each["tools"]),
            )
            for each in value["blocks"]
        ),
    )
    if encode_signed(chain) != data[:-MAC_LENGTH]:
        raise WireError("delegation: kinds and tools are not in order", code=Code.DECODE)
    return chain, value["mac"]


def without_mac(data: bytes) -> bytes:
    """A delegation as hops keep it, proving nothing to anyone. Empty where it is none."""
    try:
        parse(data)
    except WireError:
        return b""
    return data[:-MAC_LENGTH]


def parse_told(data: bytes) -> Chain | None:
    """The chain that a hop keeps; None where it keeps none."""
    try:
        return parse(data + bytes(MAC_LENGTH))[0] if data else None
    except WireError:
        return None


def told(agents: Iterable[str]) -> str:
    """A chain as people read it."""
    return " > ".join(agents)
