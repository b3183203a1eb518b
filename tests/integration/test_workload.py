"""An attested workload on the real broker: its inputs and results are its source's and its reader's alone."""

import dataclasses
import os
import shutil
import subprocess
import sys

import psutil
import pytest

from bus import Bus
from bus.attester.chosen import measured_code
from bus.errors import AccessRefused
from bus.settings import AttesterKind, Issuing, Settings
from demo.observer import look
from tests.data.workloads import jobs
from tests.integration.conftest import POLICIES, start_stack
from tests.integration.oracle import account, until, verified

pytestmark = pytest.mark.broker
SECRET = "nobody-but-the-workload-4711"
WORKER, SOURCE = "analyst-1", "executor-1"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The bundled law, which protects `pii_inference` at its source; the worker's code is measured with its folder."""
    home = tmp_path_factory.mktemp("workload")
    code = home / "code"
    code.mkdir()
    shutil.copy(jobs.__file__, code)
    law = home / "law"
    law.mkdir()
    shutil.copy(POLICIES / "mesh.yaml", law)
    accept(law, code)
    local = start_stack(home / "state", issuing=Issuing.AUTHORITY, policies=law)
    yield local, code
    local.down(lambda _: None, purge=True)


def accept(law, code):
    """Measurements: the worker's with its code, and the source's package."""
    with_code = measured_code(dataclasses.replace(Settings(), attester_code=code))
    measured = {WORKER: with_code, SOURCE: measured_code(Settings())}
    rows = [
        f"  {name}: {{role: {name.split('-')[0].upper()}"
        + (f", measurements: ['{measured[name]}']" if name in measured else "")
        + "}\n"
        for name in ("orchestrator-1", "retriever-1", SOURCE, WORKER)
    ]
    (law / "agents.yaml").write_text("agents:\n" + "".join(rows))


@pytest.fixture
def served(site):
    """`bus run workload jobs:score`, answering to who asks."""
    stack, code = site
    process = start(stack, code)
    ready = next(line for line in process.stderr if "workload" in line or "error" in line)
    assert "workload jobs:score" in ready, ready
    yield process
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0


def start(stack, code, function="jobs:score"):
    environ = {
        **os.environ,
        "BUS_CONFIG": str(stack.layout.settings),
        "BUS_ATTESTER": "software",
        "BUS_ATTESTER_CODE": str(code),
    }
    command = ["run", "workload", function, "--as", WORKER, "--from", "pii_inference", "--timeout", "10"]
    return subprocess.Popen(
        [sys.executable, "-m", "bus.cli.main", *command], env=environ, stderr=subprocess.PIPE, text=True
    )


def asker(stack):
    return Bus(SOURCE, settings=dataclasses.replace(stack.settings, attester=AttesterKind.SOFTWARE))


def ask(me, inbox, payload):
    sent = me.publish("pii_inference", payload, purpose="fraud", confirm="decided")
    return next(each for each in inbox if sent.id in each.causation)


def test_it_computes_and_nobody_between_reads_what_goes_in_or_comes_out(site, served):
    stack, _ = site
    with asker(stack) as me:
        until(lambda: me._policy().domains["pii_inference"].protectable)
        inbox = me.subscribe("pii_inference")
        got = ask(me, inbox, {"income": 7341.0, "name": SECRET})
        assert (got.value(), got.source, got.target) == (
            {"score": 3670.5, "length": len(SECRET)},
            WORKER,
            SOURCE,
        )
        # A payload that the function cannot take is refused, and the next one is answered.
        me.publish("pii_inference", {"income": "none"}, confirm="decided")
        assert ask(me, inbox, {"income": 2.0, "name": "b"}).value()["score"] == 1.0
    for folder in (stack.layout.state / "kafka", stack.layout.ledger.parent):
        assert look(folder, [SECRET, "3670.5"]).items == frozenset()
    with Bus(WORKER, settings=stack.settings) as plain, pytest.raises(AccessRefused, match="requires attestation"):
        plain.subscribe("pii_inference")


def test_code_that_was_changed_gets_no_keys_and_says_so(site, tmp_path):
    stack, code = site
    other = tmp_path / "code"
    shutil.copytree(code, other)
    (other / "jobs.py").write_text((code / "jobs.py").read_text().replace("* 0.5", "* 0.6"))
    ended = start(stack, other)
    _, errors = ended.communicate(timeout=60)
    assert ended.returncode == 5, errors
    assert "attestation" in errors


def test_code_that_changes_while_it_runs_ends_it_with_a_named_error(site):
    stack, code = site
    process = start(stack, code)
    assert "workload jobs:score" in next(iter(process.stderr))
    original = (code / "jobs.py").read_text()
    try:
        with asker(stack) as me:
            until(lambda: me._policy().domains["pii_inference"].protectable)
            inbox = me.subscribe("pii_inference")
            assert ask(me, inbox, {"income": 2.0, "name": "b"}).value()["score"] == 1.0
            (code / "jobs.py").write_text(original + "\n# changed\n")
            end_function_of(process)
            me.publish("pii_inference", {"income": 3.0, "name": "c"}, confirm="decided")
        _, errors = process.communicate(timeout=60)
    finally:
        (code / "jobs.py").write_text(original)
    assert process.returncode == 5, errors
    assert "its code is not what was attested any more" in errors


def end_function_of(process):
    """Kill the confined process of a runner."""
    (inner,) = psutil.Process(process.pid).children()
    inner.kill()
    until(lambda: inner.status() == psutil.STATUS_ZOMBIE)


def test_every_input_has_one_outcome_and_one_hop(site):
    stack, _ = site
    account(stack, "pii_inference")
    assert verified(stack)["problems"] == []


def test_it_must_name_its_code_and_may_not_see_the_state_folder(site):
    stack, _ = site
    for code, why in (("", "expected attester_code"), (str(stack.layout.state), "it could read the state folder")):
        environ = {**os.environ, "BUS_CONFIG": str(stack.layout.settings)}
        if code:
            environ |= {"BUS_ATTESTER_CODE": code}
        command = ["run", "workload", "jobs:score", "--as", WORKER, "--from", "pii_inference"]
        done = subprocess.run(
            [sys.executable, "-m", "bus.cli.main", *command],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, why in done.stderr) == (1, True), done.stderr
