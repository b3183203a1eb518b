"""`bus stack up | status | down`: broker, applied policies, issuer, enforcers and audit on this machine.

Each service is a process of its own, found again by its recorded id; what is already running is left as it is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bus.admin.actual import read_actual
from bus.admin.apply import apply_plan
from bus.admin.desired import enforcer_name
from bus.admin.plan import Plan, make_plan
from bus.authority.local import ensure_authority, ensure_enforcer, load_signer, now_ms
from bus.authority.trust import TrustFile, read_trust
from bus.errors import StackError
from bus.files import Layout, make_folder, write_file
from bus.kafka.config import Connection, read_identity
from bus.policy.loader import load_policy
from bus.policy.model import Policy
from bus.settings import Mode, Settings, load
from bus.stack.broker import ADMIN, Broker, free_ports, is_free
from bus.stack.jars import fetch_jars, find_java
from bus.stack.process import Daemon

Say = Callable[[str], None]
READY_TIMEOUT = 60.0
STATE_NAMES = (
    "agents",
    "bus.toml",
    "kafka",
    "keys",
    "ledger",
    "pki",
    "policy",
    "run",
    "services",
    "signers",
    "trust.json",
)
_PACKAGED = Path(__file__).resolve().parents[1] / "policies"
BUNDLED_POLICIES = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).resolve().parents[2] / "policies"
"""The example law: packed into a wheel, or in the checkout."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One process of the stack."""

    name: str
    pid: int | None
    log: Path


def service_names(settings: Settings) -> list[str]:
    """Processes of the stack beside the broker, in starting order."""
    return ["issuer", *(enforcer_name(number) for number in range(1, settings.enforcers + 1)), "audit"]


def prepare(settings: Settings, port: int = 0) -> Settings:
    """The settings of this state folder's stack, with a deployment id and a bootstrap address, written to bus.toml."""
    layout = Layout(settings.state.resolve())
    make_folder(layout.state, 0o711)
    if layout.settings.is_file():
        settings = load({**os.environ, "BUS_CONFIG": str(layout.settings)})
    broker_runs = Daemon("broker", layout.state / "run").find() is not None
    if broker_runs and settings.bootstrap:
        return settings
    # Services that still run, and agents, know the recorded port: it is taken again where it is free.
    _, _, recorded = settings.bootstrap.rpartition(":")
    ports = free_ports(port or (int(recorded) if recorded and is_free(int(recorded)) else 0))
    settings = dataclasses.replace(
        settings,
        deployment=settings.deployment or os.urandom(16).hex(),
        bootstrap=f"127.0.0.1:{ports.agents}",
        state=layout.state,
        policies=settings.policies.resolve(),
        source=str(layout.settings),
    )
    write_settings(settings, layout.settings)
    return settings


def write_settings(settings: Settings, path: Path) -> None:
    """``settings`` as a bus.toml; only what differs from the defaults, and the paths."""
    lines = ["# Written by `bus stack up`."]
    defaults = Settings()
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        if each.name in ("source", "owners") or (value == getattr(defaults, each.name)):
            continue
        if isinstance(value, bool):
            value = str(value).lower()
        elif not isinstance(value, int):
            value = json.dumps(str(value), ensure_ascii=False)
        lines.append(f"{each.name} = {value}")
    if settings.owners:
        lines += ["[owners]", *(f"{name} = {number}" for name, number in sorted(settings.owners.items()))]
    write_file(path, "\n".join([*lines, ""]).encode())


class Stack:
    """The local stack of one state folder."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.layout = Layout(settings.state)

    def _daemon(self, name: str) -> Daemon:
        return Daemon(name, self.layout.state / "run")

    def up(self, say: Say, *, services: bool = True) -> None:
        """Start what is not running, apply the policies, wait until every service says it is ready."""
        with self._alone():
            self._up(say, services=services)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One `up` or `down` at a time: two would start every service twice."""
        with (make_folder(self.layout.state / "run") / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise StackError(
                    "another `bus stack up` or `down` is under way", hint="try again when it ended"
                ) from None
            yield

    def _up(self, say: Say, *, services: bool) -> None:
        policy = self.load_policy()
        connection = self.start_broker(policy, say)
        trust = self.ensure_identities(policy)
        plan = self.plan(policy, connection, trust)
        apply_plan(
            plan, connection, self.layout, load_signer(self.layout.signer("policy")), trust, self.settings.owners
        )
        say(f"policy  {policy.digest.hex()[:12]} live: {len(policy.domains)} domains, {len(policy.agents)} agents")
        if services:
            for name in service_names(self.settings):
                self.start_service(name)
                say(f"{name}  ready")

    def load_policy(self) -> Policy:
        """The policies that the settings name."""
        return load_policy(self.settings.policies, development=self.settings.mode is Mode.DEVELOPMENT)

    def start_broker(self, policy: Policy, say: Say) -> Connection:
        """Start the broker and return the admin's connection to it."""
        broker = Broker(self.layout, find_java(), fetch_jars())
        if broker.daemon.find() is None:
            host, _, port = self.settings.bootstrap.rpartition(":")
            minutes = max(policy.backlog_horizon_ms // 60_000, 1)
            connection = broker.start(free_ports(int(port)), minutes)
            say(f"broker  {host}:{port} TLS 1.3, SASL, ACLs")
            return connection
        say(f"broker  {self.settings.bootstrap} runs already")
        return self.admin_connection()

    def admin_connection(self) -> Connection:
        """The admin's connection to the running broker."""
        identity = read_identity(self.layout.service(ADMIN), ADMIN)
        return Connection(self.settings.bootstrap, self.layout.ca, identity)

    def ensure_identities(self, policy: Policy) -> TrustFile:
        """Signers, trust and enforcer certificates."""
        trust = ensure_authority(self.layout, self.settings.deployment_id)
        domains = sorted(policy.domains)
        for number in range(1, self.settings.enforcers + 1):
            trust = ensure_enforcer(self.layout, trust, enforcer_name(number), list(domains), now_ms())
        return trust

    def plan(
        self,
        policy: Policy,
        connection: Connection | None = None,
        trust: TrustFile | None = None,
        *,
        prune: bool = False,
    ) -> Plan:
        """What applying ``policy`` to the broker would do."""
        connection = connection or self.admin_connection()
        actual = read_actual(connection, trust or read_trust(self.layout.trust))
        return make_plan(policy, actual, self.settings.enforcers, now_ms(), prune=prune)

    def start_service(self, name: str) -> None:
        """Start one service and wait for it."""
        daemon = self._daemon(name)
        if daemon.find() is None:
            self._ready(name).unlink(missing_ok=True)
            daemon.start(*self._command(name))
        daemon.wait_for(self._ready(name), READY_TIMEOUT)

    def restart_service(self, name: str) -> None:
        """Replace one service's process by a new one. An enforcer's successor is ready before the old one ends, so
        that its partitions stand still for a moment only."""
        daemon = self._daemon(name)
        if daemon.find() is not None and name.startswith("bus-enforcer"):
            daemon.replace(*self._command(name))
            daemon.wait_for(self._ready(name), READY_TIMEOUT)
        else:
            daemon.stop()
            self.start_service(name)

    def _ready(self, name: str) -> Path:
        return self.layout.run / f"{name}.ready"

    def _command(self, name: str) -> tuple[list[str], dict[str, str]]:
        kind = "enforcer" if name.startswith("bus-enforcer") else name
        environ = {"BUS_CONFIG": str(self.layout.settings), "BUS_HTTP": self.settings.http or "127.0.0.1:0"}
        if kind == "enforcer":
            environ["BUS_INSTANCE"] = name
        return [sys.executable, "-m", "bus.cli.main", "run", kind], environ

    def stop_service(self, name: str) -> bool:
        """Stop one service by its recorded process id."""
        return self._daemon(name).stop()

    def status(self) -> list[ServiceStatus]:
        """Every process of the stack, running or not."""
        rows = []
        for name in ["broker", *service_names(self.settings)]:
            daemon = self._daemon(name)
            process = daemon.find()
            rows.append(ServiceStatus(name, process.pid if process else None, daemon.log))
        return rows

    def down(self, say: Say, *, purge: bool = False) -> None:
        """Stop every process in reverse order; with ``purge`` the stack's files go too."""
        if purge and not self.layout.settings.is_file():
            raise StackError(f"{self.layout.state}: not a state folder of a stack; nothing removed")
        if self.layout.state.is_dir():
            with self._alone():
                self._down(say, purge=purge)

    def _down(self, say: Say, *, purge: bool) -> None:
        for name in [*reversed(service_names(self.settings)), "broker"]:
            if self._daemon(name).stop():
                say(f"{name}  stopped")
        if purge:
            # Only what a stack makes: the state folder may be one that holds other things too.
            for path in (self.layout.state / name for name in STATE_NAMES):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
            if not any(self.layout.state.iterdir()):
                self.layout.state.rmdir()
            say(f"removed {self.layout.state}")
