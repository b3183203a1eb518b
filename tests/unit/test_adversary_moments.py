"""A guardrail's refusal of metadata beside conditions of the moment (63314e7)."""

from __future__ import annotations

import pytest

from bus.codes import Code
from bus.policy.conditions import compile_condition
from bus.wire.hop import Verdict
from bus.wire.names import Tier
from consumers.enforcer.outcome import Refused
from tests.unit.inspected import KEY, NO_KEYS, Site, refusal

CALM = compile_condition("calm", "context.load < 0.5")


@pytest.mark.parametrize("when", [(), (CALM,)], ids=["no condition", "a condition of the moment that holds"])
def test_metadata_that_a_guardrail_refuses_is_refused_beside_a_condition_that_holds(when):
    site = Site(when=when, guardrails=(NO_KEYS,))
    site.context.load = 0.1
    outcome, hop, made = site.one({"note": "fine"}, metadata={"token": KEY})
    assert hop.tail.decision is Verdict.DENY
    assert hop.tail.code is Code.GUARDRAIL
    assert isinstance(outcome, Refused)
    assert refusal(site, outcome, hop, made)[0] == "guardrail"
    assert not site.says(made, KEY)


def test_payload_guardrails_and_rates_are_not_passed_over():
    """Denied leaves ``_inspect`` before the payload is scanned."""
    site = Site(when=(CALM,), guardrails=(NO_KEYS,))
    site.context.load = 0.1
    outcome, _, made = site.one({"note": KEY}, metadata={"token": KEY})
    assert isinstance(outcome, Refused), "accepted with a key in payload and metadata"
    assert not made.bundles


def test_other_records_of_its_bundle_are_not_lost_with_it():
    site = Site(when=(CALM,), guardrails=(NO_KEYS,))
    site.context.load = 0.1
    values = [site.sealed({"n": 1}), site.sealed({"n": 2}, metadata={"token": KEY}), site.sealed({"n": 3})]
    _, made = site.run(*values)
    assert [each.value()["n"] for each in site.read(made)] == [1, 3]
    assert [hop.tail.code for hop in site.hops(made)] == [Code.ALLOW, Code.GUARDRAIL, Code.ALLOW]


def test_in_plaintext_nothing_that_a_guardrail_refuses_is_released():
    """Tier PLAINTEXT needs no DEK: what is an internal error elsewhere is a release here, unmasked and unscanned."""
    site = Site(when=(CALM,), guardrails=(NO_KEYS,), tier=Tier.PLAINTEXT)
    site.context.load = 0.1
    _, _, made = site.one({"note": KEY}, metadata={"token": KEY})
    assert not made.bundles
    assert not site.says(made, KEY)
