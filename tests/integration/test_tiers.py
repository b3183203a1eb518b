"""COMPUTATION and FHE on a real broker: what sources protect, readers open and nobody between them can."""

import json
import random

import pytest
from confluent_kafka import Producer

from bus import Bus
from bus.authority.local import open_roots
from bus.authority.sessions import read_session
from bus.authority.trust import read_trust
from bus.codes import Code
from bus.crypto.keys import agent_keys
from bus.crypto.seal import Sealer, open_sealed
from bus.errors import Denied, Refused
from bus.wire.names import DomainName
from demo.observer import look
from demo.raw import plaintext
from tests.integration.conftest import POLICIES, start_stack
from tests.integration.oracle import account, bus_command, hops, read_topic, until, verified

pytestmark = pytest.mark.broker
SECRET = "nobody-between-4711"
ROWS = 512


@pytest.fixture(scope="module")
def computing(tmp_path_factory):
    """The bundled law without attestation, in which two domains protect at the source; analyst-1 holds the FHE key."""
    home = tmp_path_factory.mktemp("computing")
    folder = home / "law"
    folder.mkdir()
    (folder / "agents.yaml").write_text((POLICIES / "agents.yaml").read_text())
    law = (POLICIES / "mesh.yaml").read_text().replace("      attestation_required: true\n", "")
    (folder / "mesh.yaml").write_text(law)
    local = start_stack(home / "state", policies=folder)
    made = json.loads(bus_command(local, "fhe", "init", "--as", "analyst-1", "--json").stdout)
    protects = {"COMPUTATION": "", "FHE": f"      fhe_context: {made['fhe_context']}\n"}
    for tier, more in protects.items():
        line = f'      tier: "{tier}"\n'
        assert line in law
        law = law.replace(line, f"{line}      protect_at: source\n{more}")
    (folder / "mesh.yaml").write_text(law)
    local.apply(local.plan(local.load_policy()))
    yield local
    local.down(lambda _: None, purge=True)


def live(stack, agent, domain):
    """A Bus that has the new law and keys of ``domain``."""
    me = Bus(agent, settings=stack.settings)
    until(lambda: me._policy().domains[domain].protectable)
    until(lambda: any(each.session for each in me._keys.begun(domain, 2**62).values()) or me._keys.refresh(force=True))
    return me


def test_a_payload_is_sealed_past_the_enforcer_and_opened_by_who_computes(computing):
    with live(computing, "executor-1", "pii_inference") as me, live(computing, "analyst-1", "pii_inference") as worker:
        inbox = worker.subscribe("pii_inference")
        sent = me.publish("pii_inference", {"ssn": SECRET}, purpose="fraud", confirm="decided")
        got = next(each for each in inbox if each.id == sent.id)
        assert (got.value(), got.source) == ({"ssn": SECRET}, "executor-1")
        large = me.publish("pii_inference", {"ssn": SECRET, "data": "x" * 2_000_000}, confirm="decided")
        assert next(each for each in inbox if each.id == large.id).value()["ssn"] == SECRET
    found = until(
        lambda: [hop for hop in hops(computing, "--domain", "pii_inference") if hop["message_id"] == str(sent.id)]
    )
    assert [each["decision"] for each in found] == ["ALLOW"]

    # The enforcer has the root, opens the envelope and finds the payload closed.
    trust = read_trust(computing.layout.trust)
    store = open_roots(computing.settings, computing.layout, trust)
    stored = [each for number in store.numbers() for each in store.load(number) if each.epoch.domain == "pii_inference"]
    keys = {each.key_id: each for each in (agent_keys(root.root, "executor-1") for root in stored)}
    plains = [
        open_sealed(keys[value[12:28]], computing.settings.deployment_id, "pii_inference.in", partition, value)
        for partition, _, value in read_topic(computing, "pii_inference.in")
    ]
    assert plains
    assert all(b"executor-1" in each for each in plains), "the envelope is the enforcer's to read"
    assert not any(SECRET.encode() in each for each in plains)
    assert read_session(computing.layout) is not None

    # Nor the broker's disks and the ledger.
    for folder in (computing.layout.state / "kafka", computing.layout.ledger.parent):
        assert look(folder, [SECRET]).items == frozenset()


def test_what_does_not_say_that_it_is_protected_is_refused(computing):
    with live(computing, "executor-1", "pii_inference") as me:
        held = max(me._keys.begun(DomainName("pii_inference"), 2**62).values(), key=lambda each: each.epoch.epoch)
    value = Sealer(held.own, computing.settings.deployment_id, "pii_inference.in").seal(
        0, plaintext("executor-1", "pii_inference")
    )[1]
    producer = Producer(computing.admin_connection().config())
    producer.produce("pii_inference.in", value, partition=0)
    assert producer.flush(30) == 0
    until(lambda: [each for each in hops(computing, "--domain", "pii_inference") if each["code"] == "tier-floor"])


def test_columns_are_scored_without_being_seen_and_decrypted_by_the_holder_alone(computing):
    made = random.Random(3)
    columns = {name: [made.uniform(-1, 1) for _ in range(ROWS)] for name in ("income", "debt", "age")}
    weights, bias = {"income": 0.7, "debt": -1.1, "age": 0.25}, 0.1
    with live(computing, "analyst-1", "financial_models") as holder:
        inbox = holder.subscribe("financial_models")
        sent = holder.publish("financial_models", columns, purpose="credit")
        batch = holder.fhe.open(next(each for each in inbox if each.id == sent.id))
        assert (batch.rows, sorted(batch.columns)) == (ROWS, ["age", "debt", "income"])
        assert not batch.context.secret
        scored = holder.publish("financial_models", batch.linear(weights, bias))
        result = holder.fhe.open(next(each for each in inbox if each.id == scored.id))
        found = holder.fhe.decrypt(result, digits=6)["score"]
        expected = [bias + sum(weights[name] * columns[name][row] for name in weights) for row in range(ROWS)]
        assert max(abs(one - other) for one, other in zip(found, expected, strict=True)) < 1e-4

        # Errors have names.
        with pytest.raises(Refused, match="expected 256 to 4096 rows, found 2") as refused:
            holder.publish("financial_models", {"a": [1.0, 0.5]})
        assert refused.value.code is Code.SCHEMA
        with pytest.raises(Refused, match="expected columns of numbers or a batch, found str"):
            holder.publish("financial_models", "text")
        (computing.layout.agent("analyst-1") / "fhe").rename(computing.layout.agent("analyst-1") / "away")
        with pytest.raises(Refused, match="analyst-1/fhe/"):
            holder.fhe.decrypt(result)
        (computing.layout.agent("analyst-1") / "away").rename(computing.layout.agent("analyst-1") / "fhe")
    with Bus("executor-1", settings=computing.settings) as other, pytest.raises(Denied):
        other.publish("financial_models", columns)


def test_every_input_has_one_outcome_and_one_hop_and_the_ledger_verifies(computing):
    for domain in ("pii_inference", "financial_models"):
        account(computing, domain)
    assert verified(computing)["problems"] == []
