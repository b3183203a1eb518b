"""Guardrails of a domain: what they refuse, by which rule, and that cases are told what the enforcer decides."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bus.codes import Code
from bus.policy.guarding import Guarded, Guardrails
from bus.wire import codec
from bus.wire.names import DomainName
from consumers.enforcer.inspector import Denied, Inspector
from tests.unit.inspected import CARD, KEY, MAIL
from tests.unit.law_build import domain, loaded
from tests.unit.law_files import LAW, one

PII = {"detect": ["EMAIL", "CREDIT_CARD"], "then": "redact"}
KEYS = {"detect": ["API_KEY"], "on": ["payload", "metadata"], "then": "deny"}
FLAG = {"detect": ["EMAIL"], "on": ["metadata"], "then": "flag"}
POLICY = loaded(
    [domain("notes", "WRITER", guardrails=["pii", "flag", "keys"]), domain("plain", "WRITER")],
    {"writer-1": "WRITER"},
    guardrails={"pii": PII, "keys": KEYS, "flag": FLAG},
)
NOTES, PLAIN = (Guardrails(POLICY.domains[DomainName(name)], POLICY) for name in ("notes", "plain"))
JSON = "application/json"


def test_without_guardrails_everything_goes_on_as_it_is():
    sent, metadata = KEY.encode(), {"via": KEY}
    assert (PLAIN.on_payload, PLAIN.on_metadata) == (False, False)
    assert PLAIN.payload(sent, JSON) == Guarded(sent)
    assert PLAIN.metadata(metadata) == Guarded(metadata)


def test_what_is_redacted_goes_on_and_is_counted():
    assert (NOTES.on_payload, NOTES.on_metadata) == (True, True)
    told = NOTES.payload(json.dumps([MAIL, CARD]).encode(), JSON)
    found = (("pii", "CREDIT_CARD", 1), ("pii", "EMAIL", 1))
    assert told == Guarded(b'["[EMAIL]", "[CREDIT_CARD]"]', found)
    assert NOTES.metadata({"via": MAIL}) == Guarded({"via": MAIL}, (("flag", "EMAIL", 1),))
    sent = b'{"n": 1}'
    assert NOTES.payload(sent, JSON).value is sent


def test_what_is_refused_names_the_rule_that_found_it_and_stays_as_it_was():
    sent = f"{MAIL} {KEY}".encode()
    told = NOTES.payload(sent, "text/plain")
    assert (told.value, told.findings) == (sent, (("keys", "API_KEY", 1), ("pii", "EMAIL", 1)))
    assert (told.refusal.code, told.refusal.rule) == (Code.GUARDRAIL, "keys")
    assert told.refusal.why == "keys found what must not go on"
    assert NOTES.metadata({"via": KEY}).refusal.rule == "keys"


def test_what_is_unclear_is_refused_by_the_first_rule_that_looks_there():
    told = NOTES.payload(b"{", JSON)
    assert (told.value, told.findings, told.refusal.rule) == (b"{", (), "pii")
    assert told.refusal.why.startswith("payload: not the JSON that it says")
    packed = NOTES.metadata({"via": '{"a":1,"a":2}'})
    assert (packed.refusal.rule, packed.refusal.why) == ("flag", "metadata: a key is given twice")


@pytest.mark.parametrize(
    ("payload", "rule"),
    [
        ({"env": KEY}, "no-keys"),
        ({"packed": '{"a": 1, "a": 2}'}, "no-pii"),
        ({"to": MAIL}, ""),
        ({"n": 1}, ""),
    ],
)
def test_a_case_is_told_what_the_enforcer_decides(payload: dict[str, Any], rule: str):
    inspector = Inspector(LAW.domains[DomainName("coordination")], LAW)
    expect = f"expect: DENY, rule: {rule}" if rule else "expect: ALLOW"
    result = one(f"do: produce coordination, payload: {json.dumps(payload)}, {expect}")
    assert result.failure == ""
    try:
        inspector.payload(codec.prefixed(json.dumps(payload).encode()), 0, JSON, b"")
    except Denied as denied:
        assert result.decision == denied.decision
        assert denied.decision.location.startswith("mesh.yaml:")
    else:
        assert result.decision.allowed
