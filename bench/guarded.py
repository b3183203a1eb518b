"""What guardrails cost a record from its sealed bytes to its bundle and hop: `enforce` and `derive`, without a broker.

The same 1 KiB JSON records in a domain with guardrails and in one without, each as production takes it and in plain
Python; in turn, so that ratios are compared and not moments.
"""

from __future__ import annotations

import json
import random
import secrets
import statistics
import subprocess
import sys
from time import process_time
from typing import Final

from bench.rows import Figures
from bus.crypto.keyring import Keyring
from bus.crypto.keys import Secret, agent_keys, root_digest
from bus.crypto.seal import Sealer
from bus.crypto.signing import Signer
from bus.kafka.windows import PartitionWindows
from bus.policy.compiling import FORMAT, canonical, compile_policy
from bus.policy.model import Policy
from bus.policy.rekeying import opening_digest
from bus.wire import envelope
from bus.wire.names import NO_ZONE, AgentId, DomainName, domain_topics
from bus.wire.objects import Epoch
from consumers.enforcer.compiled import acceptor_for, enforce
from consumers.enforcer.context import EnforcerContext, PartitionState
from consumers.enforcer.derive import derive
from consumers.enforcer.outcome import Refused
from consumers.tuning import tune_process

RECORDS: Final = 2048
BATCH: Final = 512
TURNS: Final = 9
NOW: Final = 1_772_445_600_000
DAY_MS: Final = 86_400_000
WORDS: Final = ("note", "of", "an", "agent", "with", "no", "name", "in", "it", "sorted", "by", "size", "and", "read")
AGENT: Final = AgentId("writer-1")
OPEN, GUARDED = DomainName("open"), DomainName("guarded")


def measure() -> dict[str, Figures]:
    """CPU us a record (median of the turns) of each way, and what guardrails add, in a process that is tuned as an
    enforcer's."""
    done = subprocess.run([sys.executable, "-m", "bench.guarded"], capture_output=True, text=True, check=True)
    told: dict[str, Figures] = json.loads(done.stdout)
    return told


def _measured() -> dict[str, Figures]:
    site = _Site()
    payloads = [_payload(number) for number in range(RECORDS)]
    found = [_payload(number, "ops-desk@example.org") for number in range(RECORDS)]
    ways = {
        "unguarded": (OPEN, site.seal(OPEN, payloads), True),
        "unguarded, plain Python": (OPEN, site.seal(OPEN, payloads), False),
        "guarded": (GUARDED, site.seal(GUARDED, payloads), True),
        "guarded, plain Python": (GUARDED, site.seal(GUARDED, payloads), False),
        "guarded, one found in each": (GUARDED, site.seal(GUARDED, found), True),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(TURNS):
        for name, (domain, values, compiled) in ways.items():
            times[name].append(site.turn(domain, values, compiled=compiled))
    medians = {name: statistics.median(each) for name, each in times.items()}
    medians["guarded, more than unguarded"] = medians["guarded"] - medians["unguarded"]
    return {name: {"records_s": 1e6 / each, "cpu_us": each} for name, each in medians.items()}


def _payload(number: int, mail: str = "") -> bytes:
    """1 KiB of JSON: twelve items and a text, another one for each number."""
    chance = random.Random(number)
    items = [{"id": each, "value": f"value {chance.randrange(100)}"} for each in range(12)]
    words = [mail, *(chance.choice(WORDS) for _ in range(200))]
    head = json.dumps({"items": items, "text": ""}).encode()
    return head[:-2] + " ".join(words).encode()[: 1024 - len(head)] + b'"}'


def _policy() -> Policy:
    domain = {
        "tier": "RETRIEVAL",
        "produce": ["WRITER"],
        "consume": ["READER"],
        "metadata_masking": True,
        "audit_level": "FULL_MESH",
        "attestation_required": False,
        "locations": {},
    }
    return compile_policy(canonical({
        "format": FORMAT,
        "global": {"credential_rotation_interval_ms": 600_000},
        "topics": {"partitions": 4, "replication": 1, "retention_ms": 10**9, "backlog_horizon_ms": DAY_MS},
        "guardrails": {
            "no-pii": {"detect": ["PERSON", "EMAIL", "PHONE", "SSN"], "on": ["payload"], "then": "redact"},
            "no-keys": {"detect": ["API_KEY", "PRIVATE_KEY"], "on": ["payload", "metadata"], "then": "deny"},
        },
        "domains": {OPEN: domain, GUARDED: domain | {"guardrails": ["no-pii", "no-keys"]}},
        "agents": {AGENT: {"roles": ["WRITER"]}},
    }))  # fmt: skip


class _Site:
    """One deployment in memory: its policy, keys and enforcer."""

    def __init__(self) -> None:
        self._deployment = secrets.token_bytes(16)
        self._policy = _policy()
        self._signer = Signer.generate()
        self._roots = {domain: Secret.random(domain) for domain in self._policy.domains}

    def seal(self, domain: DomainName, payloads: list[bytes]) -> list[bytes]:
        """Sealed records of ``payloads``, by one sending process."""
        sealer = Sealer(agent_keys(self._roots[domain], AGENT), self._deployment, domain_topics(domain).inbound)
        profile = envelope.encode_profile(envelope.Profile(AGENT, domain))
        made = []
        for each in payloads:
            message = envelope.Message(secrets.token_bytes(16), NOW, NOW + 300_000, "session-1")
            plain = envelope.encode_plaintext(profile, envelope.encode_message(message), each)
            made.append(sealer.seal(0, plain)[1])
        return made

    def turn(self, domain: DomainName, values: list[bytes], *, compiled: bool) -> float:
        """CPU us a record of a new enforcer. Raises RuntimeError where one was refused."""
        context = self._context(compiled=compiled)
        state = PartitionState(domain, domain_topics(domain), 0, self._deployment, PartitionWindows())
        state.acceptor = acceptor_for(state, context)
        began, refused = process_time(), 0
        for start in range(0, len(values), BATCH):
            some = values[start : start + BATCH]
            outcomes = enforce(some, [NOW] * len(some), list(range(start, start + len(some))), state, context)
            derive(outcomes, start, start + len(some), state, context)
            refused += sum(isinstance(each, Refused) for each in outcomes)
        used = process_time() - began
        if refused:
            raise RuntimeError(f"{refused} records were refused")
        return used / len(values) * 1e6

    def _context(self, *, compiled: bool) -> EnforcerContext:
        keyring = Keyring(lead_ms=120_000, grace_ms=120_000)
        for domain, root in self._roots.items():
            begin = NOW - 100_000
            told = Epoch(self._deployment, 1, begin, begin + 600_000, NO_ZONE, domain, root_digest(root))
            keyring.add(told, root, self._policy.agents, opening_digest(self._policy, domain))
        context = EnforcerContext(self._deployment, keyring, self._signer, self._policy, 1)
        context.now_ms = context.refreshed_ms = NOW
        context.max_clock_skew_ms, context.compiled = 30_000, compiled
        context.set_audit_root(NOW // DAY_MS, Secret.random("audit"))
        return context


if __name__ == "__main__":
    tune_process()
    print(json.dumps(_measured()))
