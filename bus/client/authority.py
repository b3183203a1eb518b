"""An agent's side of the authority: enrol once, renew in time, attest, lease keys into the agent's own folder.

The folder has the shape that the local issuer gives it (``keys/<epoch>``), so that whoever reads keys need not know who
wrote them; beside it stands ``identity``: key, client certificate and counter in one 0600 file.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from bus.attester.base import Attester
from bus.authority import rpc
from bus.authority.ca import life_of, make_request, private_pem
from bus.authority.handed import take
from bus.authority.rpc import authority_v1_pb2 as pb
from bus.client.evidence import answer
from bus.codes import Code
from bus.errors import BusError, Refused, RetryLater, Unavailable
from bus.files import ENROLLED, make_folder, read_secret, write_secret

import grpc  # isort: skip  # behind bus.authority.rpc, which says which TLS it may speak

TIMEOUT_S: Final = 10.0
RENEW_PART: Final = 3
"""A certificate is renewed when a third of its life is left."""
FORMAT: Final = "sealbus.identity/1"
IDENTITY: Final = ENROLLED
NEXT: Final = "identity.next"
"""A key and its request whose certificate has not come yet: a repeat is answered like the first."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An agent's private key and certificate (PEM), and the counter that the next renewal shows."""

    agent: str
    key: bytes = field(repr=False)
    certificate: bytes
    counter: int

    def life(self) -> tuple[int, int]:
        """Begin and end of the certificate (ms since 1970)."""
        return life_of(x509.load_pem_x509_certificate(self.certificate))


def enrol(folder: Path, address: str, ca: bytes, token: str) -> str:
    """Use a one-time token; the agent's name. Raises Refused(credential) or Unavailable."""
    make_folder(folder)
    request = _request(folder)
    with _channel(address, grpc.ssl_channel_credentials(ca)) as channel:
        made = _ask(channel, rpc.ENROL, pb.EnrolRequest(token=token, request=request))
    _take(folder, made)
    return str(made.agent)


def enrol_attested(folder: Path, address: str, ca: bytes, agent: str, attester: Attester) -> None:
    """The first certificate for evidence instead of a token. Raises Refused (attestation, credential) or RetryLater."""
    make_folder(folder)
    request = _request(folder)
    with _channel(address, grpc.ssl_channel_credentials(ca)) as channel:
        asking = pb.EnrolChallengeRequest(agent=agent, request=request, offer=attester.offer())
        asked = _ask(channel, rpc.ENROL_CHALLENGE, asking)
        evidence = answer(attester, asked.nonce, asked.challenge, agent, _next_key(folder).encode())
        told = pb.EnrolAttestRequest(agent=agent, request=request, nonce=asked.nonce, evidence=evidence)
        made = _ask(channel, rpc.ENROL_ATTEST, told)
    _take(folder, made)


def read_clock(address: str, ca: bytes) -> int:
    """What the authority's clock shows (ms since 1970); ``address`` is where agents enrol. Raises RetryLater."""
    with _channel(address, grpc.ssl_channel_credentials(ca)) as channel:
        return int(_ask(channel, rpc.NOW, pb.NowRequest()).at)


class AuthorityClient:
    """One enrolled agent. Not thread-safe: one keeper uses it.

    ``addresses`` are HOST:PORT, separated by commas: replicas of one authority. The one that answered is asked again;
    when it does not answer, the next. A request may reach two of them: each is answered alike, however often, but for
    evidence, whose nonce is good for one answer of all.

    An attestation result stays in this process: another one attests what it is itself. ``withheld``: domains whose keys
    wait for one, and why, as the authority said last.
    """

    def __init__(self, folder: Path, addresses: str, ca: bytes, attester: Attester | None = None) -> None:
        self._folder = folder
        self._addresses = [each.strip() for each in addresses.split(",")]
        self._ca = ca
        self._held: grpc.Channel | None = None
        self._shown: Identity | None = None
        self._attester = attester
        self._result = ""
        self.attest_at = 0
        """When the next attestation is due (ms since 1970), while keys are given on one."""
        self._gated = False
        self.withheld: Mapping[str, str] = {}

    def renew_if_due(self, now_ms: int) -> bool:
        """Renew the client certificate where less than a third of its life is left; whether it did."""
        begin, end = read_identity(self._folder).life()
        if end - now_ms > (end - begin) // RENEW_PART:
            return False
        self.renew()
        return True

    def renew(self) -> None:
        """The next certificate. Raises Refused(credential) where there are two of this agent, or it is revoked."""
        counter = read_identity(self._folder).counter
        made = self._ask(rpc.RENEW, pb.RenewRequest(counter=counter, request=_request(self._folder)))
        _take(self._folder, made)
        self._result, self.attest_at = "", 0  # it was for the key that this one replaces

    def attest_if_due(self, now_ms: int) -> bool:
        """Attest where keys wait for it, or where a third is left of the result that they were given on.

        Returns whether it did. Raises Refused(attestation), or RetryLater.
        """
        if self._attester is None or not (self.withheld or (self._gated and now_ms >= self.attest_at)):
            return False
        held = read_identity(self._folder)
        asked = self._ask(rpc.CHALLENGE, pb.ChallengeRequest(offer=self._attester.offer()))
        evidence = answer(self._attester, asked.nonce, asked.challenge, held.agent, held.key)
        made = self._ask(rpc.ATTEST, pb.AttestRequest(nonce=asked.nonce, evidence=evidence), once=True)
        self._result = made.result
        self.attest_at = made.not_after - (made.not_after - now_ms) // RENEW_PART
        return True

    def lease(self) -> int:
        """Bring ``keys/`` up to what the authority gives now; when to ask again (ms). The rest is removed."""
        keys = make_folder(self._folder / "keys")
        held = {int(path.name): read_secret(path) for path in keys.iterdir() if path.name.isdigit()}
        digests = {number: hashlib.sha256(data).digest() for number, data in held.items()}
        made = self._ask(rpc.LEASE, pb.LeaseRequest(held=digests, result=self._result))
        for number, data in made.bundles.items():
            if made.attested and self._shown is not None:
                data = take(data, self._shown.key, self._result, made.policy, number)
            write_secret(keys / str(number), data)
        for number in set(held) - set(made.bundles) - set(made.kept):
            (keys / str(number)).unlink(missing_ok=True)
        self.withheld, self._gated = dict(made.withheld), made.attested or bool(made.withheld)
        return int(made.due)

    def wipe(self) -> None:
        """Forget every leased key."""
        for path in (self._folder / "keys").glob("*"):
            path.unlink(missing_ok=True)

    def close(self) -> None:
        """End the connection that is kept between two calls."""
        if self._held is not None:
            self._held.close()
            self._held = None

    def _ask(self, method: rpc.Method, request: Any, *, once: bool = False) -> Any:
        """Ask each replica once, beginning with the one that answered last, for ``TIMEOUT_S`` in all; ``once``: ask no
        other, but let the next call begin with it."""
        until = time.monotonic() + TIMEOUT_S
        for left in reversed(range(len(self._addresses))):
            if (shown := read_identity(self._folder)) != self._shown:
                self.close()
                self._shown = shown
            self._held = self._held or self._mutual()
            try:
                return _ask(self._held, method, request, max(until - time.monotonic(), 0.0) / (left + 1))
            except BusError as error:
                self.close()
                if not isinstance(error, RetryLater):
                    raise
                self._addresses.append(self._addresses.pop(0))
                if once or not left:
                    raise
        raise AssertionError("there is an address")

    def _mutual(self) -> grpc.Channel:
        held = read_identity(self._folder)
        return _channel(self._addresses[0], grpc.ssl_channel_credentials(self._ca, held.key, held.certificate))


def _channel(address: str, credentials: grpc.ChannelCredentials) -> grpc.Channel:
    options = [
        ("grpc.ssl_target_name_override", rpc.SERVER_NAME),
        ("grpc.max_receive_message_length", rpc.MAX_MESSAGE),
        ("grpc.use_local_subchannel_pool", 1),  # two agents in a process never share a connection
    ]
    return grpc.secure_channel(address, credentials, options)


def _ask(channel: grpc.Channel, method: rpc.Method, request: Any, timeout_s: float = TIMEOUT_S) -> Any:
    try:
        return rpc.call(channel, method, request, timeout_s)
    except grpc.RpcError as error:
        status, told = error.code(), error.details() or ""
        code, _, why = told.partition(": ")
        if status is grpc.StatusCode.PERMISSION_DENIED:
            raise Refused(why or told, code=Code(code) if code in set(Code) else Code.CREDENTIAL) from None
        if status is grpc.StatusCode.UNAVAILABLE and code == Code.RETRY:
            raise RetryLater(why, code=Code.RETRY) from None
        raise Unavailable(f"the authority did not answer: {status.name}: {told}"[:500], hint="does it run?") from None


def _request(folder: Path) -> bytes:
    """The request for the next certificate; kept with its key until that came, so that a repeat is the same."""
    path = folder / NEXT
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        made = {"key": private_pem(key).decode(), "request": make_request(key).decode()}
        write_secret(path, json.dumps(made).encode())
    request: str = json.loads(read_secret(path))["request"]
    return request.encode()


def _next_key(folder: Path) -> str:
    key: str = json.loads(read_secret(folder / NEXT))["key"]
    return key


def _take(folder: Path, made: Any) -> None:
    """Key, certificate and counter in one file: after a crash there are the old three or the new."""
    held = {
        "format": FORMAT,
        "agent": made.agent,
        "key": _next_key(folder),
        "certificate": made.certificate.decode(),
        "counter": made.counter,
    }
    write_secret(folder / IDENTITY, json.dumps(held).encode())
    (folder / NEXT).unlink(missing_ok=True)


def read_identity(folder: Path) -> Identity:
    """What an agent enrolled as. Raises Refused(credential) where it did not, or the file is none of ours."""
    path = folder / IDENTITY
    try:
        held = json.loads(read_secret(path))
        found = Identity(held["agent"], held["key"].encode(), held["certificate"].encode(), int(held["counter"]))
        known = held["format"] == FORMAT
    except FileNotFoundError:
        raise Refused(f"{folder.name} is not enrolled", code=Code.CREDENTIAL, hint="bus agent enroll") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Refused(f"{path}: not an identity: {type(error).__name__}", code=Code.CREDENTIAL) from None
    if not known:
        raise Refused(f"{path}: expected format {FORMAT}", code=Code.CREDENTIAL)
    return found
