"""Shell of the rotator: replaces the agents' broker passwords, each at a quarter of the rotation interval.

Kafka's right to do that, ALTER on the cluster, is also the right to change every ACL. So it is a process of its own,
under a principal of its own, that reads no record, holds no key and opens no port but its metrics; and it runs only
where ``rotate_passwords`` asks for it.
"""

from __future__ import annotations

import logging
import threading

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from prometheus_client import CollectorRegistry, Counter

from bus.admin.desired import ROTATOR
from bus.admin.users import set_passwords
from bus.authority.local import now_ms
from bus.authority.tokenfiles import RENEWALS
from bus.authority.trust import read_trust
from bus.errors import Unavailable
from bus.files import Layout
from bus.kafka.config import Connection, connect
from bus.policy.model import Policy
from bus.settings import Settings
from bus.signals import stop_on_signal
from consumers.endpoint import Endpoint, Vitals
from consumers.issuer.app import Applied, follow, only_one

log = logging.getLogger("bus.rotator")


class Rotator:
    """Replaces what is due. Not for two processes at once."""

    def __init__(self, connection: Connection, settings: Settings, counted: Counter) -> None:
        self._connection = connection
        self._client = AdminClient(connection.config())
        self._layout = Layout(settings.state)
        self._owners = settings.owners
        self._counted = counted
        self._due = 0

    def step(self, policy: Policy, now_ms: int) -> int:
        """Replace every agent's password where they are due; when (ms since 1970) they are due next.

        The first call replaces them, which ends what an earlier process began. Raises AccessRefused or Unavailable.
        """
        pause_ms = policy.rotation_interval_ms // RENEWALS
        if self._due - pause_ms <= now_ms < self._due:
            return self._due
        folders = {str(name): self._layout.agent(name) for name in policy.agents}
        try:
            set_passwords(self._client, folders, self._owners, announce=True)
        except KafkaException as error:
            self._client.poll(0)  # serves the error callback
            self._connection.check()
            raise self._connection.typed(error.args[0], "alter", "passwords") from error
        except TimeoutError:
            raise Unavailable("the broker does not say whether it replaced the passwords") from None
        self._counted.inc(len(folders))
        self._due = now_ms + pause_ms
        return self._due


def run(settings: Settings, stop: threading.Event | None = None) -> None:
    """Replace until stopped (SIGTERM, SIGINT or ``stop``)."""
    stop = stop or stop_on_signal()
    layout = Layout(settings.state)
    trust = read_trust(layout.trust)
    registry = CollectorRegistry()
    counted = Counter("sealbus_passwords_replaced", "Passwords of agents that were replaced.", registry=registry)
    rotator = Rotator(connect(settings, ROTATOR), settings, counted)
    vitals = Vitals(layout.run / "rotator.ready")
    with only_one(layout, "rotator"), vitals, Endpoint("rotator", settings.http, layout.run, vitals, registry):
        read = Applied(layout, trust)
        follow(settings, read, vitals, stop, lambda held: rotator.step(held.policy, now_ms()), log=log)
