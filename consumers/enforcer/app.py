"""Shell of the enforcer: connects the loop to keys, policy and signals. `bus run enforcer`."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry

from bus.admin.desired import ENFORCER_GROUP, enforcer_name
from bus.authority.local import load_signer, now_ms, open_roots, read_applied
from bus.authority.trust import LiveSnapshot, TrustFile, open_snapshot, read_trust
from bus.codes import Code
from bus.crypto.keyring import Keyring
from bus.crypto.signing import Trust
from bus.errors import BusError, RetryLater
from bus.files import Layout, make_folder
from bus.guardrails.engine import load_engine
from bus.guardrails.scanner import Scanners
from bus.kafka.config import connect
from bus.kafka.feed import Feed
from bus.kafka.loop import POLL_BATCH, Loop
from bus.kafka.restore import WindowReader
from bus.kafka.transaction import Place, Staged
from bus.policy.guarding import Guardrails
from bus.policy.model import Policy
from bus.settings import UNSET, GuardrailEngine, Settings
from bus.signals import stop_on_signal
from bus.wire.names import CONTROL, POLICY
from consumers.endpoint import Endpoint, Vitals
from consumers.enforcer.context import EnforcerContext
from consumers.enforcer.issuers import IssuersFile
from consumers.enforcer.metrics import EnforcerMetrics
from consumers.enforcer.watch import Round, Watcher
from consumers.enforcer.worker import EnforcerWorker
from consumers.tuning import tune_process

log = logging.getLogger("bus.enforcer")
TURN_S = 30.0
MODEL_BATCH = 32
"""Records of a poll where a model may read each for a second: the loop must turn within a minute to count as alive."""
KEY_WAIT_S = 2.0
"""How long a record with an unknown key id waits for the keys to be read again."""


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
        scanners = load_engine(settings)
        self._layout = Layout(settings.state)
        self._name = settings.instance or enforcer_name(1)
        self._step = step
        self._observe = observe
        self._on_ready = on_ready
        folder = self._layout.service(self._name)
        self._connection = connect(settings, self._name)
        trust = read_trust(self._layout.trust)
        feed = Feed(self._connection, POLICY, group=ENFORCER_GROUP)
        self._snapshot = _first_snapshot(feed, trust, read_applied(self._layout, trust))
        check_law(self._snapshot.policy, scanners, settings)
        control = Feed(self._connection, CONTROL, group=ENFORCER_GROUP)
        users = IssuersFile(settings.user_issuers) if settings.user_issuers != UNSET else None
        self._watcher = Watcher(feed, control, open_roots(settings, self._layout, trust), trust, self._snapshot, users)
        self._context = EnforcerContext(
            settings.deployment_id,
            Keyring(lead_ms=settings.lead_ms, grace_ms=settings.grace_ms),
            load_signer(folder / "signing.key"),
            self._snapshot.policy,
            self._snapshot.signed.number,
        )
        self._worker: EnforcerWorker | None = None
        self._context.max_clock_skew_ms = settings.max_clock_skew_ms
        self._context.compiled = settings.compiled
        self._context.scanners = scanners
        self._context.issuers = users.first if users is not None else {}

    def places(self) -> list[Place]:
        """Input partitions that it has now."""
        return list(self._worker.windows()) if self._worker is not None else []

    def run(self, stop: threading.Event) -> None:
        """Enforce until ``stop``; the last transaction is finished first."""
        reader = WindowReader(self._connection)
        registry = CollectorRegistry()
        metrics = EnforcerMetrics(registry, self._context)

        def observe(staged: Staged) -> None:
            metrics.observe(staged)
            self._observe(staged)

        worker = self._worker = EnforcerWorker(self._context, self._name, self._trust, reader, self._refresh, observe)
        vitals = Vitals(self._layout.run / f"{self._name}.ready", self._on_ready)
        loop = Loop(
            self._connection,
            ENFORCER_GROUP,
            self._name,
            worker,
            transaction_ms=self._settings.transaction_ms,
            transaction_bytes=self._settings.transaction_bytes,
            max_clock_skew_ms=self._settings.max_clock_skew_ms,
            signs=vitals,
            step=self._step,
            poll_batch=MODEL_BATCH if self._settings.guardrail_engine is GuardrailEngine.PRESIDIO else POLL_BATCH,
        )
        metrics.attach(worker, loop)
        self._watcher.start()
        try:
            with (
                turn(self._layout.run / f"{self._name}.lock", stop),
                vitals,
                Endpoint(self._name, self._settings.http, self._layout.run, vitals, registry),
            ):
                loop.run(stop)
        finally:
            self._watcher.close()

    def _trust(self) -> Trust:
        return read_trust(self._layout.trust).trust()

    def _refresh(self, since_ms: int) -> None:
        """See ``worker.Refresh``."""
        self._context.now_ms = now_ms()
        while (made := self._watcher.take()) is not None:
            self._take(made)
        deadline = time.monotonic() + KEY_WAIT_S
        failure: object = "keys were not read in time"
        while self._context.refreshed_ms < since_ms:
            made = self._watcher.wait(deadline - time.monotonic())
            if made is not None:
                self._take(made)
                failure = made.failure or failure
            elif time.monotonic() > deadline:
                raise RetryLater(f"keys cannot be had: {failure}", code=Code.RETRY)
        try:
            self._snapshot.check_validity(self._context.now_ms, self._settings.max_clock_skew_ms)
            check_law(self._snapshot.policy, self._context.scanners, self._settings)
        except BusError as error:
            raise RetryLater(str(error), code=Code.RETRY, hint=error.hint) from error

    def _take(self, made: Round) -> None:
        context = self._context
        for each in made.snapshots:
            self._snapshot = each
            context.set_policy(each.policy, each.signed.number)
            context.keyring.join(each.policy.agents)
            log.info("policy snapshot %d is live", each.signed.number)
        if made.issuers is not None:
            context.issuers = made.issuers
        # Before roots: one that was read in the same round, or comes from elsewhere, is not taken.
        for tombstone in made.erased:
            context.erase(tombstone)
        if made.erased and self._worker is not None:
            self._worker.erased([f"{each.domain}/{each.epoch}" for each in made.erased])
        for stored in made.epochs:
            if context.keyring.is_erased(stored.epoch.domain, stored.epoch.epoch):
                continue
            context.keyring.add(stored.epoch, stored.root, self._snapshot.policy.agents, stored.openers)
        for day, root in made.audit_roots:
            context.set_audit_root(day, root)
        # By the broker's time: with a clock that is wrong, keys would be gone for good that honest records still need.
        context.keyring.retire(context.appended_ms - self._snapshot.policy.backlog_horizon_ms)
        if made.failure is None:
            context.refreshed_ms = made.began_ms


def check_law(policy: Policy, scanners: Scanners, settings: Settings) -> None:
    """Raise PolicyError or SettingsError where this enforcer cannot carry ``policy`` out: a type that it does not find,
    or keys that would live too long with its own lead and grace, whatever the issuer's are."""
    check_detectors(policy, scanners)
    settings.check_interval(policy.rotation_interval_ms)


def check_detectors(policy: Policy, scanners: Scanners) -> None:
    """Raise PolicyError where a guardrail of ``policy`` names a type that nothing here finds: another enforcer's
    settings, or another release, may know it."""
    for domain in policy.domains.values():
        Guardrails(domain, policy, scanners)


@contextlib.contextmanager
def turn(path: Path, stop: threading.Event) -> Iterator[None]:
    """Wait until no other process of this machine holds the instance's lock: a restart is prepared while the old one
    still works. One that does not let go in time is fenced by the broker, as one on another machine would be."""
    deadline = time.monotonic() + TURN_S
    with (make_folder(path.parent) / path.name).open("w") as lock:
        while not stop.is_set() and time.monotonic() < deadline:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                stop.wait(0.01)
        yield


def _first_snapshot(feed: Feed, trust: TrustFile, held: LiveSnapshot | None) -> LiveSnapshot:
    """The newest on the topic; one below ``held`` (what was applied here last) is a rollback and refused."""
    for value in feed.catch_up():
        held = open_snapshot(value, trust, held)
    if held is None:
        raise RetryLater("no policy was applied yet", code=Code.RETRY, hint="bus policy apply")
    return held


def run(settings: Settings) -> None:
    """Enforce until SIGTERM or SIGINT."""
    configure_logging()
    tune_process()
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
