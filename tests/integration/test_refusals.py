"""Bad input on the real broker: refused with the code of the step that failed, dead-lettered, audited; all goes on."""

import hashlib
import os
import time

import pytest

from bus.crypto.keys import AgentKeys, Secret
from bus.crypto.seal import Sealer
from bus.wire.envelope import Kind
from bus.wire.records import parse_dead_letter
from demo.raw import plaintext
from tests.integration.oracle import account, hops, read_topic, wait_for_hops

pytestmark = pytest.mark.broker

AGENT, DOMAIN, TOPIC, PARTITION = "retriever-1", "agent_memory", "agent_memory.in", 3


def honest(**changes):
    return plaintext(AGENT, DOMAIN, **changes)


def with_byte(value, place, new):
    return value[:place] + bytes((new,)) + value[place + 1 :]


def foreign_sealer(raw, **changes):
    """A sealer of the agent with something of it replaced."""
    keys, _ = raw.keys(AGENT, DOMAIN)
    fields = {name: getattr(keys, name) for name in AgentKeys.__dataclass_fields__} | changes
    return Sealer(AgentKeys(**fields), raw.deployment, TOPIC)


def bad_inputs(raw):
    """(name, value, code) of what is refused by its bytes alone."""
    sealer = raw.sealer(AGENT, DOMAIN)

    def seal(plain=None, partition=PARTITION):
        return sealer.seal(partition, honest() if plain is None else plain)[1]

    now = int(time.time() * 1000)
    value = seal()
    other_deployment = Sealer(raw.keys(AGENT, DOMAIN)[0], os.urandom(16), TOPIC)
    body = value[86:]
    loose = value[:84] + bytes((value[84], value[85] | 0x80, 0)) + body
    yield from [
        ("empty", b"", "bounds"),
        ("not a Sealed", b"{}", "bounds"),
        ("noise", os.urandom(300), "version"),
        ("truncated", seal()[:-1], "bounds"),
        ("trailing bytes", seal() + b"\0", "bounds"),
        ("length varint not minimal", loose, "bounds"),
        ("another marker", with_byte(seal(), 2, 0xFF), "version"),
        ("another suite", with_byte(seal(), 11, 2), "version"),
        ("an unknown key id", with_byte(seal(), 12, seal()[12] ^ 1), "unknown-key"),
        ("an agent that no root made", foreign_sealer(raw, key_id=os.urandom(16)).seal(3, honest())[1], "unknown-key"),
        ("a key of another domain", raw.sealer("orchestrator-1", "coordination").seal(3, honest())[1], "wrong-domain"),
        ("another MAC key", foreign_sealer(raw, mac=Secret.random("x")).seal(3, honest())[1], "mac"),
        ("a bit of the body flipped", with_byte(value, len(value) - 1, value[-1] ^ 1), "mac"),
        ("the sequence flipped", with_byte(seal(), 51, 0x7F), "mac"),
        ("another partition", seal(partition=2), "mac"),
        ("another deployment", other_deployment.seal(3, honest())[1], "mac"),
        ("another seal key", foreign_sealer(raw, seal=Secret.random("x")).seal(3, honest())[1], "open"),
        ("padding that is not zeros", seal(honest() + b"\1"), "decode"),
        ("an envelope cut short", seal((20).to_bytes(4, "big") + honest()[4:24]), "decode"),
        ("no envelope", seal(b""), "decode"),
        ("expired", seal(honest(now=now - 600_000)), "expired"),
        ("future-dated", seal(honest(created_at=now + 120_000)), "future"),
        ("in the name of another agent", seal(plaintext("orchestrator-1", DOMAIN)), "unverified"),
        ("for another domain", seal(plaintext(AGENT, "coordination")), "wrong-domain"),
        ("a tool call without a target", seal(honest(kind=Kind.TOOL_CALL)), "consume"),
    ]


def test_every_kind_of_bad_input_is_refused_with_the_code_of_its_step_and_the_partition_goes_on(stack, raw):
    cases = list(bad_inputs(raw))
    for _, value, _ in cases:
        raw.produce(TOPIC, value, PARTITION)
    _, last = raw.sealer(AGENT, DOMAIN).seal(PARTITION, honest())
    raw.produce(TOPIC, last, PARTITION)
    told = wait_for_hops(stack, [*(value for _, value, _ in cases), last])
    found = {name: hop["code"] for (name, _, _), hop in zip(cases, told, strict=False)}
    assert found == {name: code for name, _, code in cases}
    assert told[-1]["decision"] == "ALLOW"
    letters = [parse_dead_letter(value) for _, _, value in read_topic(stack, f"{DOMAIN}.dead")]
    by_digest = {letter.origin_digest: letter for letter in letters}
    for name, value, code in cases:
        letter = by_digest[hashlib.sha256(value).digest()]
        opened = code in ("decode", "expired", "future", "unverified", "consume") or name == "for another domain"
        assert (letter.code, letter.sealed is not None) == (code, opened), name
    for hop, (name, _, code) in zip(told, cases, strict=False):
        if code in ("bounds", "version", "unknown-key", "mac"):
            assert hop["agent"] == "", f"{name}: nothing is believed before the MAC holds"


def test_a_kafka_key_or_headers_are_refused(stack, raw):
    sealer = raw.sealer(AGENT, DOMAIN)
    keyed, headed = (sealer.seal(PARTITION, honest())[1] for _ in range(2))
    raw.produce(TOPIC, keyed, PARTITION, key=b"k")
    raw.produce(TOPIC, headed, PARTITION, headers={"h": b"v"})
    assert [hop["code"] for hop in wait_for_hops(stack, [keyed, headed])] == ["bounds", "bounds"]


def test_the_largest_record_passes_and_a_larger_one_is_refused(stack, raw):
    sealer = raw.sealer(AGENT, DOMAIN)
    frame = len(plaintext(AGENT, DOMAIN, b""))
    room = 1_000_000 - 84 - 3 - 16 - frame - 3  # MAC end, two length varints that grow to 3 bytes, tag
    fits = sealer.seal(PARTITION, plaintext(AGENT, DOMAIN, os.urandom(room)))[1]
    over = sealer.seal(PARTITION, plaintext(AGENT, DOMAIN, os.urandom(room + 200)))[1]
    assert len(fits) <= 1_000_000 < len(over)
    raw.produce(TOPIC, fits, PARTITION)
    raw.produce(TOPIC, over, PARTITION)
    assert [hop["code"] for hop in wait_for_hops(stack, [fits, over])] == ["", "bounds"]


def test_a_replayed_record_is_refused_in_every_later_transaction(stack, raw):
    _, value = raw.sealer(AGENT, DOMAIN).seal(PARTITION, honest())
    raw.produce(TOPIC, value, PARTITION)
    assert wait_for_hops(stack, [value])[0]["code"] == ""
    raw.produce(TOPIC, value, PARTITION)
    raw.produce(TOPIC, value, PARTITION)
    deadline = time.monotonic() + 30
    digest = hashlib.sha256(value).hexdigest()
    while len(codes := [hop["code"] for hop in hops(stack) if hop["origin_digest"] == digest]) < 3:
        assert time.monotonic() < deadline
    assert sorted(codes) == ["", "replay", "replay"]


def test_more_instances_than_an_agent_may_have_are_refused(stack, raw):
    """64 sending processes of one agent, epoch and partition; the 65th is refused, the first goes on."""
    sealers = [raw.sealer("orchestrator-1", DOMAIN) for _ in range(65)]
    values = [each.seal(1, plaintext("orchestrator-1", DOMAIN))[1] for each in sealers]
    for value in values:
        raw.produce(TOPIC, value, 1)
    _, again = sealers[0].seal(1, plaintext("orchestrator-1", DOMAIN))
    raw.produce(TOPIC, again, 1)
    codes = [hop["code"] for hop in wait_for_hops(stack, [*values, again])]
    assert codes.count("too-many-instances") >= 1
    assert codes[-2] == "too-many-instances"
    assert codes[-1] == codes[0]


def test_each_input_of_the_shared_stack_has_one_outcome_and_one_hop(stack, raw):
    for domain in ("agent_memory", "coordination"):
        account(stack, domain)
