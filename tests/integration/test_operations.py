"""What an operator sees and does: metrics that add up, readiness that says why not, a restart that loses nothing."""

import os
import shutil
import threading

import pytest

from bus import Bus
from bus.wire import codec, sealed
from demo.raw import RawClient, plaintext
from tests.integration.oracle import account, bus_command, get, metrics, until, verified

pytestmark = pytest.mark.broker


@pytest.mark.timeout(240)
def test_metrics_readiness_and_a_rolling_restart_under_load(own_stack, monkeypatch):
    stack = own_stack(enforcers=2)
    monkeypatch.setenv("BUS_CONFIG", str(stack.layout.settings))
    enforcers = ["bus-enforcer-1", "bus-enforcer-2"]
    for service in (*enforcers, "audit", "issuer"):
        assert get(stack, service, "/healthz") == (200, "ok\n")
        assert get(stack, service, "/readyz") == (200, "ok\n")

    # Counters say what was decided.
    raw = RawClient(stack)
    sealer = raw.sealer("retriever-1", "agent_memory")
    values = [sealer.seal(number % 4, plaintext("retriever-1", "agent_memory"))[1] for number in range(40)]
    for number, value in enumerate([*values, *values[:4]]):
        raw.produce("agent_memory.in", value, number % 4)
    allowed = ("sealbus_records_total", ("code", ""), ("decision", "ALLOW"), ("domain", "agent_memory"))
    replayed = ("sealbus_records_total", ("code", "replay"), ("decision", "DENY"), ("domain", "agent_memory"))
    until(lambda: metrics(stack, *enforcers).get(replayed) == 4)
    told = metrics(stack, *enforcers)
    assert told[allowed] == 40
    assert told["sealbus_record_bytes_total", ("domain", "agent_memory")] == sum(map(len, [*values, *values[:4]]))
    lag = [value for name, value in told.items() if name[0] == "sealbus_lag_records"]
    assert (len(lag), sum(lag)) == (4 * len(stack.load_policy().domains), 0)
    assert sum(value for name, value in told.items() if name[0] == "sealbus_windows") == 4
    assert told["sealbus_commit_seconds_count",] >= 1
    until(lambda: metrics(stack, "audit").get(("sealbus_hops_total", ("verified", "yes")), 0) >= 44)

    # A rolling restart while an agent publishes.
    done = threading.Event()
    sent = []
    with Bus("retriever-1") as me:

        def publish():
            while not done.wait(0.002):
                sent.append(
                    me.publish("agent_memory", {"n": len(sent)}, partition_key=str(len(sent)), confirm="queued")
                )

        thread = threading.Thread(target=publish)
        thread.start()
        before = {name: stack._daemon(name).find().pid for name in enforcers}
        shown = bus_command(stack, "stack", "restart", timeout=120)
        assert shown.stderr.count("restarted") == 2, shown.stderr
        after = {name: stack._daemon(name).find().pid for name in enforcers}
        assert set(before.values()).isdisjoint(after.values())
        done.set()
        thread.join()
    told = account(stack, "agent_memory")
    codes = [each["code"] for each in told.values()]
    assert (codes.count(""), len(codes) - codes.count("")) == (36 + len(sent), 4)  # a replay has its original's digest

    # An enforcer without keys says so, and is ready again when they are back.
    roots, away = stack.layout.roots, stack.layout.roots.with_name("away")
    shutil.move(roots, away)
    # An unknown key id: an enforcer reads the keys again before it refuses, and cannot.
    raw.produce("agent_memory.in", sealed.HEAD + os.urandom(72) + codec.prefixed(os.urandom(40)))
    until(lambda: 503 in [get(stack, each, "/readyz")[0] for each in enforcers])
    why = [text for status, text in (get(stack, each, "/readyz") for each in enforcers) if status == 503]
    assert why[0].startswith("paused: keys cannot be had")
    shutil.move(away, roots)
    until(lambda: all(get(stack, each, "/readyz")[0] == 200 for each in enforcers))
    assert "unknown-key" in [each["code"] for each in account(stack, "agent_memory").values()]
    assert verified(stack)["problems"] == []
