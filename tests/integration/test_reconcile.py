"""`bus audit reconcile` on the real broker: all fits, until somebody writes past the enforcer."""

import json
import time

import pytest
from confluent_kafka import Producer

from bus import Bus
from bus.crypto.seal import Sealer
from bus.errors import Denied
from bus.wire.names import DomainName
from demo.raw import plaintext
from tests.integration.oracle import bus_command, read_topic, until

pytestmark = pytest.mark.broker
DOMAIN = "agent_memory"


def told(stack):
    done = bus_command(stack, "audit", "reconcile", "--domain", DOMAIN, "--json", check=False)
    document = json.loads(done.stdout)["domains"][DOMAIN]
    assert done.returncode == (1 if document["problems"] else 0), done.stderr
    return document


def test_all_fits_until_somebody_writes_past_the_enforcer(own_stack):
    stack = own_stack()
    with Bus("retriever-1", settings=stack.settings) as me, Bus("executor-1", settings=stack.settings) as other:
        for number in range(40):
            me.publish(DOMAIN, {"n": number}, partition_key=str(number))
        with pytest.raises(Denied):
            other.publish(DOMAIN, {})
        held = max(me._keys.begun(DomainName(DOMAIN), 2**62).values(), key=lambda each: each.epoch.epoch)
    # One that is refused: its envelope ended ten minutes ago.
    sealer = Sealer(held.own, stack.settings.deployment_id, f"{DOMAIN}.in")
    late = plaintext("retriever-1", DOMAIN, now=time.time_ns() // 1_000_000 - 600_000)
    producer = Producer(stack.admin_connection().config())
    producer.produce(f"{DOMAIN}.in", sealer.seal(1, late)[1], partition=1)
    assert producer.flush(30) == 0
    found = told(stack)
    assert found["problems"] == []
    assert (found["inputs"], found["hops"], found["outputs"], found["dead"]) == (41, 41, 40, 1)

    rows = json.loads(bus_command(stack, "map", "--json").stdout)["ways"]
    seen = {(each["agent"], each["domain"]): (each["state"], each["allowed"], each["denied"]) for each in rows}
    assert seen["retriever-1", DOMAIN] == ("used", 40, 1)
    assert seen["executor-1", "coordination"] == ("unused", 0, 0)
    assert bus_command(stack, "map", "--fail-on-changes", check=False).returncode == 3
    assert bus_command(stack, "map", "--as", "svg").stdout.startswith("<svg ")

    # A bundle again, and something that no enforcer wrote; a dead letter of nothing.
    partition, _, bundle = read_topic(stack, f"{DOMAIN}.out")[0]
    producer.produce(f"{DOMAIN}.out", bundle, partition=partition)
    producer.produce(f"{DOMAIN}.out", b"forged", partition=0)
    producer.produce(f"{DOMAIN}.dead", b"forged", partition=0)
    assert producer.flush(30) == 0
    found = until(lambda: (held := told(stack))["problems"] and held)
    assert sum("one outcome, written 2 times" in each for each in found["problems"]) >= 1
    assert sum("no hop says that it was written" in each for each in found["problems"]) == 2

    done = bus_command(stack, "audit", "reconcile", "--domain", "nowhere", check=False)
    assert (done.returncode, "no domain 'nowhere'" in done.stderr) == (1, True)
