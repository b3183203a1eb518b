"""What agents attested last, and which nonces were answered: two tables of the register. Decides nothing.

A row is a result: several processes of an agent have one each. It is good for the certificate that it was given under.
The last one of an agent stays when it has ended, for who looks. A nonce is remembered until it ends, so that it is
answered once, whichever replica is asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from bus.authority.register import Register
from bus.wire.measurement import EvidenceKind
from bus.wire.names import AgentId

MAX_RESULTS: Final = 64
"""Results of one agent: each of its processes has one, and whoever asks for more loses the oldest."""
AHEAD_MS: Final = 60_000
"""How far the clock of one replica may be ahead of another's: nonces that ended there are remembered for here."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS answered (nonce BLOB PRIMARY KEY, until INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS attested (
  agent TEXT NOT NULL, serial TEXT NOT NULL, kind TEXT NOT NULL, measurement TEXT NOT NULL, device BLOB NOT NULL,
  nonce BLOB NOT NULL, since INTEGER NOT NULL, until INTEGER NOT NULL, PRIMARY KEY (agent, nonce)
);
"""
_READ: Final = "SELECT agent, serial, kind, measurement, device, nonce, since, until FROM attested"


@dataclass(frozen=True, slots=True)
class Attested:
    """What an agent attested, under the certificate ``serial``; ``device`` (32 bytes) did, ``nonce`` was asked.

    Times in ms since 1970. ``measurement`` in its text form.
    """

    agent: AgentId
    serial: str
    kind: EvidenceKind
    measurement: str
    device: bytes
    nonce: bytes = field(repr=False)
    since: int
    until: int


class Attestations:
    """Every method is one transaction of the register's database; raises RetryLater as the register does."""

    def __init__(self, register: Register) -> None:
        self._database = register.database
        self._database.setup(_SCHEMA)

    def take(self, nonce: bytes, until_ms: int, now_ms: int) -> bool:
        """Whether ``nonce``, which ends at ``until_ms``, was not answered before; it is from now on."""
        with self._database.write() as db:
            db.execute("DELETE FROM answered WHERE until < ?", (now_ms - AHEAD_MS,))
            done = db.execute("INSERT INTO answered VALUES (?, ?) ON CONFLICT DO NOTHING", (nonce, until_ms))
            return done.rowcount == 1

    def put(self, found: Attested) -> None:
        """Keep ``found``; what its agent attested before goes where it has ended, or is one too many."""
        with self._database.write() as db:
            db.execute("DELETE FROM attested WHERE agent = ? AND until <= ?", (found.agent, found.since))
            db.execute(
                "INSERT INTO attested VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(found.agent, found.serial, found.kind, found.measurement),
                    *(found.device, found.nonce, found.since, found.until),
                ),
            )
            db.execute(
                "DELETE FROM attested WHERE agent = ? AND nonce NOT IN "
                "(SELECT nonce FROM attested WHERE agent = ? ORDER BY since DESC, until DESC LIMIT ?)",
                (found.agent, found.agent, MAX_RESULTS),
            )

    def find(self, agent: AgentId) -> Attested | None:
        """What ``agent`` attested last, or None."""
        return max(self.of(agent).values(), key=lambda each: each.since, default=None)

    def of(self, agent: AgentId) -> dict[bytes, Attested]:
        """What ``agent`` attested, by nonce; the last at least."""
        return {each.nonce: each for each in self._read(" WHERE agent = ?", (agent,))}

    def last(self) -> dict[AgentId, Attested]:
        """What every agent attested last."""
        return {each.agent: each for each in sorted(self._read("", ()), key=lambda each: each.since)}

    def _read(self, which: str, values: tuple[str, ...]) -> list[Attested]:
        with self._database.read() as db:
            rows = db.execute(_READ + which, values).fetchall()
        return [Attested(AgentId(row[0]), row[1], EvidenceKind(row[2]), *row[3:]) for row in rows]
