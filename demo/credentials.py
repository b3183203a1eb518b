"""Credentials that end: agents enrol, keys and tokens rotate while an agent works, a copy of its folder is refused once
its window is over, and a domain that requires attestation opens to who attests. Epochs last seconds here, so that
nobody waits; nothing else about them is another.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any

from bus.attester.chosen import measured_code
from bus.authority.trust import read_trust
from bus.client.bus import Bus
from bus.client.sent import Sent
from bus.codes import Code
from bus.crypto.issued import open_issued
from bus.crypto.seal import Sealer
from bus.errors import AccessRefused
from bus.kafka.config import Connection
from bus.kafka.feed import Feed
from bus.kafka.identity import TokenFile
from bus.settings import AttesterKind, Issuing, Settings, load
from bus.stack.local import Stack
from bus.wire.hop import Hop
from bus.wire.names import AgentId, DomainName, domain_topics
from demo.hops import WAIT_S, by_message, of_value
from demo.raw import RawClient, held, judged, plaintext

INTERVAL_MS = 4000
LEAD_MS, GRACE_MS, SKEW_MS = 1500, 3000, 500
WINDOW_S = (LEAD_MS + INTERVAL_MS + GRACE_MS) / 1000
"""The longest that keys serve a thief."""
EPOCHS = 3
PAUSE_S = 0.05
ME, OTHER = "retriever-1", "orchestrator-1"
MEMORY, VAULT = DomainName("agent_memory"), DomainName("vault")
VAULT_LAW = """    - name: "vault"
      tier: "RETRIEVAL"
      allowed_roles: ["RETRIEVER", "ORCHESTRATOR"]
      metadata_masking: true
      audit_level: "FULL_MESH"
      attestation_required: true
"""


def short_lived(settings: Settings, policies: Path) -> Settings:
    """Settings of a stack whose authority issues for seconds, with the law in ``policies`` made to fit."""
    mesh, agents = policies / "mesh.yaml", policies / "agents.yaml"
    mesh.write_text(mesh.read_text().replace("600000", str(INTERVAL_MS)).rstrip() + "\n" + VAULT_LAW)
    accepted = f"{{role: RETRIEVER, measurements: ['{measured_code(Settings())}']}}"
    agents.write_text(agents.read_text().replace("{role: RETRIEVER}", accepted))
    return dataclasses.replace(
        settings,
        issuing=Issuing.AUTHORITY,
        policies=policies,
        lead_ms=LEAD_MS,
        grace_ms=GRACE_MS,
        max_clock_skew_ms=SKEW_MS,
    )


def enrolled(stack: Stack) -> tuple[bool, str]:
    """Whether what the authority gave out to each agent stands, signed, on `bus.issue`."""
    trust = read_trust(stack.layout.trust)
    feed = Feed(stack.admin_connection(), "bus.issue", group="bus-admin")
    try:
        events = [open_issued(value, trust.anchor, trust.deployment) for value in feed.catch_up()]
    finally:
        feed.close()
    agents = {each["agent"] for each in events if each["event"] == "enrolled"}
    leases = sum(each["event"] == "leased" for each in events)
    return agents == set(stack.load_policy().agents), f"{len(agents)} agents, {leases} leases on bus.issue"


def rotated(stack: Stack, home: Path) -> tuple[tuple[bool, str], Stolen]:
    """Whether an agent writes on over three epochs with no record refused; and a copy of its folder as it began."""
    told: list[Sent] = []
    hops: dict[str, Hop] = {}
    epochs: set[int] = set()
    ends = (began := time.monotonic()) + WINDOW_S
    with Bus(ME) as me:
        me.publish(MEMORY, {"n": 0}, confirm="decided")
        stolen = Stolen(stack, ME, home / "stolen")
        while len(epochs) < EPOCHS and ends - began < WAIT_S:
            ends += INTERVAL_MS / 1000  # a busy machine may be late with one
            while time.monotonic() < ends:
                told.append(me.publish(MEMORY, {"n": len(told)}, confirm="stored"))
                time.sleep(PAUSE_S)
            hops = by_message(stack, told)
            epochs = {hop.tail.epoch for hop in hops.values()}
    refused = sum(bool(hop.tail.code) for hop in hops.values())
    figure = f"{len(epochs)} epochs, {len(told)} records, {len(told) - len(hops)} lost, {refused} refused"
    return (len(epochs) >= EPOCHS and len(hops) == len(told) and not refused, figure), stolen


class OldToken(TokenFile):
    """A token as it was, of which librdkafka is told that it lives on: so that the broker judges, not the client."""

    def sasl(self) -> dict[str, Any]:
        """librdkafka's settings."""
        token = self.path.read_text()
        return {"sasl.mechanism": "OAUTHBEARER", "oauth_cb": lambda _: (token, time.time() + 300)}

    def rejected(self) -> bool:
        """No other token comes."""
        return True


class Stolen:
    """A copy of an agent's folder, taken while the agent worked."""

    def __init__(self, stack: Stack, agent: str, folder: Path) -> None:
        trust = read_trust(stack.layout.trust)
        shutil.copytree(stack.layout.agent(agent), folder)
        self._stack = stack
        self._agent = AgentId(agent)
        self._at = time.monotonic()
        self._token = OldToken(agent, folder / "token")
        own = held(folder, agent, MEMORY, trust).own
        if own is None:
            raise AssertionError("the agent could send when it was taken")
        self._sealer = Sealer(own, trust.deployment, domain_topics(MEMORY).inbound)

    def refused(self) -> tuple[bool, str]:
        """Whether its keys and its token are worth nothing now: the enforcer's code, and what the broker says."""
        age = time.monotonic() - self._at
        value = self._sealer.seal(0, plaintext(self._agent, MEMORY))[1]
        RawClient(self._stack).produce(domain_topics(MEMORY).inbound, value)
        hop, broker = of_value(self._stack, value), self._broker()
        code = hop.tail.code if hop is not None else "no hop"
        return (code, broker) == (Code.EPOCH_LATE, Code.CREDENTIAL), f"{age:.1f} s old: keys {code}, token {broker}"

    def _broker(self) -> str:
        return judged(Connection(self._stack.settings.bootstrap, self._stack.layout.ca, self._token))


def attested() -> tuple[bool, str]:
    """Whether keys of a domain that requires attestation go to the agent that attests, and not to another."""
    settings = load()
    with Bus(ME, settings=dataclasses.replace(settings, attester=AttesterKind.SOFTWARE)) as me:
        me.publish(VAULT, {"n": 1}, confirm="decided")
    with Bus(OTHER, settings=settings) as other:
        try:
            other.publish(VAULT, {"n": 2})
        except AccessRefused as refused:
            return refused.code == Code.ATTESTATION, f"{ME} writes, {OTHER} is refused: {refused.code}"
    return False, "who did not attest wrote, too"
