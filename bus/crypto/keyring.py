"""The enforcer's keyring: which agent, domain and epoch a key id names, and when its records are accepted.

Pure look-up over what the authority handed in. Validity is judged by the caller at the broker's append time:
an epoch's records are accepted from ``opens`` to ``closes``, which hold the lead and the grace already.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hmac import HMAC

from bus.codes import Code
from bus.crypto import keys
from bus.crypto.keys import ReadingKey, Secret
from bus.crypto.seal import CountingAead, mac_state
from bus.errors import Refused
from bus.wire import preimage
from bus.wire.names import AgentId, DomainName, ZoneName, domain_topics
from bus.wire.objects import Epoch, Tombstone

MAX_INSTANCES = 64
"""Instances of one agent, epoch and partition; a process makes one an epoch, so 64 restarts or replicas."""


@dataclass(slots=True, eq=False)
class DomainEpoch:
    """One domain's root in one epoch, with what is derived from it on demand. Times in ms since 1970."""

    epoch: int
    domain: DomainName
    zone: str
    begins: int
    opens: int
    closes: int
    root: Secret
    instance: bytes
    openers: bytes
    """Digest of who may open what it seals (``bus.policy.rekeying``)."""
    readers: dict[tuple[str, str], ReadingKey] = field(default_factory=dict)
    notices: dict[AgentId, CountingAead] = field(default_factory=dict)
    indexes: dict[tuple[str, str, str], Secret] = field(default_factory=dict)
    agents: set[AgentId] = field(default_factory=set)
    masking: Secret = field(init=False)
    ticket: Secret = field(init=False)
    dead: CountingAead = field(init=False)

    def __post_init__(self) -> None:
        self.masking = keys.purpose_key(self.root, "mask")
        self.ticket = keys.purpose_key(self.root, "ticket")
        self.dead = CountingAead(keys.purpose_key(self.root, "dead"), "dead", self.instance)

    def reader(self, kind: str, name: str) -> ReadingKey:
        """The reading key of ("role", reader group) or ("target", agent)."""
        found = self.readers.get((kind, name))
        if found is None:
            found = keys.group_key(self.root, name) if kind == "role" else keys.target_key(self.root, name)
            self.readers[kind, name] = found
        return found

    def index(self, kind: str, name: str, of: str) -> Secret:
        """A reader's key of the blind index for one field ``of`` payloads."""
        found = self.indexes.get((kind, name, of))
        if found is None:
            found = self.indexes[kind, name, of] = keys.index_key(self.reader(kind, name), of)
        return found

    def delegation_key(self, agent: AgentId) -> Secret:
        """What ``agent`` delegates with."""
        return keys.delegation_key(self.root, agent)


class AgentKey:
    """What a key id names. ``macs`` and ``aeads`` cache keyed states per partition and per instance."""

    __slots__ = ("aeads", "agent", "domain_epoch", "instances", "keys", "macs", "topic")

    def __init__(self, agent: AgentId, domain_epoch: DomainEpoch, derived: keys.AgentKeys, topic: str) -> None:
        self.agent = agent
        self.domain_epoch = domain_epoch
        self.keys = derived
        self.topic = topic
        self.macs: dict[int, HMAC] = {}
        self.aeads: dict[bytes, AESGCM] = {}

    def __repr__(self) -> str:
        return f"AgentKey({self.agent}, {self.domain_epoch.domain}, epoch {self.domain_epoch.epoch})"

    def mac(self, deployment: bytes, partition: int) -> HMAC:
        """A state that has taken the place of ``partition``; copy it per record."""
        state = self.macs.get(partition)
        if state is None:
            state = mac_state(self.keys.mac, preimage.sealed_mac(deployment, self.topic, partition))
            self.macs[partition] = state
        return state

    def aead(self, instance: bytes) -> AESGCM:
        """The AEAD of one sending process; the cache is bounded and emptied when full."""
        found = self.aeads.get(instance)
        if found is None:
            if len(self.aeads) >= 4 * MAX_INSTANCES:
                self.aeads.clear()
            found = AESGCM(keys.instance_key(self.keys.seal, "seal", instance).reveal())
            self.aeads[instance] = found
        return found

    def notice(self) -> CountingAead:
        """This process's own AEAD for notices to the agent."""
        notices = self.domain_epoch.notices
        found = notices.get(self.agent)
        if found is None:
            found = CountingAead(self.keys.notice, "notice", self.domain_epoch.instance)
            notices[self.agent] = found
        return found


class Keyring:
    """Key ids of all agents over the epochs that are still of use."""

    def __init__(self, *, lead_ms: int, grace_ms: int) -> None:
        self._lead = lead_ms
        self._grace = grace_ms
        self._epochs: dict[tuple[str, int], DomainEpoch] = {}
        self._ordered: dict[str, list[DomainEpoch]] = {}
        self._keys: dict[bytes, AgentKey] = {}
        self.generation = 0
        """Rises when key ids are forgotten: what was found before then may not be used."""
        self.find = self._keys.get
        self.erased: dict[bytes, int] = {}
        """Key ids under erased roots, with the time (ms) at which their epoch closed."""
        self._buried: dict[tuple[str, int], int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def epochs(self) -> list[DomainEpoch]:
        """Every epoch held, oldest first."""
        return sorted(self._epochs.values(), key=lambda each: (each.epoch, each.domain))

    def sealing(self, domain: str, now_ms: int) -> DomainEpoch | None:
        """The epoch under which records of ``domain`` are sealed for their readers: the newest that has begun.

        Where none has, the oldest there is; None where none is held. It may be newer than that of the sender's key:
        who lost the right to open a domain has no key of the epoch that began then.
        """
        held = self._ordered.get(domain)
        if not held:
            return None
        return next((each for each in reversed(held) if each.begins <= now_ms), held[0])

    def epoch(self, domain: str, number: int) -> DomainEpoch | None:
        """One epoch of a domain, where its root is held."""
        return self._epochs.get((domain, number))

    def has(self, domain: str, epoch: int) -> bool:
        """Whether the root of this domain and epoch is held."""
        return (domain, epoch) in self._epochs

    def add(self, epoch: Epoch, root: Secret, agents: Iterable[AgentId], openers: bytes) -> DomainEpoch:
        """Take a root, made for who has the digest ``openers``: derive the keys of ``agents``.

        An epoch already held gains only agents it lacks. Raises Refused(erased) for one that was erased.
        """
        if self.is_erased(epoch.domain, epoch.epoch):
            raise Refused(f"epoch {epoch.epoch} of {epoch.domain} is erased", code=Code.ERASED)
        domain = DomainName(epoch.domain)
        held = self._epochs.get((domain, epoch.epoch))
        if held is None:
            held = DomainEpoch(
                epoch=epoch.epoch,
                domain=domain,
                zone=epoch.zone,
                begins=epoch.not_before,
                opens=epoch.not_before - self._lead,
                closes=epoch.not_after + self._grace,
                root=root,
                instance=keys.fresh_instance(),
                openers=openers,
            )
            self._epochs[domain, epoch.epoch] = held
            self._ordered[domain] = sorted((*self._ordered.get(domain, ()), held), key=lambda each: each.epoch)
        self._derive(held, agents)
        return held

    def _derive(self, held: DomainEpoch, agents: Iterable[AgentId]) -> None:
        topic = domain_topics(held.domain, ZoneName(held.zone)).inbound
        for agent in agents:
            if agent not in held.agents:
                derived = keys.agent_keys(held.root, agent)
                self._keys[derived.key_id] = AgentKey(agent, held, derived, topic)
                held.agents.add(agent)

    def join(self, agents: Iterable[AgentId]) -> None:
        """Derive the keys of agents that a newer policy brought, in every epoch held."""
        wanted = list(agents)
        for held in self._epochs.values():
            self._derive(held, wanted)

    def is_erased(self, domain: str, epoch: int) -> bool:
        """Whether ``erase`` was called for it."""
        return (domain, epoch) in self._buried

    def erase(self, tombstone: Tombstone) -> None:
        """Forget the epoch of ``tombstone``, and keep its key ids alone: records under them are `erased`."""
        name, closes = (tombstone.domain, tombstone.epoch), tombstone.not_after + self._grace
        self._buried[name] = closes
        self.erased |= dict.fromkeys(tombstone.key_ids, closes)
        held = self._epochs.get(name)
        if held is not None:
            self.erased |= dict.fromkeys(self._forget([held]), closes)

    def _forget(self, gone: list[DomainEpoch]) -> list[bytes]:
        """Drop these epochs; returns the key ids that named something in them."""
        for each in gone:
            del self._epochs[each.domain, each.epoch]
            self._ordered[each.domain].remove(each)
        key_ids = [key_id for key_id, key in self._keys.items() if key.domain_epoch in gone]
        for key_id in key_ids:
            del self._keys[key_id]
        self.generation += 1
        return key_ids

    def retire(self, before_ms: int) -> list[DomainEpoch]:
        """Forget every epoch that closed before ``before_ms`` (the backlog horizon); returns them."""
        gone = [each for each in self._epochs.values() if each.closes < before_ms]
        if gone:
            self._forget(gone)
        for key_id in [key_id for key_id, closed in self.erased.items() if closed < before_ms]:
            del self.erased[key_id]
        return gone
