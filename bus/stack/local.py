"""`bus stack up | status | down`: broker, applied policies, issuer, enforcers and audit on this machine.

The broker is the stack's own, or an external one, which is used and otherwise left alone. Each service is a process of
its own, found again by its recorded id; what is already running is left as it is.
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
from bus.admin.desired import AUDITOR, AUTHORITY, RECONCILER, ROTATOR, enforcer_name
from bus.admin.plan import Plan, make_plan
from bus.authority import rpc
from bus.authority.clientcerts import ensure_clients_ca, ensure_service_certificates
from bus.authority.enrolment import ensure_authority_files, open_register
from bus.authority.local import ensure_authority, ensure_enforcer, load_signer, now_ms
from bus.authority.tokenkeys import ensure_token_keys
from bus.authority.tokens import audience
from bus.authority.trust import TrustFile, read_trust
from bus.client.authority import IDENTITY, enrol
from bus.errors import SettingsError, StackError
from bus.files import Layout, make_folder, write_file
from bus.guardrails.engine import known_types
from bus.kafka.config import Connection, connect, shown_by
from bus.policy.attestation import check_issuing
from bus.policy.loader import load_policy
from bus.policy.model import Policy
from bus.settings import UNSET, BrokerSource, Issuing, Mechanism, Mode, Settings, load
from bus.stack.broker import Broker, free_ports, is_free, node_names
from bus.stack.external import reach, require_operator_files
from bus.stack.jars import fetch_jars, find_java
from bus.stack.pki import ensure_pki, issue_server
from bus.stack.process import Daemon
from bus.stack.server import ADMIN, LOOPBACK, Kerberos, Tokens

Say = Callable[[str], None]
READY_TIMEOUT = 60.0
STOP_TIMEOUT, QUORUM_STOP_TIMEOUT = 30.0, 5.0
STATE_NAMES = (
    "agents",
    "authority",
    "bus.toml",
    "clients",
    "contexts",
    "jwks",
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


def is_external(settings: Settings) -> bool:
    """Whether someone else runs the broker."""
    return settings.broker is BrokerSource.EXTERNAL


def service_names(settings: Settings) -> list[str]:
    """Processes of the stack beside the broker, in starting order."""
    enforcers = [enforcer_name(number) for number in range(1, settings.enforcers + 1)]
    return [issuing_service(settings), *enforcers, "audit", *(["rotator"] if settings.rotates else [])]


def issuing_service(settings: Settings) -> str:
    """Who makes key epochs in this stack."""
    return "authority" if settings.issuing is Issuing.AUTHORITY else "issuer"


def process_names(settings: Settings) -> list[str]:
    """Every process of the stack, in starting order; an external broker is none of them."""
    return [*([] if is_external(settings) else node_names(settings.brokers)), *service_names(settings)]


def prepare(settings: Settings, port: int = 0) -> Settings:
    """The settings of this state folder's stack, with a deployment id and a bootstrap address, written to bus.toml.

    BUS_BOOTSTRAP names an external broker here; everywhere else it only overrides the address.
    """
    layout = Layout(settings.state.resolve())
    make_folder(layout.state, 0o711)
    given, recorded = os.environ.get("BUS_BOOTSTRAP", ""), None
    if layout.settings.is_file():
        settings = load({**os.environ, "BUS_CONFIG": str(layout.settings)})
        recorded = load({"BUS_CONFIG": str(layout.settings)})
    external = is_external(settings) or bool(given and (recorded is None or given != recorded.bootstrap))
    if recorded is not None and external != is_external(recorded):
        raise StackError(
            f"{layout.state} is of a stack with {'its own' if external else 'an external'} broker",
            hint="unset BUS_BOOTSTRAP and BUS_BROKER, or name another folder in BUS_STATE",
        )
    if recorded is not None and not external and recorded.brokers != settings.brokers:
        raise StackError(
            f"brokers: expected {recorded.brokers} as when this stack was made, found {settings.brokers}",
            hint="who votes in the quorum is fixed: set it back, or `bus stack down --purge`",
        )
    if recorded is not None and not external and _any_node_runs(settings, layout):
        return settings
    settings = dataclasses.replace(
        settings,
        deployment=settings.deployment or os.urandom(16).hex(),
        state=layout.state,
        policies=settings.policies.resolve(),
        source=str(layout.settings),
    )
    if external:
        settings = _external(dataclasses.replace(settings, bootstrap=given or settings.bootstrap), layout, port)
    elif layout.ca.is_file() and recorded is None:
        raise StackError(
            f"{layout.ca} is there already, and a stack's own broker would replace it",
            hint="name the external broker in BUS_BOOTSTRAP, or another folder in BUS_STATE",
        )
    else:
        settings = _local(settings, recorded.bootstrap if recorded is not None else "", port)
    if settings.issuing is Issuing.AUTHORITY and not settings.authority:
        ports = free_ports()[0]
        settings = dataclasses.replace(
            settings, authority=f"{LOOPBACK}:{ports.internal}", enrolment=f"{LOOPBACK}:{ports.controller}"
        )
    write_settings(settings, layout.settings)
    return settings


def _external(settings: Settings, layout: Layout, port: int) -> Settings:
    if not settings.bootstrap:
        raise SettingsError("bootstrap: expected the external broker's HOST:PORT, found nothing")
    if port:
        raise SettingsError("a port can be given to the stack's own broker only, not to an external one")
    require_operator_files(layout)
    return dataclasses.replace(settings, broker=BrokerSource.EXTERNAL)


def _any_node_runs(settings: Settings, layout: Layout) -> bool:
    return any(Daemon(name, layout.state / "run").find() for name in node_names(settings.brokers))


def _local(settings: Settings, recorded: str, port: int) -> Settings:
    # Services that still run, and agents, know the recorded ports: they are taken again where they are free.
    wanted = [number if is_free(number) else 0 for number in agent_ports(recorded)][: settings.brokers]
    wanted += [0] * (settings.brokers - len(wanted))
    if port:
        wanted[0] = port
    bootstrap = ",".join(f"{LOOPBACK}:{each.agents}" for each in free_ports(wanted))
    return dataclasses.replace(settings, bootstrap=bootstrap)


def agent_ports(bootstrap: str) -> list[int]:
    """The ports in a bootstrap address of this machine."""
    return [int(address.rpartition(":")[2]) for address in bootstrap.split(",") if address]


def write_settings(settings: Settings, path: Path) -> None:
    """``settings`` as a bus.toml; only what differs from the defaults, and the paths."""
    lines = ["# Written by `bus stack up`."]
    defaults = Settings()
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        if each.name == "source" or isinstance(value, dict) or (value == getattr(defaults, each.name)):
            continue
        if isinstance(value, bool):
            value = str(value).lower()
        elif not isinstance(value, int):
            value = json.dumps(str(value), ensure_ascii=False)
        lines.append(f"{each.name} = {value}")
    for title, table in (("owners", settings.owners), ("secrets", settings.secrets)):
        if table:
            rows = ((json.dumps(each, ensure_ascii=False) for each in row) for row in sorted(table.items()))
            lines += [f"[{title}]", *(" = ".join(row) for row in rows)]
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
        self._check(policy)
        connection = self.start_broker(policy, say)
        trust = self.ensure_identities(policy)
        self.apply(self.plan(policy, connection, trust), connection, trust)
        say(f"policy  {policy.digest.hex()[:12]} live: {len(policy.domains)} domains, {len(policy.agents)} agents")
        if services:
            first, *others = service_names(self.settings)  # who makes the keys that the others wait for
            self.start_service(first)
            say(f"{first}  ready")
            if first == "authority":
                self.enrol_here(policy)
            for name in others:
                self._begin(name)
            for name in others:
                self.start_service(name)
            for name in others:  # whoever joins a group last keeps those that were ready waiting once more
                self.start_service(name)
                say(f"{name}  ready")

    def enrol_here(self, policy: Policy) -> None:
        """Enrol the agents of this machine that are not: what an operator does by hand for those of others."""
        register = open_register(self.settings, self.layout)
        for agent in sorted(policy.agents):
            folder = self.layout.agent(agent)
            if not (folder / IDENTITY).exists():
                token = register.invite(agent, now_ms())
                enrol(folder, self.settings.enrolment, self.layout.ca.read_bytes(), token)

    def load_policy(self) -> Policy:
        """The policies that the settings name."""
        return load_policy(
            self.settings.policies, development=self.settings.mode is Mode.DEVELOPMENT, types=known_types(self.settings)
        )

    def start_broker(self, policy: Policy, say: Say) -> Connection:
        """Start the broker, or reach the external one; returns the admin's connection to it."""
        bootstrap = self.settings.bootstrap
        self.ensure_clients()
        if is_external(self.settings):
            connection = self.admin_connection()
            reach(connection)
            say(f"broker  {bootstrap} is external: used as {connection.identity.principal}")
            return connection
        kerberos = self._kerberos()
        broker = Broker(self.layout, find_java(kerberos=kerberos is not None), fetch_jars(), self.settings.brokers)
        if broker.runs:
            say(f"broker  {bootstrap} runs already")
            return self.admin_connection()
        ensure_token_keys(self.layout.signer("tokens"), self.layout.jwks, now_ms())
        # Kafka does not decode the path of a file URL: one with a space is named by the broker's own folder.
        plain = "%" not in self.layout.jwks.as_uri()
        jwks = self.layout.jwks if plain else Path("/proc/self/cwd") / self.layout.jwks.name
        tokens = Tokens(jwks, audience(self.settings.deployment_id), self.settings.max_clock_skew_ms)
        minutes = max(policy.backlog_horizon_ms // 60_000, 1)
        shown = shown_by(self.settings, ADMIN)
        connection = broker.start(agent_ports(bootstrap), minutes, policy.rotation_interval_ms, tokens, shown, kerberos)
        asks = ", client certificates" if shown is not None else ""
        say(f"broker  {bootstrap} TLS 1.3{asks}, SASL, ACLs")
        return connection

    def _kerberos(self) -> Kerberos | None:
        settings = self.settings
        if settings.sasl_mechanism is not Mechanism.KERBEROS:
            return None
        if not settings.kerberos_realm or settings.kerberos_keytab == UNSET:
            raise SettingsError(
                "sasl_mechanism: GSSAPI: expected kerberos_realm, and kerberos_keytab with the broker's own key",
                hint=f"its principal is {settings.kerberos_service}/{LOOPBACK}@<realm>",
            )
        return Kerberos(settings.kerberos_keytab.resolve(), settings.kerberos_service, settings.kerberos_realm)

    def ensure_clients(self) -> None:
        """Outside development: the CA of client certificates, and each service's certificate."""
        settings, layout = self.settings, self.layout
        if not settings.client_certificates:
            return
        others = [AUTHORITY] if settings.issuing is Issuing.AUTHORITY else []
        if others:
            self._ensure_authority_files()
        ca = ensure_clients_ca(layout, settings.deployment_id, now_ms())
        others += [ROTATOR] if settings.rotates else []
        enforcers = [enforcer_name(number) for number in range(1, settings.enforcers + 1)]
        ensure_service_certificates(layout, ca, [ADMIN, AUDITOR, RECONCILER, *others, *enforcers], now_ms())

    def admin_connection(self) -> Connection:
        """The admin's connection to the running broker."""
        return connect(self.settings, ADMIN)

    def ensure_identities(self, policy: Policy) -> TrustFile:
        """Signers, trust and enforcer certificates."""
        trust = ensure_authority(self.layout, self.settings.deployment_id, self.settings.key_provider)
        domains = sorted(policy.domains)
        for number in range(1, self.settings.enforcers + 1):
            trust = ensure_enforcer(self.layout, trust, enforcer_name(number), list(domains), now_ms())
        return trust

    def _ensure_authority_files(self) -> None:
        pki = ensure_pki(self.layout.ca.parent).parent
        ensure_authority_files(self.layout, self.settings.deployment_id, lambda: issue_server(pki, rpc.SERVER_NAME))

    def plan(
        self,
        policy: Policy,
        connection: Connection | None = None,
        trust: TrustFile | None = None,
        *,
        prune: bool = False,
    ) -> Plan:
        """What applying ``policy`` to the broker would do. Raises PolicyError where keys cannot be issued so."""
        self._check(policy)
        connection = connection or self.admin_connection()
        actual = read_actual(connection, trust or read_trust(self.layout.trust))
        settings = self.settings
        passwords = settings.sasl_mechanism is Mechanism.SCRAM
        return make_plan(
            policy,
            actual,
            settings.enforcers,
            now_ms(),
            brokers=settings.brokers,
            prune=prune,
            passwords=passwords,
            rotates=settings.rotates,
        )

    def _check(self, policy: Policy) -> None:
        check_issuing(policy, files=self.settings.issuing is Issuing.FILES)

    def apply(self, plan: Plan, connection: Connection | None = None, trust: TrustFile | None = None) -> None:
        """Carry ``plan`` out, with the identities that its policy needs."""
        trust = trust or self.ensure_identities(plan.policy)
        signer = load_signer(self.layout.signer("policy"))
        apply_plan(plan, connection or self.admin_connection(), self.layout, signer, trust, self.settings.owners)

    def start_service(self, name: str) -> None:
        """Start one service, where it does not run, and wait for it."""
        self._begin(name)
        self._daemon(name).wait_for(self._ready(name), READY_TIMEOUT)

    def _begin(self, name: str) -> None:
        daemon = self._daemon(name)
        if daemon.find() is None:
            if name == "authority":
                self._ensure_authority_files()
            self._ready(name).unlink(missing_ok=True)
            daemon.start(*self._command(name))

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
        for name in process_names(self.settings):
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
        nodes = [] if is_external(self.settings) else node_names(self.settings.brokers)
        daemons = [self._daemon(name) for name in reversed(service_names(self.settings))]
        for daemon in [each for each in daemons if each.terminate() is not None]:
            daemon.stop()
            say(f"{daemon.name}  stopped")
        for daemon in map(self._daemon, nodes):
            daemon.terminate()
        for name in nodes:
            # Nodes that go together lose the quorum that would hand over what they lead: no use in a long wait.
            if self._daemon(name).stop(STOP_TIMEOUT if len(nodes) == 1 else QUORUM_STOP_TIMEOUT):
                say(f"{name}  stopped")
        if purge:
            self._purge()
            say(f"removed {self.layout.state}")
            if is_external(self.settings):
                say(f"left    topics, users and ACLs on {self.settings.bootstrap}, and the operator's files")

    def _purge(self) -> None:
        """Only what a stack makes goes: the state folder may be one that holds other things too."""
        paths = [self.layout.state / name for name in STATE_NAMES]
        if is_external(self.settings):  # the CA and the administrator's credential are its operator's
            own = (self.layout.state / "services").glob("*")
            paths = [path for path in paths if path.name not in ("pki", "services")]
            paths += [path for path in own if path != self.layout.service(ADMIN)]
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        if not any(self.layout.state.iterdir()):
            self.layout.state.rmdir()
