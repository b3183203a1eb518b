"""Policy while everything runs: a pause ends, a role leaves, a domain comes and goes, and no enforcer is restarted."""

import json
import re
import shutil
import time

import pytest

from bus import Bus
from bus.authority.local import load_signer
from bus.authority.trust import read_trust
from bus.client import keystore
from bus.client.keystore import KeyStore
from bus.crypto.signing import sign_object
from bus.errors import AccessRefused, Denied, RetryLater
from bus.files import write_secret
from bus.settings import load
from bus.tiers.base import TIERS
from bus.wire import derived
from bus.wire.names import AgentId
from bus.wire.objects import SignedSnapshot
from demo.raw import RawClient, plaintext
from tests.integration.conftest import POLICIES
from tests.integration.oracle import account, bus_command, hops, read_topic, until, verified, wait_for_hop

pytestmark = pytest.mark.broker

NOTES = """
    - name: "notes"
      tier: "RETRIEVAL"
      allowed_roles: ["RETRIEVER", "ORCHESTRATOR"]
      metadata_masking: true
      audit_level: "FULL_MESH"
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    from tests.integration.conftest import start_stack

    local = start_stack(tmp_path_factory.mktemp("live") / "state")
    yield local
    local.down(lambda _: None, purge=True)


def write(raw, sealer, domain="agent_memory", agent="retriever-1"):
    _, value = sealer.seal(0, plaintext(agent, domain))
    raw.produce(f"{domain}.in", value)
    return value


def snapshot(stack, raw, number, valid_until):
    """Sign the bundled law anew with an end of its own and put it on bus.policy."""
    policy = stack.load_policy()
    now = int(time.time() * 1000)
    signed = SignedSnapshot(
        read_trust(stack.layout.trust).deployment, number, policy.digest, now - 120_000, valid_until, policy.document
    )
    raw.produce("bus.policy", sign_object(load_signer(stack.layout.signer("policy")), signed), key=b"policy")


def events(stack):
    return [hop["rule"] for hop in hops(stack, "--verdict", "RETRY") if hop["topic"] == "agent_memory.in"]


def test_a_policy_that_ended_pauses_and_a_valid_one_resumes_with_a_hop_each_and_nothing_lost(live):
    raw = RawClient(live)
    sealer = raw.sealer("retriever-1", "agent_memory")
    assert wait_for_hop(live, write(raw, sealer))["decision"] == "ALLOW"
    pid = live._daemon("bus-enforcer-1").find().pid
    now = int(time.time() * 1000)
    snapshot(live, raw, 2, now - 60_000)
    until(lambda: "pause" in events(live))
    values = [write(raw, sealer) for _ in range(4)]
    snapshot(live, raw, 3, now + 86_400_000)
    for value in values:
        assert wait_for_hop(live, value)["decision"] == "ALLOW"
    until(lambda: "resume" in events(live))
    assert live._daemon("bus-enforcer-1").find().pid == pid
    account(live, "agent_memory")
    assert verified(live)["problems"] == []


def apply(stack, folder):
    done = bus_command(stack, "policy", "apply", str(folder), "--yes", "--allow-widening")
    assert "changes" in done.stdout


def test_a_role_that_leaves_is_refused_at_once_and_a_domain_comes_and_goes(live, tmp_path):
    raw = RawClient(live)
    mesh, agents = (POLICIES / "mesh.yaml").read_text(), (POLICIES / "agents.yaml").read_text()
    pid = live._daemon("bus-enforcer-1").find().pid
    sealer = raw.sealer("retriever-1", "agent_memory")
    assert wait_for_hop(live, write(raw, sealer))["decision"] == "ALLOW"

    # 1. The retriever's role may not produce any more, and there is a new domain.
    folder = tmp_path / "changed"
    folder.mkdir()
    changed = mesh.replace('["RETRIEVER", "ORCHESTRATOR"]', '["ORCHESTRATOR"]')
    (folder / "mesh.yaml").write_text(changed.replace("  domains:\n", "  domains:" + NOTES, 1))
    (folder / "agents.yaml").write_text(agents)
    apply(live, folder)
    until(lambda: wait_for_hop(live, write(raw, sealer))["code"] == "produce")
    environ = {"BUS_CONFIG": str(live.layout.settings)}

    def published():
        with Bus("retriever-1", settings=load(environ)) as me:
            return me.publish("notes", {"n": 1}, confirm="decided").decision() != ()

    until(published)

    # 2. Everything as before: the domain is gone, its enforcer lives on.
    apply(live, POLICIES)
    until(lambda: wait_for_hop(live, write(raw, sealer))["decision"] == "ALLOW")
    assert live._daemon("bus-enforcer-1").find().pid == pid
    assert verified(live)["problems"] == []


BY_TICKETS = """security_mesh:
  global: {tls_min_version: "1.3", credential_rotation_interval_ms: 600000, audit_scope: FULL_MESH}
  labels: {levels: [public, internal, secret], categories: [pii], propagate: tickets}
  roles:
    RETRIEVER: {clearance: secret, categories: [pii]}
    EXECUTOR: {clearance: internal}
  domains:
    - {name: notes, tier: RETRIEVAL, allowed_roles: [ANALYST, RETRIEVER, EXECUTOR], consume: [RETRIEVER, EXECUTOR],
       metadata_masking: true, audit_level: FULL_MESH, label: [internal]}
"""


def test_labels_follow_a_chain_by_tickets_and_dropping_them_launders_nothing(live, tmp_path):
    folder = tmp_path / "tickets"
    shutil.copytree(POLICIES, folder)
    (folder / "mesh.yaml").write_text(BY_TICKETS)
    agents = (folder / "agents.yaml").read_text().splitlines(keepends=True)
    (folder / "agents.yaml").write_text("".join(line for line in agents if "ORCHESTRATOR" not in line))
    bus_command(live, "policy", "apply", str(folder), "--yes", "--allow-widening")
    settings = load({"BUS_CONFIG": str(live.layout.settings)})
    raw = RawClient(live)

    def lied(**changes):
        """What the retriever's own keys seal beside the SDK."""
        _, value = raw.sealer("retriever-1", "notes").seal(0, plaintext("retriever-1", "notes", **changes))
        raw.produce("notes.in", value)
        return wait_for_hop(live, value)["labels"]

    with (
        Bus("analyst-1", settings=settings) as first,
        Bus("retriever-1", settings=settings) as second,
        Bus("executor-1", settings=settings) as third,
    ):
        until(lambda: allowed(first, "notes"))
        reading, last = second.subscribe("notes"), third.subscribe("notes")

        # A -> B -> C: what builds on nothing higher reaches who is cleared for that.
        asked = first.publish("notes", {"question": 1}, confirm="decided")
        got = next(each for each in reading if each.id == asked.id)
        answer = second.publish("notes", {"answer": 1}, causation=[got], confirm="decided")
        assert next(each for each in last if each.id == answer.id).correlation == got.correlation

        # The same answer without its cause is a record that may build on anything that B could have read.
        dropped = second.publish("notes", {"answer": 2}, confirm="decided")
        elsewhere = first.publish("notes", {"question": 2}, confirm="decided")
        other = next(each for each in reading if each.id == elsewhere.id)
        assert lied(correlation_id=got.correlation) == ["secret", "pii"]
        assert lied(correlation_id=got.correlation, tickets=(other.ticket,)) == ["secret", "pii"]
        assert lied(correlation_id=got.correlation, tickets=(got.ticket, other.ticket)) == ["secret", "pii"]
        assert lied(correlation_id=got.correlation, tickets=(got.ticket,)) == ["internal"]

        # C sees the questions, the answer and the last of these, and nothing between.
        behind = first.publish("notes", {"behind": 1}, confirm="decided")
        came = []
        while (each := last.get(30)) is not None and each.id != behind.id:
            came.append(each.id)
        assert elsewhere.id in came
        assert dropped.id not in came
        with pytest.raises(Denied) as denied:
            second.publish("notes", {"answer": 3}, target="executor-1")
        assert denied.value.rule == "notes.label"
    account(live, "notes")
    bus_command(live, "policy", "apply", str(POLICIES), "--yes", "--allow-widening")


def allowed(agent, domain):
    try:
        return agent.publish(domain, {"first": True}, confirm="decided").decision() is not None
    except (Denied, RetryLater, AccessRefused):
        return False


def opened_by(stack, agent, domain, keys):
    """What the bundles of ``domain`` hold for ``agent`` with these ``keys``: (epoch, opened) of each record."""
    trust = read_trust(stack.layout.trust)
    store = KeyStore(keys, AgentId(agent), trust.anchor, trust.deployment)
    store.refresh(force=True)
    found = []
    for partition, _, value in read_topic(stack, f"{domain}.out"):
        bundle = derived.parse(value)
        try:
            reading = store.reading(domain, bundle.head.epoch) or ()
        except RetryLater:  # newer than any that is held
            reading = ()
        for each in TIERS[bundle.head.tier].open(bundle, reading, trust.deployment, f"{domain}.out", partition):
            found.append((bundle.head.epoch, each is not None))
    return found


def test_who_may_not_open_a_domain_any_more_keeps_keys_that_open_nothing_new(live, tmp_path, monkeypatch):
    monkeypatch.setattr(keystore, "WAIT_S", 0.0)
    bus_command(live, "policy", "apply", str(POLICIES), "--yes", "--allow-widening")
    raw = RawClient(live)
    sealer = raw.sealer("retriever-1", "agent_memory")  # it goes on under the key of its epoch
    until(lambda: wait_for_hop(live, write(raw, sealer))["decision"] == "ALLOW")
    kept = tmp_path / "kept"
    shutil.copytree(live.layout.agent("orchestrator-1") / "keys", kept)
    before = opened_by(live, "orchestrator-1", "agent_memory", kept)
    assert before[-1] == (max(epoch for epoch, _ in before), True)
    elsewhere = {domain: raw.keys("executor-1", domain)[1].epoch for domain in ("coordination",)}

    folder = tmp_path / "narrowed"
    shutil.copytree(POLICIES, folder)
    law = folder / "mesh.yaml"
    roles = '["RETRIEVER", "ORCHESTRATOR"]\n'
    law.write_text(law.read_text().replace(roles, f'{roles}      consume: ["RETRIEVER"]\n', 1))
    assert "consume" in law.read_text()
    bus_command(live, "policy", "apply", str(folder), "--yes", "--allow-widening")
    applied = time.monotonic()

    def sealed_anew():
        write(raw, sealer)
        told = opened_by(live, "orchestrator-1", "agent_memory", kept)
        return [opened for epoch, opened in told if epoch > before[-1][0]]

    until(sealed_anew)
    print(f"sealed under a new epoch {time.monotonic() - applied:.1f} s after it was applied")
    until(lambda: len(sealed_anew()) > 2)
    later = sealed_anew()
    assert not any(later)
    mine = opened_by(live, "retriever-1", "agent_memory", live.layout.agent("retriever-1") / "keys")
    new = [opened for epoch, opened in mine if epoch > before[-1][0]]
    assert new == [True] * len(new)
    assert len(new) >= len(later)
    assert {domain: raw.keys("executor-1", domain)[1].epoch for domain in elsewhere} == elsewhere
    bus_command(live, "policy", "apply", str(POLICIES), "--yes", "--allow-widening")
    account(live, "agent_memory")
    assert verified(live)["problems"] == []


def test_a_reader_waits_for_keys_that_are_under_way_and_passes_over_nothing(live):
    settings = load({"BUS_CONFIG": str(live.layout.settings)})
    with Bus("retriever-1", settings=settings) as me:
        until(lambda: allowed(me, "agent_memory"))
        live.stop_service("issuer")  # it would write at once what is taken away here
        keys = live.layout.agent("orchestrator-1") / "keys"
        held = {path: path.read_bytes() for path in keys.iterdir()}
        for path in held:
            path.unlink()
        with Bus("orchestrator-1", settings=settings) as reader:
            reading = reader.subscribe("agent_memory")
            sent = [
                me.publish("agent_memory", {"n": number}, partition_key="one", confirm="decided").id
                for number in range(3)
            ]
            assert reading.get(3) is None
            for path, data in held.items():
                write_secret(path, data)
            came = [reading.get(30).id]
            while came[-1] != sent[-1]:
                came.append(reading.get(30).id)
            assert [each for each in came if each in sent] == sent
        live.start_service("issuer")


def test_a_plan_is_saved_widened_on_purpose_told_by_history_rolled_back_and_replayed(live, tmp_path):
    folder, plan = tmp_path / "draft", tmp_path / "plan.json"
    shutil.copytree(POLICIES, folder)
    law = folder / "mesh.yaml"
    published = '["ORCHESTRATOR", "EXECUTOR"]'
    law.write_text(law.read_text().replace(published, '["ORCHESTRATOR", "EXECUTOR", "ANALYST"]'))
    bus_command(live, "policy", "apply", "--yes", "--allow-widening")
    before = json.loads(bus_command(live, "policy", "history", "--json").stdout)["policies"][0]["number"]

    # 1. The plan names who gains; nothing that widens is applied unless it is meant.
    planned = bus_command(live, "policy", "plan", str(folder), "--out", str(plan)).stdout
    assert re.search(r"\+ may produce coordination: analyst-1  mesh\.yaml:[0-9]+  WIDENS\n", planned)
    refused = bus_command(live, "policy", "apply", str(plan), "--yes", check=False)
    assert (refused.returncode, "add --allow-widening" in refused.stderr) == (1, True)
    bus_command(live, "policy", "apply", str(plan), "--yes", "--allow-widening")

    # 2. The same file again: the cluster moved.
    moved = bus_command(live, "policy", "apply", str(plan), "--yes", "--allow-widening", check=False)
    assert moved.returncode == 1
    assert "the cluster is not as it was planned: live policy" in moved.stderr
    broken = tmp_path / "broken.json"
    broken.write_text(plan.read_text()[:-40])
    assert bus_command(live, "policy", "apply", str(broken), "--yes", check=False).returncode == 2

    # 3. An analyst writes; under the law as it was, that decision would be another.
    raw = RawClient(live)
    sealer = raw.sealer("analyst-1", "coordination")
    until(lambda: wait_for_hop(live, write(raw, sealer, "coordination", "analyst-1"))["decision"] == "ALLOW")
    sealer = raw.sealer("retriever-1", "agent_memory")
    until(lambda: wait_for_hop(live, write(raw, sealer))["decision"] == "ALLOW")
    narrowed = folder / "mesh.yaml"
    roles = '["RETRIEVER", "ORCHESTRATOR"]\n'
    narrowed.write_text(narrowed.read_text().replace(roles, f'{roles}      produce: ["ORCHESTRATOR"]\n'))
    asked = ("policy", "replay", str(folder), "--json", "--fail-on-flips", "--domain")
    told = bus_command(live, *asked, "agent_memory", check=False)
    assert told.returncode == 3
    flips = json.loads(told.stdout)["flips"]
    assert {(f["agent"], f["domain"], f["before"], f["after"], f["rule"]) for f in flips} == {
        ("retriever-1", "agent_memory", "ALLOW", "DENY", "agent_memory.produce")
    }
    told = json.loads(bus_command(live, *asked, "coordination").stdout)  # it keeps its ALLOW hops without facts
    assert told["without_facts"] > 0
    assert told["flips"] == []

    # 4. So says the plan, with the domain that re-keys; it changes nothing, and without the ledger it is a note.
    planned = bus_command(live, "policy", "plan", str(folder)).stdout
    others = len(live.load_policy().domains) - 1
    assert f"\nkeys: agent_memory re-keys; {others} untouched\n" in planned
    counts = r"[0-9,]+ decisions, [0-9,]+ replayed \([0-9]+ % have facts\): 0 new ALLOW, [1-9][0-9,]* new DENY"
    assert re.search(rf"\nhistory: 24h, {counts} \(retriever-1 -> agent_memory\)\n", planned)
    past = json.loads(bus_command(live, "policy", "plan", str(folder), "--json").stdout)
    assert (past["keys"], past["history"]["complete"]) == (["agent_memory"], True)
    assert [(f["agent"], f["before"], f["after"], f["rule"]) for f in past["history"]["flips"]] == [
        ("retriever-1", "ALLOW", "DENY", "agent_memory.produce")
    ]
    assert "history" not in bus_command(live, "policy", "plan", str(folder), "--history", "none").stdout
    held, away = live.layout.ledger, live.layout.ledger.with_name("away")
    held.rename(away)
    try:
        planned = bus_command(live, "policy", "plan", str(folder)).stdout
    finally:
        away.rename(held)
    assert f"\nhistory: 24h not replayed: no ledger at {held}\n" in planned

    # 5. History tells both; the older one is applied again under a new number.
    held = json.loads(bus_command(live, "policy", "history", "--json").stdout)["policies"]
    assert held[0]["number"] == before + 1
    assert any("may produce coordination: analyst-1" in change for change in held[0]["changes"])
    bus_command(live, "policy", "rollback", str(before), "--yes")
    again = json.loads(bus_command(live, "policy", "history", "--json").stdout)["policies"]
    assert (again[0]["number"], again[0]["digest"]) == (before + 2, again[2]["digest"])
    assert bus_command(live, "policy", "rollback", "999", "--yes", check=False).returncode == 1
