"""Labels that follow the data by tickets: what a ticket proves, and that whoever shows less is labelled higher."""

from __future__ import annotations

import itertools
import os
import uuid
from dataclasses import replace

import pytest
import uuid_utils
from hypothesis import given
from hypothesis import strategies as st

from bus.client.composer import Composer, session_of
from bus.client.delivery import Delivery
from bus.client.opening import Profiles, open_bundle
from bus.client.sessions import MAX_SESSIONS, Sessions
from bus.codes import Code
from bus.crypto.keys import purpose_key
from bus.crypto.seal import open_counted
from bus.crypto.tickets import issue, proven
from bus.errors import Denied, PolicyError, Refused, WireError
from bus.policy.diff import access_changes
from bus.policy.replay import context_of
from bus.wire import envelope, hopblock, preimage
from bus.wire.envelope import MAX_TICKET, MAX_TICKETS, Kind
from bus.wire.hop import decode_hop
from bus.wire.names import AgentId, DomainName
from bus.wire.ticket import encode_ticket, parse_ticket, reader_digest
from consumers.enforcer.derive import derive
from tests.unit.build import DEPLOYMENT, NOW, World, enforce, message_of, state
from tests.unit.law_build import domain, loaded

WARD = "ward"
READERS = ("CLERK", "DOCTOR")
S1, S2, S3 = (uuid_utils.uuid7().hex for _ in range(3))
"""Sessions that began in this process."""
LABELS = {"levels": ["public", "internal", "secret"], "categories": ["pii"], "propagate": "tickets"}
ROLES = {"DOCTOR": {"clearance": "secret", "categories": ["pii"]}, "CLERK": {"clearance": "internal"}, "LOG": {}}
STAFF = {"dan": "DOCTOR", "dora": "DOCTOR", "cat": "CLERK", "log": "LOG"}
DOMAINS = [domain(WARD, "DOCTOR", "CLERK", "LOG", consume=["DOCTOR", "CLERK"], label=["internal"])]


def law(**labels):
    return loaded(DOMAINS, STAFF, labels={**LABELS, **labels}, roles=ROLES)


class Ward:
    """An enforcer of one domain whose labels follow by tickets, and its staff."""

    def __init__(self, **labels):
        self.world = World(law(**labels))
        self.context, self.place = self.world.context(), state(WARD)
        self.sealers = {agent: self.world.sealer(agent, WARD) for agent in STAFF}
        self.trust = self.world.trust()
        self.offset = 0

    def sealed(self, who, session="s-1", tickets=(), **changes):
        profile = envelope.encode_profile(envelope.Profile(AgentId(who), DomainName(WARD), **changes))
        message = envelope.encode_message(message_of(correlation_id=session, tickets=tuple(tickets)))
        return self.sealers[who].seal(0, envelope.encode_plaintext(profile, message, b'{"note": 1}'))[1]

    def says(self, who, session="s-1", tickets=(), **changes):
        """The hop of what ``who`` writes, and the delivery to each who may open it."""
        first, self.offset = self.offset, self.offset + 1
        value = self.sealed(who, session, tickets, **changes)
        outcomes = enforce(self.context, self.place, value, first=first)
        made = derive(outcomes, first, self.offset, self.place, self.context)
        (hop,) = self.hops(made)
        readers = {agent: self.read(made, agent) for agent in STAFF}
        return hop, {agent: each[0] for agent, each in readers.items() if each}

    def hops(self, made):
        (block,) = map(hopblock.parse, made.blocks)
        key = purpose_key(self.world.audit_roots[block.day], "block")
        aad = preimage.hop_block_aad(DEPLOYMENT, block.header)
        body = open_counted(key, "audit", block.instance, block.sequence, block.body, aad)
        return [decode_hop(each) for each in hopblock.split_hops(body, block.count)]

    def read(self, made, agent) -> list[Delivery]:
        names = (agent, STAFF[agent])
        found = []
        for value in made.bundles:
            opened = open_bundle(
                value,
                domain=DomainName(WARD),
                topic=f"{WARD}.out",
                partition=0,
                offset=3,
                append_time=NOW,
                trust=self.trust,
                tier=None,
                highest=lambda _: -1,
                reading=lambda epoch: tuple(self.world.reading(name, WARD, epoch) for name in names),
                profiles=Profiles(),
            )
            found += [each for _, each in opened.deliveries]
        return found


def test_a_chain_keeps_its_label_by_tickets_and_reaches_who_is_cleared_for_that():
    ward = Ward()
    first, got = ward.says("log")  # it reads nothing: what it writes has the domain's label
    assert (first.tail.labels, set(got)) == (("internal",), {"dan", "dora", "cat"})
    second, answered = ward.says("dan", tickets=[got["dan"].ticket])
    assert (second.tail.labels, second.tail.facts["tickets"]) == (("internal",), "internal")
    assert "cat" in answered, "a doctor answers a clerk about what is no secret"
    third, _ = ward.says("dora", tickets=[got["dora"].ticket, answered["dora"].ticket])
    assert third.tail.labels == ("internal",)


def test_what_is_labelled_higher_stays_higher_down_the_chain():
    ward = Ward()
    _, got = ward.says("dan", labels=("secret", "pii"))
    assert set(got) == {"dan", "dora"}
    hop, answered = ward.says("dora", tickets=[got["dora"].ticket])
    assert (hop.tail.labels, set(answered)) == (("secret", "pii"), {"dan", "dora"})
    _, low = ward.says("log")
    hop, answered = ward.says("dora", tickets=[low["dora"].ticket, got["dora"].ticket])
    assert (hop.tail.labels, set(answered)) == (("secret", "pii"), {"dan", "dora"}), "the join of all"


def launderings(ward):
    """Ways to show less than what was read, each with the tickets shown and the session."""
    _, low = ward.says("log")
    _, elsewhere = ward.says("log", session="s-2")
    _, targeted = ward.says("log", kind=Kind.RPC_REQUEST, target="dora")
    good = low["dan"].ticket
    ticket = parse_ticket(good)
    epoch = ward.context.keyring.epoch(WARD, 1)
    other = World(law()).context().keyring.epoch(WARD, 1)
    yield "none", []
    yield "of another session", [elsewhere["dan"].ticket]
    yield "of another agent", [targeted["dora"].ticket]
    yield "one good and one of another session", [good, elsewhere["dan"].ticket]
    yield "of another deployment", [issue(epoch, bytes(16), b"s-1", ("internal",), ("DOCTOR",))]
    yield "under another root", [issue(other, DEPLOYMENT, b"s-1", ("internal",), ("DOCTOR",))]
    yield "of an epoch that is not held", [encode_ticket(9, WARD, ("internal",), ("DOCTOR",)) + ticket.mac]
    yield "of a domain that is not there", [encode_ticket(1, "attic", ("internal",), ("DOCTOR",)) + ticket.mac]
    yield "made lower", [encode_ticket(1, WARD, ("public",), READERS) + ticket.mac]
    yield "for a wider audience", [encode_ticket(1, WARD, ticket.labels, (*READERS, "LOG")) + ticket.mac]
    yield "a level that the policy has not", [issue(epoch, DEPLOYMENT, b"s-1", ("low",), ("DOCTOR",))]
    yield "half a ticket", [good[: len(good) // 2]]
    yield "a ticket and a byte", [good + b"\x00"]
    yield "nothing in it", [b""]
    yield "noise", [os.urandom(90)]


def test_whoever_shows_less_than_holds_has_the_highest_label_that_it_could_have_read():
    ward = Ward()
    seen = []
    for name, tickets in launderings(ward):
        hop, got = ward.says("dan", tickets=tickets, labels=())
        assert (hop.tail.labels, set(got)) == (("secret", "pii"), {"dan", "dora"}), name
        assert "tickets" not in hop.tail.facts
        seen.append(name)
    assert len(seen) == 15


def test_a_reader_gets_the_ticket_of_what_it_reads_and_none_of_those_that_were_shown():
    ward = Ward()
    _, low = ward.says("log")
    _, got = ward.says("dan", tickets=[low["dan"].ticket], labels=("secret",))
    ticket = parse_ticket(got["dora"].ticket)
    assert (ticket.domain, ticket.labels, ticket.readers) == (WARD, ("secret",), {reader_digest("DOCTOR")})
    value = ward.sealed("dan", tickets=[low["dan"].ticket], labels=("secret",))
    (outcome,) = enforce(ward.context, ward.place, value, first=ward.offset)
    assert low["dan"].ticket not in outcome.plaintext
    assert got["dora"].ticket in outcome.plaintext


@pytest.mark.parametrize("propagate", ["none", "session"])
def test_without_that_mode_a_ticket_changes_nothing_and_none_is_given(propagate):
    _, low = Ward().says("log")
    ward = Ward(propagate=propagate)
    hop, got = ward.says("dan", tickets=[low["dan"].ticket])
    assert hop.tail.labels == (("internal",) if propagate == "none" else ("secret", "pii"))
    assert {each.ticket for each in got.values()} == {b""}


def test_a_ticket_that_would_be_too_long_is_left_out():
    ward = Ward()
    epoch = ward.context.keyring.epoch(WARD, 1)
    fitting = itertools.takewhile(
        lambda count: issue(epoch, DEPLOYMENT, b"s", ("internal",), tuple(f"ROLE_{n:05}" for n in range(count))),
        itertools.count(1),
    )
    most = max(fitting)
    assert len(issue(epoch, DEPLOYMENT, b"s", ("internal",), tuple(f"ROLE_{n:05}" for n in range(most)))) <= MAX_TICKET
    assert issue(epoch, DEPLOYMENT, b"s", ("internal",), tuple(f"ROLE_{n:05}" for n in range(most + 1))) == b""


@given(st.binary(max_size=MAX_TICKET + 8))
def test_any_bytes_are_a_ticket_or_a_wire_error(data):
    try:
        ticket = parse_ticket(data)
    except WireError as error:
        assert error.code in (Code.DECODE, Code.TOO_LARGE)
    else:
        assert ticket.signed + ticket.mac == data


@given(data=st.data())
def test_a_ticket_with_one_bit_changed_proves_nothing(data):
    ward = Ward()
    epoch = ward.context.keyring.epoch(WARD, 1)
    good = issue(epoch, DEPLOYMENT, b"s-1", ("internal",), ("DOCTOR",))
    asked = (ward.context.keyring.epoch, DEPLOYMENT, b"s-1", frozenset({"dan", "DOCTOR"}))
    assert proven([good], *asked) == ("internal",)
    at = data.draw(st.integers(0, 8 * len(good) - 1))
    bad = bytearray(good)
    bad[at // 8] ^= 1 << at % 8
    assert proven([bytes(bad)], *asked) is None
    assert proven([good, bytes(bad)], *asked) is None


# What the agent's side remembers and shows.
def delivery(ticket=b"", session=S1):
    profile = envelope.Profile(AgentId("log"), DomainName(WARD))
    return Delivery(profile, os.urandom(16), NOW, NOW, session, b"", "", bytes(10), 1, (0, 0, 0), b"", ticket)


def ticket_of(*labels):
    return encode_ticket(1, WARD, labels, ("DOCTOR",)) + os.urandom(32)


def test_a_session_shows_one_ticket_for_each_label_that_was_given_in_it():
    sessions = Sessions(since=0)
    assert sessions.shown(S1, ()) is None
    given_ = [ticket_of("internal"), ticket_of("internal"), ticket_of("secret", "pii")]
    for each in given_:
        sessions.given(delivery(each))
    tickets, labels = sessions.shown(S1, ())
    assert tickets == tuple(given_[1:])
    assert labels == ("internal", "pii", "secret")
    assert sessions.shown(S2, ()) is None


def test_a_session_in_which_something_came_without_a_ticket_shows_none_for_good():
    for bad in (b"", b"noise"):
        sessions = Sessions(since=0)
        for each in (ticket_of("internal"), bad, ticket_of("internal")):
            sessions.given(delivery(each))
        assert sessions.shown(S1, ()) is None


def test_a_message_that_also_builds_on_another_session_shows_none():
    sessions = Sessions(since=0)
    mine, other = delivery(ticket_of("internal")), delivery(ticket_of("secret"), S2)
    sessions.given(mine)
    assert sessions.shown(S1, (mine,)) is not None
    assert sessions.shown(S1, (mine, other)) is None


def test_what_a_message_names_as_its_cause_counts_as_given():
    sessions = Sessions(since=0)
    tickets, labels = sessions.shown(S1, (delivery(ticket_of("secret")),))
    assert (len(tickets), labels) == (1, ("secret",))


def test_more_labels_than_an_envelope_takes_show_none(monkeypatch):
    sessions = Sessions(since=0)
    for number in range(MAX_TICKETS):
        sessions.given(delivery(ticket_of(f"l{number}")))
    assert len(sessions.shown(S1, ())[0]) == MAX_TICKETS
    sessions.given(delivery(ticket_of("one-more")))
    assert sessions.shown(S1, ()) is None


def test_sessions_beyond_the_bound_show_none_and_those_within_it_go_on(monkeypatch):
    assert MAX_SESSIONS >= 10_000
    monkeypatch.setattr("bus.client.sessions.MAX_SESSIONS", 2)
    sessions = Sessions(since=0)
    for session in (S1, S2, S3, S1):
        sessions.given(delivery(ticket_of("internal"), session))
    assert [sessions.shown(session, ()) is not None for session in (S1, S2, S3)] == [True, True, False]


@pytest.mark.parametrize(
    "session", ["", "task-7", "0" * 32, "s-1", str(uuid.UUID(int=7)), "f47ac10b58cc4372a5670e02b2c3d479"]
)
def test_a_session_that_is_not_named_by_its_first_message_shows_none(session):
    sessions = Sessions(since=0)
    sessions.given(delivery(ticket_of("internal"), session))
    assert sessions.shown(session, ()) is None


def test_a_session_older_than_the_process_shows_none():
    now = uuid.UUID(hex=S1).int >> 80
    for since, shows in ((now, True), (now + 1, False)):
        sessions = Sessions(since=since)
        sessions.given(delivery(ticket_of("internal")))
        assert (sessions.shown(S1, ()) is not None) is shows


def test_a_cause_named_by_its_id_counts_where_it_was_given_in_that_session():
    sessions = Sessions(since=0)
    mine, other = delivery(ticket_of("internal")), delivery(ticket_of("secret"), S2)
    for each in (mine, other):
        sessions.given(each)
    assert sessions.shown(S1, (uuid.UUID(bytes=mine.message_id),)) is not None
    assert sessions.shown(S1, (uuid.UUID(bytes=other.message_id),)) is None
    assert sessions.shown(S1, (uuid.uuid4(),)) is None


def test_the_early_check_knows_the_label_that_the_enforcer_will_give():
    policy = law()
    ask = (WARD, Kind.RPC_REPLY, "cat", "", "", (), "", None, "application/json", None)
    composer = Composer(AgentId("dan"))
    assert composer.route(policy, *ask, proven=("internal",), notify=False).domain == WARD
    for labels in (None, ("secret",)):
        with pytest.raises(Denied, match="cleared for secret"):
            composer.route(policy, *ask, proven=labels, notify=False)


def test_a_session_is_named_or_inherited_and_is_text():
    assert session_of("s-9", (delivery(),)) == "s-9"
    assert session_of("", (delivery(session="s-7"),)) == "s-7"
    assert session_of("", ()) == ""
    with pytest.raises(Refused, match="correlation: expected text"):
        session_of("\ud800", ())


# The law.
def test_a_law_by_tickets_refuses_chains_between_domains_as_one_without_propagation():
    board = domain("board", "DOCTOR", "CLERK", label=["public"])
    for propagate, refused in (("tickets", True), ("none", True), ("session", False)):
        given_ = {"labels": {**LABELS, "propagate": propagate}, "roles": ROLES}
        if refused:
            with pytest.raises(PolicyError, match="may read ward"):
                loaded([*DOMAINS, board], STAFF, **given_)
        else:
            assert loaded([*DOMAINS, board], STAFF, **given_)


@pytest.mark.parametrize(
    ("before", "after", "widens"),
    [
        ("session", "tickets", True),
        ("tickets", "none", True),
        ("none", "tickets", False),
        ("tickets", "session", False),
    ],
)
def test_a_weaker_mode_widens(before, after, widens):
    (change,) = access_changes(law(propagate=before), law(propagate=after))
    assert (change.text, change.widens) == (f"labels follow the data: {before} -> {after}", widens)


def test_a_replay_decides_by_the_tickets_that_were_shown_and_by_the_floor_where_the_draft_wants_that():
    ward = Ward()
    _, low = ward.says("log")
    hop, _ = ward.says("dan", tickets=[low["dan"].ticket])
    assert context_of(hop, law()).labels == ("internal",)
    assert set(context_of(hop, law(propagate="session")).labels) == {"secret", "pii"}
    without = replace(hop, tail=replace(hop.tail, facts={k: v for k, v in hop.tail.facts.items() if k != "tickets"}))
    assert set(context_of(without, law()).labels) == {"secret", "pii"}
