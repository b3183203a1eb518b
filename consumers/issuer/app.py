"""Shell of the local issuer: follows the applied policy, issues keys and broker credentials when they are due."""

from __future__ import annotations

import fcntl
import logging
import threading
from collections.abc import Callable
from typing import Self

from prometheus_client import CollectorRegistry, Gauge

from bus.authority.clientcerts import CertificateIssuer
from bus.authority.issuer import Issuer
from bus.authority.local import ensure_roots, load_signer, now_ms, open_roots, read_applied
from bus.authority.tokenfiles import TokenIssuer
from bus.authority.trust import LiveSnapshot, TrustFile, read_trust
from bus.errors import BusError, StackError
from bus.files import Layout, make_folder
from bus.policy.model import Policy
from bus.settings import Issuing, Mechanism, Settings
from bus.signals import stop_on_signal
from consumers.endpoint import Endpoint, Vitals

log = logging.getLogger("bus.authority")
MAX_WAIT_S = 1.0
"""How soon a newly applied policy is seen."""
Read = Callable[[], LiveSnapshot | None]
"""Gives the policy to go by, None while there is none."""


def run(settings: Settings, stop: threading.Event | None = None) -> None:
    """Issue until stopped (SIGTERM, SIGINT or ``stop``)."""
    stop = stop or stop_on_signal()
    layout = Layout(settings.state)
    trust = read_trust(layout.trust)
    signer = load_signer(layout.signer("issuer"))
    issuer = Issuer(layout, open_roots(settings, layout, trust), signer, settings, settings.owners)
    alone = only_one(layout)
    ensure_roots(settings, layout)
    vitals = Vitals(layout.run / "issuer.ready")
    registry = CollectorRegistry()
    read = Applied(layout, trust)
    with alone, vitals, Endpoint("issuer", settings.http, layout.run, vitals, registry):
        issue(settings, read, vitals, registry, stop, lambda held: issuer.step(held.policy, now_ms()))


class Applied:
    """The policy that was applied last from this state folder."""

    def __init__(self, layout: Layout, trust: TrustFile) -> None:
        self._layout = layout
        self._trust = trust
        self._held: LiveSnapshot | None = None

    def __call__(self) -> LiveSnapshot | None:
        """None before the first. Raises Unverified, WireError, or Refused for an older one than before."""
        self._held = read_applied(self._layout, self._trust, self._held) or self._held
        return self._held


def follow(
    settings: Settings,
    read: Read,
    vitals: Vitals,
    stop: threading.Event,
    step: Callable[[LiveSnapshot], int],
    serving: Callable[[bool], None] = lambda _: None,
    due: Callable[[float], None] = lambda _: None,
    log: logging.Logger = log,
) -> None:
    """Until ``stop``: whenever something is due, ``step`` by the policy that ``read`` gives.

    ``step`` returns when (ms since 1970) something is due next; ``serving`` is told whether all went well, ``due`` the
    seconds that are left.
    """
    while not stop.is_set():
        vitals.beat()
        at = now_ms() + 1000
        try:
            if (held := read()) is not None:
                held.check_validity(now_ms(), settings.max_clock_skew_ms)
                at = step(held)
                vitals.ready()
                serving(True)
        except BusError as error:
            log.error("%s: %s", error.code, error)  # noqa: TRY400  # the reason is the message; a trace adds nothing
            vitals.waiting(str(error))
            serving(False)
        left = (at - now_ms()) / 1000
        due(max(left, 0))
        stop.wait(max(0.02, min(MAX_WAIT_S, left)))


def issue(
    settings: Settings,
    read: Read,
    vitals: Vitals,
    registry: CollectorRegistry,
    stop: threading.Event,
    step: Callable[[LiveSnapshot], int],
    serving: Callable[[bool], None] = lambda _: None,
    mine: Callable[[], bool] = lambda: True,
) -> None:
    """``follow``, and after each ``step`` what agents show the broker: tokens and certificates, from when ``mine`` says
    yes."""
    due = Gauge("sealbus_issuer_due_seconds", "Time until something is to be issued.", registry=registry)
    shown = _Shown(settings, mine)
    follow(settings, read, vitals, stop, lambda held: shown.step(held.policy, step(held)), serving, due.set)


class _Shown:
    """Writes what agents show the broker, once ``mine`` says that this process does."""

    def __init__(self, settings: Settings, mine: Callable[[], bool]) -> None:
        self._settings = settings
        self._mine = mine
        self._tokens: TokenIssuer | None = None
        self._certificates: CertificateIssuer | None = None

    def step(self, policy: Policy, at: int) -> int:
        """Write what is due; returns when (ms since 1970) something is due next, ``at`` the latest."""
        settings = self._settings
        if self._tokens is None and self._mine():
            layout = Layout(settings.state)
            self._tokens = TokenIssuer(layout, settings.deployment_id, settings.owners, now_ms())
            self._certificates = _certificates(settings, layout)
        if self._tokens is not None:
            agents = policy.agents if settings.sasl_mechanism is Mechanism.OAUTHBEARER else ()
            at = min(at, self._tokens.step(agents, policy.rotation_interval_ms, now_ms()))
        if self._certificates is not None:
            at = min(at, self._certificates.step(policy.agents, now_ms()))
        return at


def _certificates(settings: Settings, layout: Layout) -> CertificateIssuer | None:
    """Who writes the agents' client certificates: nobody in development, nor where agents enrol with an authority."""
    if not settings.client_certificates or settings.issuing is Issuing.AUTHORITY:
        return None
    return CertificateIssuer(layout, settings.deployment_id, settings.owners, now_ms())


class Turn:
    """The state folder's lock. One process at a time holds it, until it ends: it alone writes into agents' folders."""

    def __init__(self, layout: Layout, name: str = "issuer") -> None:
        self._lock = (make_folder(layout.state / "run") / f"{name}.lock").open("w")
        self._mine = False

    def mine(self) -> bool:
        """Whether this process holds it, by now."""
        if not self._mine:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            self._mine = True
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()


def only_one(layout: Layout, name: str = "issuer") -> Turn:
    """Hold the state folder's lock of this name. Raises StackError where another process has it."""
    turn = Turn(layout, name)
    if not turn.mine():
        turn.__exit__()
        raise StackError(f"another {name} runs on this state folder", hint="bus stack status")
    return turn
