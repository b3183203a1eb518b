"""`audit_payload: sealed` on a real broker: kept once, opened with an access event, proven, named where it is gone."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import signal
import sqlite3
import uuid
from pathlib import Path

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from bus import Bus
from bus.admin.desired import ENFORCER_GROUP
from bus.authority.local import read_applied
from bus.authority.trust import read_trust
from bus.crypto.issued import open_issued
from bus.wire.envelope import Kind
from demo.observer import look
from demo.raw import RawClient
from tests.integration import oracle
from tests.integration.conftest import POLICIES
from tests.integration.oracle import bus_command, hops, read_topic, verified, wait_for_hops
from tests.integration.test_faults import child, write, write_until_end

pytestmark = pytest.mark.broker

KEPT, OTHER = "agent_memory", "coordination"
SECRET = "nobody-reads-me-at-rest-4711"


def policies(folder: Path) -> Path:
    """The bundled law, in which one domain has its records kept."""
    folder.mkdir()
    mesh = (POLICIES / "mesh.yaml").read_text()
    before = 'audit_level: "FULL_MESH"\n'
    (folder / "mesh.yaml").write_text(mesh.replace(before, before + "      audit_payload: sealed\n", 1))
    (folder / "agents.yaml").write_text((POLICIES / "agents.yaml").read_text())
    return folder


until = functools.partial(oracle.until, timeout=60)


def decision(value: bytes) -> str:
    """Its decision id, as docs/wire-format.md says."""
    return base64.b32encode(hashlib.sha256(value).digest()[:10]).decode().lower()


def opened(stack, name: str):
    """`bus audit payload`, once the record is no longer wanted."""
    return until(
        lambda: (ran := bus_command(stack, "audit", "payload", name, "--json", check=False)).returncode != 4 and ran
    )


def rows(stack, query: str) -> list[tuple]:
    db = sqlite3.connect(f"file:{stack.layout.ledger}?mode=ro", uri=True)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def events(stack) -> list[dict]:
    trust = read_trust(stack.layout.trust)
    return [open_issued(value, trust.anchor, trust.deployment) for _, _, value in read_topic(stack, "bus.issue")]


@pytest.mark.timeout(300)
def test_records_of_such_a_domain_are_kept_and_opened_and_no_others(own_stack, tmp_path):
    stack = own_stack(policies=policies(tmp_path / "law"))
    with Bus("retriever-1", settings=stack.settings) as writer, Bus("orchestrator-1", settings=stack.settings) as other:
        writer.publish(KEPT, {"text": SECRET}, purpose="care", confirm="decided").decision(timeout=30)
        other.publish(OTHER, {"text": SECRET}, purpose="care", confirm="decided").decision(timeout=30)
    ((_, _, sealed),), ((_, _, elsewhere),) = (read_topic(stack, f"{domain}.in") for domain in (KEPT, OTHER))
    wait_for_hops(stack, [sealed, elsewhere])

    # 1. An operator opens it, and that stands on bus.issue.
    name = decision(sealed)
    ran = opened(stack, name)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert (told["payload"], told["hop"]["decision_id"]) == ({"text": SECRET}, name)
    (event,) = events(stack)
    assert {key: event[key] for key in ("event", "decision", "agent", "domain")} == {
        "event": "opened",
        "decision": name,
        "agent": "retriever-1",
        "domain": KEPT,
    }

    # 2. The other domain's is not there, and asking for it opens nothing.
    refused = opened(stack, decision(elsewhere))
    assert refused.returncode == 1
    assert "was not to be kept" in refused.stderr
    assert rows(stack, "select digest, sealed, lost from payload") == [(hashlib.sha256(sealed).digest(), sealed, "")]
    assert len(events(stack)) == 1

    # 3. Nothing is readable at rest, and the proof carries the bytes to who has the ledger's key alone.
    seen = look(stack.layout.ledger.parent, [SECRET])
    assert (seen.items, seen.bytes_read > len(sealed)) == (frozenset(), True)
    proof = tmp_path / "proof.json"
    bus_command(stack, "audit", "prove", name, "--payload", "-o", str(proof))
    assert json.loads(proof.read_text())["payload"] == sealed.hex()
    key = bus_command(stack, "audit", "key").stdout.strip()
    proven = bus_command(stack, "audit", "verify", "--key", key, "--proof", str(proof)).stdout
    assert f"its record, {len(sealed)} bytes" in proven

    inner_channels(stack)


def inner_channels(stack):
    """Every kind has its hop: under FULL_MESH with all detail and its record, under OUTPUT_ONLY without either."""
    cause = uuid.uuid4()
    for sender, target, domain in (("retriever-1", "orchestrator-1", KEPT), ("orchestrator-1", "executor-1", OTHER)):
        with Bus(sender, settings=stack.settings) as me:
            for kind in Kind:
                to = target if kind.targeted else ""
                tool = "sql.read" if kind in (Kind.TOOL_CALL, Kind.TOOL_RESULT) else ""
                more = {"correlation": f"inner-{domain}", "causation": [cause], "purpose": "care"}
                me.publish(domain, {"text": SECRET}, kind=kind, target=to, tool=tool, confirm="decided", **more)
    wanted = [f"inner-{domain}" for domain in (KEPT, OTHER)]

    def all_told():
        found = [each for each in hops(stack) if each["correlation"] in wanted]
        return found if len(found) == 2 * len(Kind) else []

    told = until(all_told)
    kept, bare = ({each["kind"]: each for each in told if each["domain"] == domain} for domain in (KEPT, OTHER))
    assert kept.keys() == bare.keys() == {kind.value for kind in Kind}
    assert {each["decision"] for each in told} == {"ALLOW"}
    for kind in Kind:
        full, short = kept[kind.value], bare[kind.value]
        assert (full["purpose"], full["causation"], full["target"] != "") == ("care", [str(cause)], kind.targeted)
        assert (short["purpose"], short["causation"], short["metadata_keys"]) == ("", [], [])
        assert (short["agent"], short["target"] != "") == ("orchestrator-1", kind.targeted)
        assert json.loads(opened(stack, full["decision_id"]).stdout)["payload"] == {"text": SECRET}
    assert "was not to be kept" in opened(stack, bare["TOOL_CALL"]["decision_id"]).stderr
    assert look(stack.layout.ledger.parent, [SECRET, "sql.read"]).items == frozenset()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "stops",
    [
        [("signed", 1)],
        pytest.param([("appended", 1), ("signed", 1), ("opened", 2), ("signed", 2)], marks=pytest.mark.long),
    ],
    ids=["once", "at every point"],
)
def test_restarts_keep_every_record_once_and_what_is_gone_is_named(own_stack, tmp_path, stops):
    stack = own_stack(policies=policies(tmp_path / "law"), services=False)
    stack.start_service("issuer")
    stack.start_service("bus-enforcer-1")
    raw = RawClient(stack)
    sealer = raw.sealer("retriever-1", KEPT)
    values = []
    for point, count in stops:
        process = child(stack, "audit", point, str(count))
        values += write_until_end(process, raw, sealer)
        assert process.returncode == -signal.SIGKILL, point
    # The same bytes once more: refused as a replay, kept once.
    raw.produce(f"{KEPT}.in", values[0], 0)
    stack.start_service("audit")
    wait_for_hops(stack, values)
    until(
        lambda: (
            rows(stack, "select count(*) from wanted") == [(0,)]
            and len(rows(stack, "select 1 from payload")) == len(values)
        )
    )
    assert sorted(rows(stack, "select sealed from payload")) == sorted((each,) for each in values)

    # What retention takes before the audit consumer comes to it.
    stack.stop_service("audit")
    gone = write(raw, sealer, 4)
    ends = enforced(stack)
    client = AdminClient(stack.admin_connection().config())
    deleted = client.delete_records([TopicPartition(f"{KEPT}.in", number, end) for number, end in ends.items()])
    for each in deleted.values():
        each.result(30)
    after = write(raw, sealer, 4)
    stack.start_service("audit")
    wait_for_hops(stack, [*gone, *after])
    ran = opened(stack, decision(gone[0]))
    assert ran.returncode == 1
    assert "deleted from the topic before it was kept" in ran.stderr
    assert opened(stack, decision(after[0])).returncode == 0
    # The same process goes on with what comes.
    for more in (4, 8, 12):
        after += write(raw, sealer, 4)
        count = len(values) + 4 + more
        until(lambda count=count: rows(stack, "select count(sealed) from payload") == [(count,)])

    # What the policy takes away while it is wanted; from then on nothing is wanted.
    stack.stop_service("audit")
    refused = write(raw, sealer, 1)
    enforced(stack)
    before = read_applied(stack.layout, read_trust(stack.layout.trust)).signed.number
    mesh = stack.settings.policies / "mesh.yaml"
    mesh.write_text(mesh.read_text().replace("      audit_payload: sealed\n", ""))
    stack.apply(stack.plan(stack.load_policy()))
    stack.start_service("audit")
    wait_for_hops(stack, refused)
    ran = opened(stack, decision(refused[0]))
    assert ran.returncode == 1
    assert "the policy took away the right to read it" in ran.stderr
    later = until(
        lambda: (made := write(raw, sealer, 1)) and wait_for_hops(stack, made)[0]["snapshot"] > before and made
    )
    assert "was not to be kept" in opened(stack, decision(later[0])).stderr
    report = verified(stack)
    assert (report["payloads"], report["problems"]) == (len(values) + len(after), [])
    assert report["lost"] == 4 + len(rows(stack, "select 1 from payload where lost like '%took away%'"))


def enforced(stack) -> dict[int, int]:
    """The ends of the input's partitions, once the enforcers have committed up to them."""
    client = AdminClient(stack.admin_connection().config())
    places = [TopicPartition(f"{KEPT}.in", number) for number in range(4)]
    told = client.list_offsets({place: OffsetSpec.latest() for place in places})
    ends = {place.partition: each.result(30).offset for place, each in told.items()}

    def done() -> bool:
        request = [ConsumerGroupTopicPartitions(ENFORCER_GROUP, places)]
        committed = client.list_consumer_group_offsets(request)[ENFORCER_GROUP].result(30).topic_partitions
        return all(each.offset >= ends[each.partition] for each in committed)

    until(done)
    return ends
