"""The thin path on a real broker: publish, enforce, mask, open, audit; and who is refused where."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest
from confluent_kafka import TopicPartition

from bus import Bus, Denied
from bus.admin.desired import ENFORCER_GROUP, Quota
from bus.admin.quotas import alter_quotas, list_quotas
from bus.codes import Code
from bus.errors import AccessRefused
from bus.files import write_secret
from bus.kafka.config import connect
from bus.kafka.restore import unstable_offsets
from bus.wire.names import domain_topics
from demo.raw import plaintext
from tests.integration.oracle import bus_command, hops, read_topic, wait_for_hop, wait_for_hops
from tests.integration.readers import read_in_runs

pytestmark = pytest.mark.broker

METADATA = {
    "sender_ip": "10.1.2.3",
    "routing_path": "a>b",
    "internal_id": "x-77",
    "timestamp": "2026-01-01",
    "via_agent": "executor-1",
    "locale": "en",
}


def take(subscription, wanted, timeout=30):
    """Deliveries until one has the payload ``wanted``."""
    deadline = time.monotonic() + timeout
    while (got := subscription.get(max(0.1, deadline - time.monotonic()))) is not None:
        if got.value() == wanted:
            return got
    raise AssertionError(f"{wanted} was not delivered")


def test_a_permitted_agent_opens_what_was_published_and_masking_removed_topology(stack):
    note = {"text": f"prefers mail {os.urandom(4).hex()}"}
    with Bus("retriever-1") as sender, Bus("orchestrator-1") as reader:
        inbox = reader.subscribe("agent_memory")
        sent = sender.publish("agent_memory", note, purpose="care", metadata=METADATA, confirm="decided")
        assert set(sent.decision()) >= {"tier:RETRIEVAL", "masked"}
        got = take(inbox, note)
    assert (got.id, got.source, got.purpose) == (sent.id, "retriever-1", "care")
    assert dict(got.metadata) == {"locale": "en"}
    out = b"".join(value for _, _, value in read_topic(stack, domain_topics("agent_memory").outbound))
    for secret in (note["text"], "retriever-1", "10.1.2.3", "orchestrator-1"):
        assert secret.encode() not in out


def test_an_unmasked_domain_keeps_its_metadata(stack):
    note = {"n": os.urandom(4).hex()}
    with Bus("executor-1") as sender, Bus("orchestrator-1") as reader:
        inbox = reader.subscribe("coordination")
        sender.publish("coordination", note, metadata=METADATA)
        assert dict(take(inbox, note).metadata) == METADATA


def test_a_targeted_record_is_opened_by_its_target_alone_and_skipped_in_silence_by_others(stack):
    secret, open_ = {"for": os.urandom(4).hex()}, {"all": os.urandom(4).hex()}
    with Bus("orchestrator-1") as sender, Bus("executor-1") as target, Bus("orchestrator-1") as other:
        mine, theirs = target.subscribe("coordination"), other.subscribe("coordination")
        refused = []
        other.on_refused(refused.append)
        sender.publish("coordination", secret, target="executor-1", partition_key="one")
        sender.publish("coordination", open_, partition_key="one")
        assert take(mine, secret).target == "executor-1"
        take(theirs, open_)
        assert theirs.skipped >= 1
        # Another test leaves a message of this stack without its last parts; a record for somebody else is no message.
        assert [each for each in refused if each.code is not Code.INCOMPLETE] == []
        with pytest.raises(Denied, match=r"target 'analyst-1' may not read") as denied:
            sender.publish("coordination", secret, target="analyst-1")
        assert denied.value.code is Code.CONSUME


def test_the_sdk_refuses_before_sending_what_the_policy_refuses(stack):
    with Bus("executor-1") as me:
        with pytest.raises(Denied) as denied:
            me.publish("agent_memory", {})
        assert (denied.value.rule, denied.value.code) == ("agent_memory.produce", Code.PRODUCE)
        with pytest.raises(Denied, match="may not consume agent_memory"):
            me.subscribe("agent_memory")
    with Bus("analyst-1") as analyst:
        for call in (lambda: analyst.publish("financial_models", {}), lambda: analyst.subscribe("financial_models")):
            with pytest.raises(Denied) as unavailable:
                call()
            assert unavailable.value.code is Code.TIER_UNAVAILABLE


@pytest.mark.parametrize("agent", ["executor-1", "analyst-1"])
def test_nobody_has_keys_of_the_published_inference_where_they_are_written_into_files(stack, agent):
    with Bus(agent) as me:
        for call in (
            lambda: me.publish("pii_inference", {"ssn": "078-05-1120"}),
            lambda: me.subscribe("pii_inference"),
            lambda: me.store("cache", "pii_inference"),
        ):
            with pytest.raises(AccessRefused, match="pii_inference, which requires attestation") as refused:
                call()
            error = refused.value
            assert (error.code, error.principal, error.resource) == (Code.ATTESTATION, agent, "pii_inference")
            assert error.hint == 'issuing = "authority" in bus.toml (docs/operations/attestation.md)'
    held = [path for path in (stack.layout.agent(agent) / "keys").iterdir() if b"pii_inference" in path.read_bytes()]
    assert held == []


@pytest.mark.parametrize(
    ("agent", "domain", "code", "rule"),
    [
        ("executor-1", "agent_memory", "produce", "agent_memory.produce"),
        ("executor-1", "pii_inference", "tier-floor", "pii_inference.tier"),
        ("analyst-1", "financial_models", "tier-unavailable", "financial_models.tier"),
    ],
)
def test_the_enforcer_refuses_a_raw_client_that_skips_the_sdk(stack, raw, agent, domain, code, rule):
    topics = domain_topics(domain)
    _, value = raw.sealer(agent, domain).seal(0, plaintext(agent, domain))
    before = len(read_topic(stack, topics.outbound))
    raw.produce(topics.inbound, value)
    hop = wait_for_hop(stack, value)
    assert (hop["decision"], hop["code"], hop["rule"], hop["agent"]) == ("DENY", code, rule, agent)
    assert hop["location"].startswith("mesh.yaml:")
    assert len(read_topic(stack, topics.outbound)) == before


def test_a_broker_denial_names_topic_operation_and_principal_within_5_s(stack):
    with Bus("executor-1") as me:
        began = time.monotonic()
        failures = []
        plain = plaintext("executor-1", "coordination")
        # Past the SDK's early check: the agent's own client on a topic that its ACLs do not name.
        publisher = me._sender()
        publisher._keys.sending("coordination", int(time.time() * 1000))
        publisher._producer.produce("agent_memory.in", plain, on_delivery=lambda e, _: failures.append(e))
        publisher._producer.flush(5)
        error = me._connection.typed(failures[0], "write", "agent_memory.in")
    assert isinstance(error, AccessRefused)
    assert (error.principal, error.operation, error.resource) == ("executor-1", "write", "agent_memory.in")
    assert time.monotonic() - began < 5


def test_a_wrong_password_is_a_typed_error_and_nothing_floods_stderr(stack, tmp_path):
    code = (
        "import sys, dataclasses, pathlib\n"
        "from bus import settings, Bus\n"
        "from bus.errors import AccessRefused\n"
        "from bus.settings import Mechanism\n"
        "state = pathlib.Path(sys.argv[1])\n"
        "s = dataclasses.replace(settings.load(), state=state, sasl_mechanism=Mechanism.SCRAM)\n"
        "try:\n    Bus('retriever-1', settings=s)\n"
        "except AccessRefused as error:\n    print(error.code, error.principal)\n"
    )
    agent = tmp_path / "agents" / "retriever-1"
    agent.mkdir(parents=True)
    write_secret(agent / "scram", json.dumps({"username": "retriever-1", "password": "wrong"}).encode())
    (tmp_path / "pki").symlink_to(stack.layout.ca.parent)
    (tmp_path / "trust.json").symlink_to(stack.layout.trust)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout.strip() == "credential retriever-1"
    assert done.stderr == ""


def test_every_decision_is_proven_offline_and_a_changed_proof_is_refused(stack, raw, tmp_path):
    _, value = raw.sealer("retriever-1", "agent_memory").seal(1, plaintext("retriever-1", "agent_memory"))
    raw.produce("agent_memory.in", value, 1)
    hop = wait_for_hop(stack, value)
    key = bus_command(stack, "audit", "key").stdout.strip()
    proof = tmp_path / "proof.json"
    bus_command(stack, "audit", "prove", hop["decision_id"], "-o", str(proof))
    verify = [sys.executable, "-m", "bus.cli.main", "audit", "verify", "--key", key, "--proof"]
    nowhere = {"PATH": os.environ["PATH"]}  # no settings, no database
    done = subprocess.run([*verify, str(proof)], capture_output=True, text=True, env=nowhere, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert hop["decision_id"] in done.stdout
    document = json.loads(proof.read_text())
    for field in ("hop", "k", "body"):
        data = bytearray.fromhex(document[field])
        data[len(data) // 2] ^= 1
        bad = tmp_path / f"bad-{field}.json"
        bad.write_text(json.dumps({**document, field: data.hex()}))
        refused = subprocess.run(
            [*verify, str(bad)], capture_output=True, text=True, env=nowhere, cwd=tmp_path, check=False
        )
        assert refused.returncode == 1, (field, refused.stderr)
    other = subprocess.run(
        [*verify[:-2], "00" * 32, "--proof", str(proof)], capture_output=True, text=True, env=nowhere, check=False
    )
    assert other.returncode == 1


def test_the_whole_ledger_verifies_and_intervals_tile(stack):
    key = bus_command(stack, "audit", "key").stdout.strip()
    report = json.loads(bus_command(stack, "audit", "verify", "--key", key, "--json").stdout)
    assert report["problems"] == []
    assert report["leaves"] == len(hops(stack)) > 0


def test_a_restart_in_the_middle_of_a_bundle_repeats_nothing_that_was_acknowledged(stack, raw):
    """20 records of one transaction share a bundle; each reader takes some and closes."""
    session = os.urandom(6).hex()
    with Bus("orchestrator-1") as sender:
        for number in range(20):
            sender.publish("coordination", {"s": session, "n": number}, partition_key="p", confirm="queued")
    assert read_in_runs("executor-1", "coordination", session, 20, 3) == list(range(20))


def test_a_handler_may_be_slow_and_is_given_its_type(stack):
    import threading
    from dataclasses import dataclass

    @dataclass
    class Note:
        s: str
        n: int

    session, seen, done = os.urandom(6).hex(), [], threading.Event()
    with Bus("executor-1") as sender, Bus("orchestrator-1") as reader:

        @reader.subscribe("coordination", max_inflight=2)
        def handle(note: Note, got) -> None:
            if note.s == session:
                seen.append((note.n, got.source))
                if len(seen) == 5:
                    done.set()

        for number in range(5):
            sender.publish("coordination", Note(session, number), partition_key="q", confirm="queued")
        assert done.wait(40)
    assert seen == [(number, "executor-1") for number in range(5)]


def test_plan_sees_an_acl_that_was_changed_behind_the_policy(stack):
    from confluent_kafka.admin import (
        AclBinding,
        AclOperation,
        AclPermissionType,
        AdminClient,
        ResourcePatternType,
        ResourceType,
    )

    admin = AdminClient(stack.admin_connection().config())
    binding = AclBinding(
        ResourceType.TOPIC,
        "agent_memory.out",
        ResourcePatternType.LITERAL,
        "User:executor-1",
        "*",
        AclOperation.READ,
        AclPermissionType.ALLOW,
    )
    for future in admin.create_acls([binding]).values():
        future.result(10)
    done = bus_command(stack, "policy", "plan", "--json", "--fail-on-changes", check=False)
    assert done.returncode == 3
    drift = json.loads(done.stdout)["drift"]
    assert [each["name"] for each in drift] == ["User:executor-1 READ topic agent_memory.out"]
    bus_command(stack, "policy", "apply", "--yes", "--prune")
    assert "no changes" in bus_command(stack, "policy", "apply", "--yes").stdout


def test_broker_quotas_are_set_from_the_policy_and_taken_back(stack, tmp_path):
    limits = (
        "  broker_quotas: {default: {requests: 300%}, RETRIEVER: {produce: 64MiB/s, consume: 1MiB/s}}\n  domains:\n"
    )
    shutil.copytree(stack.settings.policies, tmp_path / "policies")
    mesh = tmp_path / "policies" / "mesh.yaml"
    mesh.write_text(mesh.read_text().replace("  domains:\n", limits, 1))
    held = {
        Quota("retriever-1", "producer_byte_rate", 64 << 20),
        Quota("retriever-1", "consumer_byte_rate", 1 << 20),
        *(Quota(name, "request_percentage", 300) for name in ("orchestrator-1", "executor-1", "analyst-1")),
    }
    bus_command(stack, "policy", "apply", str(tmp_path / "policies"), "--yes")
    assert list_quotas(stack.admin_connection()) == held
    assert "no changes" in bus_command(stack, "policy", "apply", str(tmp_path / "policies"), "--yes").stdout
    alter_quotas(stack.admin_connection(), (), [Quota("bus-enforcer-1", "producer_byte_rate", 1 << 30)])
    assert "! quota User:bus-enforcer-1 producer_byte_rate" in bus_command(stack, "policy", "plan").stdout
    bus_command(stack, "policy", "apply", "--yes", "--prune")
    assert list_quotas(stack.admin_connection()) == set()


def test_ten_refusals_in_a_row_leave_the_partition_going(stack, raw):
    sealer = raw.sealer("retriever-1", "agent_memory")
    values = []
    for number in range(10):
        _, value = sealer.seal(2, plaintext("retriever-1", "agent_memory"))
        bad = bytearray(value)
        bad[-1 - number] ^= 1
        values.append(bytes(bad))
    _, good = sealer.seal(2, plaintext("retriever-1", "agent_memory"))
    for value in [*values, good]:
        raw.produce("agent_memory.in", value, 2)
    told = wait_for_hops(stack, [*values, good])
    assert [hop["code"] for hop in told] == ["mac"] * 10 + [""]
    assert told[-1]["gap"] == 10


def test_an_enforcer_may_read_its_groups_offsets_whether_they_are_stable_or_not(stack, raw):
    sealer = raw.sealer("retriever-1", "agent_memory")
    _, value = sealer.seal(1, plaintext("retriever-1", "agent_memory"))
    raw.produce("agent_memory.in", value, 1)
    wait_for_hop(stack, value)
    connection = connect(stack.settings, "bus-enforcer-1")
    (told,) = unstable_offsets(connection, ENFORCER_GROUP, [TopicPartition("agent_memory.in", 1)])
    assert told.error is None
    assert told.offset > 0
    assert told.metadata.startswith("w1:")
