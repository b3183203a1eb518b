"""Sealed fields: what is sealed, kept aside and put back, opened, refused; and what policy files may say of them."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import PolicyError, Unverified
from bus.policy.diff import access_changes
from bus.policy.sealedfields import Kept, Unsealed, is_sealed, open_fields, seal_fields
from bus.wire.names import DomainName
from tests.unit.law_build import from_text

RULES = {("patient", "diagnosis"): "inference", ("iban",): "payments"}
PAYLOAD = {
    "iban": "DE89 3704 0044 0532 0130 00",
    "patient": [{"id": 1, "diagnosis": {"code": "J45"}}, {"id": 2}],
    "route": "open",
}


def seal(domain, way, value):
    return b"\1" + f"{domain}|{way}|".encode().ljust(60, b"_") + value


def opener(*held):
    def open_(domain, way, data):
        if data[1:61] != f"{domain}|{way}|".encode().ljust(60, b"_"):
            raise Unverified("another place", step="source")
        return data[61:] if domain in held else None

    return open_


def sealed():
    return seal_fields(json.dumps(PAYLOAD).encode(), RULES, seal)


def test_fields_are_sealed_and_the_rest_stays_readable():
    found = json.loads(sealed())
    assert found["route"] == "open"
    assert is_sealed(found["iban"], "payments")
    assert not is_sealed(found["iban"], "inference")
    assert is_sealed(found["patient"][0]["diagnosis"], "inference")
    assert found["patient"][1] == {"id": 2}


def test_each_reader_finds_what_it_holds_keys_of():
    assert json.loads(open_fields(sealed(), RULES, opener("inference", "payments"))) == PAYLOAD
    part = json.loads(open_fields(sealed(), RULES, opener("payments")))
    assert part["iban"] == PAYLOAD["iban"]
    assert is_sealed(part["patient"][0]["diagnosis"], "inference")
    assert open_fields(sealed(), RULES, opener()) == sealed()


def test_a_field_in_another_s_place_is_refused():
    rules = {("a",): "d", ("b",): "d"}
    value = json.loads(seal_fields(b'{"a": 1, "b": 2}', rules, seal))
    value["a"], value["b"] = value["b"], value["a"]
    with pytest.raises(Unverified):
        open_fields(json.dumps(value).encode(), rules, opener("d"))


def test_elements_of_an_array_cannot_change_places_either():
    rules = {("items", "score"): "d"}
    value = json.loads(seal_fields(b'{"items": [{"score": 1}, {"score": 99}]}', rules, seal))
    assert json.loads(open_fields(json.dumps(value).encode(), rules, opener("d")))["items"][1] == {"score": 99}
    value["items"].reverse()
    with pytest.raises(Unverified):
        open_fields(json.dumps(value).encode(), rules, opener("d"))


@pytest.mark.parametrize("inner", [b"5", b"null", b"no json", b"", b"\xff"])
def test_whatever_was_sealed_is_a_value_or_a_refusal(inner):
    marker = {"sealed": "payments", "data": base64.b64encode(seal("payments", ".iban", inner)).decode()}
    payload = json.dumps({"iban": marker}).encode()
    try:
        assert json.loads(open_fields(payload, RULES, opener("payments")))["iban"] == json.loads(inner)
    except ValueError:
        with pytest.raises(ValueError):
            json.loads(inner)


def test_a_number_beyond_floats_is_refused_and_not_written_as_no_json():
    with pytest.raises(ValueError):
        seal_fields(b'{"iban": 1e400}', RULES, seal)


@pytest.mark.parametrize(
    "value",
    [
        "open",
        None,
        {"sealed": "payments"},
        {"sealed": "inference", "data": "eA=="},
        {"sealed": "payments", "data": "not base64"},
        {
            "sealed": "payments",
            "data": base64.b64encode(b"jane@example.org, written out in the clear, as it were").decode(),
        },
        {"sealed": "payments", "data": base64.b64encode(b"\1" + bytes(47)).decode()},
        {"sealed": "payments", "data": ""},
        {"sealed": "payments", "data": 7},
        {"sealed": "payments", "data": "eA==", "more": 1},
    ],
)
def test_a_field_that_is_not_sealed_is_named(value):
    payload = json.dumps({"iban": value}).encode()
    with pytest.raises(Unsealed, match=r"^iban$"):
        Kept(payload, RULES)
    with pytest.raises(ValueError, match="field iban is not sealed"):
        open_fields(payload, RULES, opener("payments"))


def test_no_json_is_no_payload_with_fields():
    for payload in (b"", b"\xff", b"{", b'{"a": 1, "a": 2}', b"[" * 100_000):
        for call in (
            lambda payload: Kept(payload, RULES),
            lambda payload: seal_fields(payload, RULES, seal),
            lambda payload: open_fields(payload, RULES, opener()),
        ):
            with pytest.raises((ValueError, RecursionError)):
                call(payload)


def test_what_looks_like_something_in_a_sealed_field_is_kept_from_guardrails():
    kept = Kept(sealed(), RULES)
    assert not any(is_sealed(json.loads(kept.without)["iban"], domain) for domain in ("payments", "0"))
    assert json.loads(sealed())["iban"]["data"].encode() not in kept.without
    assert json.loads(kept.back(kept.without)) == json.loads(sealed())
    rest = json.loads(kept.without) | {"route": "[REDACTED]"}
    assert json.loads(kept.back(json.dumps(rest).encode()))["iban"] == json.loads(sealed())["iban"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.sampled_from(["iban", "patient", "route"]), values))
def test_any_payload_comes_back_whole(value):
    payload = json.dumps(value).encode()
    made = seal_fields(payload, RULES, seal)
    assert json.loads(open_fields(made, RULES, opener("inference", "payments"))) == value
    kept = Kept(made, RULES)
    assert json.loads(kept.back(kept.without)) == json.loads(made)


CELL = "      constant_size: true\n      padding: 2048\n"
MESH = """
security_mesh:
  global: {tls_min_version: "1.3", credential_rotation_interval_ms: 600000, audit_scope: FULL_MESH}
  masks: {iban: {last4: [payload.customer.iban]}, names: {hash: [name]}}
  guardrails: {mail: {detect: [EMAIL], then: redact}}
  domains:
    - name: orders
      tier: RETRIEVAL
      allowed_roles: [EXECUTOR]
      metadata_masking: true
      audit_level: FULL_MESH
      sealed_fields: {customer.iban: payments}
    - name: payments
      tier: COMPUTATION
      protect_at: source
      allowed_roles: [EXECUTOR]
      metadata_masking: true
      audit_level: FULL_MESH
"""
AGENTS = "agents:\n  executor-1: {role: EXECUTOR}\n"


def test_what_is_written_is_what_holds():
    domain = from_text(MESH, AGENTS).domains[DomainName("orders")]
    assert domain.sealed_fields == {("customer", "iban"): "payments"}
    assert domain.whole


def test_a_tier_that_computes_takes_sealed_fields_unless_its_payloads_are_the_enforcers():
    told = "      protect_at: source\n"
    assert told in MESH
    assert from_text(MESH.replace(told, ""), AGENTS).domains[DomainName("orders")].sealed_fields
    with pytest.raises(PolicyError, match="expected a domain with protect_at: source, found 'payments'"):
        from_text(MESH.replace(told, told.replace("source", "enforcer")), AGENTS)
    with pytest.raises(PolicyError, match="expected a domain whose payloads an enforcer"):
        from_text(MESH.replace("tier: RETRIEVAL", "tier: COMPUTATION", 1), AGENTS)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ("iban: payments", "iban: orders", "customer.iban: expected a domain with protect_at: source, found 'orders'"),
        ("iban: payments", "iban: nowhere", "customer.iban: expected a domain with protect_at: source"),
        ("{customer.iban: payments}", "{customer.iban: payments, customer: payments}", "a field around it is sealed"),
        ("{customer.iban: payments}", "{}", "sealed_fields"),
        (
            "tier: RETRIEVAL",
            "tier: RETRIEVAL\n      protect_at: source",
            "expected a domain whose payloads an enforcer",
        ),
        ("tier: RETRIEVAL", "tier: RETRIEVAL\n      blind_index: [customer.iban]", "is in the blind index"),
        ("tier: RETRIEVAL", "tier: RETRIEVAL\n      constant_size: true", "constant_size: expected padding"),
        (
            "tier: RETRIEVAL",
            "tier: RETRIEVAL\n      masks: [iban]",
            "masks: iban would mask customer.iban, which is sealed",
        ),
        (
            "tier: RETRIEVAL",
            f"tier: RETRIEVAL\n{CELL}      masks: [names]",
            "masks: names may make what it masks longer",
        ),
        ("tier: RETRIEVAL", f"tier: RETRIEVAL\n{CELL}      guardrails: [mail]", "guardrails: mail may make what it"),
        ("tier: RETRIEVAL", "tier: RETRIEVAL\n      constant_size: true\n      padding: 512", "expected at least 1024"),
    ],
)
def test_what_cannot_be_is_refused_at_its_place(before, after, why):
    text = MESH.replace(before, after, 1)
    assert text != MESH
    with pytest.raises(PolicyError) as refused:
        from_text(text, AGENTS)
    assert why in str(refused.value)
    assert refused.value.line > 0


def test_a_field_less_widens_and_one_more_does_not():
    live = from_text(MESH, AGENTS)
    draft = from_text(MESH.replace("      sealed_fields: {customer.iban: payments}\n", ""), AGENTS)
    for before, after, widens in ((live, draft, True), (draft, live, False)):
        (change,) = [each for each in access_changes(before, after) if "sealed_fields" in each.text]
        assert change.widens is widens
