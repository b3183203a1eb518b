"""Faults of the history of a plan, and of sizes at their limits."""

from __future__ import annotations

import os
import uuid

import pytest

from bus.client.composer import Composer
from bus.errors import TooLarge
from bus.policy.decide import decide_constant
from bus.policy.question import Action, Context
from bus.policy.replay import context_of, replay
from bus.wire import envelope, sealed
from bus.wire.envelope import MAX_CAUSES, MAX_TICKET, MAX_TICKETS, Kind
from bus.wire.names import AgentId, DomainName
from tests.unit.law_build import loaded
from tests.unit.ledger_build import make_policy
from tests.unit.test_replay import FACTS
from tests.unit.test_replay import hop as recorded_hop
from tests.unit.test_tickets import DOMAINS, LABELS, ROLES, STAFF, WARD, Ward, law


def test_a_label_that_a_record_claims_is_replayed_where_it_is_the_records_own():
    """A hop keeps the claim only where it differs from the record's label; the replay reads the claim alone."""
    ward = Ward()
    hop, readers = ward.says("log", labels=("secret", "pii"))  # log reads nothing: no floor of its own
    assert set(readers) == {"dan", "dora"}
    assert hop.tail.labels == ("secret", "pii")
    draft = law(declassify=[])
    decided = decide_constant(AgentId("log"), Action.PRODUCE, DomainName(WARD), context_of(hop, draft), draft)
    assert decided.obligations is not None
    assert decided.obligations.label == ("secret", "pii")


def test_a_draft_under_which_nobody_may_read_a_claimed_label_flips_it():
    ward = Ward()
    hop, _ = ward.says("log", labels=("secret", "pii"))
    lower = {**ROLES, "DOCTOR": {"clearance": "internal"}}
    draft = loaded(DOMAINS, STAFF, labels=LABELS, roles=lower)
    made = replay([hop], draft, ward.world.policy)
    asked = Context(labels=("secret", "pii"))
    assert not decide_constant(AgentId("log"), Action.PRODUCE, DomainName(WARD), asked, draft).allowed
    assert {(flip.before, flip.after) for flip in made.flips} == {("ALLOW", "DENY")}


def test_a_ticket_of_a_label_that_a_draft_does_not_know_is_no_ticket_under_it():
    """The enforcer (decide_proven) takes the floor then; the replay drops the name and labels lower."""
    ward = Ward()
    _, got = ward.says("log", labels=("secret",))
    hop, _ = ward.says("dan", tickets=[got["dan"].ticket])
    assert hop.tail.facts["tickets"] == "secret"
    levels = ["public", "internal", "top"]
    roles = {**ROLES, "DOCTOR": {"clearance": "top", "categories": ["pii"]}}
    draft = loaded(DOMAINS, STAFF, labels={**LABELS, "levels": levels}, roles=roles)
    context = context_of(hop, draft)
    assert context is not None
    assert set(draft.floor(AgentId("dan"))) <= set(context.labels)


@pytest.mark.parametrize(
    "odd",
    [
        {"kind": "BROADCAST"},  # a kind of a later release, or a hop of an enforcer in other hands
        {"facts": {**FACTS, "tier_floor": "QUANTUM"}},
        {"facts": {**FACTS, "load": "high"}},
    ],
)
def test_a_hop_that_this_release_does_not_understand_has_no_facts_and_ends_no_plan(odd):
    """bus/cli/recorded.py catches BusError and OSError alone: one such hop and `bus policy plan` is a traceback."""
    made = replay([recorded_hop(**odd), recorded_hop(1)], make_policy(), make_policy())
    assert (made.decided, made.unknown) == (1, 1)


def test_the_largest_payload_that_composer_takes_fits_with_causes_tickets_and_a_full_profile():
    policy = law()
    composer = Composer(AgentId("log"))
    metadata = {f"k{number:02}": "x" * 250 for number in range(60)}
    route = composer.route(
        policy, WARD, Kind.MESSAGE, "", "", "", (), "", None, "application/json", metadata, notify=False
    )
    assert len(route.profile) > 15_000
    tickets = tuple(os.urandom(MAX_TICKET) for _ in range(MAX_TICKETS))
    limit = sealed.MAX_LENGTH - envelope.MAX_PROFILE - 2048 - sum(len(each) + 2 for each in tickets)
    made = composer.compose(
        route,
        bytes(limit),
        session="s-1",
        causation=[uuid.uuid4()] * MAX_CAUSES,
        tickets=tickets,
        reply_to="r" * 63,
        expires_in=60,
    )
    over = 84 + 5 + 16
    assert [len(each) + over <= sealed.MAX_LENGTH for each in made.plaintexts] == [True], "refused further down"
    asked = {"session": "s-1", "causation": [uuid.uuid4()] * MAX_CAUSES, "tickets": tickets, "reply_to": "r" * 63}
    made = composer.compose(route, bytes(limit + 1), expires_in=60, **asked)
    assert [len(each) + over <= sealed.MAX_LENGTH for each in made.plaintexts] == [True, True]
    with pytest.raises(TooLarge):
        composer.compose(route, bytes(limit * 64 + 1), expires_in=60, **asked)


def test_a_ticket_of_a_policy_with_many_places_can_still_be_had():
    """Too long a ticket is left out silently: `tickets` is then `session`, and nobody is told."""
    zones = {f"zone-{number:02}": {} for number in range(12)}
    names = ["DOCTOR", "CLERK", "LOG"]
    flows = [
        {"id": f"f{number:02}", "from": "zone-00", "to": f"zone-{number:02}", "domains": [WARD]}
        for number in range(1, 12)
    ]
    tenants = ["saint-elsewhere-hospital"]
    who = {f"{name.lower()}-1": f"{name}@{tenants[0]}/zone-00" for name in names}
    policy = loaded(DOMAINS, who, labels=LABELS, roles=ROLES, zones=zones, flows=flows, tenants=tenants)
    from bus.crypto.tickets import issue
    from tests.unit.build import DEPLOYMENT, World

    world = World(policy)
    decision = decide_constant(AgentId("log-1"), Action.PRODUCE, DomainName(WARD), Context(), policy)
    assert decision.obligations is not None
    epoch = world.context().keyring.epoch(WARD, 1)
    assert epoch is not None
    assert issue(epoch, DEPLOYMENT, b"s", decision.obligations.label, decision.obligations.roles)
