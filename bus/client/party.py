"""A party of COMPUTATION by mpc: keeps its shares sealed in its store, and gives their sums away, each batch once.

Security checks of a share: it is of this rule, party, domain and source; its source may not have totals, or it could
count its own rows towards a cohort; it is not older than jobs are remembered. Of a job, in order: (1) who asks has a
role of `release_to`; (2) the batches that it may mean are those up to the job's time, in no other job, without those
that are left out; (3) their ids have the hash that was agreed; (4) they have at least `minimum_cohort` rows, of
`minimum_sources` sources, and of several as many without the largest. What was given away is remembered before it is
sent, so that a party that is killed midway answers the same job again and no other one.
"""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from bus.client.delivery import Delivery
from bus.client.serving import serve
from bus.client.sharing import Answer, Ask, release_info
from bus.codes import Code
from bus.errors import Denied, Refused, Unverified
from bus.files import Layout, make_folder, read_secret, write_secret
from bus.policy.model import Policy
from bus.policy.sharing import SharingRule
from bus.tiers.mpc import MAX_ROWS, add, vector_of
from bus.tiers.mpcframe import CONTENT_TYPE, SUITE, ShareFrame
from bus.wire.codec import prefixed, read_prefixed
from bus.wire.envelope import Kind
from bus.wire.names import AgentId, DomainName

if TYPE_CHECKING:
    from bus.client.bus import Bus

KEPT_S: Final = 30 * 86_400.0
"""How long shares that no job took are kept."""
JOB_S: Final = 3 * KEPT_S
"""How long a job's answer is kept: a share may come ``KEPT_S`` after it was made, and is kept as long."""
AHEAD_MS: Final = 300_000
"""How far the clock of a source may be ahead."""
Held = dict[str, tuple[int, str, bytes]]
"""Rows, source and vector of each batch, by its id in hex."""


def key_path(layout: Layout, agent: str) -> Path:
    """Where a party keeps its private key."""
    return layout.agent(agent) / "mpc" / "key"


def create_key(layout: Layout, agent: str, owner: int | None = None) -> str:
    """The public key of a party, in hex, made where it has none yet."""
    path = key_path(layout, agent)
    if not path.exists():
        make_folder(layout.agent(agent), owner=owner)
        make_folder(path.parent, owner=owner)
        write_secret(path, X25519PrivateKey.generate().private_bytes_raw(), owner)
    return X25519PrivateKey.from_private_bytes(read_secret(path)).public_key().public_bytes_raw().hex()


class PartyOf:
    """One agent as a party of one domain. ``run`` once."""

    def __init__(self, owner: Bus, layout: Layout, domain: str) -> None:
        """Raises Refused (settings) where the policy does not have this agent as a party with the key that it holds."""
        self._owner = owner
        self._domain = DomainName(domain)
        rule = self._rule(owner._policy())
        place = rule.place(owner.agent)
        try:
            self._key = X25519PrivateKey.from_private_bytes(read_secret(key_path(layout, owner.agent)))
        except OSError:
            hint = f"bus mpc init --as {owner.agent}"
            raise Refused(f"{owner.agent} has no key of a party", code=Code.SETTINGS, hint=hint) from None
        if place is None or rule.parties[place].key != self._key.public_key().public_bytes_raw():
            raise Refused(f"{domain}: the policy has {owner.agent} with no such key", code=Code.SETTINGS)
        self._store = owner.store(f"mpc-{domain}"[:63], domain)

    def _rule(self, policy: Policy) -> SharingRule:
        found = policy.domains.get(self._domain)
        if found is None or found.sharing is None:
            raise Refused(f"{self._domain}: expected a domain of tier COMPUTATION by mpc", code=Code.SETTINGS)
        return found.sharing

    def run(self, stop: threading.Event) -> None:
        """Keep shares and answer jobs until ``stop``. A delivery is acknowledged when it was stored or answered."""
        serve(self._owner, self._domain, stop, self.take, lambda _, error: self._owner._tell(error))

    def take(self, got: Delivery) -> None:
        """One delivery. Raises Refused or Unverified for a share that is none of this party's."""
        if got.content_type == CONTENT_TYPE:
            self._keep(got)
        elif got.kind is Kind.RPC_REQUEST:
            try:
                answer = self._answer(got, got.value(Ask))
            except Refused as error:
                answer = Answer(refused=error.code, why=str(error))
            self._owner.publish(
                self._domain, answer, target=got.source, kind=Kind.RPC_REPLY, causation=[got], purpose=got.purpose
            )

    def _keep(self, got: Delivery) -> None:
        policy = self._owner._policy()
        rule, frame = self._rule(policy), ShareFrame.parse(got.payload)
        place = rule.place(self._owner.agent)
        expected = (rule.digest, place, len(rule.parties))
        if (frame.rule, frame.party, frame.parties) != expected:
            raise Unverified("share: of another rule or party than the policy's", step="share", code=Code.PARTIES)
        source = policy.agents.get(AgentId(got.source))
        if source is not None and source.roles & rule.release_to:
            message = f"share: {got.source} may have totals, and may not add to them"
            raise Denied(message, rule=f"{self._domain}.mpc", code=Code.PRODUCE)
        made, now = int.from_bytes(frame.batch[:6], "big"), time.time_ns() // 1_000_000
        if frame.rows > MAX_ROWS or uuid.UUID(bytes=frame.batch).version != 7:
            raise Refused("share: no batch of a source", code=Code.SCHEMA)
        if not now - KEPT_S * 1000 < made < now + AHEAD_MS:
            raise Refused("share: expected a batch of the last 30 days", code=Code.EXPIRED)
        vector = vector_of(frame.open(self._key, self._domain, got.source), rule.width)
        name = _batches(rule) + frame.batch.hex()
        held = self._store.get(name, kind=bytes)
        value = frame.rows.to_bytes(4, "big") + prefixed(got.source.encode()) + vector
        if held is None:
            self._store.put(name, value, expires_in=KEPT_S)
        elif held != value:
            raise Refused(f"share: batch {frame.batch.hex()} is there with other numbers", code=Code.REPLAY)

    def _held(self, rule: SharingRule, job: str, leave: Iterable[str]) -> Held:
        """Batches of ``rule`` up to the time of ``job`` that no other job took."""
        upto, found = int(job[:12], 16), Held()
        taken: set[str] = set(leave)
        for name, document in self._store.items("job/"):
            if name != f"job/{job}":
                taken.update(document["batches"])
        for name, value in self._store.items(_batches(rule)):
            batch = name.removeprefix(_batches(rule))
            if int(batch[:12], 16) < upto and batch not in taken:
                source, at = read_prefixed(value, 4, 64)
                found[batch] = (int.from_bytes(value[:4], "big"), source.decode(), value[at:])
        return found

    def _answer(self, got: Delivery, ask: Ask) -> Answer:
        policy = self._owner._policy()
        rule = self._rule(policy)
        # 1. Who asks.
        asker = policy.agents.get(AgentId(got.source))
        if asker is None or not asker.roles & rule.release_to:
            raise Denied(f"{got.source} has no role of release_to", rule=f"{self._domain}.mpc", code=Code.CONSUME)
        job = uuid.UUID(hex=ask.job).hex if _is_hex(ask.job, 16) else ""
        if not job or not all(_is_hex(each, 16) for each in ask.leave):
            raise Refused("job: expected the hex of a UUIDv7", code=Code.SCHEMA)
        given = self._store.get(f"job/{job}")
        if given is not None:
            if ask.step == "held":
                return Answer(rows=given["rows"], ids=given["ids"], count=len(given["batches"]))
            if ask.step == "ids":
                return Answer(rows=given["rows"], ids=given["ids"], batches=tuple(given["batches"]))
            if (given["ids"], given["asker"], given["rule"]) != (ask.ids, got.source, rule.digest.hex()):
                raise Refused("this job was given to another, or for other batches", code=Code.PARTIES)
            return Answer(sealed=self._seal(rule, ask, bytes.fromhex(given["sums"])))
        # 2. What it may mean.
        held = self._held(rule, job, ask.leave)
        rows, ids = sum(each for each, *_ in held.values()), ids_of(held)
        if ask.step == "ids":
            return Answer(rows=rows, ids=ids, batches=tuple(sorted(held)), count=len(held))
        if ask.step == "held":
            return Answer(rows=rows, ids=ids, count=len(held))
        if ask.step != "release":
            raise Refused("step: expected held, ids or release", code=Code.SCHEMA)
        # 3. What was agreed.
        if ids != ask.ids:
            raise Unverified("the batches of this job are others than were agreed", step="parties", code=Code.PARTIES)
        # 4. Enough rows of enough sources, and not more than sums have room for.
        _check_cohort(rule, held, rows)
        if rows > MAX_ROWS:
            raise Refused(f"expected at most {MAX_ROWS} rows, found {rows}: sums might overflow", code=Code.TOO_LARGE)
        sums = add((vector for *_, vector in held.values()), rule.width)
        sealed = self._seal(rule, ask, sums)
        document = {
            "ids": ids,
            "rows": rows,
            "batches": sorted(held),
            "sums": sums.hex(),
            "asker": got.source,
            "rule": rule.digest.hex(),
        }
        self._store.put(f"job/{job}", document, expires_in=JOB_S)
        return Answer(sealed=sealed)

    def _seal(self, rule: SharingRule, ask: Ask, sums: bytes) -> str:
        place = rule.place(self._owner.agent)
        if place is None or not _is_hex(ask.key, 32):
            raise Refused("key: expected an X25519 public key", code=Code.SCHEMA)
        info = release_info(rule, self._domain, ask.job, ask.ids, place)
        try:
            return SUITE.encrypt(sums, X25519PublicKey.from_public_bytes(bytes.fromhex(ask.key)), info).hex()
        except ValueError:  # a point of small order
            raise Refused("key: expected an X25519 public key", code=Code.SCHEMA) from None


def _check_cohort(rule: SharingRule, held: Held, rows: int) -> None:
    """Raise Refused (cohort) where totals would tell of too few. With several sources one of them, who knows its own
    rows, must not be left with fewer of the others."""
    if rows < rule.minimum_cohort:
        raise Refused(f"expected at least {rule.minimum_cohort} rows, found {rows}", code=Code.COHORT)
    sources: Counter[str] = Counter()
    for each, source, _ in held.values():
        sources[source] += each
    if len(sources) < rule.minimum_sources:
        raise Refused(f"expected at least {rule.minimum_sources} sources, found {len(sources)}", code=Code.COHORT)
    rest = rows - max(sources.values(), default=0)
    if rule.minimum_sources > 1 and rest < rule.minimum_cohort:
        message = f"expected at least {rule.minimum_cohort} rows without the largest source, found {rest}"
        raise Refused(message, code=Code.COHORT)


def _batches(rule: SharingRule) -> str:
    """Names of the shares that were made by ``rule``: those of another one add up to something else."""
    return f"batch/{rule.digest.hex()}/"


def ids_of(held: Iterable[str]) -> str:
    """SHA-256 of the ids of batches, in hex."""
    return hashlib.sha256(b"".join(bytes.fromhex(each) for each in sorted(held))).hexdigest()


def _is_hex(text: str, length: int) -> bool:
    try:
        return len(bytes.fromhex(text)) == length and len(text) == 2 * length
    except ValueError:
        return False
