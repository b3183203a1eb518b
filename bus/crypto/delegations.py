"""Delegations made, passed on and verified: a chain of MACs, each under the delegation key of who hands over.

Each MAC covers the one before it and the blocks so far: whoever was given a delegation can add a block, without any
network; nobody can take one away, move it, or pass on what was made out to another. Keys come from the root of the
domain's epoch: an enforcer of the domain verifies with what it has, and a delegation ends with its epoch.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import replace

from bus.crypto.keyring import DomainEpoch
from bus.crypto.keys import Secret
from bus.errors import WireError
from bus.wire import preimage
from bus.wire.delegation import MAX_BLOCKS, Block, Chain, encode_signed, parse
from bus.wire.envelope import Kind

Find = Callable[[str, int], DomainEpoch | None]
"""The keys of a domain's epoch, where they are held."""


def give(key: Secret, deployment: bytes, chain: Chain) -> bytes:
    """The delegation of a ``chain`` of one block, under its giver's delegation key. Raises WireError(too-large)."""
    signed = encode_signed(chain)
    return signed + _mac(key.reveal(), preimage.delegation_first(deployment) + signed)


def pass_on(key: Secret, delegation: bytes, block: Block) -> bytes:
    """``delegation`` with one more block, under its holder's key. Raises WireError(decode, too-large)."""
    chain, mac = parse(delegation)
    signed = encode_signed(chain.with_block(block))
    return signed + _mac(key.reveal(), preimage.delegation_next(mac) + signed)


def verify(
    data: bytes, find: Find, deployment: bytes, domain: str, agent: str, kind: Kind, tool: str, at_ms: int
) -> tuple[Chain | None, str]:
    """The chain of a delegation that ``agent`` shows for a record of ``domain`` at ``at_ms`` (ms since 1970), and what
    is wrong with it: form, depth, domain, forged, expired, claims-more, audience, kinds or tools; "" where it holds.
    """
    try:
        chain, mac = parse(data)
    except WireError:
        return None, "form"
    if not 0 < len(chain.blocks) <= MAX_BLOCKS:
        return chain, "depth"
    if chain.domain != domain:
        return chain, "domain"
    epoch = find(chain.domain, chain.epoch)
    if epoch is None or not hmac.compare_digest(_expected(chain, epoch, deployment), mac):
        return chain, "forged"
    if not epoch.opens <= at_ms <= epoch.closes:
        return chain, "expired"
    if chain.claims_more():
        return chain, "claims-more"
    return chain, chain.refuses(agent, kind, tool, at_ms)


def _expected(chain: Chain, epoch: DomainEpoch, deployment: bytes) -> bytes:
    mac = b""
    for count, holder in enumerate(chain.agents[:-1], 1):
        prefix = preimage.delegation_next(mac) if mac else preimage.delegation_first(deployment)
        signed = encode_signed(replace(chain, blocks=chain.blocks[:count]))
        mac = _mac(epoch.delegation_key(holder).reveal(), prefix + signed)
    return mac


def _mac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")
