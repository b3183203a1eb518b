"""The leak probe: the data set's own rule, a scanner that finds what is there in every form and nothing by chance."""

import base64
import gzip
import json
import os

import pytest

from bus.errors import Refused
from demo.traces import DATA, inside, private
from probe.replay import Got
from probe.run import CELL, failures, guess
from probe.scan import Scanner
from probe.traces import Say, read, spelled
from tests.leak_labels import count

pytest.importorskip("numpy", reason="numpy is not installed: pip install 'sealbus[plot]'")
VAULT = {"name": "Devin Schaefer", "ssn": "787-08-3753", "dob": "1995-01-25", "pin": "123", "job": "nurse"}
TRACE = {
    "trace_id": "t-1",
    "input": {"vault": VAULT, "request": "ask the NURSE", "allowed_set": {"fields": ["name"]}},
    "channel_messages": [
        {"channel": "C2", "source": "coordinator", "target": "worker", "content": "ssn 787-08-3753, nurse, 123"},
        {"channel": "C1", "source": "coordinator", "target": "user", "content": "DEVIN SCHAEFER was born 1995-01-25"},
    ],
}


def test_items_are_values_that_nobody_asked_for_of_more_than_three_characters():
    found = private(VAULT, frozenset({"name"}), "ask the NURSE")
    assert found == {"787-08-3753", "1995-01-25"}
    assert inside(found | {"Ödipus"}, "ÖDIPUS 787-08-3753") == {"787-08-3753", "Ödipus"}
    assert spelled("devin", "of Devin") == "Devin"


@pytest.mark.parametrize("form", ["lines", "gz", "json", "folder"])
def test_traces_are_read_in_every_form(tmp_path, form):
    line = json.dumps(TRACE).encode()
    if form == "gz":
        path = tmp_path / "t.jsonl.gz"
        path.write_bytes(gzip.compress(line + b"\n"))
    else:
        path = tmp_path / ("t.json" if form in ("json", "folder") else "t.jsonl")
        path.write_bytes(line)
    messages = read(tmp_path if form == "folder" else path)
    assert [(each.channel, each.session, each.items) for each in messages] == [
        ("C2", "t-1", {"787-08-3753"}),
        ("C1", "t-1", {"1995-01-25"}),
    ]
    assert [each.place for each in messages] == [
        ("orchestrator-1", "coordination", "MESSAGE"),
        ("orchestrator-1", "coordination", "ARTIFACT"),
    ]


def test_folders_in_a_folder_are_read_and_tool_calls_go_to_who_keeps_the_tools(tmp_path):
    call = '```json\n{"tool": "patient_db.read", "params": {"ssn": "787-08-3753"}}\n```'
    tools = {
        **TRACE,
        "channel_messages": [
            {"channel": "C3", "source": "agent", "target": "tool_api", "content": call},
            {"channel": "C6", "source": "infrastructure", "target": "log_file", "content": f"Payload: {call}"},
            {"channel": "C3", "source": "agent", "target": "tool_api", "content": "I need no tool"},
        ],
    }
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "t.json").write_text(json.dumps(tools))
    (tmp_path / "t.jsonl").write_text(json.dumps(TRACE))
    (tmp_path / "NOTE.txt").write_text("no trace")
    messages = read(tmp_path)
    assert len(messages) == 5
    called, logged, silent = messages[2:]
    assert (called.place, called.reader, called.tool) == (
        ("executor-1", "coordination", "TOOL_CALL"),
        "orchestrator-1",
        "patient_db.read",
    )
    assert (logged.place[2], logged.reader, logged.tool) == ("REASONING", "", "")
    assert (silent.place[2], silent.reader, silent.tool) == ("TOOL_CALL", "orchestrator-1", "")
    assert count(tmp_path) == (5, len({(each.session, item) for each in messages for item in each.items}))


def test_the_demos_traces_hold_what_the_rule_alone_finds():
    messages = read(DATA)
    assert count(DATA) == (len(messages), len({(each.session, item) for each in messages for item in each.items}))


def test_the_demos_traces_are_read_too():
    messages = read(DATA)
    assert {each.channel for each in messages} == {"C2", "C5"} | {each.channel for each in messages}
    assert len({item for each in messages for item in each.items}) > 40


@pytest.mark.parametrize("bad", [b"x", b"[]", b"{}", b'{"input": 5}', b"[" * 100_000])
def test_what_is_no_trace_is_refused_with_its_line(tmp_path, bad):
    path = tmp_path / "t.jsonl"
    path.write_bytes(json.dumps(TRACE).encode() + b"\n" + bad)
    with pytest.raises(Refused, match=r"t\.jsonl:2: expected a trace, found "):
        read(path)


FORMS = [
    lambda text: text.encode(),
    lambda text: json.dumps({"a": text}).encode(),
    lambda text: base64.b64encode(b"x" + text.encode()),
    lambda text: text.encode().hex().encode(),
    lambda text: text.encode("utf-16-le"),
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", ["787-08-3753", "Müller-Lüdenscheid", "a longer item with spaces"])
def test_an_item_is_found_in_every_form_wherever_it_stands(form, text):
    scanner = Scanner({text, "not there"})
    for shift in range(5):
        assert scanner.find(os.urandom(100) + bytes(shift) + form(text) + os.urandom(100)) == {text}


def test_a_short_item_is_found_in_text_and_not_in_random_bytes():
    scanner = Scanner({"1234"})
    assert scanner.find(b"the pin of it is 1234, as told to all") == {"1234"}
    assert scanner.find(os.urandom(8) + b"1234" + os.urandom(8)) == set()


def test_an_item_over_the_border_of_two_blocks_is_found(monkeypatch):
    monkeypatch.setattr("probe.scan.BLOCK", 64)
    data = b"." * 60 + b"787-08-3753" + b"." * 60
    assert Scanner({"787-08-3753"}).find(data) == {"787-08-3753"}


def test_files_are_scanned_but_those_that_are_left_out(tmp_path):
    for name in ("agent_memory.in-0", "probe-control-0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "00.log").write_bytes(bytes(100) + name.encode() + bytes(100))
    scanner = Scanner({"agent_memory.in-0", "probe-control-0"})
    seen = scanner.folder(tmp_path, without="probe-control")
    assert (seen.items, seen.files, seen.bytes_read) == ({"agent_memory.in-0"}, 1, 217)
    assert scanner.folder(tmp_path).items == {"agent_memory.in-0", "probe-control-0"}


def test_sizes_tell_channels_apart_where_they_differ_and_nothing_in_cells():
    channels = ["C1", "C2"]
    messages = [
        Say(f"s-{number}", channels[number % 2], channels[number % 2], "x", "", frozenset()) for number in range(400)
    ]
    told = guess(messages, [Got(number, "", 100 + 50 * (number % 2)) for number in range(400)])
    assert told["channel"]["guessed"] == 1
    assert abs(told["channel"]["chance"] - 0.5) < 0.1
    flat = guess(messages, [Got(number, "", 4096) for number in range(400)])
    assert flat["channel"]["guessed"] == flat["channel"]["chance"]


def test_every_claim_that_does_not_hold_is_told():
    fine = {
        "items": 5,
        "observers": {"a": 5, "b": 0, "c": 5, "d": 0, "e": 5},
        "records_opened_by_uncleared_role": 0,
        "names_in_domain_topics": [],
        "guess": {f"cells of {CELL:,}": {"channel": {"guessed": 0.5, "chance": 0.5}}},
    }
    assert failures(fine) == []
    for broken in (
        {"observers": {**fine["observers"], "a": 4}},
        {"observers": {**fine["observers"], "b": 1}},
        {"observers": {**fine["observers"], "c": 4}},
        {"observers": {**fine["observers"], "d": 1}},
        {"observers": {**fine["observers"], "e": 4}},
        {"records_opened_by_uncleared_role": 1},
        {"names_in_domain_topics": ["executor-1"]},
        {"guess": {f"cells of {CELL:,}": {"channel": {"guessed": 0.53, "chance": 0.5}}}},
    ):
        assert len(failures({**fine, **broken})) == 1, broken
