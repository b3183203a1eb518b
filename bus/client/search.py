"""Search by the blind index: what of a domain's released records has a value in a field, without opening the others.

Reads the topic from its beginning to its present end, beside the agent's group. A record is found under the keys of the
epochs that the agent holds: older ones, and those for which it had no lease, stay closed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from confluent_kafka import Message

from bus.client.delivery import Delivery
from bus.client.keystore import KeyStore
from bus.client.opening import Profiles, open_bundle
from bus.codes import Code
from bus.crypto import blind
from bus.crypto.blind import Value
from bus.crypto.keys import index_key
from bus.crypto.signing import KnownTrust, Trust
from bus.errors import BusError, Refused, RetryLater
from bus.kafka.config import Connection
from bus.kafka.whole import whole
from bus.policy.model import DomainPolicy
from bus.wire import derived
from bus.wire.names import AgentId, domain_topics

Wanted = Mapping[int, tuple[frozenset[bytes], ...]]
"""By epoch, and for each value that a record must have: the tokens of it under the keys that the agent holds."""


def wanted(keys: KeyStore, domain: DomainPolicy, values: Mapping[str, Value]) -> Wanted:
    """Raises Refused(schema) for a field that has no index or a text that has no token, and RetryLater where no key is
    held."""
    unknown = sorted(set(values) - set(domain.blind_index))
    if unknown or not values:
        raise Refused(
            f"search: expected fields of the blind index of {domain.name}, "
            f"which has {', '.join(domain.blind_index) or 'none'}; found {', '.join(unknown) or 'none'}",
            code=Code.SCHEMA,
            hint="blind_index in mesh.yaml",
        )
    for name, value in values.items():
        if not blind.indexed(value):
            raise Refused(
                f"search: {name}: expected at most {blind.MAX_TEXT} characters: longer texts have no token",
                code=Code.SCHEMA,
                hint="blind_index in docs/policy.md",
            )
    held = keys.all_reading(domain.name)
    if not held:
        raise RetryLater(f"search: no keys of {domain.name} are held yet", code=Code.RETRY, after=1)
    return {
        epoch: tuple(
            frozenset(blind.token(index_key(reader, name), value) for reader in readers)
            for name, value in values.items()
        )
        for epoch, readers in held.items()
    }


def places(bundle: derived.Derived, tokens: Wanted) -> frozenset[int]:
    """Which records of a framed bundle have, for every value, a token of their epoch."""
    asked = tokens.get(bundle.head.epoch)
    if asked is None or not bundle.index:
        return frozenset()
    return frozenset.intersection(
        *(frozenset(place for place, token in bundle.index if token in each) for each in asked)
    )


class Search:
    """One search of one domain. ``run`` once."""

    def __init__(
        self,
        connection: Connection,
        keys: KeyStore,
        agent: AgentId,
        domain: DomainPolicy,
        trust: Callable[[], Trust],
        on_refused: Callable[[BusError], None],
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._agent = agent
        self._domain = domain
        self._topic = domain_topics(domain.name).outbound
        self._trust = KnownTrust(trust)
        self._on_refused = on_refused
        self._profiles = Profiles()
        self._highest: dict[tuple[int, bytes], int] = {}

    def run(self, values: Mapping[str, Value], timeout: float) -> list[Delivery]:
        """Deliveries, oldest first. Raises what ``wanted`` does, and RetryLater when ``timeout`` s pass first."""
        tokens, found = wanted(self._keys, self._domain, values), list[Delivery]()
        with contextlib.closing(whole(self._connection, self._topic, self._agent, timeout)) as messages:
            for message in messages:
                found += self._found(message, tokens)
        return sorted(found, key=lambda each: (each.created_at, each.place))

    def _found(self, message: Message, tokens: Wanted) -> list[Delivery]:
        """What of one value has the tokens. A value that is refused is told as a subscription's is."""
        value, partition = message.value() or b"", message.partition() or 0
        try:
            bundle = derived.parse(value)
            if not (there := places(bundle, tokens)):
                return []
            opened = open_bundle(
                value,
                domain=self._domain.name,
                topic=self._topic,
                partition=partition,
                offset=message.offset() or 0,
                append_time=message.timestamp()[1],
                trust=self._trust.of(bundle.head.enforcer_key_id, self._domain.name),
                tier=self._domain.tier,
                highest=lambda instance: self._highest.get((partition, instance), -1),
                reading=lambda epoch: self._keys.reading(self._domain.name, epoch),
                profiles=self._profiles,
                only=there,
            )
        except RetryLater:
            raise
        except BusError as refusal:
            self._on_refused(refusal)
            return []
        self._highest[partition, opened.instance] = opened.sequence
        for _, why in opened.refusals:
            self._on_refused(why)
        return [delivery for _, delivery in opened.deliveries if delivery.chunk is None]
