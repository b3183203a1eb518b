"""Notices as errors: a rate and a breaker say when to come back, by the agent's own policy; the rest is final."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bus.client.refusal import LIMITS, UNKNOWN_S, refusal
from bus.client.sent import Sent, Verdicts
from bus.codes import Code
from bus.errors import CircuitOpen, Denied, Refused, RetryLater, Throttled
from bus.policy.model import BreakerRule, Policy, RateRule
from bus.wire.hop import Verdict, decision_id
from bus.wire.records import Verdict as Told
from tests.unit.build import MEMORY, NOTES, PLAIN, domain_policy, make_policy

MESSAGE_ID = bytes(range(16))
KEY = (b"i" * 16, 2, 7)
RATE = RateRule("normal", "agent", per_hour=4, burst=2, max_bytes=None)
BREAKER = BreakerRule("worker", "agent", count=3, within_ms=1000, half_open_ms=7_200_000)
POLICY = make_policy(
    domain_policy(MEMORY, rate=RATE, breaker=replace(BREAKER, half_open_ms=30_000)),
    domain_policy(NOTES, rate=replace(RATE, per_hour=180_000), breaker=BREAKER),
    domain_policy(PLAIN, rate=replace(RATE, name="other", per_hour=1), breaker=replace(BREAKER, name="other")),
)


def told(code: Code, rule: str, **changes) -> Told:
    verdict = Told(
        instance=KEY[0],
        partition=KEY[1],
        sequence=KEY[2],
        message_id=MESSAGE_ID,
        decided_at=1,
        decision_id=b"decision-1",
        decision=Verdict.DENY,
        code=code,
        rule=rule,
        hint="wait",
    )
    return replace(verdict, **changes)


def after(code: Code, rule: str, policy: Policy | None = POLICY, domain: str = "") -> float:
    error = refusal(told(code, rule), "", policy, domain)
    assert isinstance(error, RetryLater)
    return error.after


@pytest.mark.parametrize(
    ("code", "rule", "kind"),
    [(Code.THROTTLED, "normal", Throttled), (Code.BREAKER_OPEN, "worker", CircuitOpen)],
)
def test_a_limit_is_its_own_error_and_tells_all_that_the_notice_does(code, rule, kind):
    error = refusal(told(code, rule), "the-id", POLICY, MEMORY)
    assert type(error) is kind
    assert not isinstance(error, Refused)
    assert (error.code, error.rule, error.hint, error.message_id) == (code, rule, "wait", "the-id")
    assert error.decision_id == decision_id(b"decision-1")
    assert str(error).startswith(f"refused by the enforcer: {rule}; publishing anew may succeed in ")


@pytest.mark.parametrize("code", [each for each in Code if each not in {Code.ALLOW, *LIMITS}])
def test_every_other_code_is_a_final_denial(code):
    error = refusal(told(code, "normal"), "the-id", POLICY, MEMORY)
    assert type(error) is Denied
    assert (error.code, error.rule, error.hint, error.message_id) == (code, "normal", "wait", "the-id")
    assert (error.decision_id, str(error)) == (decision_id(b"decision-1"), "refused by the enforcer: normal")


def test_the_wait_is_one_token_of_the_domains_bucket_or_the_breakers_time():
    assert after(Code.THROTTLED, "normal", domain=MEMORY) == 900
    assert after(Code.THROTTLED, "normal", domain=NOTES) == 0.02
    assert after(Code.BREAKER_OPEN, "worker", domain=MEMORY) == 30
    assert after(Code.BREAKER_OPEN, "worker", domain=NOTES) == 7200


def test_without_a_domain_the_longest_wait_of_those_that_have_the_rule_counts():
    assert after(Code.THROTTLED, "normal") == 900
    assert after(Code.BREAKER_OPEN, "worker") == 7200


@pytest.mark.parametrize("code", LIMITS)
def test_a_rule_that_the_agents_policy_does_not_have_gives_a_wait_all_the_same(code):
    assert after(code, "gone") == UNKNOWN_S
    assert after(code, "normal", None) == UNKNOWN_S
    assert after(code, "other", domain=MEMORY) == UNKNOWN_S
    assert after(code, "normal" if code is Code.BREAKER_OPEN else "worker") == UNKNOWN_S  # a rule of the other sort


def sent(*verdicts: Told) -> Sent:
    held = Verdicts()
    for each in verdicts:
        held.put(each, POLICY)
    made = Sent(MESSAGE_ID, MEMORY, held)
    made._keys.append(KEY)
    made._done(None)
    return made


@pytest.mark.parametrize(
    ("code", "rule", "kind"),
    [
        (Code.THROTTLED, "normal", Throttled),
        (Code.BREAKER_OPEN, "worker", CircuitOpen),
        (Code.GUARDRAIL, "no-keys", Denied),
    ],
)
def test_a_decision_raises_what_its_notice_says_and_says_it_again(code, rule, kind):
    asked = sent(told(code, rule))
    for _ in range(2):
        with pytest.raises(kind) as raised:
            asked.decision(timeout=0)
        assert (raised.value.code, raised.value.rule, raised.value.message_id) == (code, rule, str(asked.id))


def test_the_wait_of_a_decision_is_that_of_the_domain_it_was_sent_to():
    with pytest.raises(CircuitOpen) as raised:
        sent(told(Code.BREAKER_OPEN, "worker")).decision(timeout=0)
    assert raised.value.after == 30


def test_an_allow_gives_its_obligations_and_no_answer_is_no_refusal():
    allowed = told(Code.ALLOW, "memory.produce", decision=Verdict.ALLOW, obligations=("tier:RETRIEVAL",))
    assert sent(allowed).decision(timeout=0) == ("tier:RETRIEVAL",)
    with pytest.raises(RetryLater, match="no decision in 0 s"):
        sent(told(Code.THROTTLED, "normal", sequence=8)).decision(timeout=0)


def test_the_refusal_of_a_resend_does_not_stand_for_the_decision():
    with pytest.raises(Throttled):
        sent(told(Code.REPLAY, ""), told(Code.THROTTLED, "normal")).decision(timeout=0)
