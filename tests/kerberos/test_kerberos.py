"""Agents with tickets of a real KDC on a real broker: taken, renewed, and refused for what is wrong with each."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.kerberos.build_client import folder
from tests.kerberos.conftest import LIFE_S
from tests.kerberos.realm import REALM

pytestmark = [pytest.mark.broker, pytest.mark.timeout(400)]

WRITER, READER, OTHER, IN = "retriever-1", "orchestrator-1", "executor-1", "agent_memory.in"
HOME = Path(__file__).resolve().parents[2]


def begin(stack, realm, *arguments, **more):
    """An agent's process."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("BUS_", "KRB5"))}
    environ |= {
        "BUS_CONFIG": str(stack.layout.settings),
        "KRB5_CONFIG": realm.config,
        "PYTHONPATH": f"{folder()}{os.pathsep}{HOME}",
        **more,
    }
    command = [sys.executable, "-m", "tests.kerberos.agent", *arguments]
    return subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def told(stack, realm, *arguments, timeout=200, **more):
    """All that an agent's process says."""
    out, _ = begin(stack, realm, *arguments, **more).communicate(timeout=timeout)
    return [json.loads(line) for line in out.splitlines()]


def reason(stack, realm, *arguments, **more):
    (only,) = told(stack, realm, *arguments, **more)
    return only["error"], only["message"]


def run_beside(stack, realm, seconds):
    """What a writer sent and a reader saw in so many seconds."""
    reader = begin(stack, realm, "read", READER)
    assert json.loads(reader.stdout.readline()) == {"ready": True}
    lines = []

    def follow():
        lines.extend(json.loads(line) for line in reader.stdout)

    thread = threading.Thread(target=follow)
    thread.start()
    written = told(stack, realm, "publish", WRITER, str(seconds), timeout=200 + seconds)
    sent = {each["sent"] for each in written if "sent" in each}
    pause = threading.Event()
    for _ in range(600):
        if sent <= {each.get("seen") for each in lines}:
            break
        pause.wait(0.1)
    reader.stdin.close()
    thread.join(60)
    reader.wait(60)
    return (
        [each for each in [*written, *lines] if {"error", "later"} & set(each)],
        sent,
        {each.get("seen") for each in lines},
    )


@pytest.mark.parametrize(
    "tickets", [3, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(120 * LIFE_S + 300)])]
)
def test_what_one_agent_publishes_another_reads_over_many_tickets(stack, realm, tickets):
    before = {each: realm.tickets(f"agent/{each}") for each in (WRITER, READER)}
    failed, sent, seen = run_beside(stack, realm, tickets * LIFE_S)
    assert failed == []
    assert len(sent) > 3 * tickets * LIFE_S
    assert sent <= seen
    for agent, count in before.items():
        assert realm.tickets(f"agent/{agent}") - count >= tickets, agent


def test_acls_hold_by_the_principal_that_the_broker_makes_of_a_ticket(stack, realm):
    assert told(stack, realm, "write", WRITER, IN) == [{"written": IN}]
    error, message = reason(stack, realm, "write", OTHER, IN)
    assert (error, f"{OTHER} may not write topic {IN}" in message) == ("AccessRefused", True)


def test_a_missing_and_another_agents_keytab_are_told_without_asking_anybody(stack, realm, tmp_path):
    path = stack.layout.keytab(OTHER)
    kept = path.rename(tmp_path / "kept")
    try:
        assert reason(stack, realm, "write", OTHER, IN)[1].startswith(f"{OTHER}: no keytab: {path}")
        realm.keytab(f"agent/{OTHER}-evil", path)
        message = reason(stack, realm, "write", OTHER, IN)[1]
        assert message.endswith(f"expected a keytab of agent/{OTHER} alone, found agent/{OTHER}-evil@{REALM}")
        kept.chmod(0o644)
        path.unlink()
        kept.rename(path)
        assert "expected mode 0600" in reason(stack, realm, "write", OTHER, IN)[1]
    finally:
        realm.keytab(f"agent/{OTHER}", path)


def test_a_stale_keytab_and_one_of_a_principal_that_is_locked_are_refused(stack, realm, tmp_path):
    path = stack.layout.keytab(OTHER)
    try:
        realm.keytab(f"agent/{OTHER}", tmp_path / "newer")
        error, message = reason(stack, realm, "write", OTHER, IN)
        assert error == "AccessRefused"
        assert f"{OTHER}: no Kerberos ticket that the broker takes: " in message
        realm.keytab(f"agent/{OTHER}", path)
        realm.run("kadmin.local", "-q", f"modprinc -allow_tix agent/{OTHER}")
        error, message = reason(stack, realm, "write", OTHER, IN)
        assert (error, "revoked" in message) == ("AccessRefused", True), message
    finally:
        realm.run("kadmin.local", "-q", f"modprinc +allow_tix agent/{OTHER}")
        realm.keytab(f"agent/{OTHER}", path)


@pytest.fixture
def cache(realm, tmp_path):
    """Makes a cache with a ticket of a principal, of so many seconds."""

    def make(principal, seconds):
        keytab, path = realm.keytab(principal, tmp_path / "keytab"), tmp_path / "cache"
        realm.run("kinit", "-l", f"{seconds}s", "-k", "-t", str(keytab), "-c", str(path), principal)
        return f"FILE:{path}"

    return make


def given(stack, realm, cache):
    return told(stack, realm, "any_ticket", OTHER, "bus.claims", KRB5CCNAME=cache, KRB5_CLIENT_KTNAME="FILE:/dev/null")


def test_an_expired_ticket_is_refused_and_a_live_one_of_the_same_kind_taken(stack, realm, cache):
    name = cache("agent/cached", LIFE_S)
    path = Path(name.removeprefix("FILE:"))
    # `cached` has no rights: what it is told of a live ticket is the ACL's word.
    (refused,) = given(stack, realm, name)
    assert "may not write topic bus.claims" in refused["message"]
    while subprocess.run(["klist", "-s", "-c", str(path)], env=realm._environ(), check=False).returncode == 0:
        threading.Event().wait(0.2)
    (ended,) = given(stack, realm, name)
    # Not final, as from a keytab a next one comes; but nothing is written with it.
    assert (ended["error"], "expired" in ended["message"]) == ("Unavailable", True), ended


@pytest.mark.parametrize("principal", ["planner/executor-1", "executor-1", "agent/executor-1/admin"])
def test_a_principal_of_another_form_is_nobody(stack, realm, cache, principal):
    """The rule makes nothing of it: the broker ends the connection, and no word of why comes back."""
    name = cache(principal, LIFE_S)
    process = begin(
        stack, realm, "any_ticket", OTHER, "bus.claims", KRB5CCNAME=name, KRB5_CLIENT_KTNAME="FILE:/dev/null"
    )
    (only,) = [json.loads(line) for line in process.communicate(timeout=100)[0].splitlines()]
    assert "written" not in only
    assert "may not write" not in only["message"]  # it never came so far as to an ACL


def test_a_second_agent_in_one_process_is_refused(stack, realm):
    _, message = reason(stack, realm, "second", WRITER, OTHER)
    assert message == f"{OTHER}: this process comes with the ticket of {WRITER}"


def test_agents_go_on_after_the_kdc_was_away_for_longer_than_a_ticket(stack, realm):
    writer = begin(stack, realm, "publish", WRITER, str(4 * LIFE_S))
    assert json.loads(writer.stdout.readline()) == {"ready": True}
    realm.stop()
    try:
        threading.Event().wait(1.5 * LIFE_S)  # the outage itself: there is nothing to wait for in it
    finally:
        realm.start()
    lines = [json.loads(line) for line in writer.communicate(timeout=300)[0].splitlines()]
    assert [each for each in lines if "error" in each] == []
    late = [number for number, each in enumerate(lines) if "later" in each]
    assert late, "the outage was none: what was published in it had no deadline to meet"
    assert len([each for each in lines[late[-1] :] if "sent" in each]) > LIFE_S
