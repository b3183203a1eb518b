"""By whose right a record is written: what the delegation that it shows comes to at its effective time. Pure."""

from __future__ import annotations

from typing import Final, NamedTuple

from bus.crypto.delegations import verify
from bus.crypto.keyring import AgentKey, Keyring
from bus.wire.envelope import Profile
from bus.wire.names import AgentId


class Right(NamedTuple):
    """That of the first of the ``givers`` of a delegation, ``until`` then (ms since 1970); without givers the agent's
    own. ``fault`` says what is wrong with the delegation."""

    givers: tuple[AgentId, ...] = ()
    until: int = 0
    fault: str = ""


OWN: Final = Right()


def right(profile: Profile, key: AgentKey, keyring: Keyring, deployment: bytes, at_ms: int) -> Right:
    """The right by which the holder of ``key`` writes a record of this profile at ``at_ms``."""
    data, domain = profile.delegation, key.domain_epoch.domain
    if not data:
        return OWN
    chain, fault = verify(data, keyring.epoch, deployment, domain, key.agent, profile.kind, profile.tool, at_ms)
    epoch = keyring.epoch(domain, chain.epoch) if chain is not None else None
    if chain is None or epoch is None or fault:
        return Right(fault=fault)
    return Right(chain.agents[:-1], min(chain.not_after, epoch.closes))
