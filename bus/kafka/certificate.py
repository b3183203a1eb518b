"""The client certificate that a connection shows: read anew for each client, so that the next one has the newest.

librdkafka reads a certificate when a client is made and never again, and a broker looks at it when a connection begins:
what runs goes on past its end, and whoever connects again after that is refused. ``stamp`` tells that a newer one is
there; who made a client makes another then.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from bus.codes import Code
from bus.errors import Expired, Refused
from bus.files import CLIENT, Stamp, read_secret, stamp_of


@dataclass(frozen=True, slots=True)
class CertificateFile:
    """A private key and its certificate in ``path``: one PEM file, or the ``identity`` that an agent enrolled as."""

    principal: str
    path: Path

    def settings(self) -> dict[str, Any]:
        """librdkafka's settings. Raises Refused(credential) where it is missing or readable by others, Expired."""
        key, certificate = self._read()
        return {"ssl.key.pem": key, "ssl.certificate.pem": certificate}

    def stamp(self) -> Stamp:
        """Which file is there; NO_STAMP where none is."""
        return stamp_of(self.path)

    def _read(self) -> tuple[str, str]:
        try:
            text = read_secret(self.path).decode("ascii")
            if self.path.name == CLIENT:
                key = certificate = text
            else:
                held = json.loads(text)
                key, certificate = str(held["key"]), str(held["certificate"])
            ends = x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc
        except OSError as error:
            raise Refused(
                f"{self.principal}: no client certificate: {self.path}: {error.strerror}",
                code=Code.CREDENTIAL,
                hint="outside development the broker asks for one: does the issuer run? `bus stack up`",
            ) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise Refused(f"{self.principal}: {self.path}: not a client certificate", code=Code.CREDENTIAL) from None
        if ends <= dt.datetime.now(dt.UTC):
            raise Expired(
                f"{self.principal}: the client certificate in {self.path} has ended",
                hint="does the issuer run? services: `bus stack up`",
            )
        return key, certificate
