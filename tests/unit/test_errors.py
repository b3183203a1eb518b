"""Errors and codes: one root, refused apart from retry later, codes that never change their text, nothing left out."""

from __future__ import annotations

import inspect
import re

import pytest

from bus import errors
from bus.codes import Code
from bus.errors import (
    AccessRefused,
    BusError,
    CircuitOpen,
    Denied,
    Erased,
    Expired,
    Limited,
    PolicyError,
    Refused,
    RetryLater,
    SettingsError,
    StackError,
    Throttled,
    TooLarge,
    Unavailable,
    Unverified,
    WireError,
)

MADE = [
    (BusError("m"), Code.INTERNAL),
    (Refused("m"), Code.INTERNAL),
    (RetryLater("m"), Code.RETRY),
    (Unavailable("m"), Code.RETRY),
    (Limited("m", rule="r", after=2), Code.RETRY),
    (Throttled("m", rule="r", after=2), Code.THROTTLED),
    (CircuitOpen("m", rule="r", after=2), Code.BREAKER_OPEN),
    (WireError("m"), Code.BOUNDS),
    (Unverified("m", step="s"), Code.UNVERIFIED),
    (Denied("m", rule="r"), Code.PRODUCE),
    (Erased("m", epoch=4, domain="d"), Code.ERASED),
    (Expired("m"), Code.EXPIRED),
    (TooLarge("m", limit=5), Code.TOO_LARGE),
    (AccessRefused("m", principal="p", operation="o", resource="r"), Code.ACL),
    (PolicyError("m"), Code.POLICY),
    (SettingsError("m"), Code.SETTINGS),
    (StackError("m"), Code.STACK),
]


@pytest.mark.parametrize(("error", "code"), MADE, ids=lambda each: type(each).__name__)
def test_every_error_has_a_code_a_text_and_a_hint(error, code):
    assert (error.code, str(error), error.hint) == (code, "m", "")
    assert isinstance(error, BusError)


def test_every_class_is_public_and_in_this_table():
    classes = {name for name, each in inspect.getmembers(errors, inspect.isclass) if issubclass(each, Exception)}
    assert classes == set(errors.__all__) == {type(error).__name__ for error, _ in MADE}
    assert errors.__all__ == sorted(errors.__all__)


def test_refused_is_final_and_retry_later_is_not():
    final = {type(error) for error, _ in MADE if isinstance(error, Refused)}
    later = {type(error) for error, _ in MADE if isinstance(error, RetryLater)}
    assert later == {RetryLater, Unavailable, Limited, Throttled, CircuitOpen}
    assert final.isdisjoint(later)
    assert final | later | {BusError} == {type(error) for error, _ in MADE}


def test_a_code_of_ones_own_stands_on_the_object_and_not_on_the_class():
    error = WireError("m", code=Code.VERSION, hint="h", message_id="id")
    assert (error.code, error.hint, error.message_id) == (Code.VERSION, "h", "id")
    assert WireError("m").code is WireError.code is Code.BOUNDS


def test_what_each_kind_tells_beside_its_text():
    assert RetryLater("m").after == 1.0
    assert RetryLater("m", after=7).after == 7
    throttled = Throttled("m", rule="normal", after=7, decision_id="abcd", hint="h", message_id="id")
    assert (throttled.rule, throttled.after, throttled.decision_id) == ("normal", 7, "abcd")
    assert (throttled.hint, throttled.message_id) == ("h", "id")
    assert Unverified("m", step="signature").step == "signature"
    assert TooLarge("m", limit=5).limit == 5
    access = AccessRefused("m", principal="p", operation="o", resource="r")
    assert (access.principal, access.operation, access.resource) == ("p", "o", "r")


@pytest.mark.parametrize(
    ("place", "text"),
    [
        ({}, "m"),
        ({"file": "mesh.yaml"}, "mesh.yaml: m"),
        ({"file": "mesh.yaml", "line": 3, "column": 7}, "mesh.yaml:3:7: m"),
    ],
)
def test_a_policy_error_begins_with_its_place(place, text):
    error = PolicyError("m", nearest="n", **place)
    assert str(error) == text
    assert (error.parsed, error.nearest) == (True, "n")
    assert PolicyError("m", parsed=False).parsed is False


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Denied("agent x may not, mesh.yaml:7", rule="notes.produce"), "refused: notes.produce"),
        (Denied("m", rule="notes.produce", decision_id="abcd"), "refused: notes.produce (abcd)"),
        (Denied("m", rule="", code=Code.REPLAY, decision_id="abcd"), "refused: replay (abcd)"),
    ],
)
def test_what_a_model_may_see_of_a_denial_is_one_line_without_policy_detail(error, line):
    assert error.for_model() == line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (RetryLater("the broker of notes.in"), "busy, 1 s"),
        (Throttled("too many for agent-1", rule="normal", after=0.02), "busy, 1 s"),
        (Throttled("too many for agent-1", rule="normal", after=900.5), "busy, 901 s"),
        (CircuitOpen("m", rule="worker", after=7200, decision_id="abcd"), "busy, 7200 s"),
    ],
)
def test_what_a_model_may_see_of_a_wait_is_how_long(error, line):
    assert error.for_model() == line


def test_codes_are_unique_words():
    texts = [code.value for code in Code]
    assert len(texts) == len(set(texts)) == len(Code.__members__)
    assert Code.ALLOW == ""
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", text) for text in texts if text)


def test_codes_that_ledgers_keep_were_not_renamed():
    kept = {
        "bounds", "version", "unknown-key", "wrong-domain", "mac", "epoch-early", "epoch-late", "epoch-retired",
        "replay", "too-many-instances", "open", "decode", "expired", "future", "tier-floor", "tier-unavailable",
        "throttled", "breaker-open", "retry", "erased", "unverified", "too-large", "schema", "internal",
        "tenants", "zones", "produce", "consume", "tools", "labels",
    }  # fmt: skip
    assert kept <= {code.value for code in Code}
