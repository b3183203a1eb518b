"""Who is enrolled: one-time tokens, certificates in force, renewal counters, locks. One SQLite file for all replicas.

An agent begins with a token that an operator made for it, good for one use. Each renewal shows the counter of the last
one and gets the next: whoever copied an agent's folder and renews makes the other's counter old, and the first old
counter that is shown locks the agent, for both. A repeat of the last request (same key, same counter) is answered
again: its answer may have been lost.
"""

from __future__ import annotations

import base64
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from bus.codes import Code
from bus.errors import Refused, RetryLater
from bus.wire.names import AgentId

TOKEN_BYTES: Final = 32
TOKEN_MS: Final = 3_600_000
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS token (digest BLOB PRIMARY KEY, agent TEXT NOT NULL, until INTEGER NOT NULL, used INTEGER);
CREATE TABLE IF NOT EXISTS agent (
  name TEXT PRIMARY KEY, state TEXT NOT NULL, counter INTEGER NOT NULL, request BLOB NOT NULL, serial TEXT NOT NULL,
  until INTEGER NOT NULL, since INTEGER NOT NULL, why TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
"""


class State(StrEnum):
    """LOCKED: a clone was noticed. REVOKED: an operator said so. Both need a new token."""

    ACTIVE = "active"
    LOCKED = "locked"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Enrolled:
    """One agent. ``counter`` counts its certificates; ``until`` ends the last (ms); ``since`` it was enrolled."""

    name: AgentId
    state: State
    counter: int
    serial: str
    until: int
    since: int
    why: str = ""


_READ: Final = "SELECT name, state, counter, serial, until, since, why FROM agent"
_Agents = list[Enrolled]
"""``Register.list`` hides the type's name inside the class."""


class Register:
    """Every method is one transaction; a second process on the same file waits for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as db:
            for statement in _SCHEMA.split(";"):
                db.execute(statement)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction that writes. Raises RetryLater where another holds it for too long."""
        db = sqlite3.connect(self._path, timeout=5.0, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous=FULL")
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise RetryLater(f"the register of agents: {error}", code=Code.RETRY) from error
        finally:
            db.close()

    def transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """For who keeps more in the same store (``bus.authority.attested``); raises RetryLater as every method does."""
        return self._open()

    def invite(self, agent: AgentId, now_ms: int, valid_ms: int = TOKEN_MS) -> str:
        """A token that enrols ``agent`` once, until ``now_ms + valid_ms``. Only its digest is kept."""
        token = os.urandom(TOKEN_BYTES)
        with self._open() as db:
            db.execute("DELETE FROM token WHERE until < ?", (now_ms,))
            db.execute("INSERT INTO token VALUES (?, ?, ?, NULL)", (_digest(token), agent, now_ms + valid_ms))
        return base64.b32encode(token).decode().rstrip("=").lower()

    def enrol(self, token: str, request: bytes, now_ms: int) -> tuple[AgentId, int]:
        """Use ``token`` for the certificate request with this digest; the agent it is for, and its first counter.

        Raises Refused(credential): unknown, used or too old. The same request may use it again while it is the last.
        """
        with self._open() as db:
            row = db.execute(
                "SELECT agent, until, used FROM token WHERE digest = ?", (_digest(_decoded(token)),)
            ).fetchone()
            if row is None or row[1] < now_ms:
                raise _refused("the token is not one of ours, or its time is over")
            agent, _, used = row
            held = db.execute("SELECT counter, request FROM agent WHERE name = ?", (agent,)).fetchone()
            if used is not None:
                if held is not None and held[1] == request and held[0] == used:
                    return AgentId(agent), used
                raise _refused("the token was used")
            counter = held[0] + 1 if held is not None else 1
            db.execute("UPDATE token SET used = ? WHERE digest = ?", (counter, _digest(_decoded(token))))
            _begin(db, agent, counter, request, now_ms)
        return AgentId(agent), counter

    def admit(self, agent: AgentId, request: bytes, now_ms: int, *, same: bool) -> int:
        """The first counter of an agent that attested, for the certificate request with this digest: no token is used.

        ``same``: the device is the one that attested for this agent last; another gets nothing while the last
        certificate is in force. Raises Refused(credential) for it, and for an agent that is locked or revoked.
        """
        with self._open() as db:
            held = db.execute("SELECT state, counter, request, until FROM agent WHERE name = ?", (agent,)).fetchone()
            if held is not None and held[0] != State.ACTIVE:
                raise _refused(f"{agent} is {held[0]}: only a token lets it in again")
            if held is not None and held[2] == request:
                return int(held[1])
            if held is not None and held[3] > now_ms and not same:
                raise _refused(f"{agent} is enrolled, and another device attests")
            counter = held[1] + 1 if held is not None else 1
            _begin(db, agent, counter, request, now_ms)
        return int(counter)

    def renew(self, agent: AgentId, serial: str, counter: int, request: bytes) -> int:
        """The next counter for who shows the certificate ``serial`` and the last ``counter``.

        Raises Refused(credential) for an old counter, which locks the agent, and for one that is locked or revoked.
        """
        locked = ""
        with self._open() as db:
            row = db.execute(
                "SELECT state, counter, request, serial, why FROM agent WHERE name = ?", (agent,)
            ).fetchone()
            if row is None:
                raise _refused(f"{agent} is not enrolled")
            state, held, last, held_serial, why = row
            if state != State.ACTIVE:
                raise _refused(f"{agent} is {state}: {why}")
            if last == request and counter == held - 1:
                return int(held)
            if counter == held and serial == held_serial:
                db.execute("UPDATE agent SET counter = ?, request = ? WHERE name = ?", (held + 1, request, agent))
                return int(held) + 1
            locked = f"counter {counter} was shown where {held} is due: there are two of it"
            db.execute("UPDATE agent SET state = ?, why = ? WHERE name = ?", (State.LOCKED, locked, agent))
        raise _refused(f"{agent} is locked: {locked}")

    def certified(self, agent: AgentId, counter: int, serial: str, until_ms: int) -> None:
        """Record the certificate of ``counter``."""
        with self._open() as db:
            db.execute(
                "UPDATE agent SET serial = ?, until = ? WHERE name = ? AND counter = ?",
                (serial, until_ms, agent, counter),
            )

    def check(self, agent: AgentId, serial: str) -> None:
        """Raise Refused(credential) unless ``serial`` is in force for an active agent."""
        held = self.find(agent)
        if held is None or held.state is not State.ACTIVE:
            why = "not enrolled" if held is None else f"{held.state}: {held.why}"
            raise _refused(f"{agent} is {why}")
        if held.serial != serial:
            raise _refused(f"{agent}: this certificate was replaced by a newer one")

    def revoke(self, agent: AgentId, why: str) -> bool:
        """Whether there was one to revoke. Its tokens are gone, too."""
        with self._open() as db:
            db.execute("DELETE FROM token WHERE agent = ?", (agent,))
            done = db.execute("UPDATE agent SET state = ?, why = ? WHERE name = ?", (State.REVOKED, why, agent))
            return done.rowcount > 0

    def find(self, agent: AgentId) -> Enrolled | None:
        """One agent, or None."""
        return next(iter(self._read("WHERE name = ?", (agent,))), None)

    def list(self) -> list[Enrolled]:
        """Every agent that was ever enrolled, by name."""
        return self._read("ORDER BY name", ())

    def _read(self, which: str, values: tuple[str, ...]) -> _Agents:
        with self._open() as db:
            rows = db.execute(f"{_READ} {which}", values).fetchall()
        return [Enrolled(AgentId(row[0]), State(row[1]), *row[2:]) for row in rows]


def _begin(db: sqlite3.Connection, agent: str, counter: int, request: bytes, now_ms: int) -> None:
    db.execute(
        "INSERT OR REPLACE INTO agent VALUES (?, ?, ?, ?, '', 0, ?, '')",
        (agent, State.ACTIVE, counter, request, now_ms),
    )


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(b"sealbus/v1/token" + token).digest()


def _decoded(token: str) -> bytes:
    try:
        return base64.b32decode(token.upper() + "=" * (-len(token) % 8))
    except ValueError:
        raise _refused("the token is not one of ours, or its time is over") from None


def _refused(why: str) -> Refused:
    return Refused(why, code=Code.CREDENTIAL, hint="`bus agent enroll AGENT` makes a new token, where it may have one")
