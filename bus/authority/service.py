"""The authority's answers, without transport: enrolment, renewal, leases; each recorded before it is given.

Every answer is judged by the policy of this moment. The steps of a lease:

 1. the client certificate names an agent of this deployment (its chain was verified by TLS)
 2. it is the one in force, of an agent that is neither locked nor revoked
 3. the agent stands in the policy
 4. bundles of every open epoch, as far as the policy gives keys
 5. record what is new for this agent, then answer
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bus.authority.ca import AgentCa, ClientCertificate, certified_agent
from bus.authority.issuer import Issuer
from bus.authority.register import Register
from bus.codes import Code
from bus.errors import Refused, RetryLater
from bus.policy.model import Policy
from bus.wire.names import AgentId

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


class AuthorityService:
    """Thread-safe. ``step`` follows the policy and the time; the other methods answer."""

    def __init__(
        self,
        ca: AgentCa,
        register: Register,
        issuer: Issuer,
        deployment: bytes,
        record: Record,
        now_ms: Callable[[], int],
    ) -> None:
        self._ca = ca
        self._register = register
        self._issuer = issuer
        self._deployment = deployment
        self._record = record
        self._now_ms = now_ms
        self._policy: Policy | None = None
        self._due = 0
        self._lock = threading.Lock()

    def step(self, policy: Policy) -> int:
        """Make the epochs that are due under ``policy``; returns when (ms) something is due next."""
        with self._lock:
            self._due = self._issuer.step(policy, self._now_ms())
            self._policy = policy
            return self._due

    def enrol(self, token: str, request: bytes) -> Certified:
        """The first certificate, for a one-time token. Raises Refused(credential) or RetryLater."""
        now = self._now_ms()
        agent, counter = self._register.enrol(token, _digest(request), now)
        return self._certify("enrolled", agent, counter, request, now)

    def renew(self, certificate_pem: bytes, counter: int, request: bytes) -> Certified:
        """The next certificate. Raises Refused(credential), Unverified or RetryLater."""
        agent, serial = certified_agent(certificate_pem, self._deployment)
        try:
            following = self._register.renew(agent, serial, counter, _digest(request))
        except Refused as error:
            self._record(
                {"event": "refused", "agent": agent, "serial": serial, "at": self._now_ms(), "why": str(error)}
            )
            raise
        return self._certify("renewed", agent, following, request, self._now_ms())

    def lease(self, certificate_pem: bytes, held: Mapping[int, bytes]) -> Leases:
        """Keys for the agent of this certificate; ``held`` has SHA-256 digests of bundles by epoch."""
        agent, serial = certified_agent(certificate_pem, self._deployment)
        self._register.check(agent, serial)
        with self._lock:
            policy, due, now = self._policy, self._due, self._now_ms()
            if policy is None:
                raise RetryLater("no policy was applied yet", code=Code.RETRY, hint="bus policy apply")
            if agent not in policy.agents:
                raise Refused(f"{agent} is not in the policy", code=Code.CREDENTIAL, hint="agents.yaml")
            bundles = self._issuer.leases(agent, policy, now)
        kept = tuple(number for number, data in bundles.items() if held.get(number) == _digest(data))
        new = {number: data for number, data in bundles.items() if number not in kept}
        if new:
            self._record({
                "event": "leased", "agent": agent, "serial": serial, "at": now,
                "epochs": sorted(new), "policy": policy.digest.hex(),
            })  # fmt: skip
        return Leases(new, kept, due)

    def _certify(self, event: str, agent: AgentId, counter: int, request: bytes, now: int) -> Certified:
        certificate = self._ca.issue(request, agent, now)
        self._record({
            "event": event, "agent": agent, "serial": certificate.serial, "at": now,
            "not_after": certificate.not_after, "counter": counter,
        })  # fmt: skip
        self._register.certified(agent, counter, certificate.serial, certificate.not_after)
        return Certified(agent, certificate, counter)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
