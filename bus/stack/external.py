"""A broker that someone else runs: what its operator must have given, and whether it can be reached with that.

Nothing of it is started, stopped or removed here. Its operator gives two files: the CA that signed its certificate and
a credential that may administer it.
"""

from __future__ import annotations

import socket
import ssl
import time
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from bus.codes import Code
from bus.errors import AccessRefused, Refused, SettingsError, StackError, Unavailable
from bus.files import Layout
from bus.kafka.config import Connection
from bus.kafka.identity import read_identity
from bus.stack.server import ADMIN

CONNECT_TIMEOUT: Final = 5.0
ANSWER_TIMEOUT: Final = 30.0


def require_operator_files(layout: Layout) -> None:
    """Raise SettingsError without the CA's certificate, Refused(credential) without the administrator's credential."""
    if not layout.ca.is_file():
        raise SettingsError(
            f"external broker: no CA certificate: {layout.ca}",
            hint="ask the broker's operator for the CA that signed its certificate, in PEM",
        )
    credential = layout.service(ADMIN) / "scram"
    if not credential.is_file():
        raise Refused(
            f"external broker: no administrator's credential: {credential}",
            code=Code.CREDENTIAL,
            hint='ask the broker\'s operator for it: {"username": "…", "password": "…"}, SCRAM-SHA-512, mode 0600',
        )
    read_identity(layout.service(ADMIN), ADMIN)


def reach(connection: Connection, nodes: int = 1) -> None:
    """Return once the broker answers the administrator, with at least so many ``nodes``.

    Raises Unavailable where nobody does, StackError for a certificate of another CA, AccessRefused for the credential.
    """
    try:
        tls_version(connection.bootstrap, connection.ca)
    except ssl.SSLError as error:
        raise StackError(
            f"the broker at {connection.bootstrap} does not prove itself: {error.args[-1]}",
            hint=f"is {connection.ca} the CA of that broker? ask its operator",
        ) from error
    except OSError as error:
        raise _silent(connection, error) from error
    client = AdminClient(connection.config(reconnect_backoff_max_ms=200))
    deadline = time.monotonic() + ANSWER_TIMEOUT
    while True:
        try:
            if len(client.list_topics(timeout=1).brokers) >= nodes:
                return
            failure: object = f"fewer than {nodes} nodes"
        except KafkaException as error:
            failure = error.args[0]
            client.poll(0)  # serves the error callback
            try:
                connection.check()
            except AccessRefused as refused:
                refused.hint = "ask the broker's operator for the administrator's credential of now"
                raise
        if time.monotonic() > deadline:
            raise _silent(connection, failure)
        time.sleep(0.05)


def _silent(connection: Connection, error: object) -> Unavailable:
    return Unavailable(
        f"the broker at {connection.bootstrap} does not answer: {error}",
        hint="is the address right, and is the broker up? it is not this stack's to start",
    )


def tls_version(bootstrap: str, ca: Path, newest: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> str:
    """The TLS version of the first address that answers, where no newer one than ``newest`` is offered.

    Raises OSError where none does, SSLError for its proof.
    """
    context = ssl.create_default_context(cafile=str(ca))
    context.maximum_version = newest
    failure: OSError = OSError("no address")
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            with (
                socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT) as raw,
                context.wrap_socket(raw, server_hostname=host) as tls,
            ):
                return tls.version() or "none"
        except ssl.SSLError:
            raise
        except OSError as error:
            failure = error
        except ValueError:
            raise SettingsError(f"bootstrap: expected HOST:PORT, found {address!r}") from None
    raise failure
