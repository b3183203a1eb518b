"""Shell of the authority: follows `bus.policy`, makes epochs, answers agents and records what it gave on `bus.issue`.

Any number of replicas run on one state; of those in one state folder, one at a time writes broker tokens.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import KafkaException, Producer
from prometheus_client import CollectorRegistry, Counter

from bus.admin.desired import AUTHORITY
from bus.authority.attested import Attestations
from bus.authority.attesting import Attesting
from bus.authority.enrolment import open_authority
from bus.authority.issuer import Issuer
from bus.authority.local import ensure_roots, load_signer, now_ms, open_roots
from bus.authority.service import AuthorityService
from bus.authority.tokens import audience
from bus.authority.trust import LiveSnapshot, read_trust
from bus.authority.verifiers import open_verifiers
from bus.codes import Code
from bus.crypto.issued import sign_issued
from bus.crypto.signing import Signer
from bus.errors import RetryLater
from bus.files import Layout
from bus.kafka.config import Connection, connect
from bus.kafka.feed import Feed
from bus.settings import Mode, Settings
from bus.signals import stop_on_signal
from bus.wire.names import ISSUE, POLICY
from consumers.authority.server import AuthorityServer, Identity
from consumers.endpoint import Endpoint, Vitals
from consumers.issuer.app import Turn, issue
from consumers.published import Published

log = logging.getLogger("bus.authority")
STORED_S: Final = 10.0
FIRST_S: Final = 1.0
"""How long the broker's first answer is waited for, at a time."""


class IssueLog:
    """Events on `bus.issue`, signed; each is stored by all replicas before ``__call__`` returns."""

    def __init__(self, connection: Connection, signer: Signer, deployment: bytes, counted: Counter) -> None:
        self._producer = Producer(
            connection.config(
                acks="all", enable_idempotence=False, max_in_flight=1, linger_ms=0, message_timeout_ms=8000
            )
        )
        self._signer = signer
        self._deployment = deployment
        self._counted = counted

    def __call__(self, event: Mapping[str, Any]) -> None:
        """Raises RetryLater where it is not known to be stored."""
        done = threading.Event()
        failed: list[object] = []

        def delivered(error: object, _message: object) -> None:
            failed.append(error)
            done.set()

        try:
            self._producer.produce(ISSUE, sign_issued(self._signer, self._deployment, event), on_delivery=delivered)
        except (KafkaException, BufferError) as error:
            raise RetryLater(f"{ISSUE}: {error}", code=Code.RETRY) from error
        if self._producer.flush(STORED_S) or not done.is_set() or failed[0] is not None:
            raise RetryLater(f"{ISSUE}: {failed[0] if failed else 'no answer'}", code=Code.RETRY)
        self._counted.labels(event=event["event"]).inc()


def run(settings: Settings, stop: threading.Event | None = None) -> None:
    """Serve until stopped (SIGTERM, SIGINT or ``stop``)."""
    stop = stop or stop_on_signal()
    layout = Layout(settings.state)
    trust = read_trust(layout.trust)
    signer = load_signer(layout.signer("issuer"))
    registry = CollectorRegistry()
    counted = Counter("sealbus_issued", "Events on bus.issue.", ["event"], registry=registry)
    connection = connect(settings, AUTHORITY)
    ensure_roots(settings, layout)
    held = open_authority(settings, layout)
    issuer = Issuer(layout, open_roots(settings, layout, trust), signer, settings, settings.owners, files=False)
    record = IssueLog(connection, signer, settings.deployment_id, counted)
    development = settings.mode is Mode.DEVELOPMENT
    verifiers = open_verifiers(held.attestation_roots, held.attestation_key, development=development)
    kept, ours = Attestations(held.register), audience(settings.deployment_id)
    attesting = Attesting(verifiers, held.attestation_key, signer, ours, kept)
    service = AuthorityService(held.ca, held.register, issuer, attesting, settings.deployment_id, record, now_ms)
    identity = Identity(held.server_key, held.server_chain, held.ca.certificate_pem)
    name = settings.instance or "authority"
    vitals = Vitals(layout.run / f"{name}.ready")
    published = Published(feed := Feed(connection, POLICY), trust)
    with (
        contextlib.closing(feed),
        Turn(layout) as turn,
        AuthorityServer(service, identity, settings.authority, settings.enrolment) as server,
        vitals,
        Endpoint(name, settings.http, layout.run, vitals, registry),
    ):
        issue(
            settings,
            lambda: _newest(published),
            vitals,
            registry,
            stop,
            lambda live: service.step(live.policy, live.signed.number),
            lambda ready: server.serving(ready=ready),
            turn.mine,
        )


def _newest(published: Published) -> LiveSnapshot | None:
    """The policy to go by; None before the first."""
    for _ in published.new(0 if published.held else FIRST_S):
        pass
    return published.held
