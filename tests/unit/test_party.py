"""A party's decisions, without a broker: whom it answers, with what, how often, and what it keeps."""

import time
from types import SimpleNamespace

import pytest
import uuid_utils
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from bus.client.delivery import Delivery
from bus.client.party import PartyOf, create_key, ids_of, key_path
from bus.client.payload import decode_payload, encode_payload
from bus.client.sharing import Ask, release_info, shares
from bus.codes import Code
from bus.errors import BusError, Denied, Refused, Unverified
from bus.files import Layout
from bus.policy.sharing import compile_sharing
from bus.tiers.mpc import totals
from bus.tiers.mpcframe import CONTENT_TYPE, SUITE
from bus.wire.envelope import Kind, Profile
from bus.wire.names import AgentId, DomainName

DOMAIN = "stats"
ASKER = X25519PrivateKey.generate()


class Kept:
    """A store in memory."""

    def __init__(self):
        self.held = {}

    def put(self, name, value, *, expires_in=None):
        assert expires_in > 0
        self.held[name] = encode_payload(value)

    def get(self, name, default=None, *, kind=None):
        found = self.held.get(name)
        return default if found is None else decode_payload(*found, kind)

    def items(self, prefix=""):
        return [
            (name, decode_payload(*each, None)) for name, each in sorted(self.held.items()) if name.startswith(prefix)
        ]


class Site:
    """Two parties of one rule, each with a store of its own, and what they answer."""

    def __init__(self, folder, **changes):
        self.keys = {name: create_key(Layout(folder), name) for name in ("party-a", "party-b")}
        self.folder, self.stores, self.answers = folder, {name: Kept() for name in self.keys}, []
        self.change(**changes)
        self.parties = {name: PartyOf(self.owner(name), Layout(folder), DOMAIN) for name in self.keys}

    def change(self, **changes):
        document = {
            "parties": {name: {"key": key} for name, key in self.keys.items()},
            "fields": {"amount": {"min": 0.0, "max": 10.0, "bins": 2}},
            "minimum_cohort": 20,
            "release_to": ["ANALYST"],
            **changes,
        }
        self.rule = compile_sharing(document)
        roles = {"analyst-1": "ANALYST", "bank-1": "SOURCE", "bank-2": "SOURCE", "analyst-2": "ANALYST"}
        self.policy = SimpleNamespace(
            domains={DOMAIN: SimpleNamespace(sharing=self.rule)},
            agents={AgentId(name): SimpleNamespace(roles={role}) for name, role in roles.items()},
        )

    def owner(self, name):
        return SimpleNamespace(
            agent=name,
            _policy=lambda: self.policy,
            store=lambda *_: self.stores[name],
            publish=lambda _, answer, **told: self.answers.append((name, answer, told)),
        )

    def batch(self, rows=20, to=("party-a", "party-b"), source="bank-1"):
        columns = {"amount": [float(number % 10) for number in range(rows)]}
        made = shares(self.rule, DOMAIN, source, columns)
        for name, each in zip(("party-a", "party-b"), made, strict=True):
            if name in to:
                self.parties[name].take(delivery(source, each.data, CONTENT_TYPE))
        return made

    def ask(self, party, ask, source="analyst-1"):
        data, content_type = encode_payload(ask)
        self.parties[party].take(delivery(source, data, content_type, kind=Kind.RPC_REQUEST))
        name, answer, told = self.answers[-1]
        assert (name, told["target"], told["kind"]) == (party, source, Kind.RPC_REPLY)
        return answer

    def release(self, job, held=None, **more):
        """Sums of both, as the asker opens them."""
        sums = []
        for place, party in enumerate(self.keys):
            found = held or self.ask(party, Ask("held", job))
            ask = Ask("release", job, found.ids, key=ASKER.public_key().public_bytes_raw().hex(), **more)
            answer = self.ask(party, ask)
            assert not answer.refused, answer.why
            info = release_info(self.rule, DOMAIN, job, found.ids, place)
            sums.append(SUITE.decrypt(bytes.fromhex(answer.sealed), ASKER, info))
        return sums


def delivery(source, payload, content_type, kind=Kind.MESSAGE):
    profile = Profile(AgentId(source), DomainName(DOMAIN), kind=kind, content_type=content_type)
    return Delivery(profile, uuid_utils.uuid7().bytes, 1, 2, "s", b"", "", b"d" * 10, 3, (0, 0, 0), payload)


def job():
    """One whose time is ahead of all batches that are made before the next millisecond."""
    made = uuid_utils.uuid7().int + (5 << 80)
    return f"{made:032x}"


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def test_sums_of_all_parties_are_the_totals_and_of_one_are_noise(site):
    for _ in range(3):
        site.batch()
    sums = site.release(job())
    assert totals(site.rule, sums, 60).fields["amount"].mean == pytest.approx(4.5, abs=1e-5)
    with pytest.raises(Unverified):
        totals(site.rule, sums[:1], 60)


def test_a_job_is_answered_again_alike_and_its_batches_are_in_no_other(site):
    site.batch()
    first = job()
    held = site.ask("party-a", Ask("held", first))
    sums = site.release(first)
    site.batch()
    assert site.ask("party-a", Ask("held", first)) == held
    assert site.release(first) == sums
    other = site.ask("party-a", Ask("held", job()))
    assert (other.count, other.rows) == (1, 20)
    stolen = site.ask("party-a", Ask("release", first, held.ids, key="00" * 32), source="analyst-2")
    assert stolen.refused == Code.PARTIES


@pytest.mark.parametrize("source", ["bank-1", "nobody"])
def test_who_has_no_role_for_it_gets_nothing_not_even_counts(site, source):
    site.batch()
    for step in ("held", "ids", "release"):
        answer = site.ask("party-a", Ask(step, job()), source=source)
        assert (answer.refused, answer.rows, answer.batches, answer.sealed) == (Code.CONSUME, 0, (), "")


def test_too_few_rows_other_batches_and_bad_asks_are_refused_by_name(site):
    site.batch(rows=19)
    made = job()
    held = site.ask("party-a", Ask("held", made))
    key = ASKER.public_key().public_bytes_raw().hex()
    for ask, code in (
        (Ask("release", made, held.ids, key=key), Code.COHORT),
        (Ask("release", made, ids_of([]), key=key), Code.PARTIES),
        (Ask("release", made, held.ids, leave=("zz",), key=key), Code.SCHEMA),
        (Ask("other", made), Code.SCHEMA),
        (Ask("held", "no job"), Code.SCHEMA),
        (Ask("held", made.upper()), ""),
    ):
        assert site.ask("party-a", ask).refused == code
    site.batch(rows=1)
    later = job()
    held = site.ask("party-a", Ask("held", later))
    assert site.ask("party-a", Ask("release", later, held.ids, key="00")).refused == Code.SCHEMA
    assert not any(name.startswith("job/") for name in site.stores["party-a"].held), "nothing was given away"


def test_batches_that_are_left_out_stay_for_another_job(site):
    site.batch()
    one_sided = site.batch(to=("party-a",))
    listed = site.ask("party-a", Ask("ids", job()))
    assert (listed.count, len(listed.batches)) == (2, 2)
    left = tuple(set(listed.batches) - set(site.ask("party-b", Ask("ids", job())).batches))
    assert left == (one_sided[0].data[36:52].hex(),)
    held = site.ask("party-a", Ask("held", job(), leave=left))
    assert held == site.ask("party-b", Ask("held", job()))


def test_a_share_again_changes_nothing_and_one_with_other_numbers_is_refused(site):
    made = site.batch()[0]
    before = dict(site.stores["party-a"].held)
    site.parties["party-a"].take(delivery("bank-1", made.data, CONTENT_TYPE))
    assert site.stores["party-a"].held == before
    other = shares(site.rule, DOMAIN, "bank-1", {"amount": [1.0]})[1]
    with pytest.raises(Unverified, match="of another rule or party"):
        site.parties["party-a"].take(delivery("bank-1", other.data, CONTENT_TYPE))
    changed = made.data[:-1] + bytes((made.data[-1] ^ 1,))
    with pytest.raises(Unverified, match="not sealed to this party's key"):
        site.parties["party-a"].take(delivery("bank-1", changed, CONTENT_TYPE))
    with pytest.raises(BusError):
        site.parties["party-a"].take(delivery("bank-1", b"SBM1", CONTENT_TYPE))


def test_shares_of_a_rule_that_was_replaced_are_not_added_to_those_of_the_new_one(site):
    site.batch()
    first = job()
    site.release(first)
    site.batch()
    site.change(fields={"amount": {"min": 0.0, "max": 100.0, "bins": 2}})
    assert site.ask("party-a", Ask("held", job())).count == 0
    site.batch()
    assert site.ask("party-a", Ask("held", job())).count == 1
    key = ASKER.public_key().public_bytes_raw().hex()
    again = site.ask("party-a", Ask("release", first, site.ask("party-a", Ask("held", first)).ids, key=key))
    assert again.refused == Code.PARTIES


def test_more_rows_than_sums_have_room_for_are_refused(site, monkeypatch):
    monkeypatch.setattr("bus.client.party.MAX_ROWS", 30)
    site.batch()
    site.batch()
    made = job()
    held = site.ask("party-a", Ask("held", made))
    answer = site.ask("party-a", Ask("release", made, held.ids, key="11" * 32))
    assert (answer.refused, "sums might overflow" in answer.why) == (Code.TOO_LARGE, True)


def test_who_may_have_totals_may_not_add_to_them(site):
    with pytest.raises(Denied, match="analyst-1 may have totals, and may not add to them"):
        site.batch(source="analyst-1")
    assert site.stores["party-a"].held == {}


def test_with_several_sources_there_is_a_cohort_without_the_largest(tmp_path):
    site = Site(tmp_path, minimum_sources=2)
    key = ASKER.public_key().public_bytes_raw().hex()
    for source, rows, why in (
        ("bank-1", 400, "expected at least 2 sources, found 1"),
        ("bank-2", 19, "expected at least 20 rows without the largest source, found 19"),
        ("bank-2", 1, ""),
    ):
        site.batch(rows=rows, source=source)
        made = job()
        held = site.ask("party-a", Ask("held", made))
        answer = site.ask("party-a", Ask("release", made, held.ids, key=key))
        assert (answer.why, answer.refused) == (why, Code.COHORT if why else "")


def test_a_share_of_another_source_or_time_is_refused(site, monkeypatch):
    made = shares(site.rule, DOMAIN, "bank-1", {"amount": [1.0]})[0]
    with pytest.raises(Unverified, match="not sealed to this party's key"):
        site.parties["party-a"].take(delivery("bank-2", made.data, CONTENT_TYPE))
    now = time.time_ns()
    for days in (31, -1):
        monkeypatch.setattr("time.time_ns", lambda days=days: now + days * 86_400 * 10**9)
        with pytest.raises(Refused, match="expected a batch of the last 30 days"):
            site.parties["party-a"].take(delivery("bank-1", made.data, CONTENT_TYPE))


def test_a_key_that_nothing_can_be_sealed_to_is_refused_and_the_party_goes_on(site):
    site.batch()
    made = job()
    held = site.ask("party-a", Ask("held", made))
    assert site.ask("party-a", Ask("release", made, held.ids, key="00" * 32)).refused == Code.SCHEMA
    assert site.ask("party-a", Ask("held", made)) == held


def test_a_job_that_one_party_answered_can_be_ended_by_the_other(site):
    site.batch()
    made = job()
    key = ASKER.public_key().public_bytes_raw().hex()
    held = site.ask("party-a", Ask("held", made))
    assert site.ask("party-a", Ask("release", made, held.ids, key=key)).sealed
    monday = site.ask("party-a", Ask("ids", made))
    assert (monday.batches, monday.ids) == (site.ask("party-b", Ask("ids", made)).batches, held.ids)


def test_other_messages_are_passed_over(site):
    site.parties["party-a"].take(delivery("bank-1", b"{}", "application/json"))
    assert site.answers == []
    assert site.stores["party-a"].held == {}


def test_a_key_is_made_once_and_an_agent_without_it_does_not_serve(tmp_path):
    site = Site(tmp_path)
    assert create_key(Layout(tmp_path), "party-a") == site.keys["party-a"]
    key_path(Layout(tmp_path), "party-a").unlink()
    with pytest.raises(Refused, match="party-a has no key of a party"):
        PartyOf(site.owner("party-a"), Layout(tmp_path), DOMAIN)
    create_key(Layout(tmp_path), "party-a")
    with pytest.raises(Refused, match="the policy has party-a with no such key"):
        PartyOf(site.owner("party-a"), Layout(tmp_path), DOMAIN)
