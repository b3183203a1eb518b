"""Hostile agents with their own credentials, on one stack: refused with the code expected, once, and all goes on.

Counted facts only. What an attack does to others' waiting times is measured by `python -m tests.hostile`. Attacks that
may end a partition or the broker stand last, in this order.
"""

import contextlib
import hashlib
import os
import shutil
import ssl
import struct
import time
from collections import Counter

import psutil
import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from bus import Bus
from bus.kafka import windows
from tests.hostile import records
from tests.hostile.agent import DOMAIN, TOPIC, HostileAgent
from tests.hostile.clients import connections
from tests.hostile.measure import PARTITIONS, key_for
from tests.hostile.wire import CONTROL, TRANSACTIONAL, Raw, batch, record
from tests.integration.conftest import POLICIES, start_stack
from tests.integration.oracle import account, hops, read_topic, verified, wait_for_hops

pytestmark = pytest.mark.broker

ATTACKER, NEIGHBOUR, VICTIM = "retriever-1", "retriever-1-x", "orchestrator-1"
TOPIC_DENIED, GROUP_DENIED, CLUSTER_DENIED, TRANSACTIONAL_DENIED, INVALID_RECORD = 29, 30, 31, 53, 87


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    """One stack for the module: two enforcers, and an agent whose id begins with the attacker's."""
    home = tmp_path_factory.mktemp("hostile")
    shutil.copytree(POLICIES, home / "policies")
    with (home / "policies" / "agents.yaml").open("a") as out:
        out.write(f"  {NEIGHBOUR}: {{role: RETRIEVER}}\n")
    local = start_stack(home / "state", policies=home / "policies", enforcers=2)
    os.environ["BUS_CONFIG"], before = str(local.layout.settings), os.environ.get("BUS_CONFIG")
    yield local
    os.environ.pop("BUS_CONFIG")
    if before is not None:
        os.environ["BUS_CONFIG"] = before
    local.down(lambda _: None, purge=True)


@pytest.fixture(scope="module")
def hostile(mesh):
    return HostileAgent(mesh, ATTACKER)


@pytest.fixture(scope="module")
def raw(hostile):
    with hostile.raw() as connection:
        yield connection


def send(agent, placed, **settings):
    """Write (partition, value) pairs; every one must be taken by the broker."""
    refused = []
    producer = agent.producer(**settings)
    for partition, value in placed:
        producer.produce(
            TOPIC, value, partition=partition, on_delivery=lambda error, _: error and refused.append(error)
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    assert refused == []


def dead(mesh):
    """Bytes of the domain's dead letters by the digest of the input."""
    return {value[28:60]: len(value) for _, _, value in read_topic(mesh, f"{DOMAIN}.dead")}


def test_every_crafted_record_is_refused_with_its_code_and_honest_ones_pass(mesh, hostile):
    sealer = hostile.sealer()
    cases = list(records.framing(hostile, sealer, 0))
    cases += [(name, sealer.seal(0, plain)[1], "decode") for name, plain in records.bombs(hostile)]
    cases += [("largest", records.largest(hostile, sealer, 0), "")]
    crowded = (records.crowded_profile(hostile, number) for number in range(50))
    cases += [("crowded profile", sealer.seal(0, hostile.plain(profile=each))[1], "") for each in crowded]
    cases += [("16 tickets", sealer.seal(0, hostile.plain(tickets=(bytes(512),) * 16))[1], "")]
    send(hostile, [(0, value) for _, value, _ in cases])
    told = wait_for_hops(mesh, [value for _, value, _ in cases])
    found = [(name, hop["code"]) for (name, _, _), hop in zip(cases, told, strict=True)]
    assert found == [(name, code) for name, _, code in cases]


def test_a_record_above_the_brokers_limit_is_refused_by_the_broker(hostile):
    answers = []
    producer = hostile.producer(message_max_bytes=2_000_000)
    producer.produce(
        TOPIC, os.urandom(1_100_000), partition=0, on_delivery=lambda error, _: answers.append(error.code())
    )
    producer.flush(30)
    assert answers == [KafkaError.MSG_SIZE_TOO_LARGE]


def test_a_flood_of_bad_macs_is_refused_one_by_one(mesh, hostile):
    value = hostile.sealer().seal(1, hostile.plain())[1]
    flood = [records.bad_mac(value, number) for number in range(3000)]
    good = hostile.sealer().seal(1, hostile.plain())[1]
    send(hostile, [*((1, each) for each in flood), (1, good)])
    told = wait_for_hops(mesh, [*flood, good])
    assert Counter(each["code"] for each in told) == {"mac": 3000, "": 1}
    assert {each["agent"] for each in told[:-1]} == {""}, "nothing is believed before the MAC holds"


def test_an_instance_for_every_record_fills_the_agents_own_windows_and_nobody_elses(mesh, hostile):
    sealers = [hostile.sealer() for _ in range(windows.MAX_INSTANCES + 200)]
    values = [each.seal(2, hostile.plain())[1] for each in sealers]
    other = HostileAgent(mesh, NEIGHBOUR)
    neighbour = other.sealer().seal(2, other.plain())[1]
    again = sealers[0].seal(2, hostile.plain())[1]
    send(hostile, [(2, each) for each in values])
    send(other, [(2, neighbour)])
    send(hostile, [(2, again)])
    codes = [each["code"] for each in wait_for_hops(mesh, [*values, neighbour, again])]
    assert Counter(codes[:-2]) == {"": windows.MAX_INSTANCES, "too-many-instances": 200}
    assert codes[-2:] == ["", ""]


def test_sequence_jumps_are_told_as_gaps_and_replays_are_refused_each_time(mesh, hostile):
    jumps = list(records.jumps(hostile, 3, 50))
    send(hostile, [(3, each) for each in jumps])
    told = wait_for_hops(mesh, jumps)
    assert {each["code"] for each in told} == {""}
    assert [each["gap"] for each in told] == [0] + [2**32 - 1] * 49
    once = hostile.sealer().seal(3, hostile.plain())[1]
    send(hostile, [(3, once)] * 301)
    digest = hashlib.sha256(once).hexdigest()
    deadline = time.monotonic() + 30
    while len(codes := [each["code"] for each in hops(mesh) if each["origin_digest"] == digest]) < 301:
        assert time.monotonic() < deadline
    assert Counter(codes) == {"": 1, "replay": 300}


def test_an_agent_has_no_transaction_under_any_name(raw):
    _, producer, epoch = raw.producer_id()
    value = batch([record(0, b"x")], producer=(producer, epoch, 0), attributes=TRANSACTIONAL)
    for name in ("bus-enforcer-1", VICTIM, ATTACKER, "mine"):
        assert raw.producer_id(name)[0] == TRANSACTIONAL_DENIED
        assert raw.produce(TOPIC, 0, value, transactional_id=name)[0] == TRANSACTIONAL_DENIED
        assert raw.add_partitions(name, producer, epoch, TOPIC) == TRANSACTIONAL_DENIED
        assert raw.add_offsets(name, producer, epoch, "bus.enforcer") == TRANSACTIONAL_DENIED
        assert raw.commit_in_transaction(name, "bus.enforcer", producer, epoch, TOPIC) == TRANSACTIONAL_DENIED
        assert raw.end_transaction(name, producer, epoch) == TRANSACTIONAL_DENIED
    assert raw.produce(TOPIC, 0, value)[0] == TRANSACTIONAL_DENIED, "a transactional batch without a transaction"
    control = batch([record(0, b"x")], attributes=CONTROL)
    assert raw.produce(TOPIC, 0, control)[0] == INVALID_RECORD


def test_only_the_agents_own_group_is_open_to_it_not_one_that_shares_its_prefix(mesh, raw):
    for group in ("bus.enforcer", "bus-audit", VICTIM, NEIGHBOUR, f"{ATTACKER}-", ATTACKER[:-1], ""):
        answers = raw.join(group), raw.leave(group, "bus-enforcer-1"), raw.commit(group, TOPIC, 0)
        assert answers == (GROUP_DENIED,) * 3, group
    assert raw.join(ATTACKER) == 0
    with HostileAgent(mesh, NEIGHBOUR).raw() as other:
        assert other.join(ATTACKER) == GROUP_DENIED


def test_topics_are_open_exactly_as_the_policy_says(raw):
    internal = ("__consumer_offsets", "__transaction_state")
    domains = ("agent_memory", "coordination", "pii_inference", "financial_models")
    topics = [f"{domain}.{kind}" for domain in domains for kind in ("in", "out", "dead", "windows")]
    topics += ["bus.audit", "bus.issue", "bus.claims", "bus.notice", "bus.policy", "bus.control", *internal, "none"]
    may_write, may_read = {TOPIC, "bus.claims"}, {f"{DOMAIN}.out", "bus.notice", "bus.policy"}
    wrote = {topic: raw.produce(topic, 0, batch([record(0, b"x")]))[0] for topic in topics}
    assert wrote == {topic: 0 if topic in may_write else TOPIC_DENIED for topic in topics}
    read = {topic: raw.fetch(topic)[0] for topic in topics}
    assert read == {topic: 0 if topic in may_read else TOPIC_DENIED for topic in topics}


def denied(futures):
    """Error codes of an administrator's call."""
    codes = set()
    for future in futures.values():
        with pytest.raises(KafkaException) as caught:
            future.result(10)
        codes.add(caught.value.args[0].code())
    return codes


def test_an_agent_administers_nothing(hostile, raw):
    client = AdminClient(hostile.connection.config())
    everything = ConfigResource(
        ConfigResource.Type.TOPIC,
        TOPIC,
        incremental_configs=[ConfigEntry("retention.ms", "1", incremental_operation=AlterConfigOpType.SET)],
    )
    own = AclBinding(
        ResourceType.TOPIC,
        f"{DOMAIN}.out",
        ResourcePatternType.LITERAL,
        f"User:{ATTACKER}",
        "*",
        AclOperation.WRITE,
        AclPermissionType.ALLOW,
    )
    assert denied(client.delete_records([TopicPartition(TOPIC, 0, 1)])) == {TOPIC_DENIED}
    assert denied(client.incremental_alter_configs([everything])) == {TOPIC_DENIED}
    assert denied(client.create_topics([NewTopic("mine", 1, 1)])) == {TOPIC_DENIED}
    assert denied(client.delete_topics([TOPIC])) == {TOPIC_DENIED}
    assert denied(client.create_partitions([NewPartitions(TOPIC, 8)])) == {TOPIC_DENIED}
    assert denied(client.create_acls([own])) == {CLUSTER_DENIED}
    assert denied(client.delete_consumer_groups(["bus.enforcer"])) == {GROUP_DENIED}
    assert raw.set_quotas(VICTIM, producer_byte_rate=1.0) == CLUSTER_DENIED


def test_two_hundred_connections_that_say_nothing_half_or_garbage_stop_nobody(mesh, hostile):
    told = connections(hostile, 1)()
    try:
        assert told.answers["open at once"] == 200
        value = hostile.sealer().seal(0, hostile.plain())[1]
        send(hostile, [(0, value)])
        assert wait_for_hops(mesh, [value])[0]["code"] == ""
    finally:
        for each in told.held:
            each.close()


def test_a_dead_letter_is_no_larger_than_a_sealed_record_that_was_not_opened(mesh):
    sizes, letters = input_sizes(mesh), dead(mesh)
    unopened = {hop["origin_digest"] for hop in hops(mesh, "--domain", DOMAIN) if hop["code"] not in ("", "decode")}
    found = {each: size for each, size in letters.items() if each.hex() in unopened and sizes[each] >= 101}
    assert len(found) > 3000
    assert {each: size for each, size in found.items() if size > sizes[each]} == {}


def test_a_dead_letter_is_larger_than_a_record_that_was_opened_by_its_own_fields_at_most(mesh):
    """Position, time, digest, code and the sealed body's head: docs/reliability.md states the bound."""
    sizes, letters = input_sizes(mesh), dead(mesh)
    opened = {hop["origin_digest"] for hop in hops(mesh, "--domain", DOMAIN) if hop["code"] == "decode"}
    over = [letters[each] - sizes[each] for each in letters if each.hex() in opened]
    assert len(over) > 20
    assert max(over) <= 72, f"up to {max(over)} bytes more than the input"


def input_sizes(mesh):
    return {hashlib.sha256(value).digest(): len(value) for _, _, value in read_topic(mesh, TOPIC)}


def test_every_input_of_the_attacks_has_one_outcome_and_one_hop_and_the_ledger_verifies(mesh):
    told = account(mesh, DOMAIN)
    assert len(told) > 3000
    assert verified(mesh)["problems"] == []


def test_what_is_reported_stored_is_in_the_log_whoever_takes_the_producers_id(mesh, raw):
    """A producer id is a number in a row; whoever may write to the topic can write the next one's first sequences."""
    _, newest, _ = raw.producer_id()
    for producer in range(newest + 1, newest + 5):
        for partition in range(PARTITIONS):
            for sequence in range(3):
                raw.produce(TOPIC, partition, batch([record(0, b"")], producer=(producer, 0, sequence)))
    with Bus(VICTIM) as me:
        stored = [str(me.publish(DOMAIN, {"n": number}, partition_key=key_for(1)).id) for number in range(5)]
    account(mesh, DOMAIN)  # everything that is in the log has its hop
    known = {each["message_id"] for each in hops(mesh, "--domain", DOMAIN)}
    assert [each for each in stored if each not in known] == []


def test_a_batch_that_decompresses_to_150_mb_does_not_fill_an_enforcer(mesh, hostile):
    before = max(psutil.Process(each.pid).memory_info().rss for each in mesh.status() if "enforcer" in each.name)
    peak = [before]
    with hostile.raw() as connection:
        for partition in range(PARTITIONS):
            connection.produce(TOPIC, partition, records.gzip_bomb(records.BOMB_BYTES))
    value = hostile.sealer().seal(0, hostile.plain())[1]
    send(hostile, [(0, value)])
    deadline = time.monotonic() + 30
    digest = hashlib.sha256(value).hexdigest()
    while not any(each["origin_digest"] == digest for each in hops(mesh, "--domain", DOMAIN)):
        peak += [psutil.Process(each.pid).memory_info().rss for each in mesh.status() if "enforcer" in each.name]
        assert time.monotonic() < deadline
    assert max(peak) - before < records.BOMB_BYTES / 2


def test_a_partition_goes_on_after_a_batch_that_the_enforcers_client_cannot_decompress(mesh, hostile):
    producer = hostile.producer(compression_codec="zstd", message_max_bytes=1_000_000_000)
    producer.produce(TOPIC, bytes(records.BOMB_BYTES), partition=3)
    assert producer.flush(30) == 0  # stored or refused: both are good
    value = hostile.sealer().seal(3, hostile.plain())[1]
    send(hostile, [(3, value)])
    assert wait_for_hops(mesh, [value], timeout=15)[0]["code"] == ""


def test_the_broker_lives_when_requests_of_100_mb_are_announced(mesh, hostile):
    held = []
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            try:
                connection = stack.enter_context(hostile.raw())
                connection.socket.sendall(struct.pack(">i", 100_000_000))
                held.append(connection)
            except (OSError, ssl.SSLError):
                break
        with Raw(hostile.connection) as another:
            assert another.producer_id()[0] == 0
    assert next(each.pid for each in mesh.status() if each.name == "broker") is not None
