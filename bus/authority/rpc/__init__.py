"""What goes over the wire between agents and the authority: messages, methods, TLS. gRPC; no decisions.

``authority_v1_pb2`` is made from ``schemas/authority_v1.proto`` by ``python -m tools.rpc``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

# gRPC lets nobody ask for TLS 1.3 alone. Its keys here are ECDSA, and of TLS 1.2 only suites for RSA keys are left:
# what remains that can be negotiated is TLS 1.3. The library reads this when it loads, so that it is loaded here.
SUITES: Final = "ECDHE-RSA-AES128-GCM-SHA256"
ONLY_TLS_1_3: Final = "grpc" not in sys.modules and os.environ.setdefault("GRPC_SSL_CIPHER_SUITES", SUITES) == SUITES
"""Whether nothing older is spoken in this process. A server that cannot say so does not start."""

import grpc  # noqa: E402
from google.protobuf.message import Message  # noqa: E402

from bus.authority.rpc import authority_v1_pb2 as pb  # noqa: E402

MAX_MESSAGE: Final = 4 * 1024 * 1024
SERVER_NAME: Final = "sealbus-authority"


@dataclass(frozen=True, slots=True)
class Method:
    """One unary call."""

    service: str
    name: str
    request: type[Message]
    response: type[Message]

    @property
    def path(self) -> str:
        """As it stands in the request's headers."""
        return f"/sealbus.v1.{self.service}/{self.name}"


ENROL: Final = Method("Enrolment", "Enrol", pb.EnrolRequest, pb.Certified)
RENEW: Final = Method("Authority", "Renew", pb.RenewRequest, pb.Certified)
ENROL_CHALLENGE: Final = Method("Enrolment", "Challenge", pb.EnrolChallengeRequest, pb.Asked)
ENROL_ATTEST: Final = Method("Enrolment", "Attest", pb.EnrolAttestRequest, pb.Certified)
NOW: Final = Method("Enrolment", "Now", pb.NowRequest, pb.Moment)
CHALLENGE: Final = Method("Authority", "Challenge", pb.ChallengeRequest, pb.Asked)
ATTEST: Final = Method("Authority", "Attest", pb.AttestRequest, pb.Attested)
LEASE: Final = Method("Authority", "Lease", pb.LeaseRequest, pb.Leases)
Answer = Callable[[Any, grpc.ServicerContext], Message]


def handler(service: str, answers: dict[Method, Answer]) -> grpc.GenericRpcHandler[Any, Any]:
    """The server's side of one service."""
    return grpc.method_handlers_generic_handler(
        f"sealbus.v1.{service}",
        {
            method.name: grpc.unary_unary_rpc_method_handler(
                answer,
                request_deserializer=method.request.FromString,
                response_serializer=method.response.SerializeToString,
            )
            for method, answer in answers.items()
        },
    )


def call(channel: grpc.Channel, method: Method, request: Message, timeout: float) -> Any:
    """One call; raises grpc.RpcError."""
    return channel.unary_unary(
        method.path,
        request_serializer=method.request.SerializeToString,
        response_deserializer=method.response.FromString,
    )(request, timeout=timeout)
