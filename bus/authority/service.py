"""The authority's answers, without transport: enrolment, renewal, attestation, leases.

Every answer is judged by the policy of this moment, and recorded before it is given. The steps of a lease:

 1. the client certificate names an agent of this deployment (its chain was verified by TLS)
 2. it is the one in force, of an agent that is neither locked nor revoked
 3. the agent stands in the policy
 4. where a domain of its waits for attestation: a result for this certificate is in force, and accepted now
 5. bundles of every open epoch, as far as the policy gives keys
 6. record what is new for this agent, then answer
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bus.attestation.evidence import Appraised
from bus.authority.attesting import Attesting, Holder, digest, row
from bus.authority.ca import AgentCa, ClientCertificate, certified_agent, certified_key, requested_key
from bus.authority.issuer import Epochs, Issuer
from bus.authority.register import Register
from bus.codes import Code
from bus.errors import Refused, RetryLater
from bus.policy.attestation import needed
from bus.policy.model import Policy
from bus.wire.names import AgentId, DomainName, agent_id

Record = Callable[[Mapping[str, Any]], None]
"""Writes an event where it cannot be lost, or raises RetryLater."""


@dataclass(frozen=True, slots=True)
class Certified:
    """A certificate, and the counter that its renewal will show."""

    agent: AgentId
    certificate: ClientCertificate
    counter: int


@dataclass(frozen=True, slots=True)
class Leases:
    """Bundles by epoch that the agent does not hold yet, epochs that it may keep, and when to ask again (ms)."""

    bundles: Mapping[int, bytes]
    kept: tuple[int, ...]
    due: int
    withheld: Mapping[DomainName, str]
    """Domains whose keys wait for attestation, and why."""
    attested: bool
    """Whether there are keys that were given on an attestation result."""
    policy: bytes
    """Digest of the policy that gives them."""


@dataclass(frozen=True, slots=True)
class _Serving:
    """What leases are made from: epochs, the policy that they fit, and when the next is due (ms)."""

    policy: Policy
    epochs: Epochs
    due: int


class AuthorityService:
    """Thread-safe. ``step`` follows the policy and the time; the other methods answer, from what the last one left."""

    def __init__(
        self,
        ca: AgentCa,
        register: Register,
        issuer: Issuer,
        attesting: Attesting,
        deployment: bytes,
        record: Record,
        now_ms: Callable[[], int],
    ) -> None:
        self._ca = ca
        self._register = register
        self._issuer = issuer
        self._attesting = attesting
        self._deployment = deployment
        self._record = record
        self._now_ms = now_ms
        self._serving: _Serving | None = None
        self._stepping = threading.Lock()

    def step(self, policy: Policy, number: int = 0) -> int:
        """Make the epochs that are due under ``policy``; returns when (ms) something is due next.

        ``number`` is its snapshot's. Raises RetryLater where another replica follows a newer one.
        """
        with self._stepping:
            self._register.follow(number)
            due = self._issuer.step(policy, self._now_ms())
            # Epochs that a newer policy's replica made meanwhile were read, too: under this policy, whoever it took
            # them from would get keys of theirs.
            self._register.follow(number)
            self._serving = _Serving(policy, self._issuer.held(), due)
            return due

    def now(self) -> int:
        """What the clock shows that ends epochs, certificates and results here (ms since 1970)."""
        return self._now_ms()

    def enrol(self, token: str, request: bytes) -> Certified:
        """The first certificate, for a one-time token. Raises Refused(credential) or RetryLater."""
        now = self._now_ms()
        agent, counter = self._register.enrol(token, _digest(request), now)
        return self._certify("enrolled", agent, counter, request, now)

    def enrol_challenge(self, agent: str, request: bytes, offer: bytes) -> tuple[bytes, bytes]:
        """Nonce and challenge for who would enrol as ``agent`` by attestation: anybody may ask. Raises Refused."""
        return self._attesting.question(agent_id(agent), requested_key(request), offer, self._now_ms())

    def enrol_attested(self, name: str, request: bytes, nonce: bytes, evidence: bytes) -> Certified:
        """The first certificate, for evidence of a machine or workload that the policy accepts.

        Raises Refused (attestation, credential), or RetryLater.
        """
        agent, key, now = agent_id(name), requested_key(request), self._now_ms()
        held = self._current().policy.agents.get(agent)
        accepted = frozenset(each for each in held.measurements if each.kind.identifies) if held else frozenset()
        if not accepted:
            raise Refused(
                f"{agent} may not enrol by attestation: it takes a measurement of a machine or workload in the policy; "
                "software evidence is of wiring only",
                code=Code.ATTESTATION,
                hint=f"bus agent enroll {agent}",
            )
        found = self._attesting.appraise(agent, key, nonce, evidence, accepted, now)
        last = self._attesting.kept.find(agent)
        same = last is not None and last.device == found.device
        counter = self._register.admit(agent, _digest(request), now, same=same)
        made = self._certify("enrolled", agent, counter, request, now, _told(found))
        self._attesting.kept.put(row(found, made.certificate.serial, now, now))
        return made

    def challenge(self, certificate_pem: bytes, offer: bytes) -> tuple[bytes, bytes]:
        """Nonce and challenge for the agent of this certificate. Raises Refused or Unverified."""
        holder = self._holder(certificate_pem)
        return self._attesting.question(holder.agent, holder.key, offer, self._now_ms())

    def attest(self, certificate_pem: bytes, nonce: bytes, evidence: bytes) -> tuple[str, int]:
        """An attestation result (EAT) for the key of this certificate, and when it ends (ms since 1970).

        Raises Refused (attestation, credential), Unverified or RetryLater.
        """
        holder, now = self._holder(certificate_pem), self._now_ms()
        policy = self._current().policy
        agent, serial = holder.agent, holder.serial
        accepted = policy.agents[agent].measurements if agent in policy.agents else frozenset()
        try:
            found = self._attesting.appraise(agent, holder.key, nonce, evidence, accepted, now)
        except Refused as error:
            self._refuse(agent, serial, error)
            raise
        token, kept = self._attesting.result(found, serial, policy.rotation_interval_ms, now)
        self._record({
            "event": "attested", "agent": agent, "serial": serial, "at": now, "not_after": kept.until,
            "eat": digest(token), **_told(found),
        })  # fmt: skip
        self._attesting.kept.put(kept)
        return token, kept.until

    def renew(self, certificate_pem: bytes, counter: int, request: bytes) -> Certified:
        """The next certificate. Raises Refused(credential), Unverified or RetryLater."""
        agent, serial = certified_agent(certificate_pem, self._deployment)
        try:
            following = self._register.renew(agent, serial, counter, _digest(request))
        except Refused as error:
            self._refuse(agent, serial, error)
            raise
        return self._certify("renewed", agent, following, request, self._now_ms())

    def lease(self, certificate_pem: bytes, held: Mapping[int, bytes], result: str = "") -> Leases:
        """Keys for the agent of this certificate; ``held`` has SHA-256 digests of bundles by epoch.

        ``result``: its attestation result, where it has one.
        """
        holder = self._holder(certificate_pem)
        agent, serial = holder.agent, holder.serial
        attested = self._attesting.kept.of(agent) if result else {}
        # Policy and epochs of one step: an agent that lost a domain gets no key of the epoch that was made without it.
        serving, now = self._current(), self._now_ms()
        policy = serving.policy
        if agent not in policy.agents:
            raise Refused(f"{agent} is not in the policy", code=Code.CREDENTIAL, hint="agents.yaml")
        gated = needed(policy, agent)
        accepted = policy.agents[agent].measurements
        why = self._attesting.refused(result, holder, attested, accepted, now) if gated else ""
        bundles = self._issuer.leases(agent, policy, serving.epochs, now, attested=bool(gated) and not why)
        kept = tuple(number for number, data in bundles.items() if held.get(number) == _digest(data))
        new = {number: data for number, data in bundles.items() if number not in kept}
        if new:
            self._record({
                "event": "leased", "agent": agent, "serial": serial, "at": now,
                "epochs": sorted(new), "policy": policy.digest.hex(),
                **({"eat": digest(result)} if gated and not why else {}),
            })  # fmt: skip
        withheld = dict.fromkeys(gated, why) if why else {}
        return Leases(new, kept, serving.due, withheld, bool(gated) and not why, policy.digest)

    def _current(self) -> _Serving:
        if self._serving is None:
            raise RetryLater("no policy was applied yet", code=Code.RETRY, hint="bus policy apply")
        return self._serving

    def _holder(self, certificate_pem: bytes) -> Holder:
        agent, serial = certified_agent(certificate_pem, self._deployment)
        self._register.check(agent, serial)
        return Holder(agent, serial, certified_key(certificate_pem))

    def _refuse(self, agent: AgentId, serial: str, error: Refused) -> None:
        self._record({"event": "refused", "agent": agent, "serial": serial, "at": self._now_ms(), "why": str(error)})

    def _certify(
        self,
        event: str,
        agent: AgentId,
        counter: int,
        request: bytes,
        now: int,
        told: Mapping[str, str] | None = None,
    ) -> Certified:
        certificate = self._ca.issue(request, agent, now)
        self._record({
            "event": event, "agent": agent, "serial": certificate.serial, "at": now,
            "not_after": certificate.not_after, "counter": counter, **(told or {}),
        })  # fmt: skip
        self._register.certified(agent, counter, certificate.serial, certificate.not_after)
        return Certified(agent, certificate, counter)


def _told(found: Appraised) -> dict[str, str]:
    """What the log says of evidence."""
    return {"kind": found.kind, "measurement": str(found.measurement), "device": found.device.hex()}


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
