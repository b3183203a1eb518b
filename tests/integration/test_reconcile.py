"""A ledger beside the broker that it is about, and beside witnesses: `bus audit reconcile`, `bus run witness`."""

import contextlib
import gzip
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from confluent_kafka import Producer
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bus import Bus
from bus.crypto.seal import Sealer
from bus.errors import Denied
from bus.wire.names import DomainName
from demo.raw import plaintext
from tests.integration.conftest import POLICIES, start_stack
from tests.integration.oracle import bus_command, get, hops, read_topic, until

pytestmark = pytest.mark.broker
DOMAIN = "agent_memory"


ALERTS = """
alerts:
  - {name: burst, when: denials, more_than: 3 in 1m, severity: high}
  - {name: flow, when: new_flow}
send: {webhook: "URL/hook", topic: true}
stream: {ocsf: FOLDER/hops.json, cef: FOLDER/hops.cef, otlp: "URL"}
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    home = tmp_path_factory.mktemp("evidence")
    local = start_stack(home / "state", policies=shutil.copytree(POLICIES, home / "policies"))
    yield local
    local.down(lambda _: None, purge=True)


class Receiver(ThreadingHTTPServer):
    """A webhook and an OpenTelemetry collector: keeps what comes to each path; the first POST gets a 503."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Received)
        self.bodies = defaultdict(list)
        self.away = True


class Received(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.send_response(503 if self.server.away else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
        if not self.server.away:
            self.server.bodies[self.path].append(body)
        self.server.away = False

    def log_message(self, *_):
        pass


def late(stack, count):
    """Records whose envelopes ended ten minutes ago: they are refused."""
    with Bus("retriever-1", settings=stack.settings) as me:
        held = max(me._keys.begun(DomainName(DOMAIN), 2**62).values(), key=lambda each: each.epoch.epoch)
    sealer = Sealer(held.own, stack.settings.deployment_id, f"{DOMAIN}.in")
    producer = Producer(stack.admin_connection().config())
    for _ in range(count):
        text = plaintext("retriever-1", DOMAIN, now=time.time_ns() // 1_000_000 - 600_000)
        producer.produce(f"{DOMAIN}.in", sealer.seal(1, text)[1], partition=1)
    assert producer.flush(30) == 0


def watching(stack):
    return {"BUS_CONFIG": str(stack.layout.settings), "BUS_HTTP": "127.0.0.1:0"}


def spans_of(bodies):
    """By span id: service, trace, parent and attributes."""
    found = {}
    for body in bodies:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            (service,) = (
                each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
            )
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                told = {each.key: each.value.string_value for each in span.attributes}
                found[span.span_id] = {
                    "service": service, "trace": span.trace_id, "parent": span.parent_span_id, "told": told,
                }  # fmt: skip
    return found


def logs_of(body):
    request = ExportLogsServiceRequest.FromString(body)
    return [log for resource in request.resource_logs for scope in resource.scope_logs for log in scope.log_records]


@contextlib.contextmanager
def serving():
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever)
        thread.start()
        try:
            yield receiver
        finally:
            receiver.shutdown()
            thread.join()


def told(stack):
    done = bus_command(stack, "audit", "reconcile", "--domain", DOMAIN, "--json", check=False)
    document = json.loads(done.stdout)["domains"][DOMAIN]
    assert done.returncode == (1 if document["problems"] else 0), done.stderr
    return document


def report_again(stack, folder):
    """A report of the live ledger and one of an export say the same, and hold for who has the public key alone."""
    key = bus_command(stack, "audit", "key").stdout.strip()
    bus_command(stack, "audit", "export", str(folder / "export"))
    figures = []
    for name, more in (("live", ()), ("copied", ("--from", str(folder / "export")))):
        done = bus_command(stack, "audit", "report", "--for", "soc2", *more, "--json", str(folder / name))
        document = json.loads(done.stdout)
        assert document["gaps"]["problems"] == []
        figures.append({each["name"]: each["value"] for each in document["figures"]})
        assert "all hold" in bus_command(stack, "audit", "verify", "--report", str(folder / name), "--key", key).stdout
    assert figures[0] == figures[1]
    assert (figures[0]["accesses"], figures[0]["denials"]) == (40, 1)
    assert (folder / "live" / "report.pdf").stat().st_size > 1000
    data = (folder / "live" / "report.json").read_text()
    (folder / "live" / "report.json").write_text(data.replace('"value": 40', '"value": 41'))
    done = bus_command(stack, "audit", "verify", "--report", str(folder / "live"), "--key", key, check=False)
    assert (done.returncode, "not what was signed" in done.stderr) == (1, True)
    told = json.loads(bus_command(stack, "audit", "retire", "--older-than", "1d", "--yes", "--json").stdout)
    assert (told["segments"], told["hops"]) == ([], 0)
    again = bus_command(stack, "audit", "report", "--for", "gdpr", str(folder / "live"), check=False)
    assert "it is there already" in again.stderr


def test_all_fits_until_somebody_writes_past_the_enforcer(stack, tmp_path):
    with Bus("retriever-1", settings=stack.settings) as me, Bus("executor-1", settings=stack.settings) as other:
        for number in range(40):
            me.publish(DOMAIN, {"n": number}, partition_key=str(number))
        with pytest.raises(Denied):
            other.publish(DOMAIN, {})
    late(stack, 1)
    producer = Producer(stack.admin_connection().config())
    found = told(stack)
    assert found["problems"] == []
    assert (found["inputs"], found["hops"], found["outputs"], found["dead"]) == (41, 41, 40, 1)

    rows = json.loads(bus_command(stack, "map", "--json").stdout)["ways"]
    seen = {(each["agent"], each["domain"]): (each["state"], each["allowed"], each["denied"]) for each in rows}
    assert seen["retriever-1", DOMAIN] == ("used", 40, 1)
    assert seen["executor-1", "coordination"] == ("unused", 0, 0)
    assert bus_command(stack, "map", "--fail-on-changes", check=False).returncode == 3
    assert bus_command(stack, "map", "--as", "svg").stdout.startswith("<svg ")

    report_again(stack, tmp_path)

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


def test_hops_are_watched_told_and_handed_on_and_nothing_is_left_out(stack, tmp_path):
    with serving() as receiver:
        url = f"http://127.0.0.1:{receiver.server_port}"
        text = ALERTS.replace("URL", url).replace("FOLDER", str(tmp_path))
        (stack.settings.policies / "alerts.yaml").write_text(text)
        late(stack, 5)

        def lines():
            """Decision ids of the SIEM's lines, once there is one for every hop."""
            path = tmp_path / "hops.json"
            found = [json.loads(line)["metadata"]["uid"] for line in path.open()] if path.exists() else []
            return found if {each["decision_id"] for each in hops(stack)} == set(found) else []

        with started("run", "watch", environ=watching(stack), ended=-signal.SIGKILL) as process:
            before = until(lines)
            assert len((tmp_path / "hops.cef").read_text().splitlines()) == len(before)
            until((stack.layout.state / "watch" / "state.json").exists)  # the webhook was away at first
            process.kill()
        until(lambda: read_topic(stack, "bus.alerts"))
        with Bus("retriever-1", settings=stack.settings) as me:
            me.publish(DOMAIN, {"n": 1})
        with started("run", "watch", environ=watching(stack)):
            assert len(until(lambda: (found := lines()) and len(found) > len(before) and found)) == len(before) + 1
            metrics = get(stack, "watch", "/metrics")[1]
            url = (stack.layout.run / "watch.http").read_text().strip() + "/metrics"
            asked = urllib.request.Request(url, headers={"Accept": "application/openmetrics-text"})
            with urllib.request.urlopen(asked, timeout=10) as answer:
                exemplars = [line for line in answer.read().decode().splitlines() if "# {" in line]
            assert all("message_id=" in line for line in exemplars)
            assert exemplars
        assert "sealbus_watched_total 1.0" in metrics
        told = [json.loads(each) for each in receiver.bodies["/hook"]]
        assert {each["rule"] for each in told} == {"burst", "flow"}
        topic = [json.loads(value) for _, _, value in read_topic(stack, "bus.alerts")]
        assert {each["id"] for each in told} == {each["id"] for each in topic}
        burst = next(each for each in told if each["rule"] == "burst")
        assert burst["text"] == "retriever-1: more than 3 refusals in 60 s"
        for name in burst["decisions"]:
            bus_command(stack, "audit", "prove", name)
        spans = spans_of(receiver.bodies["/v1/traces"])
        assert {each["service"] for each in spans.values()} == {
            f"sealbus-{n}" for n in ("publisher", "enforcer", "audit")
        }
        for each in spans.values():
            if each["service"] != "sealbus-publisher":
                assert spans.get(each["parent"], {"trace": each["trace"]})["trace"] == each["trace"]
        shown = [each["told"] for each in spans.values() if each["service"] == "sealbus-enforcer"]
        assert {each["sealbus.decision_id"] for each in shown} == set(lines())
        assert {each["messaging.system"] for each in shown} == {"kafka"}
        assert sum(len(logs_of(each)) for each in receiver.bodies["/v1/logs"]) == len(before) + 1


def test_witnesses_co_sign_what_is_recorded_and_none_another_log(stack, tmp_path):
    log = f"{stack.settings.deployment_id.hex()}={bus_command(stack, 'audit', 'key').stdout.strip()}"
    with contextlib.ExitStack() as running:
        urls = {}
        for name in ("w1", "w2"):
            arguments = ["--log", log, "--name", name, "--state", tmp_path / name, "--listen", "127.0.0.1:0"]
            process = running.enter_context(started("run", "witness", *map(str, arguments)))
            urls[process.stdout.readline().strip()] = process.stderr.readline().split()[-1]
        rows = "".join(f'"{key}" = "{url}"\n' for key, url in urls.items())
        stack.layout.settings.write_text(f"{stack.layout.settings.read_text()}\n[witnesses]\n{rows}")
        stack.restart_service("audit")
        before = len(read_topic(stack, f"{DOMAIN}.in"))
        with Bus("retriever-1", settings=stack.settings) as me:
            for number in range(20):
                me.publish(DOMAIN, {"n": number}, confirm="decided", partition_key=str(number))
        keys = [each for key in urls for each in ("--witness", key)]

        def verified(*arguments):
            done = bus_command(stack, "audit", "verify", "--key", log[33:], *arguments, "--json", check=False)
            return json.loads(done.stdout)

        def all_co_signed():
            """All leaves, once every record has its hop."""
            told = verified(*keys)
            leaves = sum(told["witnessed"].values())
            return leaves if leaves == told["leaves"] >= before + 20 else 0

        leaves = until(all_co_signed)
        (tmp_path / "proof").write_text(bus_command(stack, "audit", "prove", hops(stack)[0]["decision_id"]).stdout)
        arguments = ["audit", "verify", "--proof", str(tmp_path / "proof"), "--key", log[33:]]
        assert json.loads(bus_command(stack, *arguments, *keys, "--json").stdout)["witnesses"] == 2
        stranger = f"w3+{keys[1].split('+', 1)[1]}"
        refused = bus_command(stack, *arguments, "--witness", stranger, check=False)
        assert refused.returncode != 0
        folder = tmp_path / "evidence"
        bus_command(stack, "audit", "export", str(folder))
        whole = verified("--offline", str(folder), *keys)
        assert (whole["problems"], sum(whole["witnessed"].values())) == ([], leaves)
        with contextlib.closing(sqlite3.connect(folder / "ledger.db")) as copy, copy:
            copy.execute("update cosignature set line = replace(line, '— w2', '— w1')")
        assert "witness w2: a cosignature of another key" in str(verified("--offline", str(folder), *keys)["problems"])


@contextlib.contextmanager
def started(*arguments, environ=None, ended=0):
    """`bus` with ``arguments`` in the foreground, until the end of the block."""
    command = [sys.executable, "-m", "bus.cli.main", *arguments]
    environ = {**os.environ, **(environ or {})}
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ) as process:
        try:
            yield process
        finally:
            process.terminate()
            assert process.wait(10) == ended
