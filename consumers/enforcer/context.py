"""What a decision needs beside the bytes: policy, keys, clock readings, counters. No I/O of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from bus.codes import Code
from bus.crypto.dek import Dek
from bus.crypto.keyring import AgentKey, DomainEpoch, Keyring
from bus.crypto.keys import Secret, fresh_instance, purpose_key
from bus.crypto.seal import CountingAead
from bus.crypto.signing import Signer
from bus.crypto.tickets import issue, proven
from bus.crypto.users import Issuers
from bus.errors import RetryLater
from bus.guardrails.scanner import Scanners, default_scanner
from bus.kafka.windows import PartitionWindows
from bus.policy.decide import Decision, Obligations, decide_constant
from bus.policy.guarding import Findings
from bus.policy.masking import mask_profile
from bus.policy.model import AgentPolicy, Policy
from bus.policy.moments import Moments
from bus.policy.question import Action, Context
from bus.policy.rekeying import opening_digest
from bus.tiers.base import TIERS
from bus.wire import codec, preimage
from bus.wire.delegation import without_mac
from bus.wire.envelope import (
    MAX_CACHED_PROFILE,
    MAX_PROFILE,
    Profile,
    ProtectAt,
    decode_profile,
    encode_profile,
    user_digest,
)
from bus.wire.hop import HopTail, Verdict, encode_tail
from bus.wire.names import DomainName, DomainTopics
from bus.wire.objects import Tombstone
from consumers.enforcer.decided import NO_MOMENT, DecidedProfile, Moment, Proven
from consumers.enforcer.events import EventKind, PartitionEvent
from consumers.enforcer.inspector import NONE, Denied, Inspector
from consumers.enforcer.rights import OWN, Right, Unread, right
from consumers.enforcer.shapes import Shape

if TYPE_CHECKING:
    from sealbus_native import Acceptor

_NEVER: Final[tuple[int, DecidedProfile | None]] = (0, None)
MAX_PROFILES = 4096
"""Decided profiles kept; emptied when full: what matters is the bound, not the order."""


class PartitionState:
    """One input partition in this enforcer's hands."""

    __slots__ = (
        "aad",
        "acceptor",
        "delegated",
        "domain",
        "events",
        "generation",
        "hot",
        "inspector",
        "out_aad",
        "out_signature",
        "padding",
        "partition",
        "policy",
        "profiles",
        "proven",
        "seen",
        "shapes",
        "topics",
        "windows",
    )

    def __init__(
        self, domain: DomainName, topics: DomainTopics, partition: int, deployment: bytes, windows: PartitionWindows
    ) -> None:
        self.domain = domain
        self.topics = topics
        self.partition = partition
        self.windows = windows
        self.aad = preimage.sealed_aad(deployment, topics.inbound, partition)
        self.out_aad = preimage.derived_aad(deployment, topics.outbound, partition)
        self.out_signature = preimage.derived_signature(deployment, topics.outbound, partition)
        self.hot: dict[bytes, DecidedProfile] = {}
        self.profiles: dict[tuple[AgentKey, bytes], DecidedProfile] = {}
        self.proven: dict[tuple[AgentKey, bytes, tuple[str, ...]], DecidedProfile] = {}
        """Like ``profiles``, by the labels that tickets proved."""
        self.delegated: dict[tuple[AgentKey, bytes, Proven], tuple[int, DecidedProfile]] = {}
        """Profiles that show a delegation, each with the time (ms) until which it holds."""
        self.shapes: dict[AgentKey, tuple[Shape, DecidedProfile]] = {}
        self.seen: dict[int, int] = {}
        """Gaps of records, by offset, whose sequence the window took and that wait for keys to be read."""
        self.policy: Policy | None = None
        self.generation = 0
        self.acceptor: Acceptor | None = None
        self.inspector: Inspector | None = None
        self.padding = 0
        self.events: list[PartitionEvent] = []

    def regressed(self, offset: int, append_time: int, highest: int) -> None:
        """The broker's clock went back by more than the skew: told once a transaction, with its first record."""
        if not any(each.kind is EventKind.CLOCK for each in self.events):
            facts = {"append_time": str(append_time), "highest": str(highest)}
            self.events.append(PartitionEvent(EventKind.CLOCK, offset, append_time, facts))

    def under(self, policy: Policy, generation: int, scanners: Scanners = default_scanner) -> None:
        """Decisions of another policy, and keys of another generation of the keyring, are forgotten."""
        if self.policy is not policy:
            domain = policy.domains.get(self.domain)
            self.inspector = Inspector(domain, policy, scanners) if domain is not None else None
            self.padding = domain.padding if domain is not None else 0
        if self.policy is not policy or self.generation != generation:
            self.forget_decisions()
            self.policy = policy
            self.generation = generation

    def forget_decisions(self) -> None:
        """Decide every profile anew."""
        self.hot.clear()
        self.profiles.clear()
        self.proven.clear()
        self.delegated.clear()
        self.shapes.clear()
        if self.acceptor is not None:
            self.acceptor.clear(self.padding)


class EnforcerContext:
    """Everything an enforcer process holds. Clock readings, set by the shell: ``now_ms`` before each batch,
    ``received_ms`` when the batch was polled, ``refreshed_ms`` when the keys that are held began to be read;
    ``appended_ms`` is the newest append time of the broker's that was seen; ``load`` the machine's (1 is all cores).
    ``compiled`` permits the compiled steps where they are installed, ``scanners`` find what guardrails look for,
    ``issuers`` vouch for users."""

    def __init__(self, deployment: bytes, keyring: Keyring, signer: Signer, policy: Policy, number: int) -> None:
        self.deployment = deployment
        self.keyring = keyring
        self.signer = signer
        self.policy = policy
        self.snapshot_number = number
        self.now_ms = 0
        self.received_ms = 0
        self.refreshed_ms = 0
        self.appended_ms = 0
        self.max_clock_skew_ms = 0
        self.load = 0.0
        self.compiled = True
        self.scanners: Scanners = default_scanner
        self.issuers: Issuers = {}
        self._audit_roots: dict[int, Secret] = {}
        self._openers: dict[DomainName, bytes] = {}
        self.reset()

    def reset(self) -> None:
        """After an abort: a new instance, no DEK and no counter of the last transaction lives on."""
        self.instance = fresh_instance()
        self._sequences: dict[tuple[str, int], int] = {}
        self._deks: dict[tuple[DomainName, int, tuple[tuple[str, str], ...]], Dek] = {}
        self._audit: dict[int, CountingAead] = {}

    def set_policy(self, policy: Policy, number: int) -> None:
        """A newer snapshot: decisions and DEKs of the old one end."""
        self.policy = policy
        self.snapshot_number = number
        self._deks.clear()
        self._openers.clear()

    def erase(self, tombstone: Tombstone) -> None:
        """Drop the root of ``tombstone``, what is derived from it, and the DEKs that are wrapped under it."""
        self.keyring.erase(tombstone)
        for name in [each for each in self._deks if each[:2] == (tombstone.domain, tombstone.epoch)]:
            del self._deks[name]

    def next_sequence(self, topic: str, partition: int) -> int:
        """Sequence of this instance's next bundle on an output partition."""
        sequence = self._sequences.get((topic, partition), 0)
        self._sequences[topic, partition] = sequence + 1
        return sequence

    def sealing(self, domain: DomainName) -> DomainEpoch:
        """The epoch to seal records of ``domain`` under for their readers.

        Raises RetryLater where the newest was made for other readers than the policy has: the issuer has not made that
        of this policy yet, or it cannot be read. An older one would open to who left.
        """
        found = self.keyring.sealing(domain, self.now_ms)
        wanted = self._openers.get(domain)
        if wanted is None:
            wanted = self._openers[domain] = opening_digest(self.policy, domain)
        if found is None or found.openers != wanted:
            raise RetryLater(
                f"the key epoch of {domain} for the readers of this policy is not there yet", code=Code.RETRY
            )
        return found

    def dek(self, epoch: DomainEpoch, topic: str, readers: tuple[tuple[str, str], ...]) -> Dek:
        """The DEK of a reader set in an epoch; made on first use."""
        name = (epoch.domain, epoch.epoch, readers)
        found = self._deks.get(name)
        if found is None:
            keys = [epoch.reader(kind, reader) for kind, reader in readers]
            found = self._deks[name] = Dek(self.deployment, topic, epoch.epoch, keys, compiled=self.compiled)
        return found

    def set_audit_root(self, day: int, root: Secret) -> None:
        """Take root(audit, day)."""
        self._audit_roots[day] = root

    def audit(self, day: int) -> CountingAead:
        """This instance's AEAD for the day's hop blocks. Raises RetryLater where the root is not held."""
        found = self._audit.get(day)
        if found is None:
            root = self._audit_roots.get(day)
            if root is None:
                raise RetryLater(f"root(audit, {day}) is not there yet", code=Code.RETRY)
            found = self._audit[day] = CountingAead(purpose_key(root, "block"), "audit", self.instance)
        return found

    def has_audit_root(self, day: int) -> bool:
        """Whether root(audit, day) is held."""
        return day in self._audit_roots

    def decide_proven(
        self,
        state: PartitionState,
        key: AgentKey,
        prefixed: bytes,
        at_ms: int,
        session: bytes,
        tickets: tuple[bytes, ...],
    ) -> DecidedProfile:
        """A profile with the label of what its message builds on, as ``tickets`` prove it. Raises WireError(decode)."""
        agent = self.policy.agents.get(key.agent)
        labels = (
            proven(tickets, self.keyring.epoch, self.deployment, session, self.policy.names(agent)) if agent else None
        )
        if labels is None or self.policy.scheme.parse(labels) is None:
            return state.profiles.get((key, prefixed)) or self.decide_profile(state, key, prefixed, at_ms)
        return state.proven.get((key, prefixed, labels)) or self.decide_profile(state, key, prefixed, at_ms, labels)

    def ticket(self, key: AgentKey, obligations: Obligations, session: bytes) -> bytes:
        """The ticket of a released record; empty where it would be too long."""
        readers = (obligations.target,) if obligations.target else obligations.roles
        return issue(key.domain_epoch, self.deployment, session, obligations.label, readers)

    def decide_profile(
        self, state: PartitionState, key: AgentKey, prefixed: bytes, at_ms: int, labels: Proven = None
    ) -> DecidedProfile:
        """Decode, decide and mask a profile (behind its length) that was not seen before, or shows a delegation; at the
        effective time ``at_ms``. Raises WireError(decode), and Unread where its delegation may be under keys that were
        written since those that are held were read.

        ``labels`` are those that tickets proved, in place of the highest that the agent could have read.
        """
        until, delegated = state.delegated.get((key, prefixed, labels), _NEVER)
        if delegated is not None and at_ms <= until:
            return delegated
        if labels is None and (known := state.shapes.get(key)) is not None:
            masked = known[0].masked(prefixed)
            if masked is not None:
                return known[1].with_values(prefixed, masked)
        if len(state.profiles) + len(state.proven) + len(state.delegated) >= MAX_PROFILES:
            state.forget_decisions()
        data, _ = codec.read_prefixed(prefixed, 0, MAX_PROFILE, code=Code.DECODE)
        profile = decode_profile(data)
        by = right(profile, key, self.keyring, self.deployment, self.issuers, at_ms, self.max_clock_skew_ms)
        if by.unread and self.refreshed_ms < self.received_ms:
            raise Unread
        moments, decision = self._judge(state, key, profile, labels, by)
        # What does not hold is told with its own refusal alone: it may name who never gave anything.
        failed = by.fault is not None and by.fault[0] is Code.DELEGATION and decision.code is not Code.DELEGATION
        told = replace(profile, delegation=b"") if failed else profile
        obligations, inspector, findings = decision.obligations, state.inspector, NONE
        masking = obligations is not None and obligations.mask_metadata
        shown = profile
        if obligations is not None and inspector is not None:
            try:
                shown, findings = inspector.metadata(profile)
            except Denied as denied:
                decision, findings, obligations = denied.decision, denied.findings, None
                moments = None  # whatever the moment: it is refused
        rules = self.policy.domains[state.domain].masks if obligations is not None else ()
        seen = mask_profile(shown, rules, key.domain_epoch.masking.reveal(), masked=masking)
        found = DecidedProfile(
            prefixed=prefixed,
            profile=told,
            decision=decision,
            masked=codec.prefixed(encode_profile(seen)),
            tail=encode_tail(self.hop_tail(state, key, told, decision, findings, shown=labels, user=by.user)),
            readers=() if obligations is None else TIERS[obligations.tier].readers(obligations),
            policy_digest=self.policy.digest,
            moments=moments,
            findings=findings,
            proven=labels,
            lasting=by is OWN,
            user=by.user,
        )
        if by is not OWN:
            if len(prefixed) <= MAX_CACHED_PROFILE and by.fault is None:
                state.delegated[key, prefixed, labels] = (by.until, found)
        elif len(prefixed) <= MAX_CACHED_PROFILE and labels is not None:
            state.proven[key, prefixed, labels] = found
        elif len(prefixed) <= MAX_CACHED_PROFILE:
            state.profiles[key, prefixed] = found
            if profile.metadata and not rules and (inspector is None or not inspector.by_value):
                state.shapes[key] = (Shape(data, profile, masked=masking), found)
        return found

    def _judge(
        self, state: PartitionState, key: AgentKey, profile: Profile, labels: Proven, by: Right
    ) -> tuple[Moments | None, Decision]:
        if profile.source != key.agent:
            return None, Decision(Code.UNVERIFIED, "source", "", why="the key belongs to another agent")
        if profile.domain != state.domain:
            return None, Decision(Code.WRONG_DOMAIN, "domain", "", why="the envelope names another domain")
        if by.fault is not None:
            code, rule = by.fault
            return None, Decision(code, rule, "", why=f"the {code} that it shows does not hold")
        context = Context(
            kind=profile.kind,
            target=profile.target,
            tier_floor=profile.tier_floor,
            at_source=profile.protect_at is ProtectAt.SOURCE,
            tool=profile.tool,
            task_type=profile.task_type,
            purpose=profile.purpose,
            user=by.user,
            delegated_by=by.givers,
            labels=(*profile.labels, *(self.policy.floor(key.agent) if labels is None else labels)),
        )
        asked = key.agent, Action.PRODUCE, state.domain
        decision = decide_constant(*asked, context, self.policy)
        return Moments(decision, *asked, context, self.policy), decision

    def variant(
        self,
        state: PartitionState,
        key: AgentKey,
        decided: DecidedProfile,
        decision: Decision,
        findings: Findings,
        moment: Moment,
    ) -> DecidedProfile:
        """``decided`` as it holds for one record: with what conditions of the moment and guardrails say of it."""

        def tail(decision: Decision, findings: Findings, moment: Moment) -> bytes:
            told = self.hop_tail(state, key, decided.profile, decision, findings, moment, decided.proven, decided.user)
            return encode_tail(told)

        return decided.variant(decision, findings, moment, tail)

    def hop_tail(
        self,
        state: PartitionState,
        key: AgentKey | None,
        profile: Profile | None,
        decision: Decision,
        findings: Findings = NONE,
        moment: Moment = NO_MOMENT,
        shown: Proven = None,
        user: str = "",
    ) -> HopTail:
        """The constant part of the hops of a decision; an ALLOW of an OUTPUT_ONLY domain says less."""
        obligations: Obligations | None = decision.obligations
        full = obligations is None or obligations.audit_full
        told = profile if full else None
        agent = self.policy.agents.get(key.agent) if key else None
        return HopTail(
            topic=state.topics.inbound,
            decision=Verdict.ALLOW if decision.allowed else Verdict.DENY,
            code=decision.code,
            rule=decision.rule,
            location=decision.location,
            snapshot=self.snapshot_number,
            policy_digest=self.policy.digest,
            agent=key.agent if key else "",
            tenant=agent.tenant if agent else "",
            zone=agent.zone if agent else "",
            domain=state.domain,
            epoch=key.domain_epoch.epoch if key else 0,
            kind=profile.kind.value if profile else "",
            tool=profile.tool if profile else "",
            target=profile.target if profile else "",
            purpose=told.purpose if told else "",
            labels=_labels(told, obligations),
            metadata_keys=tuple(sorted(told.metadata)) if told else (),
            on_behalf_of=user_digest(profile.on_behalf_of) if profile else b"",
            delegation=without_mac(profile.delegation) if profile and profile.delegation else b"",
            guardrails=findings,
            facts=_facts(agent, told, moment.load, shown, user),
            breaker=moment.breaker,
            reopens=moment.reopens.to_bytes(8, "big") if moment.breaker else b"",
        )


def _labels(profile: Profile | None, obligations: Obligations | None) -> tuple[str, ...]:
    """The record's label where it was decided, else what the agent wrote."""
    if profile is None:
        return ()
    return obligations.label if obligations is not None and obligations.label else profile.labels


def _facts(agent: AgentPolicy | None, profile: Profile | None, load: str, proven: Proven, user: str) -> dict[str, str]:
    """What the decision looked at and the hop has no field of its own for."""
    if profile is None:
        return {}
    facts = {
        "action": Action.PRODUCE.value,
        "roles": ",".join(sorted(agent.roles)) if agent else "",
        "tier_floor": profile.tier_floor.name if profile.tier_floor is not None else "",
    }
    claimed = ",".join(profile.labels)
    shown = ",".join(proven or ())
    optional = {"task_type": profile.task_type, "labels": claimed, "load": load, "tickets": shown, "user": user}
    return facts | {name: text for name, text in optional.items() if text}
