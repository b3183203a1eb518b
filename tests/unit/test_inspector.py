"""Records that are looked at one by one: guardrails and conditions of the moment, by plain and by compiled steps.

Every refusal is held against its hop, dead letter and notice; whatever leaves is searched for what was to be redacted.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bus.codes import Code
from bus.native import native
from bus.policy.conditions import compile_condition
from bus.policy.model import RateRule
from bus.wire.envelope import Chunk, Kind
from bus.wire.hop import Verdict
from bus.wire.names import Tier
from consumers.enforcer import compiled
from consumers.enforcer.compiled import acceptor_for
from consumers.enforcer.derive import derive
from consumers.enforcer.outcome import Accepted, Refused
from tests.unit.build import (
    MEMORY,
    NOW,
    OUTSIDER,
    READER,
    WRITER,
    domain_policy,
    enforce,
    make_policy,
    plaintext,
    told,
)
from tests.unit.inspected import CARD, KEY, MAIL, META, NO_KEYS, NO_PII, SECRETS, Site, guardrail, mask, refusal


# Payload guardrails.
@pytest.mark.parametrize("tier", [Tier.RETRIEVAL, Tier.PLAINTEXT])
def test_a_redacted_payload_is_what_a_reader_opens_and_nothing_of_the_value_leaves(tier):
    site = Site(guardrails=(NO_PII,), tier=tier)
    outcome, hop, made = site.one({"note": f"from {MAIL}", "cards": [CARD, CARD], "n": 1})
    assert isinstance(outcome, Accepted)
    (delivery,) = site.read(made)
    assert delivery.value() == {"note": "from [EMAIL]", "cards": ["[CREDIT_CARD]"] * 2, "n": 1}
    assert hop.tail.guardrails == (("no-pii", "CREDIT_CARD", 2), ("no-pii", "EMAIL", 1))
    assert (hop.tail.decision, hop.tail.rule, hop.tail.location) == (Verdict.ALLOW, "memory.produce", "mesh.yaml:3")
    assert site.says(made, *SECRETS) == []


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream"])
def test_a_payload_that_is_no_json_is_redacted_as_text(content_type):
    site = Site(guardrails=(NO_PII,))
    _, hop, made = site.one(f"from {MAIL}\n".encode(), content_type=content_type)
    assert [each.payload for each in site.read(made)] == [b"from [EMAIL]\n"]
    assert hop.tail.guardrails == (("no-pii", "EMAIL", 1),)


def test_a_payload_in_which_nothing_is_found_is_opened_as_it_was_sent():
    site = Site(guardrails=(NO_PII, NO_KEYS))
    sent = b'{ "note" : "caf\\u00e9",\n "n": 1.50 }'
    _, hop, made = site.one(sent)
    assert [each.payload for each in site.read(made)] == [sent]
    assert hop.tail.guardrails == ()


def test_binary_payloads_pass_where_nothing_is_found_in_them():
    site = Site(guardrails=(NO_PII,))
    sent = bytes(range(256))
    outcome, _, made = site.one(sent, content_type="application/octet-stream")
    assert isinstance(outcome, Accepted), outcome.decision
    assert [each.payload for each in site.read(made)] == [sent]


def test_what_stands_before_a_redacted_payload_stays():
    told = {
        "message_id": b"m" * 16,
        "correlation_id": "session-9",
        "causation_ids": (b"c" * 16, b"d" * 16),
        "reply_to": "memory",
        "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        "tickets": (b"ticket",),
        "purpose": "care",
        "labels": ("pii",),
    }
    site = Site(guardrails=(NO_PII,))
    _, hop, made = site.one({"note": MAIL}, **told)
    (delivery,) = site.read(made)
    assert delivery.value() == {"note": "[EMAIL]"}
    assert (delivery.message_id, delivery.correlation, delivery.reply_to) == (b"m" * 16, "session-9", "memory")
    assert delivery.causes == b"c" * 16 + b"d" * 16
    assert (delivery.created_at, delivery.expires_at) == (NOW, NOW + 300_000)
    assert (delivery.purpose, delivery.labels) == ("care", ("pii",))
    assert (hop.message_id, hop.correlation_id, hop.causation_ids) == (b"m" * 16, "session-9", told["causation_ids"])


def test_padding_does_not_become_part_of_a_redacted_payload():
    site = Site(guardrails=(NO_PII,))
    _, _, made = site.one({"note": MAIL}, cell=4096)
    assert [each.payload for each in site.read(made)] == [b'{"note": "[EMAIL]"}']


def test_a_targeted_record_is_redacted_for_its_target():
    site = Site(guardrails=(NO_PII,))
    _, _, made = site.one({"note": MAIL}, target=READER, kind=Kind.RPC_REQUEST)
    assert [each.payload for each in site.read(made, READER)] == [b'{"note": "[EMAIL]"}']
    assert site.read(made) == []


def test_a_flag_is_counted_and_changes_nothing():
    site = Site(guardrails=(guardrail("no-pii", "EMAIL", then="flag"),))
    _, hop, made = site.one({"note": MAIL})
    assert [each.value() for each in site.read(made)] == [{"note": MAIL}]
    assert hop.tail.guardrails == (("no-pii", "EMAIL", 1),)


def test_a_denied_payload_is_a_dead_letter_that_names_the_guardrail_and_where_it_stands():
    site = Site(guardrails=(NO_PII, NO_KEYS))
    outcome, hop, made = site.one({"note": f"{KEY} {MAIL}"}, notify=True)
    assert refusal(site, outcome, hop, made) == ("guardrail", "no-keys", "mesh.yaml:31")
    assert hop.tail.guardrails == (("no-keys", "API_KEY", 1), ("no-pii", "EMAIL", 1))
    assert site.says(made, *SECRETS) == []
    assert KEY.encode() in site.dead_body(made.dead[0]), "whoever may read dead letters sees what was sent"


UNCLEAR = [b"{", b'{"a": 1, "a": 2}', b"[" * 200 + b"]" * 200, b'{"a": "\xff"}']


@pytest.mark.parametrize("payload", UNCLEAR)
def test_an_unclear_payload_is_refused_by_the_first_guardrail_that_looks_at_payloads(payload):
    elsewhere = guardrail("no-keys", "API_KEY", then="deny", on="metadata")
    for rules in ((NO_PII,), (NO_PII, elsewhere), (elsewhere, NO_PII)):
        site = Site(guardrails=rules)
        outcome, hop, made = site.one(payload)
        assert refusal(site, outcome, hop, made) == ("guardrail", "no-pii", "mesh.yaml:30")
        again, _ = Site(site.world).run(site.sealed(payload))
        assert isinstance(again[0], Accepted), "nothing else is wrong with it"


def test_an_unclear_payload_passes_where_no_guardrail_looks_at_payloads():
    site = Site(guardrails=(guardrail("no-keys", "API_KEY", on="metadata"),))
    outcome, _, made = site.one(b"{")
    assert isinstance(outcome, Accepted)
    assert [each.payload for each in site.read(made)] == [b"{"]


def test_a_record_that_is_refused_by_another_rule_is_not_inspected():
    site = Site(guardrails=(NO_KEYS,))
    value = site.world.sealer(OUTSIDER).seal(0, plaintext(OUTSIDER, payload=json.dumps(KEY).encode()))[1]
    (outcome,), made = site.run(value)
    assert outcome.decision.rule == "memory.produce"
    assert site.hops(made)[0].tail.guardrails == ()


def test_records_of_one_batch_have_each_their_own_findings():
    site = Site(guardrails=(NO_PII, NO_KEYS))
    sent = [{"a": 1}, {"a": MAIL}, {"a": KEY}, {"a": [MAIL, CARD]}, {"a": 2}, {"a": [MAIL, MAIL]}, {"a": MAIL}]
    outcomes, made = site.run(*(site.sealed(payload) for payload in sent))
    assert [isinstance(each, Accepted) for each in outcomes] == [True, True, False, True, True, True, True]
    assert [hop.tail.guardrails for hop in site.hops(made)] == [
        (),
        (("no-pii", "EMAIL", 1),),
        (("no-keys", "API_KEY", 1),),
        (("no-pii", "CREDIT_CARD", 1), ("no-pii", "EMAIL", 1)),
        (),
        (("no-pii", "EMAIL", 2),),
        (("no-pii", "EMAIL", 1),),
    ]
    assert [each.value()["a"] for each in site.read(made)] == [
        1,
        "[EMAIL]",
        ["[EMAIL]", "[CREDIT_CARD]"],
        2,
        ["[EMAIL]"] * 2,
        "[EMAIL]",
    ]
    assert outcomes[1].decided is outcomes[6].decided, "records with the same findings share their tail"
    assert len({id(each.decided) for each in outcomes}) == 5
    assert len(site.place.profiles) == 1


def test_many_different_findings_of_one_profile_stay_bounded():
    site = Site(guardrails=(NO_PII,))
    values = [site.sealed([MAIL] * count) for count in range(1, 151)]
    outcomes, made = site.run(*values)
    assert [hop.tail.guardrails[0][2] for hop in site.hops(made)] == list(range(1, 151))
    (profile,) = site.place.profiles.values()
    assert 0 < len(profile.variants) <= 64
    assert len(outcomes) == 150


def test_what_was_found_is_said_in_full_where_a_domain_is_audited_by_its_outputs_alone():
    site = Site(guardrails=(NO_PII,), audit_full=False)
    _, hop, _ = site.one({"note": MAIL}, purpose="care")
    assert hop.tail.guardrails == (("no-pii", "EMAIL", 1),)
    assert (hop.tail.purpose, hop.tail.facts) == ("", {})


# Metadata guardrails.
def test_metadata_is_redacted_for_readers_and_counted():
    site = Site(guardrails=(META,), metadata_masking=False)
    assert not site.inspector.by_record
    _, hop, made = site.one({"note": MAIL}, metadata={"from": f"by {MAIL}", "trace": "7"})
    (delivery,) = site.read(made)
    assert dict(delivery.metadata) == {"from": "by [EMAIL]", "trace": "7"}
    assert delivery.value() == {"note": MAIL}, "this rule looks at metadata alone"
    assert hop.tail.guardrails == (("no-pii", "EMAIL", 1),)
    assert hop.tail.metadata_keys == ("from", "trace")
    assert not any(MAIL.encode() in raw for raw in site.raw_hops(made))


def test_denied_metadata_is_a_dead_letter():
    site = Site(guardrails=(NO_PII, NO_KEYS), metadata_masking=False)
    outcome, hop, made = site.one({"note": 1}, metadata={"auth": KEY})
    assert refusal(site, outcome, hop, made) == ("guardrail", "no-keys", "mesh.yaml:31")
    assert hop.tail.guardrails == (("no-keys", "API_KEY", 1),)
    assert site.says(made, KEY) == []


def test_metadata_that_would_be_masked_away_is_denied_all_the_same():
    outcome, hop, _ = Site(guardrails=(NO_KEYS,)).one({}, metadata={"auth": KEY})
    assert (outcome.decision.code, hop.tail.rule) == (Code.GUARDRAIL, "no-keys")


@pytest.mark.parametrize("value", ['{"a": "0123456789", "a": 2}', "[" * 100 + "]" * 100])
@pytest.mark.parametrize("masking", [True, False])
def test_unclear_metadata_is_refused_by_its_guardrail(value, masking):
    site = Site(guardrails=(META,), metadata_masking=masking)
    outcome, hop, made = site.one({"note": 1}, metadata={"locale": value})
    assert refusal(site, outcome, hop, made) == ("guardrail", "no-pii", "mesh.yaml:30")


def test_what_is_found_in_metadata_and_payload_is_told_together():
    site = Site(guardrails=(guardrail("no-pii", "EMAIL", on="payload metadata"),), metadata_masking=False)
    outcomes, made = site.run(
        site.sealed({"a": MAIL}, metadata={"m": MAIL}),
        site.sealed({"a": 1}, metadata={"m": MAIL}),
        site.sealed({"a": MAIL}),
    )
    counted = [sum(count for _, _, count in hop.tail.guardrails) for hop in site.hops(made)]
    assert counted == [2, 1, 1]
    assert site.says(made, MAIL) == []
    assert all(isinstance(each, Accepted) for each in outcomes)


# Conditions of the moment.
CALM = compile_condition("calm", "context.load < 0.5")
SMALL = compile_condition("small", "context.size < 2000")
CARE = compile_condition("care", 'context.purpose == "care"')


def test_the_load_is_asked_for_every_record_and_told_in_its_hop():
    site = Site(when=(CALM,))
    assert site.inspector.by_record
    seen = []
    for load in (0.1, 0.494, 0.5, 0.9, 0.2):
        site.context.load = load
        _, hop, _ = site.one({"note": 1})
        seen.append((str(hop.tail.code), hop.tail.rule, hop.tail.facts["load"]))
    assert seen == [
        ("", "memory.produce", "0.10"),
        ("", "memory.produce", "0.49"),
        ("condition", "calm", "0.50"),
        ("condition", "calm", "0.90"),
        ("", "memory.produce", "0.20"),
    ]


def test_the_size_is_that_of_the_sealed_record():
    site = Site(when=(SMALL,))
    values = [site.sealed({"note": "x" * size}) for size in (10, 3000, 20, 1990)]
    outcomes, made = site.run(*values)
    assert [isinstance(each, Accepted) for each in outcomes] == [len(value) < 2000 for value in values]
    assert {isinstance(each, Accepted) for each in outcomes} == {True, False}
    assert [hop.tail.rule for hop in site.hops(made)] == ["memory.produce", "small", "memory.produce", "small"]


def test_the_time_is_the_brokers_append_time():
    minute = NOW % 3_600_000 // 60_000
    site = Site(when=(compile_condition("early", f"context.time.getMinutes() <= {minute}"),))
    values = [site.sealed(number) for number in range(2)]
    (first,), _ = site.run(values[0], at=NOW)
    (second,), made = site.run(values[1], at=NOW + 60_000)
    assert isinstance(first, Accepted)
    assert isinstance(second, Refused)
    assert site.hops(made)[0].tail.rule == "early"


def test_a_refusal_of_the_moment_names_its_condition_and_is_not_inspected_further():
    site = Site(when=(CALM,), guardrails=(NO_KEYS,))
    site.context.load = 0.9
    outcome, hop, made = site.one({"note": KEY})
    code, rule, _ = refusal(site, outcome, hop, made)
    assert (code, rule, hop.tail.guardrails) == ("condition", "calm", ())
    site.context.load = 0.1
    assert site.one({"note": KEY})[1].tail.rule == "no-keys"


@pytest.mark.parametrize(
    "domain", [{"metadata_masking": True}, {"metadata_masking": False}, {"masks": (mask("m", keep=()),)}]
)
def test_another_value_in_the_metadata_does_not_pass_by_a_condition(domain):
    """Profiles of one shape share their decision, and each record has its own moment."""
    site = Site(when=(CALM,), **domain)
    values = [site.sealed({"note": 1}, metadata={"request": str(number), "locale": "en"}) for number in range(4)]
    site.context.load = 0.9
    outcomes, made = site.run(*values)
    assert [each.decision.rule for each in outcomes if isinstance(each, Refused)] == ["calm"] * 4
    assert {hop.tail.facts["load"] for hop in site.hops(made)} == {"0.90"}


def test_records_of_one_batch_are_judged_each_for_itself_under_moment_and_guardrail():
    site = Site(when=(SMALL,), guardrails=(NO_PII,))
    _, made = site.run(*(site.sealed({"n": MAIL, "x": "x" * size}) for size in (1, 3000, 2, 3000)))
    hops = site.hops(made)
    assert [hop.tail.rule for hop in hops] == ["memory.produce", "small", "memory.produce", "small"]
    assert [hop.tail.guardrails for hop in hops] == [(("no-pii", "EMAIL", 1),), ()] * 2
    assert {hop.tail.facts["load"] for hop in hops} == {"0.00"}


def test_a_condition_on_the_profile_alone_needs_no_look_at_each_record():
    site = Site(when=(CARE,))
    assert not site.inspector.by_record
    outcomes, made = site.run(site.sealed(1, purpose="care"), site.sealed(1))
    assert [isinstance(each, Accepted) for each in outcomes] == [True, False]
    assert all("load" not in hop.tail.facts for hop in site.hops(made))


# What needs an inspector.
LOOKS = {
    "nothing": ({}, False, False),
    "a masked domain": ({"metadata_masking": True}, False, False),
    "an unmasked domain": ({"metadata_masking": False}, False, False),
    "a condition on the profile": ({"when": (CARE,)}, False, False),
    "a condition of the moment": ({"when": (CARE, CALM)}, True, False),
    "a payload guardrail": ({"guardrails": (NO_PII,)}, True, False),
    "a metadata guardrail": ({"guardrails": (META,)}, False, True),
    "both": ({"guardrails": (NO_KEYS,)}, True, True),
    "a metadata allowlist": ({"masks": (mask("m", keep=("a",), drop=("b",)),)}, False, False),
    "a metadata hash": ({"masks": (mask("m", hash=("a",)),)}, False, True),
    "a payload mask": ({"masks": (mask(payload={"a": "drop"}),)}, True, False),
}


@pytest.mark.parametrize(("domain", "by_record", "by_value"), LOOKS.values(), ids=LOOKS)
def test_records_are_looked_at_one_by_one_only_where_a_rule_asks_for_it(domain, by_record, by_value):
    inspector = Site(**domain).inspector
    assert (inspector.by_record, inspector.by_value) == (by_record, by_value)


def test_another_policy_brings_another_inspector():
    site = Site()
    assert not site.inspector.by_record
    _, _, made = site.one({"note": MAIL})
    assert site.read(made)[0].value() == {"note": MAIL}
    strict = make_policy(domain_policy(MEMORY, guardrails=(NO_PII,)), number=2)
    site.context.set_policy(strict, 2)
    _, _, made = site.one({"note": MAIL})
    assert site.read(made)[0].value() == {"note": "[EMAIL]"}
    site.context.set_policy(site.world.policy, 3)
    _, _, made = site.one({"note": MAIL})
    assert site.read(made)[0].value() == {"note": MAIL}


# The compiled steps.
DOMAINS = {
    "moment": {"when": (CALM, SMALL)},
    "payload guardrails": {"guardrails": (NO_PII, NO_KEYS)},
    "metadata guardrails": {"guardrails": (META,), "metadata_masking": False},
    "metadata denied": {"guardrails": (guardrail("no-pii", "EMAIL", then="deny", on="metadata"),)},
    "payload masks": {"masks": (mask(payload={"a": "hash"}),)},
    "metadata masks": {"masks": (mask("m", hash=("user",), keep=("locale",)),)},
    "all": {
        "when": (SMALL,),
        "guardrails": (NO_PII, NO_KEYS, META),
        "masks": (mask(payload={"b": "drop"}, hash=("user",)),),
    },
    "none": {},
}


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
def test_the_compiled_steps_give_the_same_outcomes(domain):
    if native is None:
        pytest.skip("sealbus-native is not installed: no Rust compiler when the environment was made")
    plain = Site(**domain)
    fast = Site(plain.world, **domain)
    fast.place.acceptor = acceptor_for(fast.place, fast.context)
    assert fast.place.acceptor is not None
    payloads = [{"a": 1}, {"a": MAIL, "b": 2}, {"a": KEY}, {"a": "x" * 3000}, b"{", {"a": 1, "b": CARD}]
    metadata = [{}, {"user": "1"}, {"user": "2", "locale": "en"}, {"user": MAIL}, {"user": "1"}]
    values = [plain.sealed(payload, metadata=each) for each in metadata for payload in payloads]
    values += [plain.sealed(payload, metadata=each) for payload in payloads for each in metadata]
    for load in (0.1, 0.9):
        plain.context.load = fast.context.load = load
        for start in range(0, len(values), 20):
            some = values[start : start + 20]
            offsets = [start + place for place in range(len(some))]
            one = enforce(plain.context, plain.place, *some, first=start)
            two = compiled.enforce(some, [NOW] * len(some), offsets, fast.place, fast.context)
            assert [told(each) for each in two] == [told(each) for each in one]
            ours = derive(one, start, start + len(some), plain.place, plain.context)
            theirs = derive(two, start, start + len(some), fast.place, fast.context)
            for made, other in zip(plain.hops(ours), fast.hops(theirs), strict=True):
                assert replace(made, output_digest=b"") == replace(other, output_digest=b"")
            read = [(each.payload, dict(each.metadata)) for each in plain.read(ours)]
            assert [(each.payload, dict(each.metadata)) for each in fast.read(theirs)] == read
        values = [plain.sealed(payload, metadata=each) for each in metadata for payload in payloads]


@pytest.mark.parametrize(
    "domain",
    [{"guardrails": (META,)}, {"guardrails": (NO_PII,)}, {"when": (CALM,)}, {"masks": (mask(payload={"a": "hash"}),)}],
    ids=["metadata", "payload", "moment", "fields"],
)
def test_records_that_are_looked_at_go_through_the_compiled_steps(monkeypatch, domain):
    if native is None:
        pytest.skip("sealbus-native is not installed: no Rust compiler when the environment was made")
    judged: list[bytes] = []
    plain = compiled.enforce_batch
    monkeypatch.setattr(
        compiled, "enforce_batch", lambda values, *r, **k: judged.extend(values) or plain(values, *r, **k)
    )
    site = Site(**domain)
    site.place.acceptor = acceptor_for(site.place, site.context)
    values = [site.sealed({"a": 1}) for _ in range(4)]
    outcomes = compiled.enforce(values, [NOW] * 4, list(range(4)), site.place, site.context)
    assert judged == values[:1]
    assert all(isinstance(each, native.Accepted) and each.key.agent == WRITER for each in outcomes)


@pytest.mark.parametrize(
    "law",
    [
        {"guardrails": (NO_PII,)},
        {"masks": (mask(payload={"card": "drop"}),)},
        {"rate": RateRule("small", "agent", 3_600_000, 10, 5000)},
    ],
    ids=["guardrail", "mask", "size"],
)
def test_a_message_in_parts_is_refused_where_a_rule_needs_all_of_it(law):
    """Readers put parts together: what is cut in two would pass by whoever looks at each half."""
    site = Site(**law)
    group = bytes(range(16))
    parts = [
        site.sealed(b'"write to john.doe@', chunk=Chunk(group, 0, 2), message_id=group),
        site.sealed(b'example.com"', chunk=Chunk(group, 1, 2)),
        site.sealed(b'"x"', chunk=Chunk(group, 1, 2), causation_ids=(bytes(16),), field_protection=(("", ""),) * 2),
    ]
    outcomes, made = site.run(*parts, site.sealed({"note": "whole"}))
    codes = [each.decision.code for each in outcomes[:3]]
    assert codes == [Code.SCHEMA] * 3
    assert {each.decision.rule for each in outcomes[:3]} == {"memory.parts"}
    assert [each.value() for each in site.read(made)] == [{"note": "whole"}]


def test_a_message_in_parts_goes_where_no_rule_looks_at_it():
    site = Site()
    group = bytes(range(16))
    _, made = site.run(site.sealed(b'"a', chunk=Chunk(group, 0, 2), message_id=group))
    assert [each.chunk for each in site.read(made)] == [Chunk(group, 0, 2)]
