"""COMPUTATION by mpc for a source and for who asks: shares to every party, and totals from all of them.

A job goes in two steps. Every party says how many batches and rows it holds up to the job's time, and the hash of their
ids; when all say the same, each is asked for its sums, sealed to a key that only the asker has. Whoever asks cannot
learn more by lying: sums over different sets are noise. A party gives each batch away in one job alone.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import uuid_utils
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bus.client.delivery import Delivery
from bus.client.payload import Encoded
from bus.client.sent import Sent
from bus.client.subscriber import Observing, Subscriber
from bus.codes import Code
from bus.errors import BusError, Refused, Unavailable, Unverified
from bus.policy.sharing import Party, SharingRule
from bus.tiers.mpc import Totals, encode_rows, split, totals
from bus.tiers.mpcframe import CONTENT_TYPE, SUITE, ShareFrame
from bus.wire import preimage
from bus.wire.envelope import Kind

if TYPE_CHECKING:
    from bus.client.bus import Bus

ASK_AGAIN_S: Final = 0.5
COMMON_S: Final = 5.0
"""How long batches that some party lacks are waited for where they are to be left out."""
Send = Callable[["Bus", Encoded, str], Sent]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a party is asked: what it holds (``step`` "held", or "ids" with the ids), or its sums ("release").

    ``ids``: hash of the batches to add up; ``leave``: held ones that are left out; ``key``: what to seal to. In hex.
    """

    step: str
    job: str
    ids: str = ""
    leave: tuple[str, ...] = ()
    key: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a party says; ``refused`` is a code where it does not."""

    rows: int = 0
    ids: str = ""
    batches: tuple[str, ...] = ()
    count: int = 0
    sealed: str = ""
    refused: str = ""
    why: str = ""


def release_info(rule: SharingRule, domain: str, job: str, ids: str, party: int) -> bytes:
    """What a party's sums are sealed with (HPKE's info)."""
    return preimage.release_info(rule.digest, domain, bytes.fromhex(job), bytes.fromhex(ids), party)


def shares(rule: SharingRule, domain: str, source: str, columns: object) -> list[Encoded]:
    """A share for each party, sealed to it. Raises Refused (schema) as ``encode_rows``."""
    if not isinstance(columns, Mapping):
        name = type(columns).__name__
        raise Refused(f"mpc: expected columns ({', '.join(rule.columns)}), found {name}", code=Code.SCHEMA)
    rows, vector = encode_rows(rule, columns)
    batch, count = uuid_utils.uuid7().bytes, len(rule.parties)
    frames = [
        ShareFrame.seal((rule.digest, batch, rows, place, count), share, party.key, domain, source)
        for place, (party, share) in enumerate(zip(rule.parties, split(vector, count), strict=True))
    ]
    return [Encoded(each.encode(), CONTENT_TYPE) for each in frames]


class Sharing:
    """What `Bus.mpc` gives."""

    def __init__(self, owner: Bus) -> None:
        self._owner = owner
        self._lock = threading.Lock()
        self._inboxes: dict[tuple[str, str], Subscriber] = {}

    def publish(self, rule: SharingRule, domain: str, columns: object, send: Send) -> Sent:
        """Every party's share by ``send``; returns what was sent last, when all of them are as far as was asked for.

        Raises what ``shares`` and publishing raise: parties that have their share of a batch then hold one more than
        the others, which a job names and can leave out.
        """
        made = zip(rule.parties, shares(rule, domain, self._owner.agent, columns), strict=True)
        return [send(self._at(party), frame, party.name) for party, frame in made][-1]

    def _at(self, party: Party) -> Bus:
        return self._owner.peer(party.peer) if party.peer else self._owner

    def aggregate(self, domain: str, *, timeout: float = 30.0, job: str = "", common: bool = False) -> Totals:
        """Sum, mean, variance and histogram of every field, and the counts of every group, over the batches that were
        published before ``job`` began and are in no earlier one. ``common`` leaves out batches that some party lacks.

        Raises Denied, Refused (cohort) below
        the minimum of rows, Unverified (parties) where parties hold, or add up, different batches, Unavailable where a
        party does not answer in ``timeout`` s: the same ``job``, which it names, may be asked for again.
        """
        found = self._owner._may_consume(domain)
        if found.sharing is None:
            raise Refused(f"{domain}: expected a domain of tier COMPUTATION by mpc", code=Code.SCHEMA)
        job = job or uuid_utils.uuid7().hex
        with self._lock:  # the answers of two jobs would be taken for each other's
            try:
                return _Job(self, domain, found.sharing, job, time.monotonic() + timeout).run(common=common)
            except BusError:
                self._forget()
                raise

    def _forget(self) -> None:
        """End inboxes: one that failed would fail for ever."""
        for inbox in self._inboxes.values():
            inbox.close()
        self._inboxes.clear()

    def _inbox(self, domain: str, party: Party) -> Subscriber:
        place = (domain, party.peer)
        found = self._inboxes.get(place)
        if found is None:
            found = self._inboxes[place] = self._at(party)._subscriber(domain, Observing(new=True))
        return found


class _Job:
    """One job of one asker."""

    def __init__(self, sharing: Sharing, domain: str, rule: SharingRule, job: str, deadline: float) -> None:
        self._sharing = sharing
        self._domain = domain
        self._rule = rule
        self._job = job
        self._deadline = deadline

    def run(self, *, common: bool) -> Totals:
        held = self._agreed(min(self._deadline, time.monotonic() + COMMON_S) if common else self._deadline)
        leave: list[tuple[str, ...]] = [()] * len(held)
        if len({each.ids for each in held}) > 1:
            listed = self._all([Ask("ids", self._job)] * len(held))
            every = [set(each.batches) for each in listed]
            shared = set.intersection(*every)
            lacks = ", ".join(
                f"{party.name} lacks {len(set.union(*every) - each)}"
                for party, each in zip(self._rule.parties, every, strict=True)
            )
            if not common or not shared:
                raise Unverified(
                    f"{self._domain}: parties hold different batches: {lacks} of {len(set.union(*every))}",
                    step="parties",
                    code=Code.PARTIES,
                    hint="ask again when all shares are there, or with common=True for what all of them hold",
                )
            leave = [tuple(sorted(each - shared)) for each in every]
            held = self._all([Ask("held", self._job, leave=each) for each in leave])
            if len({each.ids for each in held}) > 1:
                raise Unverified(f"{self._domain}: a party holds other batches than it lists", step="parties")
        key = X25519PrivateKey.generate()
        public = key.public_key().public_bytes_raw().hex()
        told = self._all([Ask("release", self._job, held[0].ids, each, public) for each in leave])
        sums = []
        for place, (party, answer) in enumerate(zip(self._rule.parties, told, strict=True)):
            try:
                info = release_info(self._rule, self._domain, self._job, held[0].ids, place)
                sums.append(SUITE.decrypt(bytes.fromhex(answer.sealed), key, info))
            except (InvalidTag, ValueError):
                raise Unverified(f"{party.name}: its sums are not sealed for this job", step="parties") from None
            if len(sums[-1]) != 8 * self._rule.width:
                raise Unverified(f"{party.name}: expected {self._rule.width} sums", step="parties")
        return totals(self._rule, sums, held[0].rows)

    def _agreed(self, deadline: float) -> list[Answer]:
        """What all parties hold; asked again, while there is time, until it is the same and was so the time before:
        shares may be under way to all of them."""
        before: list[Answer] = []
        while True:
            held = self._all([Ask("held", self._job)] * len(self._rule.parties))
            same = len({(each.ids, each.rows) for each in held}) == 1
            if (same and held == before) or time.monotonic() + 4 * ASK_AGAIN_S > deadline:
                return held
            before = held
            time.sleep(ASK_AGAIN_S)

    def _all(self, asked: list[Ask]) -> list[Answer]:
        """What each party answers to what it is asked. Raises Refused where one refuses."""
        rule, inboxes, ids = self._rule, [], []
        for party in rule.parties:
            inboxes.append(self._sharing._inbox(self._domain, party))
        for party, inbox, ask in zip(rule.parties, inboxes, asked, strict=True):
            if not inbox.assigned.wait(max(self._deadline - time.monotonic(), 0)):
                raise self._silent(party)
            sent = self._sharing._at(party).publish(
                self._domain, ask, target=party.name, kind=Kind.RPC_REQUEST, confirm="stored"
            )
            ids.append(sent.id)
        waiting = dict(zip(ids, rule.parties, strict=True))
        answers: dict[str, Answer] = {}
        for party, inbox in zip(rule.parties, inboxes, strict=True):
            while party.name not in answers:
                got = inbox.get(max(self._deadline - time.monotonic(), 0))
                if got is None:
                    raise self._silent(party)
                self._take(got, waiting, answers)
        return [answers[party.name] for party in rule.parties]

    def _take(self, got: Delivery, waiting: dict[uuid.UUID, Party], answers: dict[str, Answer]) -> None:
        """An answer of a party to what it was asked; anything else is not for this job."""
        party = next((waiting[each] for each in got.causation if each in waiting), None)
        if got.kind is not Kind.RPC_REPLY or party is None or got.source != party.name:
            return
        answer = got.value(Answer)
        if answer.refused:
            known = answer.refused in set(Code)
            code = Code(answer.refused) if known else Code.PARTIES
            raise Refused(f"{party.name} refuses job {self._job}: {answer.why}", code=code)
        answers[party.name] = answer

    def _silent(self, party: Party) -> Unavailable:
        return Unavailable(
            f"{self._domain}: party {party.name} did not answer; nothing was combined (job {self._job})",
            hint=f"does `bus run party {self._domain} --as {party.name}` run? the same job may be asked for again",
        )
