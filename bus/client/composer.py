"""From ``publish``'s arguments to a plaintext. What an agent repeats is decided and encoded once, and found again.

Pure but for the time and the message id.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import uuid_utils

from bus.client.chunks import cut
from bus.client.delivery import Delivery
from bus.codes import Code
from bus.crypto.users import MAX_TOKEN, claimed
from bus.errors import Denied, Refused, TooLarge
from bus.policy.decide import decide_constant
from bus.policy.model import Policy
from bus.policy.question import Action, Context
from bus.wire import codec, envelope, sealed
from bus.wire.envelope import Kind, Message, Profile, ProtectAt
from bus.wire.names import AgentId, DomainName, Tier

MAX_ROUTES: Final = 1024
MAX_TTL_S: Final = 86_400 * 365
CELL_SPARE: Final = 448
"""Bytes of a cell for what stands around profile and payload (some 150), and for what masks and tickets add behind."""
MIN_PART: Final = 128


@dataclass(frozen=True, slots=True)
class Route:
    """What the arguments that an agent repeats come to: allowed, with this profile (behind its length).

    ``padding``: the plaintext is filled to a multiple of so many bytes, with ``constant`` to one of them. ``cuts``: a
    larger payload may go in parts. ``at_source``: it, or fields of it, are protected here, before anything sees it.
    """

    domain: DomainName
    profile: bytes
    partitions: int
    padding: int
    constant: bool
    cuts: bool
    at_source: bool


@dataclass(frozen=True, slots=True)
class Composed:
    """A message, ready to be sealed: one plaintext, or its parts in order. ``session`` is its correlation id."""

    message_id: bytes
    session: str
    plaintexts: tuple[bytes, ...]
    parts: tuple[bytes, ...] = ()
    """Ids of the parts behind the first, which has the message's."""


class Composer:
    """Messages of one agent."""

    def __init__(self, agent: AgentId) -> None:
        self._agent = agent
        self._policy: Policy | None = None
        self._routes: dict[tuple[object, ...], Route] = {}

    def route(
        self,
        policy: Policy,
        domain: str,
        kind: Kind,
        target: str,
        tool: str,
        task_type: str,
        labels: Sequence[str],
        purpose: str,
        tier_floor: Tier | None,
        content_type: str,
        metadata: Mapping[str, str] | None,
        *,
        proven: tuple[str, ...] | None = None,
        delegation: bytes = b"",
        delegated_by: tuple[AgentId, ...] = (),
        user_token: bytes = b"",
        notify: bool,
    ) -> Route:
        """``proven``: labels of what it builds on, where tickets prove them; ``delegated_by``: whose right the
        ``delegation`` passes on; ``user_token``: of the user on whose behalf it is, whom nobody verified here.

        Raises Denied where ``policy`` says no, Refused(schema) for what is no text, TooLarge or WireError."""
        if policy is not self._policy:
            self._routes, self._policy = {}, policy
        told = tuple(metadata.items()) if metadata else ()
        said = (domain, kind, target, tool, task_type, *labels, purpose, tier_floor, content_type, notify)
        name = (*said, proven, told, delegation, user_token)
        found = self._routes.get(name)
        if found is None:
            check_text("purpose", purpose)
            context = Context(
                kind=kind,
                target=target,
                tier_floor=tier_floor,
                tool=tool,
                task_type=task_type,
                purpose=purpose,
                labels=(*labels, *(policy.floor(self._agent) if proven is None else proven)),
                delegated_by=delegated_by,
                user=claimed(user_token) if user_token else "",
            )
            decision = decide_constant(self._agent, Action.PRODUCE, DomainName(domain), context, policy)
            if not decision.allowed:
                raise Denied(
                    f"{self._agent} may not produce to {domain}: {decision.why} "
                    f"({decision.location or 'no such domain'})",
                    rule=decision.rule,
                    code=decision.code,
                    hint="the policy decides who may: `bus policy plan`; nothing was sent",
                )
            profile = Profile(
                source=self._agent,
                domain=DomainName(domain),
                kind=kind,
                target=target,
                tool=tool,
                task_type=task_type,
                labels=tuple(labels),
                purpose=purpose,
                tier_floor=tier_floor,
                notify=notify,
                content_type=content_type,
                metadata=dict(told),
                protect_at=ProtectAt.SOURCE if policy.domains[DomainName(domain)].at_source else ProtectAt.POLICY,
                delegation=delegation,
                on_behalf_of=user_token,
            )
            prefixed = codec.prefixed(envelope.encode_profile(profile))
            if len(self._routes) >= MAX_ROUTES:
                self._routes.clear()
            decided = policy.domains[profile.domain]
            found = Route(
                profile.domain,
                prefixed,
                decided.partitions,
                decided.padding,
                decided.constant_size,
                not decided.whole,
                decided.at_source or bool(decided.sealed_fields),
            )
            self._routes[name] = found
        return found

    def compose(
        self,
        route: Route,
        payload: bytes,
        *,
        session: str,
        causation: Sequence[uuid.UUID | Delivery],
        tickets: tuple[bytes, ...] = (),
        reply_to: str,
        expires_in: float,
        protect: Callable[[bytes, bytes], bytes] | None = None,
    ) -> Composed:
        """A new message, of a ``session`` of its own where none is named; ``expires_in`` in s. Its payload is cut where
        one record has no room for it. ``protect`` makes of message id and payload what is protected at the source.

        Raises Refused(schema) or TooLarge."""
        if not 0 < expires_in <= MAX_TTL_S:
            raise Refused(f"expires_in: expected up to {MAX_TTL_S} s, found {expires_in!r}", code=Code.SCHEMA)
        message_id: bytes = uuid_utils.uuid7().bytes
        now = time.time_ns() // 1_000_000
        expires = now + int(expires_in * 1000)
        session = session or message_id.hex()
        if protect is not None:
            payload = protect(message_id, payload)
        limit = sealed.MAX_LENGTH - envelope.MAX_PROFILE - 2048 - route.padding - sum(len(each) + 2 for each in tickets)
        if route.constant:
            limit = _cell(route, causation, reply_to, tickets)
        if len(payload) > limit and not route.cuts:
            raise TooLarge(
                f"payload: expected at most {limit} bytes, found {len(payload)}",
                limit=limit,
                hint="this domain has rules of what payloads say or how large they are, and takes none in parts",
            )
        parts = cut(payload, limit, message_id)
        if causation or reply_to or tickets or len(parts) > 1:
            causes = tuple(each.message_id if isinstance(each, Delivery) else each.bytes for each in causation)
            first = Message(message_id, now, expires, session, causes, reply_to, tickets)
            rest = [replace(first, message_id=uuid_utils.uuid7().bytes) for _ in parts[1:]]
            messages = [
                envelope.encode_message(replace(each, chunk=chunk))
                for each, (_, chunk) in zip((first, *rest), parts, strict=True)
            ]
        else:
            rest = []
            messages = [envelope.encode_plain_message(message_id, now, expires, session)]
        plaintexts = tuple(
            envelope.join_plaintext(route.profile, message, part, route.padding)
            for message, (part, _) in zip(messages, parts, strict=True)
        )
        return Composed(message_id, session, plaintexts, tuple(each.message_id for each in rest))


def _cell(route: Route, causation: Sequence[uuid.UUID | Delivery], reply_to: str, tickets: tuple[bytes, ...]) -> int:
    """How much of a payload one cell has room for. Raises TooLarge where it is hardly any."""
    around = len(route.profile) + 16 * len(causation) + len(reply_to.encode()) + sum(len(each) + 2 for each in tickets)
    limit = route.padding - around - CELL_SPARE
    if limit < MIN_PART:
        raise TooLarge(
            f"metadata, tool or tickets: expected at most {route.padding - CELL_SPARE - MIN_PART} bytes with what "
            f"surrounds them, found {around}",
            limit=limit,
            hint=f"every record of this domain fills a cell of {route.padding} bytes",
        )
    return limit


def check_text(name: str, text: str) -> None:
    """Raise Refused(schema) for what has no UTF-8: a lone surrogate, or no text at all."""
    try:
        text.encode()
    except (UnicodeEncodeError, AttributeError):
        raise Refused(f"{name}: expected text, found {text!r}", code=Code.SCHEMA) from None


def user_token_bytes(token: str) -> bytes:
    """A user's token for an envelope. Raises Refused(schema) for what is none."""
    data = token.encode("ascii", "replace")
    if token and (data.count(b".") != 2 or b"?" in data or len(data) > MAX_TOKEN):
        raise Refused(f"user_token: expected a JWT of at most {MAX_TOKEN} bytes", code=Code.SCHEMA)
    return data


def session_of(correlation: str, causation: Sequence[uuid.UUID | Delivery]) -> str:
    """The session of a message: a message that answers a delivery stays in its. Empty where it begins one.

    Raises Refused(schema) for a correlation that is no text.
    """
    if correlation:
        check_text("correlation", correlation)
        return correlation
    return next((each.correlation for each in causation if isinstance(each, Delivery)), "")
