"""Attacks on the broker's door: topics that ACLs close, bytes that an uncleared agent may not open, wrong credentials,
connections without TLS 1.3. Each is tried once, beside the same with what is right.
"""

from __future__ import annotations

import dataclasses
import os
import socket
import ssl
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException, Message

from bus.codes import Code
from bus.crypto.keys import Secret
from bus.errors import Refused, StackError
from bus.kafka.config import ACL_ERRORS, Connection, connect
from bus.kafka.identity import Identity, PasswordFile, TokenFile
from bus.kafka.whole import whole
from bus.stack.external import tls_version
from bus.stack.local import Stack
from bus.wire.names import domain_topics
from demo.credentials import OldToken
from demo.hops import by_place
from demo.raw import RawClient, judged
from probe.forged import Forge
from probe.found import CLOSED, TAKEN, Row, tried
from probe.outcomes import READ_S, write
from probe.replay import opened_by, stored
from probe.scene import Way

OLD_TLS: Final = "TLSV1_ALERT_PROTOCOL_VERSION"
TOO_LARGE: Final = "MSG_SIZE_TOO_LARGE"
ABOVE: Final = 1_100_000
"""Bytes: more than a topic takes."""
ASK: Final = bytes.fromhex("0000000a00120000000000010000")
"""Kafka's ApiVersions request, version 0, correlation id 1: answered before anybody has said who they are."""
ANSWER: Final = bytes.fromhex("00000001")
SOCKET_S: Final = 5.0


def attacks(forge: Forge, since: int) -> Iterator[Row]:
    """Every attack on the door that the scene has what it needs for."""
    yield from _writing(forge)
    yield from _reading(forge, since)
    yield from _credentials(forge)
    yield from _connections(forge.stack)


def _row(
    attack: str, by: str, expected: str, attempt: Callable[[], str], control: str, beside: Callable[[], str]
) -> Row:
    """Try both; the control must be taken."""
    answer, words, _ = tried(beside)
    found, seen, ms = tried(attempt)
    told = words if answer == TAKEN else f"{answer}: {words}"
    return Row(attack, by, expected, found, seen, ms, control, told, answer == TAKEN)


def _put(client: RawClient, topic: str, value: bytes) -> str:
    """Write ``value``. Raises what the broker says."""
    try:
        return f"stored in {topic} at {client.produce(topic, value)}"
    except KafkaException as error:
        if error.args[0].code() in ACL_ERRORS:
            raise client.connection.typed(error.args[0], "write", topic) from error
        raise


def _writing(forge: Forge) -> Iterator[Row]:
    scene, agent = forge.scene, forge.agent
    topics = domain_topics(scene.own.domain.name)
    own = partial(_put, agent, topics.inbound, forge.shot().value)
    control = f"the same client writes {topics.inbound}"
    yield _row(
        f"writes {topics.outbound} itself",
        scene.agent,
        Code.ACL,
        partial(_put, agent, topics.outbound, b"forged"),
        control,
        own,
    )
    if scene.unwritable is not None:
        topic = domain_topics(scene.unwritable.domain.name).inbound
        again = partial(_put, agent, topics.inbound, forge.shot().value)
        yield _row(f"writes {topic}", scene.agent, Code.ACL, partial(_put, agent, topic, b"forged"), control, again)
    wide = RawClient(forge.stack, scene.agent, message_max_bytes=2 * ABOVE)
    large = partial(_put, wide, topics.inbound, os.urandom(ABOVE))
    again = partial(_put, wide, topics.inbound, forge.shot().value)
    yield _row(f"{ABOVE:,} bytes in {topics.inbound}", scene.agent, TOO_LARGE, large, control, again)


def _got(connection: Connection, topic: str, since: int) -> list[Message]:
    return list(whole(connection, topic, connection.identity.principal, READ_S, since))


def _read(connection: Connection, topic: str, since: int) -> str:
    """Read what was written since then. Raises what the broker says, StackError where nothing comes."""
    if not (got := _got(connection, topic, since)):
        raise StackError(f"no record of this run came from {topic}")
    return f"{len(got)} records read"


def _reading(forge: Forge, since: int) -> Iterator[Row]:
    scene, agent = forge.scene, forge.agent.connection
    topic = domain_topics(scene.own.domain.name).inbound
    attempt, beside = (partial(_read, each, topic, since) for each in (agent, forge.operator.connection))
    yield _row(f"reads {topic}", scene.agent, Code.ACL, attempt, "the operator reads it", beside)
    if (way := scene.unreadable) is not None:
        outbound = domain_topics(way.domain.name).outbound
        reader = connect(forge.stack.settings, way.reader)
        place = write(forge.made(way, way.writer)).place
        by_place(forge.stack, [place] if place is not None else [], since)
        attempt, beside = (partial(_read, each, outbound, since) for each in (agent, reader))
        yield _row(f"reads {outbound}", scene.agent, Code.ACL, attempt, f"{way.reader} reads it", beside)
        yield _row(
            f"opens what stands in {outbound}",
            scene.agent,
            Code.OPEN,
            partial(_open, forge, way, scene.agent, since),
            f"the keys of {way.reader}",
            partial(_open, forge, way, way.reader, since),
        )


def _open(forge: Forge, way: Way, agent: str, since: int) -> str:
    """All keys in the folder of ``agent`` on stored bytes. Raises Refused (open) where they open nothing."""
    topic = domain_topics(way.domain.name).outbound
    values = [stored(way.domain.name, each) for each in _got(forge.operator.connection, topic, since)]
    if not (opened := opened_by(forge.stack, agent, values)):
        raise Refused(f"{len(values)} bundles, and its keys open none of their records", code=Code.OPEN)
    return f"{len(opened)} records opened"


def _credentials(forge: Forge) -> Iterator[Row]:
    right, agent = forge.agent.connection, forge.scene.agent
    with_password = right if isinstance(right.identity, Identity | PasswordFile) else forge.operator.connection
    name = with_password.identity.principal
    wrong = Identity(name, Secret(os.urandom(16).hex().encode(), f"{name} password"))
    attempt = partial(_asked, dataclasses.replace(with_password, identity=wrong))
    yield _row("a wrong password", name, Code.CREDENTIAL, attempt, "its own", partial(_asked, with_password))
    if isinstance(right.identity, TokenFile):
        taken = partial(_asked, right)
        with tempfile.TemporaryDirectory() as folder:
            token = OldToken(agent, Path(folder) / "token")
            token.path.write_text(_changed(right.identity.read()[0]))
            attempt = partial(_asked, dataclasses.replace(right, identity=token))
            yield _row("a token with another signature", agent, Code.CREDENTIAL, attempt, "the token as it is", taken)


def _changed(token: str) -> str:
    """``token`` with another first character of its signature."""
    signed, _, signature = token.rpartition(".")
    return f"{signed}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def _asked(connection: Connection) -> str:
    """Let the broker judge a credential. Raises what it says."""
    if (told := judged(connection)) != TAKEN:
        connection.check()
        raise connection.unavailable(f"the broker gave {told}")
    return "the broker answers"


def _connections(stack: Stack) -> Iterator[Row]:
    connection = stack.admin_connection()
    bare, sealed = partial(_ask, connection, tls=False), partial(_ask, connection, tls=True)
    yield _row("a connection without TLS", "anybody", CLOSED, bare, "the same request over TLS", sealed)
    shake = partial(tls_version, connection.bootstrap, connection.ca)
    old, new = (partial(shake, each) for each in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3))
    yield _row("a connection with TLS 1.2", "anybody", OLD_TLS, old, "the same with TLS 1.3", new)


def _ask(connection: Connection, *, tls: bool) -> str:
    """One request and the beginning of its answer. Raises ConnectionError where none comes."""
    host, _, port = connection.bootstrap.partition(",")[0].rpartition(":")
    with socket.create_connection((host, int(port)), SOCKET_S) as plain:
        if tls:
            context = ssl.create_default_context(cafile=str(connection.ca))
            if connection.certificate is not None:
                context.load_cert_chain(connection.certificate.path)
            with context.wrap_socket(plain, server_hostname=host) as wrapped:
                return _answered(wrapped)
        return _answered(plain)


def _answered(channel: socket.socket) -> str:
    channel.sendall(ASK)
    answer = channel.recv(4 + len(ANSWER))
    if answer[4:] != ANSWER:
        raise ConnectionAbortedError("ended by a TLS alert" if answer[:1] == b"\x15" else "ended without an answer")
    return "Kafka answers"
