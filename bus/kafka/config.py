"""Client configuration: who connects, over what, and what a client does about errors.

Every client speaks SASL_SSL. librdkafka retries a wrong password for ever and prints to stderr; here its log goes to
the stdlib logger ``bus.kafka`` and a failed authentication is kept in ``Connection.failure`` for whoever waits.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from bus.codes import Code
from bus.crypto.keys import Secret
from bus.errors import AccessRefused, BusError, Expired, Refused, Unavailable
from bus.files import ENROLLED, NO_STAMP, Layout, Stamp
from bus.kafka.certificate import CertificateFile
from bus.kafka.identity import Client, Identity, PasswordFile, TokenFile, read_identity
from bus.kafka.kerberos import Keytab
from bus.settings import Issuing, Mechanism, Settings
from bus.wire.derived import MAX_VALUE

log = logging.getLogger("bus.kafka")

ALERT: Final = re.compile(r"SSL alert number (\d+)")
CERTIFICATE_ALERTS: Final = frozenset({40, 42, 43, 44, 45, 46, 48, 116})
"""RFC 8446, section 6: handshake failure, six ways of not liking a certificate, certificate required."""
FETCH_WAIT_MS: Final = 250
"""How long a broker holds a fetch while nothing comes. What comes ends it at once; partitions that are assigned
meanwhile wait for it, and so does the end of a topic. Shorter, an idle client costs the broker more."""
FRAMING = 512
"""Bytes that Kafka's record and batch framing may add to the largest value."""

CREDENTIAL_ERRORS = frozenset({KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED})
ACL_ERRORS = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "group",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "cluster",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "transactional id",
}


def is_fatal(error: KafkaError) -> bool:
    """Whether the client that told ``error`` is of no more use; error callbacks carry only the code."""
    return bool(error.fatal()) or error.code() == KafkaError._FATAL


def _of_certificate(error: KafkaError) -> bool:
    """Whether a broker ended a connection for its client certificate: librdkafka tells TLS alerts in words alone."""
    found = ALERT.search(error.str()) if error.code() in (KafkaError._TRANSPORT, KafkaError._SSL) else None
    return found is not None and int(found[1]) in CERTIFICATE_ALERTS


@dataclass(slots=True)
class Connection:
    """What clients of one identity share; ``failure`` is set by librdkafka's error callback."""

    bootstrap: str
    ca: Path
    identity: Identity | PasswordFile | TokenFile | Keytab
    failure: BusError | None = None
    certificate: CertificateFile | None = None
    _shown: Stamp = NO_STAMP
    _waiting: str = ""

    @property
    def password(self) -> Secret:
        """The password of an identity that has one. Raises Refused(credential)."""
        if not isinstance(self.identity, Identity):
            raise Refused(f"{self.identity.principal} has no password, but a token", code=Code.CREDENTIAL)
        return self.identity.password

    def config(self, **more: Any) -> dict[str, Any]:
        """librdkafka settings; keyword ``a_b`` stands for ``a.b``.

        Raises Refused(credential) or Expired where the client certificate is of no use.
        """
        certificate = {}
        if self.certificate is not None:
            self._shown, certificate = self.certificate.stamp(), self.certificate.settings()
        return {
            "bootstrap.servers": self.bootstrap,
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self.ca),
            **self.identity.sasl(),
            **certificate,
            "client.id": self.identity.principal,
            "logger": log,
            "error_cb": self.on_error,
            "allow.auto.create.topics": False,
            # The client's own default refuses values that the topics take: the largest bundle is above 1,000,000 bytes.
            "message.max.bytes": MAX_VALUE + FRAMING,
            "broker.address.family": "v4",
            "reconnect.backoff.max.ms": 2000,
            **{key.replace("_", "."): value for key, value in more.items()},
        }

    def on_error(self, error: KafkaError) -> None:
        """librdkafka's error callback: keep what is final, log the rest."""
        # A connection that broke while it authenticated has the same code as a refusal; only its text says "Local:".
        if error.code() in CREDENTIAL_ERRORS and "Local:" not in error.str():
            if isinstance(self.identity, Keytab):
                why, final = self.identity.reason(error.str())
                self._waiting = f"no Kerberos ticket that the broker takes: {why}"
                if final:
                    self.failure = self.ticket_error(why)
            elif self.identity.rejected():
                self.failure = self.credential_error()
        elif _of_certificate(error) and self._ends_here():
            self.failure = self.certificate_error()
        log.debug("%s: %s", self.identity.principal, error)

    def ticket_error(self, why: str) -> AccessRefused:
        """No ticket that lets this identity in; ``why`` is libkrb5's own word."""
        return self._unknown(
            f"{self.identity.principal}: no Kerberos ticket that the broker takes: {why}",
            "is the keytab the one of now, and is the principal in the realm and not locked?",
        )

    def stamp(self) -> Stamp:
        """Which client certificate a client that is made now shows; for ``newer``."""
        return self.certificate.stamp() if self.certificate is not None else NO_STAMP

    def word(self) -> Stamp:
        """Which password a client that is made now shows; for ``follow``."""
        return self.identity.stamp() if isinstance(self.identity, PasswordFile) else NO_STAMP

    def follow(self, client: Client, word: Stamp) -> Stamp:
        """Give ``client`` the password of now where it was replaced since ``word``; returns which one it has."""
        if not isinstance(self.identity, PasswordFile) or (now := self.identity.stamp()) in (word, NO_STAMP):
            return word
        try:
            self.identity.give(client)
        except Refused:
            return word
        return now

    def newer(self, stamp: Stamp) -> bool:
        """Whether there is another client certificate than that of ``stamp``, and it is of use."""
        if self.certificate is None or self.certificate.stamp() in (stamp, NO_STAMP):
            return False
        try:
            self.certificate.settings()
        except Refused:
            return False
        return True

    def _ends_here(self) -> bool:
        """Whether a refused certificate is final. Agents wait for the next one, as for a token, and make new clients
        then; services make none, and are started again with it.
        """
        if self.certificate is None or self.identity.principal.startswith("bus-"):
            return True
        try:
            self.certificate.settings()
        except Expired:
            self._waiting = "its client certificate has ended: does the issuer run?"
            return False
        except Refused:
            return True
        return not self.newer(self._shown)

    def certificate_error(self) -> AccessRefused:
        """The broker refuses this identity's client certificate, or that there is none."""
        shown = "has none" if self.certificate is None else "showed one that ended or is of another CA"
        return self._unknown(
            f"the broker asks for a client certificate, and {self.identity.principal} {shown}",
            'is mode = "production" set on both sides? services: `bus stack up`, then `bus stack restart`',
        )

    def credential_error(self) -> AccessRefused:
        """The broker refuses this identity."""
        return self._unknown(
            f"the broker refused the credential of {self.identity.principal}",
            "the credential was replaced or the user is gone: `bus doctor`, `bus policy apply`",
        )

    def _unknown(self, message: str, hint: str) -> AccessRefused:
        """The broker does not take it for whom it says."""
        return AccessRefused(
            message,
            principal=self.identity.principal,
            operation="authenticate",
            resource=self.bootstrap,
            code=Code.CREDENTIAL,
            hint=hint,
        )

    def check(self) -> None:
        """Raise what the error callback kept."""
        if self.failure is not None:
            raise self.failure

    def typed(self, error: KafkaError, operation: str, resource: str) -> BusError:
        """``error`` as the SDK's own: AccessRefused for ACLs and credentials, Unavailable for the rest."""
        code = error.code()
        if code in ACL_ERRORS:
            return AccessRefused(
                f"{self.identity.principal} may not {operation} {ACL_ERRORS[code]} {resource}: refused by the broker",
                principal=self.identity.principal,
                operation=operation,
                resource=resource,
                hint="the policy decides who may: `bus policy plan`",
            )
        if code in CREDENTIAL_ERRORS:
            return self.credential_error()
        return self.unavailable(f"{operation} {resource}: {error.str()}")

    def unavailable(self, what: str) -> Unavailable:
        """``what`` did not go, with the reason that librdkafka told last, where it told one that may pass."""
        return Unavailable(
            f"{what}: {self._waiting}" if self._waiting else what, hint="is the broker up? `bus stack status`"
        )

    def partitions(self, consumer: Consumer, topic: str, timeout: float) -> list[int]:
        """The partitions of a topic that is to be read. Raises what ``typed`` says where the broker does not tell them:
        none at all would look like a topic in which nothing is."""
        try:
            told = consumer.list_topics(topic, timeout).topics[topic]
        except KafkaException as failed:
            raise self.typed(failed.args[0], "read", topic) from failed
        if told.error is not None:
            raise self.typed(told.error, "read", topic)
        return sorted(told.partitions)

    def bounds(self, consumer: Consumer, topic: str, partition: int, timeout: float) -> tuple[int, int]:
        """The offsets that a partition begins with, and that its next record will have. Raises as ``partitions``."""
        try:
            first, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout)
            return int(first), int(end)
        except KafkaException as failed:
            raise self.typed(failed.args[0], "read", topic) from failed


def connect(settings: Settings, principal: str) -> Connection:
    """What ``principal`` connects with: an agent by the mechanism that ``settings`` name, a service by its password.

    A client with a token takes a second to make, and an enforcer makes several before it goes on after a failure.
    Raises Refused(credential) or Expired where it has nothing to show.
    """
    layout = Layout(settings.state)
    service = layout.principal(principal) == layout.service(principal)
    identity: Identity | PasswordFile | TokenFile | Keytab
    if settings.rotates and not service:
        identity = PasswordFile(principal, layout.agent(principal))
        identity.sasl()
    elif service or settings.sasl_mechanism is Mechanism.SCRAM:
        identity = read_identity(layout.principal(principal), principal)
    elif settings.sasl_mechanism is Mechanism.KERBEROS:
        identity = Keytab(principal, layout.keytab(principal), settings.kerberos_service)
        identity.check()
    else:
        identity = TokenFile(principal, layout.token(principal))
        identity.read()
    return Connection(settings.bootstrap, layout.ca, identity, certificate=shown_by(settings, principal))


def shown_by(settings: Settings, principal: str) -> CertificateFile | None:
    """The client certificate of ``principal``, None in development. Raises Refused(credential) or Expired."""
    if not settings.client_certificates:
        return None
    layout = Layout(settings.state)
    path = layout.certificate(principal)
    if settings.issuing is Issuing.AUTHORITY and path.parent == layout.agent(principal):
        path = path.with_name(ENROLLED)
    certificate = CertificateFile(principal, path)
    certificate.settings()
    return certificate
