"""Who a client is to the broker: a SCRAM password, or a short token from the file that the issuer replaces."""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from bus.codes import Code
from bus.crypto.keys import Secret
from bus.errors import Expired, Refused
from bus.files import Stamp, read_secret, stamp_of

RENEW_WAIT_S: Final = 5.0
"""How long a client's request for a token waits for the issuer: where it fails, librdkafka asks again after 10 s."""
LOOK_S: Final = 0.05
SETTLE_S: Final = 10.0
"""How long after a credential was replaced a refusal may still be of the one before."""
CHANGING: Final = "scram.changing"
"""Is there from before the broker has the next password until the file has it."""
_stand_still = threading.Event()


class Client(Protocol):
    """Any client of librdkafka."""

    def set_sasl_credentials(self, username: str, password: str, /) -> None:
        """What it shows at its next authentication."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A principal of the broker: SCRAM user name and password."""

    principal: str
    password: Secret

    def sasl(self) -> dict[str, Any]:
        """librdkafka's settings."""
        return {
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": self.principal,
            "sasl.password": self.password.reveal().decode(),
        }

    def rejected(self) -> bool:
        """Whether a refusal by the broker is final."""
        return True


def read_identity(folder: Path, principal: str) -> Identity:
    """The identity in ``folder``/scram. Raises Refused(credential) where it is missing or readable by others."""
    path = folder / "scram"
    try:
        document = json.loads(read_secret(path))
        name, password = (document[each].encode() for each in ("username", "password"))
        return Identity(name.decode(), Secret(password, f"{principal} password"))
    except OSError as error:
        raise Refused(
            f"{principal}: no credential: {path}: {error.strerror}",
            code=Code.CREDENTIAL,
            hint="is the agent in agents.yaml and the policy applied? `bus policy apply`",
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Refused(f"{principal}: {path}: not a credential file", code=Code.CREDENTIAL) from None


@dataclass(slots=True)
class PasswordFile:
    """A principal of the broker by a password in ``folder``/scram that the rotator replaces while clients run."""

    principal: str
    folder: Path
    _replaced: float = 0.0

    def sasl(self) -> dict[str, Any]:
        """librdkafka's settings. Raises Refused(credential)."""
        return read_identity(self.folder, self.principal).sasl()

    def stamp(self) -> Stamp:
        """Another one when the file was replaced."""
        return stamp_of(self.folder / "scram")

    def give(self, client: Client) -> None:
        """Have ``client`` show the password of now from its next authentication on. Raises Refused(credential)."""
        identity = read_identity(self.folder, self.principal)
        self._replaced = time.monotonic()
        client.set_sasl_credentials(identity.principal, identity.password.reveal().decode())

    def rejected(self) -> bool:
        """Whether a refusal by the broker is final: not while the password is being replaced, nor shortly after."""
        if self._replaced and time.monotonic() - self._replaced < SETTLE_S:
            return False
        if (self.folder / CHANGING).exists():
            return False
        try:
            return time.time() - (self.folder / "scram").stat().st_mtime > SETTLE_S
        except OSError:
            return True


@dataclass(slots=True)
class TokenFile:
    """A principal of the broker by the token in ``path``. Nothing is verified here: the broker does that."""

    principal: str
    path: Path
    _given: str = field(default="", repr=False)
    _replaced: float = 0.0

    def sasl(self) -> dict[str, Any]:
        """librdkafka's settings."""
        return {"sasl.mechanism": "OAUTHBEARER", "oauth_cb": self.renew}

    def read(self) -> tuple[str, float]:
        """The token of now and when it ends (s since 1970).

        Raises Refused(credential) where it is missing, another's or readable by others, Expired.
        """
        try:
            token = read_secret(self.path).decode("ascii")
            claims = token.split(".")[1].encode()
            told = json.loads(base64.urlsafe_b64decode(claims + b"=" * (-len(claims) % 4)))
            principal, ends = told["sub"], float(told["exp"])
        except OSError as error:
            raise Refused(
                f"{self.principal}: no token: {self.path}: {error.strerror}",
                code=Code.CREDENTIAL,
                hint="is the agent in agents.yaml, and does the issuer run? `bus doctor`",
            ) from None
        except (ValueError, LookupError, TypeError, binascii.Error, RecursionError):
            raise Refused(f"{self.principal}: {self.path}: not a token", code=Code.CREDENTIAL) from None
        if principal != self.principal:
            raise Refused(f"{self.path}: expected a token of {self.principal}", code=Code.CREDENTIAL)
        if ends <= time.time():
            raise Expired(f"{self.principal}: the token in {self.path} has ended", hint="does the issuer run?")
        return token, ends

    def renew(self, _config: str) -> tuple[str, float]:
        """librdkafka's callback for the next token, and by when to ask again. Waits for the issuer a while.

        Raises Refused, Expired.
        """
        deadline = time.monotonic() + RENEW_WAIT_S
        while True:
            try:
                token, ends = self.read()
            except Refused:
                if time.monotonic() > deadline:
                    raise
                _stand_still.wait(LOOK_S)
            else:
                if self._given and token != self._given:
                    self._replaced = time.monotonic()
                self._given = token
                # librdkafka asks again after 80 % of the time it is told, and authenticates again after 90 % of the
                # session, which ends with the token: told half the time, it has the next token long before.
                return token, (time.time() + ends) / 2

    def rejected(self) -> bool:
        """Whether a refusal by the broker is final: no file, or the very token that was given and has not ended."""
        if self._replaced and time.monotonic() - self._replaced < SETTLE_S:
            return False
        try:
            return self.read()[0] == self._given
        except Expired:
            return False
        except Refused:
            return True
