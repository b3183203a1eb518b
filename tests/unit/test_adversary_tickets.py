"""Faults of labels that follow by tickets."""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest
import uuid_utils

from bus.client.composer import session_of
from bus.client.sessions import Sessions
from bus.errors import PolicyError
from bus.policy.diff import access_changes
from tests.unit.law_build import domain, loaded
from tests.unit.test_tickets import DOMAINS, ROLES, STAFF, Ward

S1, S2 = (uuid_utils.uuid7().hex for _ in range(2))
NEXT = (uuid.UUID(hex=S2).int >> 80) + 1
"""ms since 1970, when a process began that is younger than these sessions."""
LABELS = {"levels": ["public", "internal", "secret"], "categories": ["pii"]}


@pytest.mark.parametrize("propagate", ["none", "tickets"])
def test_an_agent_of_two_roles_cannot_carry_a_domains_label_down(propagate):
    """ADR 0009: "never a domain's own"; SECURITY.md: a policy in which somebody could is refused."""
    domains = [
        domain("vault", "SECRETS", "FEED", consume=["SECRETS"], produce=["FEED"], label=["secret"]),
        domain("board", "POSTER", "ALL", consume=["ALL"], produce=["POSTER"]),
    ]
    roles = {"SECRETS": {"clearance": "secret"}, "POSTER": {}, "FEED": {}, "ALL": {}}
    with pytest.raises(PolicyError, match="may read vault"):
        loaded(domains, {"eve": "SECRETS,POSTER"}, labels={**LABELS, "propagate": propagate}, roles=roles)


def secret_and_low(ward: Ward):
    _, high = ward.says("dan", session=S1, labels=("secret", "pii"))
    _, low = ward.says("log", session=S1)
    return high["dora"], low["dora"]


def label_of(ward: Ward, sessions: Sessions, session: str, causation=()):
    shown = sessions.shown(session, causation)
    hop, _ = ward.says("dora", session=session, tickets=shown[0] if shown else ())
    return hop.tail.labels


def test_a_process_that_starts_again_in_a_session_shows_nothing_less():
    """Durable state of the agent, or a second replica of it, has the secret; the SDK of this process has not."""
    ward, first, second = Ward(), Sessions(since=0), Sessions(since=NEXT)
    high, low = secret_and_low(ward)
    first.given(high)
    assert label_of(ward, first, S1) == ("secret", "pii")
    second.given(low)  # after the restart, or in the other replica
    assert label_of(ward, second, S1) == ("secret", "pii")


def test_a_cause_of_another_session_given_by_its_id_counts_as_one():
    """``causation`` takes ids; publish(..., correlation=S2, causation=[delivery.id])."""
    ward, sessions = Ward(), Sessions(since=0)
    high, _ = secret_and_low(ward)
    _, other = ward.says("log", session=S2)
    sessions.given(high)
    sessions.given(other["dora"])
    assert label_of(ward, sessions, S2, [high]) == ("secret", "pii"), "as a delivery it does"
    assert label_of(ward, sessions, S2, [uuid.UUID(str(high.id))]) == ("secret", "pii")


def test_what_was_read_before_a_policy_asked_for_tickets_is_not_forgotten():
    ward, sessions = Ward(), Sessions(since=0)
    high, low = secret_and_low(ward)
    sessions.given(replace(high, ticket=b""))  # under a policy that gives no tickets
    sessions.given(low)
    assert label_of(ward, sessions, S1) == ("secret", "pii")


def test_an_answer_in_a_session_without_a_name_is_decided_by_the_sdk_as_by_the_enforcer():
    ward, sessions = Ward(), Sessions(since=0)
    _, low = ward.says("log", session="")
    sessions.given(low["dora"])
    cause = low["dora"]
    session = session_of("", [cause])
    shown = sessions.shown(session, [cause])
    tickets, proven = shown or ((), None)
    named = session or "0" * 32  # Composer.compose names it after the message
    hop, _ = ward.says("dora", session=named, tickets=tickets)
    assert proven is None or hop.tail.labels == proven, f"SDK: {proven}, enforcer: {hop.tail.labels}"


@pytest.mark.parametrize(("propagate", "told"), [("session", True), ("tickets", True), ("none", False)])
def test_who_loses_a_clearance_may_write_lower_what_it_read_and_the_plan_says_so(propagate, told):
    """What an agent has read is not known: the highest that it could have read is that of the policy in force."""
    labels = {**LABELS, "propagate": propagate}
    before = loaded(DOMAINS, STAFF, labels=labels, roles=ROLES)
    after = loaded(DOMAINS, STAFF, labels=labels, roles={**ROLES, "DOCTOR": {"clearance": "internal"}})
    (change,) = [each for each in access_changes(before, after) if "DOCTOR is cleared for" in each.text]
    assert (change.widens, "may go on at the lower label" in change.text) == (told, told)
