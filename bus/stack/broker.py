"""The broker of a local stack, from the published jars: one Kafka node or three; format, start, first user.

``server`` says what a node is told; here it gets its ports and folders and is started. The first user's password,
which formatting shows on a command line, is replaced at the first contact.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from bus.admin.users import set_password
from bus.crypto.keys import Secret
from bus.errors import StackError
from bus.files import Layout, make_folder, read_secret, write_file, write_secret
from bus.kafka.certificate import CertificateFile
from bus.kafka.config import Connection
from bus.kafka.identity import Identity, read_identity
from bus.stack.jars import aot_file
from bus.stack.pki import ensure_pki
from bus.stack.process import Daemon
from bus.stack.server import ADMIN as ADMIN
from bus.stack.server import (
    LOG4J,
    LOOPBACK,
    MAIN_CLASS,
    Kerberos,
    Node,
    Ports,
    Tokens,
    properties_file,
    server_properties,
)

START_TIMEOUT: Final = 60.0


def is_free(port: int) -> bool:
    """Whether ``port`` on 127.0.0.1 can be listened on now."""
    with socket.socket() as each:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            each.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_ports(agents: Sequence[int] = (0,)) -> list[Ports]:
    """Three free ports for each of ``agents``, whose own are taken as given unless 0."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(3 * len(agents))]
        for each in sockets:
            each.bind((LOOPBACK, 0))
        numbers = [each.getsockname()[1] for each in sockets]
    drawn = zip(agents, numbers[0::3], numbers[1::3], numbers[2::3], strict=True)
    return [Ports(given or number, internal, controller) for given, number, internal, controller in drawn]


def node_names(brokers: int) -> list[str]:
    """Processes of a broker of so many nodes, in starting order."""
    return ["broker", *(f"broker-{number}" for number in range(2, brokers + 1))]


class Broker:
    """The broker of one state folder: every node of it."""

    def __init__(self, layout: Layout, java: Path, jars: Path, brokers: int = 1) -> None:
        self._layout = layout
        self._java = java
        self._jars = jars
        self._folder = layout.state / "kafka"
        self.daemons = [Daemon(name, layout.state / "run") for name in node_names(brokers)]

    @property
    def runs(self) -> bool:
        """Whether every node does."""
        return all(daemon.find() for daemon in self.daemons)

    def _node_folder(self, number: int) -> Path:
        return self._folder if number == 1 else self._folder / f"node-{number}"

    @property
    def _first_password(self) -> Path:
        return self._folder / "first-password"

    def start(
        self,
        agents: Sequence[int],
        retention_minutes: int,
        session_ms: int,
        tokens: Tokens,
        admin: CertificateFile | None = None,
        kerberos: Kerberos | None = None,
    ) -> Connection:
        """Format if needed, start what does not run and wait until the admin can speak; returns its connection.

        Where ``admin`` shows a certificate, everybody is asked for one.
        """
        clients = self._layout.clients_ca if admin is not None else None
        pki = self._layout.state / "pki"
        ensure_pki(pki)
        make_folder(self._folder)
        write_file(self._folder / "log4j2.properties", LOG4J.encode(), 0o600)
        nodes = [Node(number, ports) for number, ports in enumerate(self._ports(agents), 1)]
        files = []
        for node in nodes:
            folder = make_folder(self._node_folder(node.number))
            told = server_properties(
                node,
                nodes,
                folder / "data",
                pki,
                retention_minutes,
                session_ms=session_ms,
                tokens=tokens,
                clients=clients,
                kerberos=kerberos,
            )
            files.append(folder / "server.properties")
            write_file(files[-1], properties_file(told), 0o600)
        self._ensure_storage(files)
        for daemon, properties in zip(self.daemons, files, strict=True):
            daemon.start(
                [
                    self._java,
                    *self._options(tokens),
                    *_realm(kerberos),
                    "-cp",
                    f"{self._jars}/*",
                    MAIN_CLASS,
                    properties,
                ],
                folder=self._layout.jwks.parent,
            )
        bootstrap = ",".join(f"{LOOPBACK}:{port}" for port in agents)
        return first_contact(self._layout, bootstrap, self._first_password, self._wait, admin)

    def _ports(self, agents: Sequence[int]) -> list[Ports]:
        """Fresh ports; the recorded ones while a node that knows them still runs."""
        record = self._folder / "ports.json"
        if any(daemon.find() for daemon in self.daemons):
            return [Ports(*each) for each in json.loads(record.read_bytes())]
        ports = free_ports(agents)
        write_file(record, json.dumps([(each.agents, each.internal, each.controller) for each in ports]).encode())
        return ports

    def _options(self, tokens: Tokens) -> list[str]:
        return [
            *self._loaded(),
            "-Xms256m",
            "-Xmx1g",
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={self._folder / 'log4j2.properties'}",
            *tokens.options(),
        ]

    def _loaded(self) -> list[str]:
        """Classes as they were loaded once (``bus.stack.aot``), where they were."""
        file = aot_file(self._java)
        return [f"-XX:AOTCache={file}"] if file is not None and file.exists() else []

    def _ensure_storage(self, files: Sequence[Path]) -> None:
        """Format every node's storage, or none: who votes in the quorum is fixed when it is made."""
        formatted = [self._has_storage(number) for number in range(1, 4)]
        if not any(formatted):
            # A command line is visible to other processes: this password lives until the first contact replaces it.
            password, cluster = secrets.token_hex(24), cluster_id()
            write_secret(self._first_password, password.encode())
            for properties in files:
                self._format(properties, password, cluster)
        elif formatted != [number <= len(files) for number in range(1, 4)]:
            raise StackError(
                f"{self._folder}: expected the storage of {len(files)} brokers, found that of {sum(formatted)}",
                hint="what is missing was lost: `bus stack down --purge`",
            )

    def _has_storage(self, number: int) -> bool:
        return (self._node_folder(number) / "data" / "meta.properties").is_file()

    def _format(self, properties: Path, password: str, cluster: str) -> None:
        run = [str(self._java), *self._loaded(), "-cp", f"{self._jars}/*"]
        tool = [*run, "kafka.tools.StorageTool", "format", "-c", str(properties)]
        scram = f"SCRAM-SHA-512=[name={ADMIN},password={password}]"
        told = subprocess.run(
            [*tool, "-t", cluster, "--add-scram", scram],
            capture_output=True,
            text=True,
            check=False,
            timeout=START_TIMEOUT,
        )
        if told.returncode:
            raise StackError(f"formatting the broker's storage failed:\n{told.stderr[-2000:]}")

    def _wait(self, connection: Connection) -> None:
        client = AdminClient(connection.config(reconnect_backoff_max_ms=200))
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            for daemon in self.daemons:
                if daemon.find() is None:
                    raise StackError(f"the broker ended while starting:\n{daemon.tail()}")
            try:
                if len(client.list_topics(timeout=1).brokers) == len(self.daemons):
                    return
            except KafkaException:
                client.poll(0)  # serves the error callback
                connection.check()
            if time.monotonic() > deadline:
                raise StackError(
                    f"the broker was not ready after {START_TIMEOUT:.0f} s:\n{self.daemons[0].tail()}"
                ) from None
            time.sleep(0.05)


def _realm(kerberos: Kerberos | None) -> list[str]:
    """Java looks for krb5.conf elsewhere than libkrb5, unless told."""
    file = os.environ.get("KRB5_CONFIG", "/etc/krb5.conf")
    return [] if kerberos is None else [f"-Djava.security.krb5.conf={file}"]


def first_contact(
    layout: Layout,
    bootstrap: str,
    first: Path,
    wait: Callable[[Connection], None],
    shown: CertificateFile | None = None,
) -> Connection:
    """Replace the admin's password in ``first``, known from formatting, once; returns the admin's connection.

    ``wait`` returns when the broker answers.
    """
    folder = layout.service(ADMIN)
    if first.exists():
        identity = Identity(ADMIN, Secret(read_secret(first), "first password"))
        connection = Connection(bootstrap, layout.ca, identity, certificate=shown)
        wait(connection)
        set_password(AdminClient(connection.config()), folder, ADMIN)
        first.unlink()
    connection = Connection(bootstrap, layout.ca, read_identity(folder, ADMIN), certificate=shown)
    wait(connection)
    return connection


def cluster_id() -> str:
    """A fresh cluster id: 16 bytes in URL-safe base64 without padding, as Kafka prints its own.

    Like Kafka's own it does not begin with a dash: the storage tool would read it as an option.
    """
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return text
