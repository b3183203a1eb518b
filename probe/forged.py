"""Attacks by records: each is written harmed, and unharmed as its control; what became of both is read from the ledger.

Sealed with the keys in the attacking agent's own folder and written with its credential where its rights reach, else as
the operator, who holds the roots and may write everywhere. A refused record must have one hop, and a dead letter that
the hop names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from bus.authority.local import now_ms
from bus.authority.trust import read_trust
from bus.codes import Code
from bus.crypto.seal import Sealer
from bus.crypto.session import SourceSealer
from bus.errors import Refused
from bus.stack.local import Stack
from bus.wire import codec, sealed
from bus.wire.envelope import ProtectAt
from bus.wire.names import AgentId, domain_topics
from demo.raw import RawClient, held, plaintext
from probe.scene import PURPOSE, Scene, Way, decided

PAYLOAD: Final = b'{"probe": "attacks"}'
OVER: Final = 200
"""Bytes by which the oversized record is over the limit, at least."""
ALLOWED: Final = "ALLOW"
READ_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Shot:
    """Bytes for one place, and whose client writes them."""

    by: RawClient
    topic: str
    partition: int
    value: bytes


@dataclass(frozen=True, slots=True)
class Forged:
    """An attack and its control; ``after``: the unharmed one goes first."""

    attack: str
    expected: Code
    harmed: Shot
    control: str
    unharmed: Shot
    after: bool = False


class Forge:
    """Makes the records of one scene. ``session`` is the correlation id of all."""

    def __init__(self, stack: Stack, scene: Scene, session: str) -> None:
        self.stack, self.scene, self.session = stack, scene, session
        self.trust = read_trust(stack.layout.trust)
        self.operator, self.agent = RawClient(stack), RawClient(stack, scene.agent)
        self.topic = domain_topics(scene.own.domain.name).inbound
        own = held(stack.layout.agent(scene.agent), scene.agent, scene.own.domain.name, self.trust).own
        if own is None:
            raise Refused(f"{scene.agent} has no key to send to {scene.own.domain.name}", hint="bus doctor")
        self._sealer = Sealer(own, self.trust.deployment, self.topic)

    def plain(self, way: Way, payload: bytes = PAYLOAD, *, source: str = "", **changes: Any) -> bytes:
        """An envelope of ``way``, honest but for ``source`` and ``changes``."""
        more: dict[str, Any] = {"target": way.reader, "purpose": PURPOSE, "correlation_id": self.session, **changes}
        return plaintext(source or way.writer, way.domain.name, payload, **more)

    def shot(self, plain: bytes | None = None) -> Shot:
        """A record of the agent, sealed and written with nothing but what is its own."""
        value = self._sealer.seal(0, self.plain(self.scene.own) if plain is None else plain)[1]
        return Shot(self.agent, self.topic, 0, value)

    def made(self, way: Way, writer: AgentId) -> Shot:
        """A record into the domain of ``way``, by the operator with the keys that ``writer`` has or would have."""
        sealer = self.operator.sealer(writer, way.domain.name)
        value = sealer.seal(0, self.plain(way, source=writer))[1]
        return Shot(self.operator, domain_topics(way.domain.name).inbound, 0, value)

    def all(self) -> Iterator[Forged]:
        """Every attack by a record that the scene has what it needs for."""
        scene, own = self.scene, self.scene.own
        first = self.shot()
        yield Forged("a record again", Code.REPLAY, first, "the first time", first, after=True)
        if own.domain.partitions > 1:
            shot = self.shot()
            moved = Shot(self.agent, self.topic, 1, shot.value)
            yield Forged("a record on another partition", Code.MAC, moved, "on its own partition", shot)
        if scene.elsewhere is not None:
            shot = self.shot()
            moved = Shot(self.operator, domain_topics(scene.elsewhere).inbound, 0, shot.value)
            yield Forged("a record on another domain's topic", Code.WRONG_DOMAIN, moved, "on its own topic", shot)
        yield from self._changed("one bit flipped", Code.MAC, -1, 1)
        yield from self._changed("another protocol version", Code.VERSION, len(sealed.HEAD) - 1, 3)
        shot = self.shot()
        value = shot.value[: len(sealed.HEAD)] + os.urandom(16) + shot.value[len(sealed.HEAD) + 16 :]
        nobody = Shot(self.agent, self.topic, 0, value)
        yield Forged("a key id of nobody", Code.UNKNOWN_KEY, nobody, "the same bytes under its own key id", shot)
        yield self._oversized()
        past = self.shot(self.plain(own, now=now_ms() - 600_000))
        yield Forged("an envelope that expired", Code.EXPIRED, past, "the same, in time", self.shot())
        other = next((name for name in sorted(scene.policy.agents) if name != scene.agent), "nobody-1")
        false = self.shot(self.plain(own, source=other))
        yield Forged("an envelope in another agent's name", Code.UNVERIFIED, false, "in its own name", self.shot())
        if (way := scene.unwritable) is not None:
            code = decided(scene.policy, scene.agent, way.domain.name, way.reader).code
            attack = f"{scene.agent} into {way.domain.name}, past the SDK"
            made = self.made(way, scene.agent)
            yield Forged(attack, code, made, f"{way.writer}, made in the same way", self.made(way, way.writer))
        if scene.source is not None:
            yield self._unprotected(scene.source)

    def _changed(self, attack: str, code: Code, place: int, bits: int) -> Iterator[Forged]:
        shot = self.shot()
        value = bytearray(shot.value)
        value[place] ^= bits
        yield Forged(attack, code, Shot(self.agent, self.topic, 0, bytes(value)), "the same bytes unharmed", shot)

    def _oversized(self) -> Forged:
        own = self.scene.own
        room = sealed.MAX_LENGTH - sealed.MAC_END - sealed.TAG_LENGTH - len(self.plain(own, b"")) - own.domain.padding
        room -= 2 * len(codec.length(sealed.MAX_LENGTH))  # two lengths that grow with what they count
        fits, over = (
            self.shot(self.plain(own, b'"' + b"x" * (size - 2) + b'"'))
            for size in (room, room + own.domain.padding + OVER)
        )
        return Forged("a record over the limit", Code.BOUNDS, over, f"one of {len(fits.value):,} bytes", fits)

    def _unprotected(self, way: Way) -> Forged:
        """Into a domain whose payloads are protected at their source: one that is not, and one that is."""
        name = way.domain.name
        bundle = held(self.stack.layout.agent(way.writer), way.writer, name, self.trust)
        if bundle.own is None or bundle.session is None:
            raise Refused(f"{way.writer} has no session key of {name}", hint="bus doctor")
        topic, deployment = domain_topics(name).inbound, self.trust.deployment
        sealer = Sealer(bundle.own, deployment, topic)
        message = os.urandom(16)
        closed = SourceSealer(bundle.session, bundle.epoch.epoch, deployment, name, way.writer).seal(message, PAYLOAD)
        honest = self.plain(way, closed, message_id=message, protect_at=ProtectAt.SOURCE)
        open_, protected = (
            Shot(self.operator, topic, 0, sealer.seal(0, plain)[1]) for plain in (self.plain(way), honest)
        )
        attack = f"a payload for {name} that is not protected"
        return Forged(attack, Code.TIER_FLOOR, open_, "one that is, by the same agent", protected)
