"""The watcher over a ledger in memory of nobody: order, sinks that are away, what does not open, an older copy."""

from __future__ import annotations

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from prometheus_client import Counter, Gauge, Histogram

from bus.codes import Code
from bus.errors import RetryLater, SettingsError, Unavailable
from bus.ledger.alerts import Alert, Alerts
from bus.ledger.store import Ledger
from bus.policy.alertfile import AlertsFile
from bus.wire.hop import Verdict
from consumers.watch import app as module
from consumers.watch.app import Watcher
from consumers.watch.sinks import Batch, Lines, Webhook
from tests.unit.ledger_build import DEPLOYMENT, KEYS, LEDGER_SIGNER, make_block, make_hop, record

RULES = {"alerts": [{"name": "flow", "when": "new_flow"}, {"name": "burst", "when": "denials", "more_than": "2 in 1m"}]}


class Kept:
    """A sink of the test; ``away`` makes it refuse."""

    def __init__(self, name):
        self.name = name
        self.away = False
        self.batches = []

    def take(self, batch):
        if self.away:
            raise RetryLater("away", code=Code.RETRY)
        self.batches.append(batch)

    @property
    def offsets(self):
        return [hop.offset for batch in self.batches for hop in batch.hops]


class Feed:
    """bus.issue: what ``values`` holds; an exception there is raised once."""

    def __init__(self, *values):
        self.values = list(values)
        self.position = 0

    def poll(self, _):
        if not self.values:
            return None
        value = self.values.pop(0)
        if isinstance(value, Exception):
            raise value
        self.position += 1
        return value


@pytest.fixture
def made(tmp_path, monkeypatch):
    """(ledger, a function that makes a watcher of it, as a process of its own would)."""
    path = tmp_path / "ledger.db"
    monkeypatch.setattr(module, "open_ledger", lambda _: Ledger(path, DEPLOYMENT, read_only=True))
    monkeypatch.setattr(module, "open_issued", lambda value, *_: json.loads(value))
    monkeypatch.setattr(module, "PAUSE_S", 0)

    def make():
        watcher = object.__new__(Watcher)
        watcher.__dict__.update(
            _settings=SimpleNamespace(deployment_id=DEPLOYMENT), _trust=SimpleNamespace(anchor=b""),
            _alerts=Alerts(AlertsFile.model_validate(RULES).alerts), _place=tmp_path / "watch" / "state.json",
            _leaves={}, _events=[], _batches=module.deque(), _first=0, _away={}, _day=lambda day: keys[day],
            _told=Counter("a", "a", ["r", "s"], registry=None), _watched=Counter("b", "b", registry=None),
            _closed=Counter("c", "c", registry=None), _behind=Gauge("d", "d", registry=None),
            _decided=Histogram("e", "e", ["d"], registry=None),
        )  # fmt: skip
        watcher._issued = watcher._restored()
        return watcher

    class Days(dict):
        def __missing__(self, day):
            raise FileNotFoundError(day)

    keys = Days({KEYS.day: KEYS})
    return Ledger(path, DEPLOYMENT), make, keys


def put(ledger, partition, *numbers, **tail):
    for number in numbers:
        record(ledger, [make_block([make_hop(number, **tail)], number, number + 1)], partition)
    ledger.sign(partition, LEDGER_SIGNER)


def go(watcher, sinks, feed=None, rounds=1):
    watcher._taken = getattr(watcher, "_taken", None) or {each.name: 0 for each in sinks}
    return [watcher._round(feed or Feed(), sinks) for _ in range(rounds)]


def test_partitions_are_read_in_the_order_of_decisions(made, monkeypatch):
    ledger, make, _ = made
    put(ledger, 1, *range(0, 10, 2))
    put(ledger, 2, *range(1, 10, 2))
    monkeypatch.setattr(module, "BATCH", 3)
    sink = Kept("a")
    rounds = go(make(), [sink], rounds=4)
    assert sink.offsets == list(range(10))
    assert [len(each.hops) for each in sink.batches] == [3, 3, 3, 1]
    assert [more for more, _ in rounds] == [True, True, True, False]


def test_a_sink_that_is_away_keeps_no_other_waiting_and_is_left_out_of_nothing(made):
    ledger, make, _ = made
    first, second, watcher = Kept("a"), Kept("b"), make()
    first.away = True
    put(ledger, 1, 0, 1)
    assert go(watcher, [first, second]) == [(False, "a is away")]
    put(ledger, 1, 2)
    go(watcher, [first, second])
    assert (first.offsets, second.offsets) == ([], [0, 1, 2])
    assert not watcher._place.exists()
    again = Kept("a"), Kept("b")
    go(make(), again)  # a crash now: both are told all of it
    assert again[0].offsets == again[1].offsets == [0, 1, 2]
    first.away = False
    assert go(watcher, [first, second]) == [(False, "")]
    assert first.offsets == second.offsets == [0, 1, 2]
    put(ledger, 1, 3)
    third = Kept("a")
    go(make(), [third])
    assert third.offsets == [3]


def test_what_is_queued_is_bounded(made, monkeypatch):
    ledger, make, _ = made
    monkeypatch.setattr(module, "MAX_QUEUED", 2)
    sink, watcher = Kept("a"), make()
    sink.away = True
    for number in range(5):
        put(ledger, 1, number)
        go(watcher, [sink])
    assert len(watcher._batches) == 2
    sink.away = False
    go(watcher, [sink], rounds=2)
    assert sink.offsets == [0, 1, 2, 3, 4]


def test_alerts_are_the_same_after_a_crash_and_rules_remember(made):
    ledger, make, _ = made
    denied = {"decision": Verdict.DENY, "code": Code.MAC, "rule": ""}
    put(ledger, 1, 0)
    put(ledger, 1, 1, 2, **denied)
    before, after, whole = Kept("a"), Kept("a"), Kept("a")
    go(make(), [before])
    put(ledger, 2, 3, **denied)
    go(make(), [after])
    assert [each.rule for batch in (*before.batches, *after.batches) for each in batch.alerts] == ["flow", "burst"]
    shutil.rmtree(make()._place.parent)
    go(make(), [whole])
    ids = {each.id for batch in (*before.batches, *after.batches) for each in batch.alerts}
    assert {each.id for batch in whole.batches for each in batch.alerts} == ids


def test_what_does_not_open_is_passed_over_and_told(made):
    ledger, make, keys = made
    put(ledger, 1, 0, 1, 2)
    ledger._db.connection.execute("update entry set body = zeroblob(length(body)) where leaf = 1")
    sink, watcher = Kept("a"), make()
    go(watcher, [sink])
    assert (sink.offsets, watcher._closed._value.get()) == ([0, 2], 1)
    keys.clear()
    put(ledger, 1, 3)
    go(watcher, [sink])
    assert (sink.offsets, watcher._closed._value.get()) == ([0, 2], 2)
    assert watcher._leaves["1"][0] == 4


def test_an_older_copy_of_the_ledger_is_noticed(made, tmp_path):
    ledger, make, _ = made
    put(ledger, 1, 0, 1)
    go(make(), [Kept("a")])
    ledger._db.connection.execute("update state set size = 1")
    ((_, waits),) = go(make(), [Kept("a")])
    assert "not the log of which 2 leaves were watched" in waits
    ledger._db.connection.execute("update state set size = 2")
    ledger._db.connection.execute("update tile set hashes = zeroblob(length(hashes))")
    ((_, waits),) = go(make(), [Kept("a")])
    assert "an older copy, or another" in waits


def test_events_that_were_read_are_kept_where_the_broker_goes_away(made):
    _, make, _ = made
    event = {"event": "leased", "agent": "a", "at": 5}
    odd = [
        {"event": 7, "at": 1},
        {"agent": "a"},
        {"event": "x", "at": None},
        {"event": "x", "at": 10**17},
        {"event": "x"},
    ]
    values = [json.dumps(each).encode() for each in (event, *odd)]
    sink, watcher = Kept("a"), make()
    feed = Feed(*values, Unavailable("away"), json.dumps({**event, "at": 6}).encode())
    ((_, waits),) = go(watcher, [sink], feed)
    assert waits
    go(watcher, [sink], feed)
    assert [each["at"] for batch in sink.batches for each in batch.events] == [5, 6]
    assert json.loads(watcher._place.read_bytes())["issued"] == 7


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"leaves": {"x": 1}, "rules": {}, "issued": 0}', '{"leaves": 7}'])
def test_a_state_that_is_none_is_refused(made, text):
    _, make, _ = made
    place = make()._place
    place.parent.mkdir()
    place.write_text(text)
    with pytest.raises(SettingsError, match="not what the watcher writes"):
        make()


def alerts(count):
    return [Alert("r", "low", number, "s", f"t{number}") for number in range(count)]


@pytest.fixture
def hooked():
    """A webhook that answers as ``answers`` say, then with 200; ``seen`` ids."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["id"])
            self.send_response(answers.pop(0) if answers else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    seen, answers = [], []
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Webhook(f"http://127.0.0.1:{server.server_port}/", lambda: None), seen, answers
        server.shutdown()
        thread.join()


def test_an_alert_that_a_webhook_took_is_not_sent_again_with_the_next(hooked):
    webhook, seen, answers = hooked
    told = alerts(3)
    answers += [200, 503]
    batch = Batch([], [], told, b"")
    with pytest.raises(RetryLater, match="503"):
        webhook.take(batch)
    webhook.take(batch)
    assert seen == [told[0].id, told[1].id, told[1].id, told[2].id]


@pytest.mark.parametrize(("status", "again"), [(400, False), (404, False), (408, True), (429, True), (500, True)])
def test_what_a_webhook_refuses_for_good_is_passed_over(hooked, status, again):
    webhook, seen, answers = hooked
    answers.append(status)
    if again:
        with pytest.raises(RetryLater, match=str(status)):
            webhook.take(Batch([], [], alerts(2), b""))
    else:
        webhook.take(Batch([], [], alerts(2), b""))
    assert len(seen) == 1 if again else 2


def test_no_line_of_a_siem_file_is_torn(tmp_path, monkeypatch):
    lines = Lines(tmp_path / "f", lambda hop: f"line {hop}")
    lines.take(Batch([1, 2], [], [], b""))
    with (tmp_path / "f").open("a") as file:
        file.write("torn")  # as by a crash
    lines.take(Batch([3], [], [], b""))
    assert (tmp_path / "f").read_text() == "line 1\nline 2\ntorn\nline 3\n"
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(RetryLater, match="No space left"):
        lines.take(Batch([4, 5], [], [], b""))
    assert (tmp_path / "f").read_text().endswith("line 3\n")
