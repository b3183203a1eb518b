"""What a Kafka node is told: server.properties of one combined KRaft node, or of each of three, and its logging.

Listeners: AGENTS (SASL_SSL: SCRAM-SHA-512, OAUTHBEARER with a JWKS, GSSAPI with a keytab), INTERNAL and CONTROLLER
(SSL). The latter ask for a client certificate, outside development all do. There is no plaintext listener, TLS is 1.3
only, nobody may do anything without an ACL. Pure: the local stack and the containers run the same settings on other
addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bus.authority.tokens import ISSUER
from bus.stack.pki import BROKER_NAME

MAX_REQUEST: Final = 2 * 1024 * 1024
MIN_SESSION_MS: Final = 2000
"""Kafka refuses to authenticate again within a second; clients do so after nine tenths of a session."""
MAX_SESSION_MS: Final = 600_000
ADMIN: Final = "bus-admin"
MAIN_CLASS: Final = "kafka.Kafka"
LOOPBACK: Final = "127.0.0.1"

LOG4J: Final = """
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
    """TCP ports of one node."""

    agents: int
    internal: int
    controller: int


@dataclass(frozen=True, slots=True)
class Node:
    """One node. ``host`` is what agents are told, ``bind`` where it listens for them, ``peer`` all of its other end."""

    number: int
    ports: Ports
    host: str = LOOPBACK
    bind: str = LOOPBACK
    peer: str = LOOPBACK


@dataclass(frozen=True, slots=True)
class Tokens:
    """Which tokens a node takes: of ``audience``, by a key in the file ``jwks``, with times within ``skew_ms``.

    The file is read again when its time changes. Kafka takes no other URL and no other file than this one.
    """

    jwks: Path
    audience: str
    skew_ms: int

    def properties(self) -> dict[str, str]:
        """The settings of the agents' listener."""
        security = "org.apache.kafka.common.security.oauthbearer"
        mechanism = "listener.name.agents.oauthbearer.sasl"
        return {
            f"{mechanism}.jaas.config": f"{security}.OAuthBearerLoginModule required ;",
            f"{mechanism}.server.callback.handler.class": f"{security}.OAuthBearerValidatorCallbackHandler",
            f"{mechanism}.oauthbearer.jwks.endpoint.url": self.jwks.as_uri(),
            f"{mechanism}.oauthbearer.expected.audience": self.audience,
            f"{mechanism}.oauthbearer.expected.issuer": ISSUER,
            f"{mechanism}.oauthbearer.clock.skew.seconds": str(self.skew_ms // 1000),
        }

    def options(self) -> list[str]:
        """The Java options that go with them."""
        stem = "-Dorg.apache.kafka.sasl.oauthbearer.allowed"
        return [f"{stem}.urls={self.jwks.as_uri()}", f"{stem}.files={self.jwks}"]


@dataclass(frozen=True, slots=True)
class Kerberos:
    """Which tickets a node takes: of ``service``/<its host>@``realm``, whose key stands in ``keytab``.

    ``agent/<id>@realm`` is ``User:<id>``; no other principal is anybody. Kafka's rule ``DEFAULT`` must not be there: it
    takes the first component alone.
    """

    keytab: Path
    service: str
    realm: str

    def properties(self, host: str) -> dict[str, str]:
        """The settings of the agents' listener of a node that agents know as ``host``."""
        realm = self.realm.replace(".", "\\.")
        rule = rf"RULE:[2:$1.$2@$0](agent\.[a-z0-9_-]+@{realm})s/^agent\.(.*)@.*$/$1/"
        return {
            "listener.name.agents.sasl.kerberos.service.name": self.service,
            "listener.name.agents.sasl.kerberos.principal.to.local.rules": rule,
            "listener.name.agents.gssapi.sasl.jaas.config": (
                "com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true storeKey=true doNotPrompt=true "
                f'keyTab="{self.keytab}" principal="{self.service}/{host}@{self.realm}";'
            ),
        }


def server_properties(
    node: Node,
    nodes: Sequence[Node],
    data: Path,
    pki: Path,
    retention_minutes: int,
    *,
    session_ms: int = MAX_SESSION_MS,
    tokens: Tokens | None = None,
    clients: Path | None = None,
    kerberos: Kerberos | None = None,
) -> dict[str, str]:
    """The settings of ``node`` among ``nodes``: everything is kept once on one node, three times on three.

    Whoever authenticated does so again within ``session_ms``, or is cut off. With ``clients``, the certificate of a CA,
    agents and services show a certificate of it, and of no other, before anything else.
    """
    mechanisms = ["SCRAM-SHA-512", *(["OAUTHBEARER"] if tokens is not None else [])]
    mechanisms += ["GSSAPI"] if kerberos is not None else []
    replicas, in_sync = str(len(nodes)), str(max(1, len(nodes) - 1))
    inside = f"INTERNAL://{node.peer}:{node.ports.internal}"
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.number),
        "controller.quorum.voters": ",".join(f"{each.number}@{each.peer}:{each.ports.controller}" for each in nodes),
        "listeners": (
            f"AGENTS://{node.bind}:{node.ports.agents},{inside},CONTROLLER://{node.peer}:{node.ports.controller}"
        ),
        "advertised.listeners": f"AGENTS://{node.host}:{node.ports.agents},{inside}",
        "listener.security.protocol.map": "AGENTS:SASL_SSL,INTERNAL:SSL,CONTROLLER:SSL",
        "inter.broker.listener.name": "INTERNAL",
        "controller.listener.names": "CONTROLLER",
        "listener.name.agents.sasl.enabled.mechanisms": ",".join(mechanisms),
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
        "connections.max.reauth.ms": str(min(max(session_ms, MIN_SESSION_MS), MAX_SESSION_MS)),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": f"User:CN={BROKER_NAME};User:{ADMIN}",
        "auto.create.topics.enable": "false",
        "log.dirs": str(data),
        "log.message.timestamp.type": "LogAppendTime",
        "num.partitions": "1",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "offsets.topic.num.partitions": "4",
        "offsets.retention.minutes": str(retention_minutes),
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": "4",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": "1",
        "group.initial.rebalance.delay.ms": "0",
        # A broker allocates what a request announces before its bytes come: with the default of 100 MB a dozen
        # connections end it. The largest honest request is one batch. (queued.max.request.bytes would let 128 silent
        # connections stop everyone instead.)
        "socket.request.max.bytes": str(MAX_REQUEST),
        **(tokens.properties() if tokens is not None else {}),
        **(kerberos.properties(node.host) if kerberos is not None else {}),
        **(_asked_for(clients) if clients is not None else {}),
    }


def _asked_for(clients: Path) -> dict[str, str]:
    return {
        "listener.name.agents.ssl.client.auth": "required",
        "listener.name.agents.ssl.truststore.type": "PEM",
        "listener.name.agents.ssl.truststore.location": str(clients),
    }


def properties_file(properties: dict[str, str]) -> bytes:
    """``properties`` as the file that Kafka reads."""
    lines = (f"{key}={value}\n".replace("\\", "\\\\") for key, value in properties.items())
    return "".join(lines).encode()
