"""Guardrails at the source, fields that are sealed for others, and records of one size, on the real broker."""

import json

import pytest
from confluent_kafka import Producer

from bus import Bus, avro
from bus.codes import Code
from bus.crypto.seal import Sealer
from bus.errors import Denied, TooLarge
from bus.wire import derived
from bus.wire.names import DomainName
from demo.observer import look
from demo.raw import plaintext
from tests.integration.conftest import POLICIES, start_stack
from tests.integration.oracle import account, hops, read_topic, until, verified

pytestmark = pytest.mark.broker
IBAN, CELL = "DE89370400440532013000", 2048
RULES = """  guardrails:
    no-mail: {detect: [EMAIL], then: redact}
    no-ssn: {detect: [SSN], then: deny}
  masks:
    no-notes: {drop: [payload.note]}
  domains:
"""
SOURCED = """      tier: "COMPUTATION"
      protect_at: source
      guardrails: [no-mail, no-ssn]
      masks: [no-notes]
"""
SEALED = """    - name: "coordination"
      guardrails: [no-mail]
      sealed_fields: {case.iban: pii_inference, items.score: pii_inference}
"""
CELLS = f"""    - name: "agent_memory"
      padding: {CELL}
      constant_size: true
"""
CHANGES = (
    ("      attestation_required: true\n", ""),
    ("  domains:\n", RULES),
    ('      tier: "COMPUTATION"\n', SOURCED),
    ('    - name: "coordination"\n', SEALED),
    ('    - name: "agent_memory"\n', CELLS),
)


@pytest.fixture(scope="module")
def ruled(tmp_path_factory):
    home = tmp_path_factory.mktemp("ruled")
    folder = home / "law"
    folder.mkdir()
    (folder / "agents.yaml").write_text((POLICIES / "agents.yaml").read_text())
    law = (POLICIES / "mesh.yaml").read_text()
    for old, new in CHANGES:
        assert old in law
        law = law.replace(old, new)
    (folder / "mesh.yaml").write_text(law)
    local = start_stack(home / "state", policies=folder)
    yield local
    local.down(lambda _: None, purge=True)


def test_guardrails_and_masks_are_kept_where_a_payload_is_protected(ruled):
    with Bus("executor-1", settings=ruled.settings) as me, Bus("analyst-1", settings=ruled.settings) as worker:
        inbox = worker.subscribe("pii_inference")
        case = {"text": "write to jane@example.org", "note": "inside", "n": 1}
        sent = me.publish("pii_inference", case, confirm="decided")
        got = next(each for each in inbox if each.id == sent.id).value()
        assert got == {"text": "write to [EMAIL]", "n": 1}
        with pytest.raises(Denied, match="no-ssn found what must not go on") as refused:
            me.publish("pii_inference", {"text": "ssn 536-90-4399"})
        assert (refused.value.rule, refused.value.code) == ("no-ssn", Code.GUARDRAIL)
        large = me.publish("pii_inference", {"text": "jane@example.org " * 100_000}, confirm="decided")
        assert b"jane" not in next(each for each in inbox if each.id == large.id).payload


def test_a_sealed_field_opens_for_its_readers_alone_and_the_rest_for_everybody(ruled):
    payload = {
        "case": {"id": "c-17", "iban": IBAN},
        "items": [{"score": 0.25, "n": 1}, {"n": 2}],
        "to": "jane@example.org",
    }
    with (
        Bus("executor-1", settings=ruled.settings) as me,
        Bus("executor-1", settings=ruled.settings) as cleared,
        Bus("orchestrator-1", settings=ruled.settings) as other,
    ):
        theirs, mine = other.subscribe("coordination"), cleared.subscribe("coordination", observe=True)
        sent = me.publish("coordination", payload, confirm="decided")
        got = next(each for each in mine if each.id == sent.id).value()
        assert got == payload | {"to": "[EMAIL]"}
        closed = next(each for each in theirs if each.id == sent.id).value()
        assert (closed["case"]["id"], closed["items"][1], closed["to"]) == ("c-17", {"n": 2}, "[EMAIL]")
        assert closed["case"]["iban"]["sealed"] == "pii_inference"
        assert closed["items"][0]["score"]["sealed"] == "pii_inference"
        assert IBAN not in json.dumps(closed)
        with pytest.raises(Denied, match="may not produce to pii_inference, for whose readers a field is sealed"):
            other.publish("coordination", payload)
        other.publish("coordination", {"case": {"id": "c-18"}}, confirm="decided")
    for folder in (ruled.layout.state / "kafka", ruled.layout.ledger.parent):
        assert look(folder, [IBAN]).items == frozenset()


def test_a_field_of_an_avro_payload_is_sealed_and_its_texts_are_guarded(ruled):
    case = {"type": "record", "name": "Case", "fields": [{"name": "iban", "type": "string"}]}
    fields = [{"name": "case", "type": case}, {"name": "to", "type": "string"}]
    payload = {"case": {"iban": IBAN}, "to": "jane@example.org"}
    with (
        Bus("executor-1", settings=ruled.settings) as me,
        Bus("executor-1", settings=ruled.settings) as cleared,
        Bus("orchestrator-1", settings=ruled.settings) as other,
    ):
        theirs, mine = other.subscribe("coordination"), cleared.subscribe("coordination", observe=True)
        datum = avro({"type": "record", "name": "Order", "fields": fields}, payload)
        sent = me.publish("coordination", datum, confirm="decided")
        assert next(each for each in mine if each.id == sent.id).value() == payload | {"to": "[EMAIL]"}
        closed = next(each for each in theirs if each.id == sent.id)
        assert closed.value()["case"]["iban"]["sealed"] == "pii_inference"
        assert IBAN.encode() not in closed.payload
    for folder in (ruled.layout.state / "kafka", ruled.layout.ledger.parent):
        assert look(folder, [IBAN]).items == frozenset()


@pytest.mark.parametrize(
    ("payload", "code"),
    [(json.dumps({"case": {"iban": IBAN}}).encode(), Code.TIER_FLOOR), (b"no JSON", Code.SCHEMA)],
)
def test_a_record_with_a_field_that_is_not_sealed_is_refused(ruled, payload, code):
    with Bus("executor-1", settings=ruled.settings) as me:
        held = max(me._keys.begun(DomainName("coordination"), 2**62).values(), key=lambda each: each.epoch.epoch)
    sealer = Sealer(held.own, ruled.settings.deployment_id, "coordination.in")
    value = sealer.seal(0, plaintext("executor-1", "coordination", payload))[1]
    producer = Producer(ruled.admin_connection().config())
    producer.produce("coordination.in", value, partition=0)
    assert producer.flush(30) == 0
    found = until(lambda: [each for each in hops(ruled, "--domain", "coordination") if each["code"] == code])
    assert found[0]["rule"] == "coordination.sealed_fields"


def test_records_of_one_size_whatever_is_in_them_and_messages_whole(ruled):
    with Bus("retriever-1", settings=ruled.settings) as me, Bus("orchestrator-1", settings=ruled.settings) as other:
        inbox = other.subscribe("agent_memory")
        sizes = (1, 100, 1000, 1500, 3000, 50_000, 400_000)
        sent = [me.publish("agent_memory", {"text": "x" * size}, confirm="decided") for size in sizes]
        got = {each.id: each.value() for each in (next(iter(inbox)) for _ in sizes)}
        assert [len(got[each.id]["text"]) for each in sent] == list(sizes)
        with pytest.raises(TooLarge, match="expected at most"):
            me.publish("agent_memory", b"x" * 3_000_000)
        with pytest.raises(TooLarge, match="metadata, tool or tickets: expected"):
            me.publish("agent_memory", {}, metadata={f"key-{number}": "v" * 100 for number in range(16)})
    inputs = {len(value) for _, _, value in read_topic(ruled, "agent_memory.in")}
    assert len(inputs) == 1, "every record has one size"
    outputs = bodies(ruled)
    assert set(outputs) == {CELL + 16}


def bodies(stack):
    """Lengths of the sealed bodies in the domain's downstream topic."""
    values = [value for _, _, value in read_topic(stack, "agent_memory.out")]
    return [len(body) for value in values for _, _, _, body in derived.parse(value).entries]


def test_every_input_has_one_outcome_and_one_hop_and_the_ledger_verifies(ruled):
    for domain in ("pii_inference", "coordination", "agent_memory"):
        account(ruled, domain)
    assert verified(ruled)["problems"] == []
