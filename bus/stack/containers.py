"""A deployment in containers: what the one-shot services of docker-compose.yml do (`bus stack container`).

The state folder is made of volumes; which container sees which of them stands in docker-compose.yml. Both steps may run
again: what is there stays.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
from pathlib import Path
from typing import Final

from bus.authority import rpc
from bus.authority.clientcerts import KEY as CLIENTS_KEY
from bus.authority.clientcerts import ensure_clients_ca
from bus.authority.enrolment import ensure_authority_files
from bus.authority.local import now_ms
from bus.authority.tokenkeys import ensure_token_keys
from bus.authority.tokens import audience
from bus.errors import SettingsError, StackError
from bus.files import Layout, make_folder, read_secret, write_file, write_secret
from bus.kafka.config import shown_by
from bus.settings import BrokerSource, Issuing, Mechanism, Settings, load
from bus.stack.broker import cluster_id, first_contact
from bus.stack.external import reach
from bus.stack.local import Say, Stack, write_settings
from bus.stack.pki import ensure_pki, issue_server
from bus.stack.server import ADMIN, LOG4J, LOOPBACK, Node, Ports, Tokens, properties_file, server_properties

PORTS: Final = Ports(agents=9092, internal=9093, controller=9094)
AUTHORITY_HOST: Final = "authority"
AUTHORITY_PORTS: Final = (7443, 7444)
"""Of the authority, where it takes the issuer's place: for who has a certificate, and for who enrols."""
BROKER_FOLDER: Final = Path("/state/kafka")
"""Where each node's container has its own volume."""
JWKS: Final = Path("/state/jwks/jwks.json")
"""Where the issuer publishes and each node reads the keys of tokens."""


def nodes(brokers: int) -> list[Node]:
    """The nodes by their service names. What they say among themselves stays off the agents' networks."""
    return [
        Node(
            number,
            PORTS,
            host="broker" if number == 1 else f"broker-{number}",
            bind="0.0.0.0",  # noqa: S104  # one address in each agents' network; this listener asks for TLS and SCRAM
            peer=LOOPBACK if brokers == 1 else f"peer-{number}",
        )
        for number in range(1, brokers + 1)
    ]


def first_folder(layout: Layout) -> Path:
    """What the nodes are formatted with: ``cluster``, and ``password`` until the first contact."""
    return layout.state / "first"


def prepare(settings: Settings, say: Say) -> None:
    """Make everything that is there before a broker is."""
    layout = Layout(settings.state)
    if settings.sasl_mechanism is not Mechanism.OAUTHBEARER:
        raise SettingsError(
            "sasl_mechanism: in containers agents come with tokens",
            hint="unset BUS_SASL_MECHANISM",
        )
    if settings.client_certificates and settings.issuing is Issuing.AUTHORITY:
        # Whoever applies signs certificates of services, and must not hold the key of the agents' CA.
        raise SettingsError(
            "mode: in containers an authority runs in development alone",
            hint="unset BUS_MODE, or leave docker-compose.authority.yml out",
        )
    members = nodes(settings.brokers)
    if layout.settings.is_file():
        held = load({"BUS_CONFIG": str(layout.settings)})
        if held.brokers != settings.brokers:
            raise StackError(
                f"these volumes are of {held.brokers} brokers, not {settings.brokers}", hint="docker-compose down -v"
            )
        settings = dataclasses.replace(settings, deployment=held.deployment)
    settings = dataclasses.replace(
        settings,
        deployment=settings.deployment or os.urandom(16).hex(),
        broker=BrokerSource.EXTERNAL,
        bootstrap=",".join(f"{each.host}:{PORTS.agents}" for each in members),
    )
    if settings.issuing is Issuing.AUTHORITY:
        leases, enrolment = AUTHORITY_PORTS
        settings = dataclasses.replace(
            settings,
            authority=f"0.0.0.0:{leases}",
            enrolment=f"0.0.0.0:{enrolment}",
            authority_addresses=f"{AUTHORITY_HOST}:{leases}",
        )
    write_settings(settings, layout.settings)
    # 1. Certificates: the CA's key stays here, each node gets the broker's, everybody the CA's certificate.
    authority = layout.state / "ca"
    ensure_pki(authority, [name for each in members for name in (each.host, each.peer) if name != LOOPBACK])
    make_folder(layout.ca.parent, 0o711)
    write_file(layout.ca, (authority / "ca.pem").read_bytes())
    # 2. Each node's settings, and what it is formatted with.
    stack = Stack(settings)
    policy = stack.load_policy()
    if settings.client_certificates:
        ensure_clients_ca(layout, settings.deployment_id, now_ms())
    minutes = max(policy.backlog_horizon_ms // 60_000, 1)
    tokens = Tokens(JWKS, audience(settings.deployment_id), settings.max_clock_skew_ms)
    for each in members:
        folder = make_folder(layout.state / "nodes" / str(each.number))
        told = server_properties(
            each,
            members,
            BROKER_FOLDER / "data",
            BROKER_FOLDER / "pki",
            minutes,
            session_ms=policy.rotation_interval_ms,
            tokens=tokens,
            clients=BROKER_FOLDER / "pki" / "clients.pem" if settings.client_certificates else None,
        )
        write_file(folder / "server.properties", properties_file(told), 0o600)
        write_file(folder / "log4j2.properties", LOG4J.encode(), 0o600)
        write_file(folder / "java.options", "\n".join(tokens.options()).encode(), 0o600)
        pki = make_folder(folder / "pki")
        write_file(pki / "ca.pem", layout.ca.read_bytes())
        if settings.client_certificates:
            write_file(pki / "clients.pem", layout.clients_ca.read_bytes())
        write_secret(pki / "broker.pem", read_secret(authority / "broker.pem"))
    first = make_folder(first_folder(layout))
    if not (first / "cluster").exists():
        write_secret(first / "password", secrets.token_hex(24).encode())
        write_file(first / "cluster", cluster_id().encode(), 0o600)
    # 3. Signers, the wrapping key, trust. The issuer and the audit get their own signer and no other.
    stack.ensure_identities(policy)
    held_by = [("issuer", "issuer"), ("issuer", "session"), ("audit", "ledger")]
    if settings.client_certificates:
        held_by.append(("issuer", CLIENTS_KEY))
    for service, signer in held_by:
        own = make_folder(layout.state / "signers-of" / service)
        write_secret(own / f"{signer}.key", read_secret(layout.signer(signer)))
    if settings.issuing is Issuing.AUTHORITY:
        ensure_authority_files(layout, settings.deployment_id, lambda: issue_server(authority, rpc.SERVER_NAME))
    ensure_token_keys(layout.state / "signers-of" / "issuer" / "tokens.key", layout.jwks, now_ms())
    say(f"prepared  {settings.bootstrap}")


def apply(settings: Settings, say: Say) -> None:
    """Take the broker over from the password that it was formatted with, and apply the policies."""
    layout = Layout(settings.state)
    Stack(settings).ensure_clients()
    first_contact(
        layout,
        settings.bootstrap,
        first_folder(layout) / "password",
        lambda each: reach(each, settings.brokers),
        shown_by(settings, ADMIN),
    )
    Stack(settings).up(say, services=False)


def enrol(settings: Settings, say: Say) -> None:
    """Enrol the agents of the policies whose folders hold no identity yet."""
    stack = Stack(settings)
    policy = stack.load_policy()
    stack.enrol_here(policy)
    say(f"enrolled  {len(policy.agents)} agents")
