"""Who is enrolled: one-time tokens, certificates in force, renewal counters, locks. One database for all replicas.

An agent begins with a token that an operator made for it, good for one use. Each renewal shows the counter of the last
one and gets the next: whoever copied an agent's folder and renews makes the other's counter old, and the first old
counter that is shown locks the agent, for both. A repeat of the last request (same key, same counter) is answered
again: its answer may have been lost.

A token is used, and a counter goes on, by one statement each that says what must still be so: of two replicas that are
shown the same, one's changes a row.
"""

from __future__ import annotations

import base64
import hashlib
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from bus.authority.database import Database, Transaction
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
CREATE TABLE IF NOT EXISTS followed (one INTEGER PRIMARY KEY, snapshot INTEGER NOT NULL);
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


_BEGIN: Final = (
    "INSERT INTO agent VALUES (?, ?, 1, ?, '', 0, ?, '') ON CONFLICT (name) DO UPDATE SET "
    "state = excluded.state, counter = agent.counter + 1, request = excluded.request, serial = '', "
    "until = 0, since = excluded.since, why = ''"
)
"""An agent begins, or begins anew: its name, state, request and the time (ms)."""
_NEVER: Final = (1 << 63) - 1
_READ: Final = "SELECT name, state, counter, serial, until, since, why FROM agent"
_Agents = list[Enrolled]
"""``Register.list`` hides the type's name inside the class."""


class Register:
    """Every method is one transaction. Raises RetryLater where the database cannot be had.

    ``database`` is there for who keeps more in it (``bus.authority.attested``).
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        database.setup(_SCHEMA)

    def _open(self) -> AbstractContextManager[Transaction]:
        return self.database.write()

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
        digest = _digest(_decoded(token))
        with self._open() as db:
            taken = db.execute(
                "UPDATE token SET used = 0 WHERE digest = ? AND used IS NULL AND until >= ? RETURNING agent",
                (digest, now_ms),
            ).fetchone()
            if taken is None:
                return self._again(db, digest, request, now_ms)
            (counter,) = db.execute(f"{_BEGIN} RETURNING counter", (taken[0], State.ACTIVE, request, now_ms)).fetchone()
            db.execute("UPDATE token SET used = ? WHERE digest = ?", (counter, digest))
        return AgentId(taken[0]), int(counter)

    def _again(self, db: Transaction, digest: bytes, request: bytes, now_ms: int) -> tuple[AgentId, int]:
        """What a token gave that can no longer be used, to who used it."""
        row = db.execute(
            "SELECT token.agent, used, counter, request FROM token LEFT JOIN agent ON name = token.agent "
            "WHERE digest = ? AND token.until >= ?",
            (digest, now_ms),
        ).fetchone()
        if row is None:
            raise _refused("the token is not one of ours, or its time is over")
        agent, used, counter, last = row
        if counter != used or last is None or bytes(last) != request:
            raise _refused("the token was used")
        return AgentId(agent), int(used)

    def admit(self, agent: AgentId, request: bytes, now_ms: int, *, same: bool) -> int:
        """The first counter of an agent that attested, for the certificate request with this digest: no token is used.

        ``same``: the device is the one that attested for this agent last; another gets nothing while the last
        certificate is in force. Raises Refused(credential) for it, and for an agent that is locked or revoked.
        """
        with self._open() as db:
            begun = db.execute(
                f"{_BEGIN} WHERE agent.state = ? AND agent.request <> excluded.request AND agent.until <= ? "
                "RETURNING counter",
                (agent, State.ACTIVE, request, now_ms, State.ACTIVE, _NEVER if same else now_ms),
            ).fetchone()
            if begun is not None:
                return int(begun[0])
            state, counter, last = db.execute(
                "SELECT state, counter, request FROM agent WHERE name = ?", (agent,)
            ).fetchone()
        if state != State.ACTIVE:
            raise _refused(f"{agent} is {state}: only a token lets it in again")
        if bytes(last) != request:
            raise _refused(f"{agent} is enrolled, and another device attests")
        return int(counter)

    def renew(self, agent: AgentId, serial: str, counter: int, request: bytes) -> int:
        """The next counter for who shows the certificate ``serial`` and the last ``counter``.

        Raises Refused(credential) for an old counter, which locks the agent, and for one that is locked or revoked.
        """
        locked = ""
        with self._open() as db:
            following = db.execute(
                "UPDATE agent SET counter = counter + 1, request = ? "
                "WHERE name = ? AND state = ? AND counter = ? AND serial = ? RETURNING counter",
                (request, agent, State.ACTIVE, counter, serial),
            ).fetchone()
            if following is not None:
                return int(following[0])
            row = db.execute("SELECT state, counter, request, why FROM agent WHERE name = ?", (agent,)).fetchone()
            if row is None:
                raise _refused(f"{agent} is not enrolled")
            state, held, last, why = row
            if state != State.ACTIVE:
                raise _refused(f"{agent} is {state}: {why}")
            if bytes(last) == request and counter == held - 1:
                return int(held)
            locked = f"counter {counter} was shown where {held} is due: there are two of it"
            db.execute("UPDATE agent SET state = ?, why = ? WHERE name = ?", (State.LOCKED, locked, agent))
        raise _refused(f"{agent} is locked: {locked}")

    def certified(self, agent: AgentId, counter: int, serial: str, until_ms: int) -> None:
        """Record the certificate of ``counter``, before it is given out.

        Raises RetryLater where a later one was: of a request that two replicas answer, the last answer is in force.
        """
        with self._open() as db:
            done = db.execute(
                "UPDATE agent SET serial = ?, until = ? WHERE name = ? AND counter = ? AND until <= ?",
                (serial, until_ms, agent, counter, until_ms),
            )
            if done.rowcount == 0:
                raise RetryLater(f"{agent}: another replica answered meanwhile", code=Code.RETRY)

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

    def follow(self, snapshot: int) -> None:
        """Say that a replica follows the policy of this number. Raises RetryLater where another follows a newer one."""
        with self.database.read() as db:
            row = db.execute("SELECT snapshot FROM followed").fetchone()
        if row is not None and row[0] == snapshot:
            return
        with self._open() as db:
            done = db.execute(
                "INSERT INTO followed VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET snapshot = excluded.snapshot "
                "WHERE followed.snapshot <= excluded.snapshot",
                (snapshot,),
            )
            if done.rowcount == 0:
                raise RetryLater(f"another replica follows a newer policy than snapshot {snapshot}", code=Code.RETRY)

    def _read(self, which: str, values: tuple[str, ...]) -> _Agents:
        with self.database.read() as db:
            rows = db.execute(f"{_READ} {which}", values).fetchall()
        return [Enrolled(AgentId(row[0]), State(row[1]), *row[2:]) for row in rows]


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(b"sealbus/v1/token" + token).digest()


def _decoded(token: str) -> bytes:
    try:
        return base64.b32decode(token.upper() + "=" * (-len(token) % 8))
    except ValueError:
        raise _refused("the token is not one of ours, or its time is over") from None


def _refused(why: str) -> Refused:
    return Refused(why, code=Code.CREDENTIAL, hint="`bus agent enroll AGENT` makes a new token, where it may have one")
