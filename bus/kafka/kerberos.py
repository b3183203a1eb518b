"""An agent that comes with a Kerberos ticket: its keytab, and how libkrb5 gets a ticket from it.

libkrb5 fetches and renews tickets from the keytab by itself, in memory: no kinit, no shell, no ticket on disk. It is
told by the environment, which a process has once, and reads it again whenever a connection authenticates: a second
agent in the process would take the first one's connections along, and is refused. The published confluent-kafka has no
GSSAPI; docs/identity.md says how one that has is built.
"""

from __future__ import annotations

import os
import re
import struct
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from confluent_kafka import KafkaException, Producer

from bus.codes import Code
from bus.errors import Refused, SettingsError
from bus.files import read_secret

PRIMARY: Final = "agent"
"""Agents' principals are ``agent/<id>@<realm>``; the broker makes ``User:<id>`` of that and of nothing else."""
MAGIC: Final = b"\x05\x02"
TOLD: Final = re.compile(r"GSSAPI Error: ([^()]*?)\s*\(([^()]*)\)")
"""GSSAPI's major status, and libkrb5's own word, which is `Success` where the major one says it all."""
AWAY: Final = (
    "Cannot contact any KDC",
    "Resource temporarily unavailable",
    "icket expired",
    "credential has expired",
    "context has expired",
)
"""libkrb5 where no KDC answers: not final, as agents go on once one does. A ticket of a keytab expires only so."""


def keytab_principals(data: bytes) -> set[str]:
    """Principals (``a/b@REALM``) in a keytab of format 2. Raises ValueError where ``data`` is none."""
    if data[:2] != MAGIC:
        raise ValueError("not a keytab")
    found, at = set(), 2
    try:
        while at < len(data):
            (size,) = struct.unpack_from(">i", data, at)
            at += 4
            if size > 0:
                found.add(_principal(data[at : at + size]))
            at += abs(size)  # a negative one is a hole
    except struct.error:
        raise ValueError("a keytab that ends early") from None
    return found


def _principal(entry: bytes) -> str:
    (count,) = struct.unpack_from(">H", entry)
    parts, at = [], 2
    for _ in range(count + 1):  # the realm comes first
        (length,) = struct.unpack_from(">H", entry, at)
        parts.append(entry[at + 2 : at + 2 + length].decode())
        at += 2 + length
    return "/".join(parts[1:]) + "@" + parts[0]


@dataclass(frozen=True, slots=True)
class Keytab:
    """A principal of the broker by the key in the keytab ``path``; ``service`` is the broker's name in its realm."""

    principal: str
    path: Path
    service: str
    _claimed: ClassVar[str] = ""
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def check(self) -> None:
        """Raise Refused(credential) where the keytab is missing, readable by others or another's."""
        try:
            held = keytab_principals(read_secret(self.path))
        except OSError as error:
            raise Refused(
                f"{self.principal}: no keytab: {self.path}: {error.strerror}",
                code=Code.CREDENTIAL,
                hint=f"ask the realm's administrator for one of {PRIMARY}/{self.principal}, mode 0600",
            ) from None
        except ValueError as error:
            raise Refused(f"{self.principal}: {self.path}: {error}", code=Code.CREDENTIAL) from None
        if {each.rpartition("@")[0] for each in held} != {f"{PRIMARY}/{self.principal}"}:
            raise Refused(
                f"{self.path}: expected a keytab of {PRIMARY}/{self.principal} alone, found {', '.join(sorted(held))}",
                code=Code.CREDENTIAL,
            )

    def sasl(self) -> dict[str, Any]:
        """librdkafka's settings; tells libkrb5, too. Raises Refused(credential) where this process has another agent,
        SettingsError where the Kafka client has no GSSAPI.
        """
        require_gssapi()
        with Keytab._lock:
            if Keytab._claimed not in ("", self.principal):
                raise Refused(
                    f"{self.principal}: this process comes with the ticket of {Keytab._claimed}",
                    code=Code.CREDENTIAL,
                    hint="with Kerberos each agent needs a process of its own",
                )
            Keytab._claimed = self.principal
        os.environ["KRB5_CLIENT_KTNAME"] = f"FILE:{self.path}"
        os.environ["KRB5CCNAME"] = f"MEMORY:{self.principal}"
        return {
            "sasl.mechanism": "GSSAPI",
            "sasl.kerberos.service.name": self.service,
            # Switches librdkafka's own kinit off: it runs through a shell with the principal pasted in.
            "sasl.kerberos.min.time.before.relogin": 0,
        }

    def reason(self, told: str) -> tuple[str, bool]:
        """Why a failure was that librdkafka ``told`` of, and whether it is final."""
        found = TOLD.search(told)
        major, minor = found.groups() if found else ("the broker took no ticket", "Success")
        why = major if minor == "Success" else minor
        return why, not any(each in told for each in AWAY)


def require_gssapi() -> None:
    """Raise SettingsError where this machine's confluent-kafka cannot speak GSSAPI."""
    try:
        Producer({"builtin.features": "sasl_gssapi", "bootstrap.servers": "localhost:1", "log_level": 0})
    except KafkaException:
        raise SettingsError(
            "sasl_mechanism: GSSAPI: this confluent-kafka is built without it",
            hint="docs/identity.md, Kerberos: build one that has it",
        ) from None
