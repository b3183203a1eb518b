"""What one core of the authority gives: leases and renewals over gRPC with client certificates, and broker tokens.

The service is that of a stack, held to one core, with its SQLite state and its events stored on the broker; who asks
runs on the others. ``lease cold`` is a connection of its own that gets and records every bundle, as after a start;
``lease warm`` one that is kept and holds them, as every five seconds after that.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import psutil
from cryptography.hazmat.primitives.asymmetric import ec

from bench.meter import cpu
from bench.rows import Figures
from bus.authority import rpc
from bus.authority.ca import make_request, private_pem
from bus.authority.local import now_ms
from bus.authority.rpc import authority_v1_pb2 as pb
from bus.authority.tokenfiles import TokenIssuer
from bus.client.authority import Identity, read_identity
from bus.files import Layout
from bus.settings import Issuing, Settings
from bus.stack.local import BUNDLED_POLICIES, Stack, prepare
from bus.stack.process import Daemon

import grpc  # isort: skip  # behind bus.authority.rpc, which says which TLS it may speak

ASKERS: Final = 8
CALLS: Final = 4000
SLOW_CALLS: Final = 400
TOKENS: Final = 1000
TIMEOUT_S: Final = 10.0


def measure(home: Path) -> dict[str, Figures]:
    """Answers/s and CPU us an answer of the service, by kind."""
    settings = dataclasses.replace(Settings(), state=home, policies=BUNDLED_POLICIES, issuing=Issuing.AUTHORITY)
    stack = Stack(prepare(settings))
    try:
        stack.up(lambda _: None, services=False)
        stack.start_service("authority")
        policy = stack.load_policy()
        stack.enrol_here(policy)
        asked = _Asked(stack)
        agents = sorted(policy.agents)
        ways = {agent: _Way(stack, read_identity(stack.layout.agent(agent))) for agent in agents}
        for way in ways.values():
            way.lease()
        told = {
            "lease warm": asked.by(CALLS, lambda number: ways[agents[number % len(agents)]].lease()),
            "lease cold": asked.by(
                SLOW_CALLS, lambda number: _Way(stack, ways[agents[number % len(agents)]].identity).once()
            ),
            "renew": asked.by(SLOW_CALLS, lambda number: ways[agents[number]].renew(), askers=len(agents)),
        }
        for way in ways.values():
            way.close()
    finally:
        stack.down(lambda _: None, purge=True)
    return told | {"token": _tokens()}


class _Asked:
    """The service's process, held to one core; this one has the others."""

    def __init__(self, stack: Stack) -> None:
        found = Daemon("authority", stack.layout.run).find()
        if found is None:
            raise RuntimeError("the authority does not run")
        self._process: psutil.Process = found
        cores = sorted(os.sched_getaffinity(0))
        for thread in found.threads():
            os.sched_setaffinity(thread.id, cores[:1])
        self._rest = set(cores[1:] or cores)

    def by(self, calls: int, ask: Callable[[int], None], askers: int = ASKERS) -> Figures:
        """``calls`` of ``ask`` by threads, each with the number of its thread."""
        before, began = self._cpu(), time.perf_counter()
        with ThreadPoolExecutor(askers, initializer=os.sched_setaffinity, initargs=(0, self._rest)) as pool:
            each = calls // askers
            for done in [pool.submit(_repeat, ask, number, each) for number in range(askers)]:
                done.result()
        seconds = time.perf_counter() - began
        return {"records_s": each * askers / seconds, "cpu_us": (self._cpu() - before) / (each * askers) * 1e6}

    def _cpu(self) -> float:
        told = self._process.cpu_times()
        return float(told.user + told.system)


def _repeat(ask: Callable[[int], None], number: int, times: int) -> None:
    for _ in range(times):
        ask(number)


class _Way:
    """An agent's connection."""

    def __init__(self, stack: Stack, identity: Identity) -> None:
        self.identity = identity
        self._stack = stack
        self._counter = identity.counter
        self._held: Mapping[int, bytes] = {}
        self._channel = self._connect(identity.key, identity.certificate)

    def _connect(self, key: bytes, certificate: bytes) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(self._stack.layout.ca.read_bytes(), key, certificate)
        options = [("grpc.ssl_target_name_override", rpc.SERVER_NAME), ("grpc.use_local_subchannel_pool", 1)]
        return grpc.secure_channel(self._stack.settings.authority, credentials, options)

    def lease(self) -> None:
        """Ask for what is not held."""
        made = rpc.call(self._channel, rpc.LEASE, pb.LeaseRequest(held=self._held), TIMEOUT_S)
        if made.bundles:
            self._held = {number: hashlib.sha256(data).digest() for number, data in made.bundles.items()}

    def once(self) -> None:
        """Lease, and end the connection."""
        self.lease()
        self.close()

    def renew(self) -> None:
        """The next certificate, over the connection that showed the one before: the register asks for the last."""
        key = ec.generate_private_key(ec.SECP256R1())
        asked = pb.RenewRequest(counter=self._counter, request=make_request(key))
        made = rpc.call(self._channel, rpc.RENEW, asked, TIMEOUT_S)
        self.close()
        self._counter = made.counter
        self._channel = self._connect(private_pem(key), made.certificate)

    def close(self) -> None:
        """End the connection."""
        self._channel.close()


def _tokens() -> Figures:
    """Broker tokens signed and written, each a 0600 file."""
    with tempfile.TemporaryDirectory(prefix="sealbus-bench-") as folder:
        now = now_ms()
        issuer = TokenIssuer(Layout(Path(folder)), bytes(16), {}, now)
        before, began = cpu(), time.perf_counter()
        issuer.step([f"agent-{number}" for number in range(TOKENS)], 600_000, now)
        seconds = time.perf_counter() - began
        return {"records_s": TOKENS / seconds, "cpu_us": (cpu() - before) / TOKENS * 1e6}
