"""Masks on the way of a record: fields of its payload and values of its metadata, as a reader gets them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest

from bus.crypto.keys import purpose_key
from consumers.enforcer.outcome import Accepted
from tests.unit.build import MEMORY
from tests.unit.forms import layers
from tests.unit.inspected import CARD, KEY, MAIL, META, NO_KEYS, NO_PII, Site, mask, refusal

# Payload masks.
FIELDS = {"user.email": "hash", "user.phone": "last4", "user.note": "drop", "user.born": "generalise"}
PERSON = {"email": MAIL, "phone": "+14155550100", "note": "private", "born": "1990-04-17", "rest": 1}


def hashed(site: Site, value: str) -> str:
    key = purpose_key(site.world.root(MEMORY)[1], "mask").reveal()
    return hmac.digest(key, value.encode(), hashlib.sha256)[:16].hex()


def test_fields_are_masked_where_their_paths_lead():
    site = Site(masks=(mask(payload=FIELDS),))
    _, hop, made = site.one({"user": PERSON, "email": "outside"})
    (delivery,) = site.read(made)
    user = {"email": hashed(site, MAIL), "phone": "*" * 8 + "0100", "born": "1990-04", "rest": 1}
    assert delivery.value() == {"user": user, "email": "outside"}
    assert site.says(made, MAIL, "private", "1990-04-17", "+14155550100") == []
    assert hop.tail.guardrails == ()


def test_a_path_goes_into_every_element_of_an_array():
    site = Site(masks=(mask(payload={**FIELDS, "tags.id": "hash"}),))
    _, _, made = site.one({"user": [PERSON, {"rest": 2}, [PERSON]], "tags": [{"id": "1"}, "loose", None, {"id": "1"}]})
    told = site.read(made)[0].value()
    user = {"email": hashed(site, MAIL), "phone": "*" * 8 + "0100", "born": "1990-04", "rest": 1}
    assert told == {
        "user": [user, {"rest": 2}, [user]],
        "tags": [{"id": hashed(site, "1")}, "loose", None, {"id": hashed(site, "1")}],
    }


@pytest.mark.parametrize(
    ("how", "value", "expected"),
    [
        ("last4", "123456789", "*****6789"),
        ("last4", "12345678", "****"),
        ("last4", "", "****"),
        ("last4", 5105105105105100, "********5100"),
        ("generalise", "2026-03-02T10:00:00Z", "2026-03"),
        ("generalise", 12345, "10000"),
        ("generalise", -12.5, "-10"),
        ("generalise", "10.1.2.3", "10.1.2.0/24"),
        ("generalise", "2001:db8:1:2::3", "2001:db8:1::/48"),
        ("generalise", "anything", "*"),
        ("generalise", {"a": [1]}, "*"),
        ("generalise", None, "*"),
        ("generalise", True, "*"),
    ],
)
def test_what_a_mask_makes_of_a_value(how, value, expected):
    site = Site(masks=(mask(payload={"field": how}),))
    _, _, made = site.one({"field": value})
    assert site.read(made)[0].value() == {"field": expected}


def test_a_hash_is_the_same_for_the_same_value_of_a_domain_and_epoch_alone():
    site = Site(masks=(mask(payload={"field": "hash"}),))
    _, made = site.run(
        *(site.sealed({"field": value}) for value in ("a", "b", "a", {"x": 1, "y": 2}, {"y": 2, "x": 1}))
    )
    one, two, again, this, that = [each.value()["field"] for each in site.read(made)]
    assert one == again == hashed(site, "a") != two
    assert this == that
    other = Site(masks=(mask(payload={"field": "hash"}),))
    _, _, made = other.one({"field": "a"})
    assert other.read(made)[0].value()["field"] != one


@pytest.mark.parametrize(
    "payload", [{"user": "text"}, {"user": None}, {}, [], 1, {"user": {"rest": 1}}, [{"other": 1}]]
)
def test_a_field_that_is_not_there_is_no_fault_and_changes_no_byte(payload):
    site = Site(masks=(mask(payload=FIELDS),))
    sent = json.dumps(payload, indent=1).encode()
    _, _, made = site.one(sent)
    assert [each.payload for each in site.read(made)] == [sent]


@pytest.mark.parametrize("payload", [b"", b"{", b"text", b"\xff\xfe", b'{"user": 1, "user": 2}', b"[" * 100_000])
def test_a_payload_whose_fields_cannot_be_masked_is_refused(payload):
    site = Site(masks=(mask("topology", keep=("locale",)), mask(payload=FIELDS)))
    outcome, hop, made = site.one(payload)
    assert refusal(site, outcome, hop, made) == ("mask", "fields", "mesh.yaml:40")


def test_guardrails_run_before_masks_and_both_are_done():
    site = Site(guardrails=(NO_PII,), masks=(mask(payload={"a": "hash", "b": "last4"}),))
    _, hop, made = site.one({"a": MAIL, "b": "123456789", "c": CARD})
    assert site.read(made)[0].value() == {"a": hashed(site, "[EMAIL]"), "b": "*****6789", "c": "[CREDIT_CARD]"}
    assert hop.tail.guardrails == (("no-pii", "CREDIT_CARD", 1), ("no-pii", "EMAIL", 1))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32-le"])
@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", ""])
def test_what_a_mask_reads_as_json_was_looked_at_as_json(content_type, encoding):
    """Whatever it says it is: a mask reads it, and writes what it did not name in UTF-8."""
    site = Site(guardrails=(NO_PII,), masks=(mask(payload={"a": "hash"}),))
    packed = base64.b64encode(json.dumps({"to": MAIL}).encode()).decode()
    document = json.dumps({"a": "x", "note": MAIL, "packed": packed}).encode(encoding)
    _, hop, made = site.one(document, content_type=content_type)
    (read,) = site.read(made)
    assert json.loads(read.payload)["note"] == "[EMAIL]"
    assert list(layers(read.payload))
    assert not any(MAIL in text for text in layers(read.payload))
    assert hop.tail.guardrails == (("no-pii", "EMAIL", 2),)


def test_a_refusal_of_a_mask_keeps_what_guardrails_found():
    site = Site(guardrails=(NO_PII,), masks=(mask(payload={"a": "hash"}),))
    outcome, hop, made = site.one(f"from {MAIL}".encode(), content_type="text/plain")
    assert refusal(site, outcome, hop, made) == ("mask", "fields", "mesh.yaml:40")
    assert hop.tail.guardrails == (("no-pii", "EMAIL", 1),)
    assert site.says(made, MAIL) == []


def test_a_payload_that_masking_makes_too_long_is_refused():
    site = Site(masks=(mask(payload={"a": "hash"}),))
    outcome, hop, made = site.one([{"a": ""}] * 30_000)
    assert refusal(site, outcome, hop, made)[0] == "too-large"
    assert isinstance(site.one([{"a": ""}] * 20_000)[0], Accepted)


# Metadata masks.
def test_metadata_masks_keep_drop_hash_cut_and_generalise():
    topology = mask("topology", keep=("zone", "locale", "both"), drop=("locale",))
    values = mask("values", hash=("user", "both"), last4=("account",), generalise=("day", "host"))
    site = Site(masks=(topology, values))
    assert not site.inspector.by_record
    metadata = {
        "zone": "eu",
        "locale": "en",
        "both": "x",
        "user": "u-1",
        "account": "123456789",
        "day": "2026-03-02",
        "host": "10.1.2.3",
        "other": "gone",
        "priority": "not in the policy's own list",
        "sender_ip": "10.0.0.1",
    }
    _, hop, made = site.one({"note": 1}, metadata=metadata)
    assert dict(site.read(made)[0].metadata) == {
        "zone": "eu",
        "both": hashed(site, "x"),
        "user": hashed(site, "u-1"),
        "account": "*****6789",
        "day": "2026-03",
        "host": "10.1.2.0/24",
    }
    assert hop.tail.metadata_keys == tuple(sorted(metadata)), "the auditor sees what was sent"


@pytest.mark.parametrize("how", ["keep", "hash", "last4", "generalise", "drop"])
@pytest.mark.parametrize("masking", [True, False])
@pytest.mark.parametrize("key", ["sender_ip", "routing_path", "internal_id", "timestamp"])
def test_the_published_keys_go_whatever_a_mask_says(key, how, masking):
    site = Site(masks=(mask("topology", **{how: (key,)}),), metadata_masking=masking)
    _, _, made = site.one({}, metadata={key: "123456789", "locale": "en"})
    assert key not in site.read(made)[0].metadata


def test_without_masking_a_mask_changes_what_it_names_and_nothing_else():
    site = Site(masks=(mask("values", hash=("user",), drop=("host",)),), metadata_masking=False)
    _, _, made = site.one({}, metadata={"user": "u-1", "host": "h", "other": "stays"})
    assert dict(site.read(made)[0].metadata) == {"user": hashed(site, "u-1"), "other": "stays"}


def test_the_strictest_of_several_masks_holds():
    rules = (
        mask("a", last4=("k", "l")),
        mask("b", hash=("k", "l", "m")),
        mask("c", generalise=("k", "m"), drop=("l",)),
    )
    site = Site(masks=rules, metadata_masking=False)
    _, _, made = site.one({}, metadata={"k": "1", "l": "2", "m": "3"})
    assert dict(site.read(made)[0].metadata) == {"k": hashed(site, "1"), "m": hashed(site, "3")}


BY_VALUE = {
    "hash": {"masks": (mask("m", hash=("user",)),)},
    "last4": {"masks": (mask("m", last4=("user",)),)},
    "generalise": {"masks": (mask("m", generalise=("user",)),)},
    "guardrail": {"guardrails": (META,), "metadata_masking": False},
    "payload guardrail": {"guardrails": (NO_PII,), "metadata_masking": False},
    "payload mask": {"masks": (mask(payload={"a": "drop"}),), "metadata_masking": False},
    "keep": {"masks": (mask("m", keep=("user",)),)},
    "nothing": {"metadata_masking": False},
}


@pytest.mark.parametrize("domain", BY_VALUE.values(), ids=BY_VALUE)
def test_profiles_that_differ_in_a_value_are_masked_each_for_itself(domain):
    """Alone, in an enforcer that saw no other profile, each record has the same metadata and findings."""
    values = ["123456789", "987654321", f"by {MAIL}", "2026-03-02", "2026-04-02", "987654321"]
    site = Site(**domain)
    _, made = site.run(*(site.sealed({"a": 1}, metadata={"user": value}) for value in values))
    shown = [dict(each.metadata) for each in site.read(made)]
    findings = [hop.tail.guardrails for hop in site.hops(made)]
    for value, metadata, found in zip(values, shown, findings, strict=True):
        alone = Site(site.world, **domain)
        _, hop, single = alone.one({"a": 1}, metadata={"user": value})
        assert dict(alone.read(single)[0].metadata) == metadata
        assert hop.tail.guardrails == found
    if "hash" in str(domain):
        assert len({each["user"] for each in shown}) >= 3


def test_profiles_that_differ_in_a_value_are_denied_each_for_itself():
    site = Site(guardrails=(NO_KEYS,), metadata_masking=False)
    values = ["harmless", KEY, "as harmless", KEY + " again", "harmless"]
    outcomes, _ = site.run(*(site.sealed({}, metadata={"auth": value}) for value in values))
    assert [isinstance(each, Accepted) for each in outcomes] == [True, False, True, False, True]
