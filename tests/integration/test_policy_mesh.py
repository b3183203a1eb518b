"""The whole language on the real path: tenants, zones, labels, masks, guardrails, rates, breakers, a live edit."""

import json
import shutil
import threading
import time

import pytest

from bus import Bus, CircuitOpen, Denied, Refused, Throttled
from bus.authority.local import load_signer, read_applied
from bus.authority.trust import read_trust
from bus.cli.audit import hop_document, open_query
from bus.crypto.signing import sign_object
from bus.files import write_file
from bus.policy.loader import load_policy
from bus.wire.objects import SignedSnapshot
from demo.raw import RawClient
from tests.integration.conftest import POLICIES, start_stack
from tests.integration.oracle import account, bus_command, metrics, read_topic, until, verified

pytestmark = pytest.mark.broker

LIMITS = """  rate_limits:
    normal: {per: agent, rate: 4/h, burst: 8, max_bytes: 4KiB}
  circuit_breakers:
    worker: {per: agent, open_after: 3 refusals in 10m, half_open_after: 2h}
  domains:
    - {name: scarce, tier: RETRIEVAL, allowed_roles: [ORCHESTRATOR], metadata_masking: true, audit_level: FULL_MESH,
       rate_limit: normal}
    - {name: fragile, tier: RETRIEVAL, allowed_roles: [ORCHESTRATOR], metadata_masking: true, audit_level: FULL_MESH,
       guardrails: [no-keys], circuit_breaker: worker}
"""
AGENTS = """  orchestrator-2: {role: ORCHESTRATOR, tenant: accounting, zone: us}
  orchestrator-3: {role: ORCHESTRATOR, tenant: hr, zone: eu}
"""
KEY = "AKIAIOSFODNN7EXAMPLE"
ENFORCERS = ("bus-enforcer-1", "bus-enforcer-2")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    home = tmp_path_factory.mktemp("mesh")
    policies = home / "policies"
    shutil.copytree(POLICIES / "example", policies)
    law = policies / "mesh.yaml"
    before, domains, after = law.read_text().partition("  domains:")
    rest = after.partition("\n")[2]
    assert domains
    # The machine that tests run on may be as busy as it likes.
    law.write_text((before + LIMITS + rest).replace("context.load < 0.9", "context.load < 1000.0"))
    with (policies / "agents.yaml").open("a") as out:
        out.write(AGENTS)
    local = start_stack(home / "state", policies=policies, enforcers=2)
    yield local
    local.down(lambda _: None, purge=True)


def _without(policies, name):
    """The law without a guardrail in coordination, in a folder of its own."""
    folder = policies.parent / "other"
    shutil.copytree(policies, folder)
    law = folder / "mesh.yaml"
    law.write_text(law.read_text().replace(f"guardrails: [{name}no-keys]", "guardrails: [no-keys]"))
    return law


def published(stack, agent, domain, payload, **more):
    """What a record became: its hop."""
    return told(stack, send(stack, agent, domain, payload, **more))


def told(stack, sent):
    """The hop of a message, once the ledger has it."""
    query = open_query(stack.settings)
    deadline = time.monotonic() + 30
    while not (found := query.search({"message": sent.id.hex})):
        assert time.monotonic() < deadline, "no hop"
    return hop_document(found[0].hop)


def opened(stack, agent, domain, sent):
    """The delivery of ``sent`` to ``agent``; None where what the agent wrote behind it came and ``sent`` did not.

    Both are on one partition, and partitions are read in order.
    """
    with Bus(agent, settings=stack.settings) as me:
        reading = me.subscribe(domain, observe=True)
        behind = me.publish(domain, {"behind": str(sent.id)}, partition_key="one") if domain == "coordination" else None
        while (got := reading.get(30)) is not None:
            if got.id == sent.id:
                return got
            if behind is not None and got.id == behind.id:
                return None
    raise AssertionError("neither came")


def send(stack, agent, domain, payload, **more):
    with Bus(agent, settings=stack.settings) as me:
        return me.publish(domain, payload, **{"partition_key": "one", **more})


def shown(stack, name, domain, rule, services=ENFORCERS, **more):
    """A metric of a rule, added up over the enforcers; None where there is none."""
    labels = sorted({"domain": domain, "rule": rule, **more}.items())
    return metrics(stack, *services).get((name, *labels))


def test_records_are_found_by_a_value_and_only_by_who_may_read_them(mesh):
    texts = {"C-17": ["prefers mail", "moved"], "c-18": ["calls"]}
    sent = [
        send(mesh, "retriever-1", "agent_memory", {"customer_id": customer, "text": text}, confirm="decided")
        for customer, each in texts.items()
        for text in each
    ]
    with Bus("retriever-1", settings=mesh.settings) as me:
        until(lambda: len(me.search("agent_memory", customer_id="c-17")) == 2)
        found = me.search("agent_memory", customer_id="c-17")
        assert [each.value()["text"] for each in found] == texts["C-17"]
        assert [each.id for each in found] == [each.id for each in sent[:2]]
        assert me.search("agent_memory", customer_id="c-19") == []
        with pytest.raises(Refused, match="which has customer_id; found text") as refused:
            me.search("agent_memory", text="moved")
        assert refused.value.code == "schema"
    with Bus("executor-1", settings=mesh.settings) as me, pytest.raises(Denied):
        me.search("agent_memory", customer_id="c-17")
    # Its clearance does not reach what a retriever could have read: it has no key to ask with.
    with Bus("orchestrator-1", settings=mesh.settings) as me:
        assert me.search("agent_memory", customer_id="c-17") == []
    stored = b"".join(value for *_, value in read_topic(mesh, "agent_memory.out"))
    assert not any(text.encode() in stored for text in ("c-17", "C-17", "prefers"))


def test_a_record_is_opened_in_its_tenant_and_zone_and_nowhere_else(mesh):
    sent = send(mesh, "orchestrator-1", "coordination", {"status": "green"})
    hop = told(mesh, sent)
    assert (hop["decision"], hop["tenant"], hop["zone"]) == ("ALLOW", "hr", "us")
    assert opened(mesh, "executor-1", "coordination", sent).value() == {"status": "green"}
    for elsewhere in ("orchestrator-2", "orchestrator-3"):  # another tenant; a zone into which no flow leads
        assert opened(mesh, elsewhere, "coordination", sent) is None


def test_status_crosses_by_its_flow_where_its_label_may(mesh):
    # An orchestrator lowers what it may have read, behind no-pii: internal, which the flow lets go.
    sent = send(mesh, "orchestrator-3", "coordination", {"status": "eu is green"})
    assert told(mesh, sent)["decision"] == "ALLOW"
    assert opened(mesh, "orchestrator-1", "coordination", sent).value() == {"status": "eu is green"}


def test_what_an_agent_could_have_read_stays_with_those_who_may_read_it(mesh):
    # executor-2 drops every ticket and causation: its record has the label of the highest that it could have read.
    sent = send(mesh, "executor-2", "coordination", {"note": "copied from pii_inference"})
    assert told(mesh, sent)["decision"] == "ALLOW"
    for below in (
        "orchestrator-3",
        "orchestrator-1",
    ):  # same zone, not cleared for pii; the zone that the flow leads to
        assert opened(mesh, below, "coordination", sent) is None
    with pytest.raises(Denied) as denied:
        send(mesh, "executor-2", "coordination", {"note": 1}, target="orchestrator-3")
    assert denied.value.rule == "coordination.label"


def test_a_target_in_another_tenant_or_zone_is_refused(mesh):
    for target, rule in (("orchestrator-2", "tenants"), ("orchestrator-3", "zones")):
        with pytest.raises(Denied) as denied:
            send(mesh, "orchestrator-1", "coordination", {}, target=target)
        assert denied.value.rule == rule


def test_what_guardrails_find_is_redacted_and_counted_and_stands_nowhere(mesh):
    sent = send(
        mesh, "orchestrator-1", "coordination", {"ask": "write to joe@example.com", "args": '{"cc":"joe@example.com"}'}
    )
    assert opened(mesh, "executor-1", "coordination", sent).value() == {
        "ask": "write to [EMAIL]",
        "args": '{"cc":"[EMAIL]"}',
    }
    hop = told(mesh, sent)
    assert hop["guardrails"] == (("no-pii", "EMAIL", 2),)
    assert "joe@example.com" not in str(hop)


def test_a_key_is_refused_by_its_guardrail_and_the_agent_is_told(mesh):
    with Bus("orchestrator-1", settings=mesh.settings) as me:
        sent = me.publish("coordination", {"env": {"aws": KEY}}, partition_key="one")
        with pytest.raises(Denied) as denied:
            sent.decision(timeout=20)
        assert (denied.value.rule, denied.value.code) == ("no-keys", "guardrail")
    hop = told(mesh, sent)
    assert (hop["code"], hop["rule"], hop["guardrails"]) == ("guardrail", "no-keys", (("no-keys", "API_KEY", 1),))
    assert hop["location"].startswith("mesh.yaml:")
    assert opened(mesh, "executor-1", "coordination", sent) is None


def test_a_past_decision_is_explained_from_its_facts(mesh):
    law = str(mesh.settings.policies)
    with Bus("orchestrator-1", settings=mesh.settings) as me:
        refused = told(mesh, me.publish("coordination", {"env": KEY}, partition_key="one"))
        allowed = told(mesh, me.publish("fragile", {"fine": True}, partition_key="facts"))
    done = bus_command(mesh, "policy", "explain", law, "--decision", refused["decision_id"], check=False)
    assert done.stdout.startswith("then: DENY by no-keys (mesh.yaml:")
    assert "  no-keys found API_KEY, 1 times" in done.stdout
    assert "ALLOW by coordination.produce" in done.stdout  # its rules allow; what was in it did not
    done = bus_command(mesh, "policy", "explain", law, "--json", "--decision", allowed["decision_id"])
    document = json.loads(done.stdout)
    assert (document["recorded"]["decision"], document["decision"]) == ("ALLOW", "ALLOW")
    absent = bus_command(mesh, "policy", "explain", law, "--decision", "a" * 16, check=False)
    assert (absent.returncode, "no decision" in absent.stderr) == (1, True)


def test_fields_are_masked_before_anyone_reads_them(mesh):
    note = {"text": "prefers mail", "email": "joe@example.com", "phone": "+1 212 555 0142"}
    sent = send(
        mesh, "retriever-1", "agent_memory", note, metadata={"locale": "en", "via_agent": "x", "sender_ip": "10.1.2.3"}
    )
    got = opened(mesh, "retriever-1", "agent_memory", sent)
    assert got.value()["text"] == "prefers mail"
    assert got.value()["phone"] == "********0142"
    assert len(bytes.fromhex(got.value()["email"])) == 16
    assert dict(got.metadata) == {"locale": "en"}


def test_a_rate_holds_over_a_restart_and_a_hand_over_and_says_so(mesh):
    with Bus("orchestrator-1", settings=mesh.settings) as me:
        first = [me.publish("scarce", {"n": n}, partition_key="one") for n in range(3)]
    codes = [told(mesh, each)["code"] for each in first]
    assert codes == ["", "", "throttled"]  # a burst of 8 over 4 partitions
    refused = "sealbus_limited_total"
    until(lambda: shown(mesh, refused, "scarce", "normal", code="throttled") == 1)
    for each in ENFORCERS:
        mesh.restart_service(each)
    heard = []
    with Bus("orchestrator-1", settings=mesh.settings) as me:  # connected anew: nothing is reset
        me.on_refused(heard.append)
        again = me.publish("scarce", {"n": 4}, partition_key="one")
        with pytest.raises(Throttled) as throttled:
            again.decision(timeout=20)
        until(lambda: heard)
    for error in (throttled.value, *heard):
        assert (type(error), error.rule, error.message_id) == (Throttled, "normal", str(again.id))
        assert (error.after, error.for_model()) == (3600, "busy, 3600 s")  # 4/h over 4 partitions
    assert (told(mesh, again)["rule"], told(mesh, again)["decision_id"]) == ("normal", throttled.value.decision_id)
    large = published(mesh, "orchestrator-1", "scarce", {"text": "x" * 5000}, partition_key="two")
    assert (large["code"], large["rule"]) == ("too-large", "normal.max_bytes")
    until(lambda: shown(mesh, refused, "scarce", "normal.max_bytes", code="too-large") == 1)
    assert shown(mesh, refused, "scarce", "normal", code="throttled") == 1


def test_a_breaker_opens_after_refusals_and_stays_open_for_the_next_enforcer(mesh):
    with Bus("orchestrator-1", settings=mesh.settings) as me:
        sent = [me.publish("fragile", {"key": KEY}, partition_key="one") for _ in range(3)]
        sent.append(me.publish("fragile", {"fine": True}, partition_key="one"))
    assert [told(mesh, each)["code"] for each in sent] == ["guardrail", "guardrail", "guardrail", "breaker-open"]
    refused, changes, held = "sealbus_limited_total", "sealbus_breaker_changes_total", "sealbus_breakers_open"
    until(lambda: shown(mesh, refused, "fragile", "worker", code="breaker-open") == 1)
    assert (shown(mesh, changes, "fragile", "worker", to="open"), shown(mesh, held, "fragile", "worker")) == (1, 1)
    for each in ENFORCERS:
        mesh.restart_service(each)
    until(lambda: shown(mesh, held, "fragile", "worker") == 1)
    (owner,) = [each for each in ENFORCERS if shown(mesh, held, "fragile", "worker", [each])]
    (other,) = {*ENFORCERS} - {owner}
    mesh.stop_service(owner)  # for longer than its session: the other takes its partitions
    until(lambda: shown(mesh, held, "fragile", "worker", [other]) == 1)
    mesh.start_service(owner)
    assert shown(mesh, changes, "fragile", "worker", to="open") is None  # it opened before they began
    assert published(mesh, "orchestrator-1", "fragile", {"fine": True}, partition_key="one")["code"] == "breaker-open"
    hop = published(mesh, "orchestrator-1", "fragile", {"fine": True}, partition_key="one")
    assert hop["breaker"] == "worker"
    with Bus("orchestrator-1", settings=mesh.settings) as me, pytest.raises(CircuitOpen) as opened:
        me.publish("fragile", {"fine": True}, partition_key="one", confirm="decided")
    assert (opened.value.rule, opened.value.code, opened.value.after) == ("worker", "breaker-open", 7200)
    assert not isinstance(opened.value, Refused)
    with Bus("orchestrator-1", settings=mesh.settings) as me:
        others = [told(mesh, me.publish("fragile", {"fine": True}, partition_key=f"other {n}")) for n in range(6)]
    elsewhere = [each for each in others if each["partition"] != hop["partition"]]
    assert {each["code"] for each in elsewhere} == {""}  # a breaker of each partition


def test_a_guardrail_that_is_edited_holds_for_the_next_records_without_a_restart(mesh):
    law = mesh.settings.policies / "mesh.yaml"
    text = law.read_text()
    before = published(mesh, "orchestrator-1", "coordination", {"ssn": "078-05-1120"})
    assert before["guardrails"] == (("no-pii", "SSN", 1),)
    law.write_text(
        text.replace(
            "no-pii:  {detect: [PERSON, EMAIL, PHONE, SSN], on: [payload], then: redact}",
            "no-pii:  {detect: [PERSON, EMAIL, PHONE, SSN], on: [payload], then: deny}",
        )
    )
    try:
        bus_command(mesh, "policy", "apply", str(mesh.settings.policies), "--yes")
        deadline = time.monotonic() + 30
        while (after := published(mesh, "orchestrator-1", "coordination", {"ssn": "078-05-1120"}))[
            "code"
        ] != "guardrail":
            assert time.monotonic() < deadline
        assert after["rule"] == "no-pii"
    finally:
        law.write_text(text)
        bus_command(mesh, "policy", "apply", str(mesh.settings.policies), "--yes", "--allow-widening")


def test_fifty_switches_under_load_lose_and_refuse_nothing(mesh):
    trust, signer = read_trust(mesh.layout.trust), load_signer(mesh.layout.signer("policy"))
    laws = [mesh.load_policy(), load_policy(_without(mesh.settings.policies, "no-pii, ").parent)]
    first = read_applied(mesh.layout, trust).signed.number + 1
    raw, now = RawClient(mesh), int(time.time() * 1000)
    sent, done = [], threading.Event()

    def write():
        with Bus("orchestrator-1", settings=mesh.settings) as me:
            while not done.wait(0.005):
                sent.append(me.publish("coordination", {"n": len(sent)}, confirm="queued"))

    thread = threading.Thread(target=write)
    thread.start()
    for number in range(first, first + 50):
        law = laws[number % 2]
        signed = SignedSnapshot(trust.deployment, number, law.digest, now - 60_000, now + 86_400_000, law.document)
        raw.produce("bus.policy", sign_object(signer, signed), key=b"policy")
        held = len(sent)
        while len(sent) < held + 4:  # some records under each
            assert thread.is_alive()
    done.set()
    thread.join()
    hops = [told(mesh, each) for each in sent]
    assert {hop["decision"] for hop in hops} == {"ALLOW"}
    assert len({hop["snapshot"] for hop in hops} & set(range(first, first + 50))) > 10
    for partition in range(4):
        seen = [hop["snapshot"] for hop in sorted(hops, key=lambda hop: hop["offset"]) if hop["partition"] == partition]
        assert seen == sorted(seen)
    write_file(mesh.layout.snapshot, sign_object(signer, signed))  # what `bus policy apply` compares with


def test_every_input_has_one_outcome_and_one_hop_and_the_ledger_verifies(mesh):
    for domain in ("coordination", "fragile"):
        assert len(account(mesh, domain)) == len(read_topic(mesh, f"{domain}.in"))
    assert verified(mesh)["problems"] == []
    stored = b"".join(
        value
        for topic in ("coordination.out", "agent_memory.out", "bus.audit")
        for _, _, value in read_topic(mesh, topic)
    )
    assert b"joe@example.com" not in stored
    assert KEY.encode() not in stored
