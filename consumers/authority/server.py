"""gRPC shell of the authority: TLS, limits, errors to status codes. Decides nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Self, TypeVar

from bus.authority import rpc
from bus.authority.ca import certified_key
from bus.authority.handed import hand
from bus.authority.rpc import authority_v1_pb2 as pb
from bus.authority.service import AuthorityService, Certified
from bus.errors import BusError, Refused, RetryLater, StackError

import grpc  # isort: skip  # bus.authority.rpc loads it, and says which TLS it speaks
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # isort: skip

log = logging.getLogger("bus.authority")
T = TypeVar("T")

WORKERS: Final = 8
GRACE_S: Final = 2.0
CONNECTION_MS: Final = 600_000
"""How long a connection is kept: TLS looks at a certificate's end when it begins, and not again."""


@dataclass(frozen=True, slots=True)
class Identity:
    """PEM: the server's key and chain, and the CA of the agents' certificates."""

    key: bytes
    chain: bytes
    agents_ca: bytes


class AuthorityServer:
    """Two listeners: one for who has a client certificate, one for who enrols."""

    def __init__(self, service: AuthorityService, identity: Identity, address: str, enrolment: str) -> None:
        if not rpc.ONLY_TLS_1_3:
            raise StackError(
                "gRPC was loaded before the authority, or GRPC_SSL_CIPHER_SUITES is set: it would speak TLS 1.2",
                hint="unset GRPC_SSL_CIPHER_SUITES; nothing else that loads gRPC may run in this process",
            )
        self._service = service
        options = [
            ("grpc.max_receive_message_length", 64 * 1024),
            ("grpc.so_reuseport", 0),
            ("grpc.max_connection_age_ms", CONNECTION_MS),
            ("grpc.max_connection_age_grace_ms", int(GRACE_S * 1000)),
        ]
        pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="authority")
        self._server = grpc.server(pool, options=options, maximum_concurrent_rpcs=4 * WORKERS)
        self._server.add_generic_rpc_handlers(
            (
                rpc.handler(
                    "Authority",
                    {
                        rpc.RENEW: self._renew,
                        rpc.LEASE: self._lease,
                        rpc.CHALLENGE: self._challenge,
                        rpc.ATTEST: self._attest,
                    },
                ),
            )
        )
        self.health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        pair = [(identity.key, identity.chain)]
        mutual = grpc.ssl_server_credentials(pair, identity.agents_ca, require_client_auth=True)
        self.port = self._server.add_secure_port(address, mutual)
        self._enrolment = grpc.server(
            ThreadPoolExecutor(2, thread_name_prefix="enrolment"), options=options, maximum_concurrent_rpcs=8
        )
        answers: dict[rpc.Method, rpc.Answer] = {
            rpc.ENROL: self._enrol,
            rpc.ENROL_CHALLENGE: self._enrol_challenge,
            rpc.ENROL_ATTEST: self._enrol_attested,
            rpc.NOW: self._now,
        }
        self._enrolment.add_generic_rpc_handlers((rpc.handler("Enrolment", answers),))
        self.enrolment_port = self._enrolment.add_secure_port(enrolment, grpc.ssl_server_credentials(pair))

    def __enter__(self) -> Self:
        self._server.start()
        self._enrolment.start()
        return self

    def __exit__(self, *_: object) -> None:
        stopped = [server.stop(GRACE_S) for server in (self._server, self._enrolment)]
        for each in stopped:
            each.wait()

    def serving(self, *, ready: bool) -> None:
        """What the health service says."""
        status = health_pb2.HealthCheckResponse
        self.health.set("sealbus.v1.Authority", status.SERVING if ready else status.NOT_SERVING)

    def _enrol(self, request: Any, context: grpc.ServicerContext) -> pb.Certified:
        return _answer(context, lambda: _certified(self._service.enrol(request.token, request.request)))

    def _enrol_challenge(self, request: Any, context: grpc.ServicerContext) -> pb.Asked:
        return _answer(
            context, lambda: _asked(self._service.enrol_challenge(request.agent, request.request, request.offer))
        )

    def _enrol_attested(self, request: Any, context: grpc.ServicerContext) -> pb.Certified:
        told = (request.agent, request.request, request.nonce, request.evidence)
        return _answer(context, lambda: _certified(self._service.enrol_attested(*told)))

    def _now(self, _request: Any, context: grpc.ServicerContext) -> pb.Moment:
        return _answer(context, lambda: pb.Moment(at=self._service.now()))

    def _challenge(self, request: Any, context: grpc.ServicerContext) -> pb.Asked:
        return _answer(context, lambda: _asked(self._service.challenge(_certificate(context), request.offer)))

    def _attest(self, request: Any, context: grpc.ServicerContext) -> pb.Attested:
        def attested() -> pb.Attested:
            token, not_after = self._service.attest(_certificate(context), request.nonce, request.evidence)
            return pb.Attested(result=token, not_after=not_after)

        return _answer(context, attested)

    def _renew(self, request: Any, context: grpc.ServicerContext) -> pb.Certified:
        return _answer(
            context, lambda: _certified(self._service.renew(_certificate(context), request.counter, request.request))
        )

    def _lease(self, request: Any, context: grpc.ServicerContext) -> pb.Leases:
        def leases() -> pb.Leases:
            certificate = _certificate(context)
            made = self._service.lease(certificate, dict(request.held), request.result)
            bundles = dict(made.bundles)
            if made.attested:
                key = certified_key(certificate)
                bundles = {
                    epoch: hand(each, key, request.result, made.policy, epoch) for epoch, each in bundles.items()
                }
            return pb.Leases(
                bundles=bundles,
                kept=made.kept,
                due=made.due,
                withheld={str(domain): why for domain, why in made.withheld.items()},
                attested=made.attested,
                policy=made.policy,
            )

        return _answer(context, leases)


def _certified(made: Certified) -> pb.Certified:
    certificate = made.certificate
    return pb.Certified(
        agent=made.agent, certificate=certificate.pem, counter=made.counter, not_after=certificate.not_after
    )


def _asked(made: tuple[bytes, bytes]) -> pb.Asked:
    nonce, challenge = made
    return pb.Asked(nonce=nonce, challenge=challenge)


def _certificate(context: grpc.ServicerContext) -> bytes:
    """The client certificate whose chain TLS verified."""
    return bytes(context.auth_context()["x509_pem_cert"][0])


def _answer(context: grpc.ServicerContext, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except RetryLater as error:
        context.abort(grpc.StatusCode.UNAVAILABLE, f"{error.code}: {error}")
    except Refused as error:
        context.abort(grpc.StatusCode.PERMISSION_DENIED, f"{error.code}: {error}")
    except BusError as error:
        context.abort(grpc.StatusCode.INTERNAL, str(error.code))
    except Exception:
        log.exception("an answer failed")
        context.abort(grpc.StatusCode.INTERNAL, "internal")
    raise AssertionError("abort raises")
