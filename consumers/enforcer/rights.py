"""By whose right, and on whose behalf, a record is written: what the delegation and the user's token that it shows come
to at its effective time. Pure.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from bus.codes import Code
from bus.crypto import delegations, users
from bus.crypto.keyring import AgentKey, Keyring
from bus.errors import Unverified
from bus.wire.envelope import Profile
from bus.wire.names import AgentId

USER_MS: Final = 60_000
"""A user's token is verified anew after so long: its issuer may be trusted no more."""
FOREVER: Final = 2**63


class Right(NamedTuple):
    """That of the first of the ``givers`` of a delegation, without givers the agent's own; on behalf of the user with
    the id ``user``. ``until`` then (ms since 1970). ``fault``: code and rule of what does not hold. ``unread``: it may
    come of the delegation's keys not being read yet."""

    givers: tuple[AgentId, ...] = ()
    user: str = ""
    until: int = FOREVER
    fault: tuple[Code, str] | None = None
    unread: bool = False


OWN: Final = Right()


class Unread(Exception):  # not a fault of the record
    """A record cannot be decided before the keys were read again."""


def right(
    profile: Profile,
    key: AgentKey,
    keyring: Keyring,
    deployment: bytes,
    issuers: users.Issuers,
    at_ms: int,
    skew_ms: int,
) -> Right:
    """The right by which the holder of ``key`` writes a record of this profile at ``at_ms``."""
    found = _delegated(profile, key, keyring, deployment, at_ms) if profile.delegation else OWN
    if found.fault is not None or not profile.on_behalf_of:
        return found
    try:
        user = users.verify(profile.on_behalf_of, issuers, at_ms, skew_ms)
    except Unverified as error:
        return Right(fault=(Code.USER, f"user.{error.step}"))
    return found._replace(user=user.id, until=min(found.until, user.until, at_ms + USER_MS))


def _delegated(profile: Profile, key: AgentKey, keyring: Keyring, deployment: bytes, at_ms: int) -> Right:
    domain = key.domain_epoch.domain
    chain, fault = delegations.verify(
        profile.delegation, keyring.epoch, deployment, domain, key.agent, profile.kind, profile.tool, at_ms
    )
    if chain is None:
        return Right(fault=(Code.DELEGATION, f"delegation.{fault}"))
    epoch = keyring.epoch(domain, chain.epoch)
    if epoch is None or fault:
        unread = epoch is None and fault == "forged" and not keyring.is_erased(domain, chain.epoch)
        return Right(fault=(Code.DELEGATION, f"delegation.{fault}"), unread=unread)
    return Right(chain.agents[:-1], until=min(chain.not_after, epoch.closes))
