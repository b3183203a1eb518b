"""Builders for the unit tests: a policy, roots, an enforcer and sealed records of one deployment, all in memory.

Nothing here reads a clock: ``NOW`` is the time of every record that does not say otherwise. Importing this module also
lifts hypothesis's deadline: on a shared machine a slow example is no failure.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import replace

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import settings

from bus.crypto import keys
from bus.crypto.keyring import Keyring
from bus.crypto.keys import AgentKeys, ReadingKey, Secret
from bus.crypto.seal import Sealer, mac_state
from bus.crypto.signing import Signer, Trust, sign_object
from bus.kafka.windows import PartitionWindows
from bus.policy.model import AgentPolicy, DomainPolicy, Policy
from bus.policy.rekeying import opening_digest
from bus.wire import codec, envelope, preimage, sealed
from bus.wire.names import NO_ZONE, AgentId, DomainName, RoleName, Tier, domain_topics
from bus.wire.objects import EnforcerCertificate, Epoch
from consumers.enforcer.context import EnforcerContext, PartitionState
from consumers.enforcer.derive import Derivation, derive
from consumers.enforcer.outcome import Accepted, Outcome, Refused
from consumers.enforcer.pipeline import enforce_batch

settings.register_profile("unit", deadline=None, print_blob=True)
settings.load_profile("unit")

DEPLOYMENT = bytes(range(0x50, 0x60))
NOW = 1_772_445_600_000
INTERVAL = 600_000
LEAD = GRACE = 120_000
SKEW = 30_000
HORIZON = 86_400_000
DAY = NOW // 86_400_000

MEMORY, NOTES, PLAIN, VAULT = map(DomainName, ("memory", "notes", "plain", "vault"))
WRITER, OTHER_WRITER, READER, OUTSIDER = map(AgentId, ("writer-1", "writer-2", "reader-1", "outsider-1"))
ROLES = {WRITER: "WRITER", OTHER_WRITER: "WRITER", READER: "READER", OUTSIDER: "OUTSIDER"}


def domain_policy(name: str, tier: Tier = Tier.RETRIEVAL, **changes: object) -> DomainPolicy:
    """A domain that WRITER may write and READER and ARCHIVIST may read; masked and audited in full."""
    rules = ("name", "tier", "produce", "consume", "attestation_required")
    made = DomainPolicy(
        name=DomainName(name),
        tier=tier,
        produce=frozenset({RoleName("WRITER")}),
        consume=frozenset({RoleName("READER"), RoleName("ARCHIVIST")}),
        metadata_masking=True,
        audit_full=True,
        attestation_required=False,
        partitions=4,
        retention_ms=7 * HORIZON,
        locations={rule: f"mesh.yaml:{line}" for line, rule in enumerate(rules, 1)},
    )
    return replace(made, **changes)


def make_policy(*domains: DomainPolicy, roles: Mapping[AgentId, str] = ROLES, number: int = 1) -> Policy:
    """A policy of ``domains``; without any: memory, notes (OUTPUT_ONLY, unmasked), plain (PLAINTEXT), vault (FHE)."""
    chosen = domains or (
        domain_policy(MEMORY),
        domain_policy(NOTES, metadata_masking=False, audit_full=False),
        domain_policy(PLAIN, Tier.PLAINTEXT, metadata_masking=False),
        domain_policy(VAULT, Tier.FHE),
    )
    return Policy(
        domains={each.name: each for each in chosen},
        agents={agent: AgentPolicy(agent, frozenset({RoleName(role)})) for agent, role in roles.items()},
        rotation_interval_ms=INTERVAL,
        replication=1,
        backlog_horizon_ms=HORIZON,
        document=b"{}",
        digest=bytes([number]) * 32,
    )


class World:
    """One deployment: its policy, its random roots by domain and epoch, its enforcer's signing key and its trust."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.policy = make_policy() if policy is None else policy
        self.signer = Signer.generate()
        self.audit_roots = {DAY + day: Secret.random(f"audit {day}") for day in (0, 1)}
        self._roots: dict[tuple[str, int], tuple[Epoch, Secret]] = {}

    def root(self, domain: str, epoch: int = 1) -> tuple[Epoch, Secret]:
        """The epoch and root of ``domain``; epoch 1 began 100 s before NOW."""
        held = self._roots.get((domain, epoch))
        if held is None:
            begin = NOW - 100_000 + (epoch - 1) * INTERVAL
            secret = Secret.random(f"root({domain}, {epoch})")
            told = Epoch(DEPLOYMENT, epoch, begin, begin + INTERVAL, NO_ZONE, domain, keys.root_digest(secret))
            held = self._roots[domain, epoch] = (told, secret)
        return held

    def openers(self, domain: str) -> bytes:
        """Digest of who may open ``domain``: what its epochs are made for."""
        return opening_digest(self.policy, DomainName(domain))

    def keyring(self, epochs: Iterable[int] = (1,)) -> Keyring:
        """A keyring of every domain of the policy."""
        ring = Keyring(lead_ms=LEAD, grace_ms=GRACE)
        for domain, epoch in itertools.product(self.policy.domains, epochs):
            ring.add(*self.root(domain, epoch), self.policy.agents, self.openers(domain))
        return ring

    def context(self, epochs: Iterable[int] = (1,)) -> EnforcerContext:
        """A new enforcer process at NOW. Its keys count as read in the far future: an unknown key id is final."""
        context = EnforcerContext(DEPLOYMENT, self.keyring(epochs), self.signer, self.policy, 1)
        context.now_ms = NOW
        context.refreshed_ms = NOW + 10 * HORIZON
        context.max_clock_skew_ms = SKEW
        for day, root in self.audit_roots.items():
            context.set_audit_root(day, root)
        return context

    def trust(self, *domains: str) -> Trust:
        """A reader's trust: the enforcer is certified for ``domains`` (default: all of the policy)."""
        anchor = Signer.generate()
        certificate = EnforcerCertificate(
            deployment=DEPLOYMENT,
            key_id=self.signer.key_id,
            public_key=self.signer.public_key,
            not_before=NOW - HORIZON,
            not_after=NOW + 3 * HORIZON,
            name="bus-enforcer-1",
            zones=(NO_ZONE,),
            domains=tuple(domains or self.policy.domains),
        )
        return Trust(DEPLOYMENT, anchor.public_key, [sign_object(anchor, certificate)])

    def keys(self, agent: str, domain: str, epoch: int = 1) -> AgentKeys:
        """What ``agent`` holds to send to ``domain``."""
        return keys.agent_keys(self.root(domain, epoch)[1], agent)

    def sealer(self, agent: str = WRITER, domain: str = MEMORY, epoch: int = 1) -> Sealer:
        """A new sending process."""
        return Sealer(self.keys(agent, domain, epoch), DEPLOYMENT, domain_topics(DomainName(domain)).inbound)

    def reading(self, name: str, domain: str, epoch: int = 1) -> ReadingKey:
        """The role KEK of a ROLE, or the reading key of an agent."""
        root = self.root(domain, epoch)[1]
        return keys.role_key(root, name) if name.isupper() else keys.target_key(root, name)


def state(domain: str = MEMORY, partition: int = 0, windows: PartitionWindows | None = None) -> PartitionState:
    """An input partition in an enforcer's hands."""
    name = DomainName(domain)
    return PartitionState(name, domain_topics(name), partition, DEPLOYMENT, windows or PartitionWindows())


def profile_of(source: str = WRITER, domain: str = MEMORY, **changes: object) -> envelope.Profile:
    """A profile of ``source``."""
    return envelope.Profile(AgentId(source), DomainName(domain), **changes)


def message_of(**changes: object) -> envelope.Message:
    """A message with a random id that was made at NOW and lives five minutes."""
    fields = {"message_id": secrets.token_bytes(16), "created_at": NOW, "expires_at": NOW + 300_000}
    return envelope.Message(**{**fields, "correlation_id": "session-1", **changes})


def plaintext(
    source: str = WRITER, domain: str = MEMORY, payload: bytes = b'{"note": 1}', cell: int = 0, **changes: object
) -> bytes:
    """An honest envelope in its frame; ``changes`` are fields of Profile or Message."""
    in_message = {name: changes.pop(name) for name in list(changes) if name in envelope.Message.__dataclass_fields__}
    profile = envelope.encode_profile(profile_of(source, domain, **changes))
    return envelope.encode_plaintext(profile, envelope.encode_message(message_of(**in_message)), payload, cell)


def seal_by_hand(
    own: AgentKeys,
    plain: bytes,
    *,
    topic: str = "memory.in",
    partition: int = 0,
    instance: bytes = b"i" * 16,
    sequence: int = 0,
    seal_key: Secret | None = None,
) -> bytes:
    """A Sealed whose every part the caller chooses; with ``seal_key`` its MAC holds and its body does not open."""
    header = sealed.header(own.key_id, instance, sequence)
    aead = AESGCM(keys.instance_key(seal_key or own.seal, "seal", instance).reveal())
    aad = preimage.sealed_aad(DEPLOYMENT, topic, partition) + header
    tail = codec.prefixed(aead.encrypt(preimage.sealed_nonce(partition, sequence), plain, aad))
    mac = mac_state(own.mac, preimage.sealed_mac(DEPLOYMENT, topic, partition))
    mac.update(header + tail)
    return header + mac.finalize() + tail


def enforce(
    context: EnforcerContext, place: PartitionState, *values: bytes, at: int = NOW, first: int = 0, **more: object
) -> list[Outcome]:
    """Outcomes of ``values``, appended at ``at`` (ms) from offset ``first`` on."""
    offsets = range(first, first + len(values))
    return enforce_batch(values, [at] * len(values), offsets, place, context, **more)


def told(outcome: Outcome) -> dict[str, object]:
    """Everything that an outcome says, as plain values."""
    names = Refused.__dataclass_fields__ if isinstance(outcome, Refused) else Accepted._fields
    values = {name: getattr(outcome, name) for name in names}
    key, decided = values.pop("key"), values.pop("decided")
    profile = None if decided is None else (decided.prefixed, decided.masked, decided.tail, decided.decision)
    return {"kind": isinstance(outcome, Refused), "key": key and key.keys.key_id, "decided": profile, **values}


def run(
    context: EnforcerContext, place: PartitionState, *values: bytes, at: int = NOW, first: int = 0
) -> tuple[list[Outcome], Derivation]:
    """Outcomes and what a transaction writes for them."""
    outcomes = enforce(context, place, *values, at=at, first=first)
    return outcomes, derive(outcomes, first, first + len(values), place, context)
