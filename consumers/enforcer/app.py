"""Shell of the enforcer: connects the loop to keys, policy and signals. `bus run enforcer`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

from bus.admin.desired import ENFORCER_GROUP, enforcer_name
from bus.authority.local import load_signer, now_ms, open_roots
from bus.authority.trust import LiveSnapshot, TrustFile, open_snapshot, read_trust
from bus.codes import Code
from bus.crypto.keyring import Keyring
from bus.crypto.signing import Trust
from bus.errors import BusError, RetryLater
from bus.files import Layout, write_file
from bus.kafka.config import Connection, read_identity
from bus.kafka.feed import Feed
from bus.kafka.loop import Loop
from bus.kafka.restore import WindowReader
from bus.kafka.transaction import Staged
from bus.settings import Settings
from bus.wire.hopblock import DAY_MS
from bus.wire.names import POLICY, domain_topics
from consumers.enforcer.context import EnforcerContext
from consumers.enforcer.worker import EnforcerWorker
from consumers.issuer.app import stop_on_signal

log = logging.getLogger("bus.enforcer")
REFRESH_MS = 500


class Enforcer:
    """One enforcer process."""

    def __init__(
        self,
        settings: Settings,
        step: Callable[[str], None] = lambda _: None,
        observe: Callable[[Staged], None] = lambda _: None,
        on_ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._layout = Layout(settings.state)
        self._name = settings.instance or enforcer_name(1)
        self._step = step
        self._observe = observe
        self._on_ready = on_ready
        folder = self._layout.service(self._name)
        identity = read_identity(folder, self._name)
        self._connection = Connection(settings.bootstrap, self._layout.ca, identity)
        self._trust_file: TrustFile = read_trust(self._layout.trust)
        self._roots = open_roots(settings, self._layout, self._trust_file)
        self._feed = Feed(self._connection, POLICY, group=ENFORCER_GROUP)
        self._snapshot = self._first_snapshot()
        keyring = Keyring(lead_ms=settings.lead_ms, grace_ms=settings.grace_ms)
        self._context = EnforcerContext(
            settings.deployment_id,
            keyring,
            load_signer(folder / "signing.key"),
            self._snapshot.policy,
            self._snapshot.signed.number,
        )
        self._context.max_clock_skew_ms = settings.max_clock_skew_ms

    def _first_snapshot(self) -> LiveSnapshot:
        held: LiveSnapshot | None = None
        for value in self._feed.catch_up():
            held = open_snapshot(value, self._trust_file, held)
        if held is None:
            raise RetryLater("no policy was applied yet", code=Code.RETRY, hint="bus policy apply")
        return held

    def run(self, stop: threading.Event) -> None:
        """Enforce until ``stop``; the last transaction is finished first."""
        reader = WindowReader(self._connection)
        worker = EnforcerWorker(self._context, self._trust, reader, self._refresh, self._observe)
        ready = self._layout.state / "run" / f"{self._name}.ready"
        loop = Loop(
            self._connection,
            sorted(domain_topics(each).inbound for each in self._snapshot.policy.domains),
            ENFORCER_GROUP,
            self._name,
            worker,
            transaction_ms=self._settings.transaction_ms,
            transaction_bytes=self._settings.transaction_bytes,
            step=self._step,
            ready=lambda: self._ready(ready),
        )
        try:
            loop.run(stop)
        finally:
            ready.unlink(missing_ok=True)
            self._feed.close()

    def _ready(self, path: Path) -> None:
        """Partitions are assigned and restored."""
        write_file(path, b"")
        self._on_ready()

    def _trust(self) -> Trust:
        self._trust_file = read_trust(self._layout.trust)
        return self._trust_file.trust()

    def _refresh(self) -> None:
        """Read policy, roots and audit roots again when due."""
        context = self._context
        context.now_ms = now_ms()
        if context.now_ms - context.refreshed_ms < REFRESH_MS:
            return
        while (value := self._feed.poll(0)) is not None:
            self._take_snapshot(value)
        self._snapshot.check_validity(context.now_ms, self._settings.max_clock_skew_ms)
        started = now_ms()
        agents = self._snapshot.policy.agents
        for number in self._roots.numbers():
            if not all(context.keyring.has(domain, number) for domain in self._snapshot.policy.domains):
                for stored in self._roots.load(number):
                    context.keyring.add(stored.epoch, stored.root, agents)
        context.keyring.retire(context.now_ms - self._snapshot.policy.backlog_horizon_ms)
        today = context.now_ms // DAY_MS
        for day in (today, today + 1):
            if not context.has_audit_root(day):
                self._take_audit_root(day)
        context.refreshed_ms = started

    def _take_audit_root(self, day: int) -> None:
        try:
            self._context.set_audit_root(day, self._roots.audit_root(day))
        except FileNotFoundError:
            log.debug("no audit root of day %d yet", day)

    def _take_snapshot(self, value: bytes) -> None:
        try:
            self._snapshot = open_snapshot(value, self._trust_file, self._snapshot)
        except BusError as error:
            log.error("policy snapshot refused: %s", error)  # noqa: TRY400
            return
        self._context.set_policy(self._snapshot.policy, self._snapshot.signed.number)
        for each in self._context.keyring.epochs():
            signed = next((s for s in self._roots.load(each.epoch) if s.epoch.domain == each.domain), None)
            if signed is not None:
                self._context.keyring.add(signed.epoch, signed.root, self._snapshot.policy.agents)
        log.info("policy snapshot %d is live", self._snapshot.signed.number)


def run(settings: Settings) -> None:
    """Enforce until SIGTERM or SIGINT."""
    configure_logging()
    Enforcer(settings).run(stop_on_signal())


def configure_logging() -> None:
    """Structured lines (JSON) on stderr, for the library's loggers too."""
    renderer = structlog.stdlib.ProcessorFormatter(
        processor=structlog.processors.JSONRenderer(),
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso"),
        ],
    )
    handler = logging.StreamHandler()
    handler.setFormatter(renderer)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
