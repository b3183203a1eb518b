"""One real Kafka broker (KRaft, combined roles) from the published jars: settings, format, start, first user.

Listeners: AGENTS (SASL_SSL, SCRAM-SHA-512), INTERNAL and CONTROLLER (SSL, client certificate required). There is no
plaintext listener, TLS is 1.3 only, nobody may do anything without an ACL.
"""

from __future__ import annotations

import base64
import secrets
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from bus.admin.users import set_password
from bus.crypto.keys import Secret
from bus.errors import StackError
from bus.files import Layout, make_folder, read_secret, write_file, write_secret
from bus.kafka.config import Connection, Identity, read_identity
from bus.stack.pki import BROKER_NAME, ensure_pki
from bus.stack.process import Daemon

ADMIN: Final = "bus-admin"
START_TIMEOUT: Final = 60.0
MAX_REQUEST: Final = 2 * 1024 * 1024

_LOG4J = """
status = warn
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.kafka.name = kafka.server.KafkaRaftServer
logger.kafka.level = info
"""


@dataclass(frozen=True, slots=True)
class Ports:
    """TCP ports on 127.0.0.1."""

    agents: int
    internal: int
    controller: int


def is_free(port: int) -> bool:
    """Whether ``port`` on 127.0.0.1 can be listened on now."""
    with socket.socket() as each:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            each.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(agents: int = 0) -> Ports:
    """Three free ports; ``agents`` is taken as given unless 0."""
    sockets = [socket.socket() for _ in range(3)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        numbers = [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
    return Ports(agents or numbers[0], numbers[1], numbers[2])


def server_properties(data: Path, pki: Path, ports: Ports, retention_minutes: int) -> dict[str, str]:
    """The broker's settings; a development broker keeps one replica of everything."""
    listeners = {"AGENTS": ports.agents, "INTERNAL": ports.internal, "CONTROLLER": ports.controller}
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{ports.controller}",
        "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in listeners.items()),
        "advertised.listeners": f"AGENTS://127.0.0.1:{ports.agents},INTERNAL://127.0.0.1:{ports.internal}",
        "listener.security.protocol.map": "AGENTS:SASL_SSL,INTERNAL:SSL,CONTROLLER:SSL",
        "inter.broker.listener.name": "INTERNAL",
        "controller.listener.names": "CONTROLLER",
        "listener.name.agents.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.agents.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required ;"
        ),
        "listener.name.internal.ssl.client.auth": "required",
        "listener.name.controller.ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(pki / "broker.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(pki / "ca.pem"),
        "ssl.enabled.protocols": "TLSv1.3",
        "ssl.protocol": "TLSv1.3",
        "connections.max.reauth.ms": "600000",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": f"User:CN={BROKER_NAME};User:{ADMIN}",
        "auto.create.topics.enable": "false",
        "log.dirs": str(data),
        "log.message.timestamp.type": "LogAppendTime",
        "num.partitions": "1",
        "default.replication.factor": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "offsets.retention.minutes": str(retention_minutes),
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "group.initial.rebalance.delay.ms": "0",
        # A broker allocates what a request announces before its bytes come: with the default of 100 MB a dozen
        # connections end it. The largest honest request is one batch. (queued.max.request.bytes would let 128 silent
        # connections stop everyone instead.)
        "socket.request.max.bytes": str(MAX_REQUEST),
    }


class Broker:
    """The broker of one state folder."""

    def __init__(self, layout: Layout, java: Path, jars: Path) -> None:
        self._layout = layout
        self._java = java
        self._jars = jars
        self._folder = layout.state / "kafka"
        self.daemon = Daemon("broker", layout.state / "run")

    @property
    def _bootstrap_password(self) -> Path:
        return self._folder / "first-password"

    def start(self, ports: Ports, retention_minutes: int) -> Connection:
        """Format if needed, start and wait until the admin user can speak; returns the admin's connection."""
        pki = self._layout.state / "pki"
        ensure_pki(pki)
        make_folder(self._folder)
        data = self._folder / "data"
        properties = self._folder / "server.properties"
        lines = [f"{key}={value}" for key, value in server_properties(data, pki, ports, retention_minutes).items()]
        write_file(properties, "\n".join([*lines, ""]).encode(), 0o600)
        write_file(self._folder / "log4j2.properties", _LOG4J.encode(), 0o600)
        if not (data / "meta.properties").is_file():
            self._format(properties)
        classpath = f"{self._jars}/*"
        self.daemon.start([self._java, *self._options(), "-cp", classpath, "kafka.Kafka", properties])
        return self._first_contact(f"127.0.0.1:{ports.agents}")

    def _options(self) -> list[str]:
        return [
            "-Xms256m",
            "-Xmx1g",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={self._folder / 'log4j2.properties'}",
        ]

    def _format(self, properties: Path) -> None:
        # A command line is visible to other processes: this password lives until the first contact replaces it.
        password = secrets.token_hex(24)
        write_secret(self._bootstrap_password, password.encode())
        command = [
            str(self._java),
            "-cp",
            f"{self._jars}/*",
            "kafka.tools.StorageTool",
            "format",
            "-c",
            str(properties),
        ]
        scram = f"SCRAM-SHA-512=[name={ADMIN},password={password}]"
        told = subprocess.run(
            [*command, "-t", _cluster_id(), "--add-scram", scram],
            capture_output=True,
            text=True,
            check=False,
            timeout=START_TIMEOUT,
        )
        if told.returncode:
            raise StackError(f"formatting the broker's storage failed:\n{told.stderr[-2000:]}")

    def _first_contact(self, bootstrap: str) -> Connection:
        folder = self._layout.service(ADMIN)
        first = self._bootstrap_password
        if first.exists():
            identity = Identity(ADMIN, Secret(read_secret(first), "first password"))
            connection = Connection(bootstrap, self._layout.ca, identity)
            self._wait(connection)
            set_password(AdminClient(connection.config()), folder, ADMIN)
            first.unlink()
        connection = Connection(bootstrap, self._layout.ca, read_identity(folder, ADMIN))
        self._wait(connection)
        return connection

    def _wait(self, connection: Connection) -> None:
        client = AdminClient(connection.config(reconnect_backoff_max_ms=200))
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            if self.daemon.find() is None:
                raise StackError(f"the broker ended while starting:\n{self.daemon.tail()}")
            try:
                client.list_topics(timeout=1)
            except KafkaException:
                connection.check()
                if time.monotonic() > deadline:
                    raise StackError(
                        f"the broker was not ready after {START_TIMEOUT:.0f} s:\n{self.daemon.tail()}"
                    ) from None
            else:
                return


def _cluster_id() -> str:
    """A fresh cluster id: 16 bytes in URL-safe base64 without padding, as Kafka prints its own.

    Like Kafka's own it does not begin with a dash: the storage tool would read it as an option.
    """
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text
