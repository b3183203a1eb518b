"""Alert rules: what each fires on, what it does not, and a file that is none; hops as a SIEM reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.codes import Code
from bus.errors import PolicyError
from bus.ledger.alerts import MAX_KEYS, Alerts
from bus.ledger.siem import cef, ocsf
from bus.policy.alertfile import AlertsFile, read_alerts
from bus.wire.hop import Hop, Verdict, decode_hop
from tests.unit.ledger_build import NOON, make_hop

DENIED = {"decision": Verdict.DENY, "code": Code.MAC, "rule": ""}


def hop(number: int, **tail) -> Hop:
    """Decided ``number`` ms after noon."""
    return decode_hop(make_hop(number, **tail))


def rules(tmp_path: Path, *lines: str) -> Alerts:
    (tmp_path / "alerts.yaml").write_text("alerts:\n" + "".join(f"  - {{{each}}}\n" for each in lines))
    return Alerts(read_alerts(tmp_path).alerts)


def test_a_burst_of_refusals_of_one_agent_is_told_once(tmp_path):
    alerts = rules(tmp_path, "name: burst, when: denials, more_than: 3 in 1s, severity: high")
    for number in (0, 1):
        assert alerts.hop(hop(number, **DENIED)) == []
    for number in range(2, 9):  # others, and what was let through
        assert alerts.hop(hop(number, **DENIED, agent=f"a{number}")) == alerts.hop(hop(number)) == []
    assert alerts.hop(hop(10, **DENIED)) == []
    (told,) = alerts.hop(hop(11, **DENIED))
    assert (told.rule, told.severity, told.subject, told.at) == ("burst", "high", "writer-1", hop(11).decided_at)
    assert told.text == "writer-1: more than 3 refusals in 1 s"
    assert told.decisions == tuple(hop(each).decision_id for each in (0, 1, 10, 11))
    assert alerts.hop(hop(12, **DENIED)) == []


def test_refusals_that_are_far_apart_or_of_other_codes_are_no_burst(tmp_path):
    alerts = rules(tmp_path, "name: burst, when: denials, more_than: 1 in 1s, codes: [mac]")
    assert [alerts.hop(hop(number, **DENIED)) for number in (0, 1001, 2002)] == [[], [], []]
    other = {**DENIED, "code": Code.REPLAY}
    assert [alerts.hop(hop(2003, **other)), alerts.hop(hop(2004, **other))] == [[], []]
    assert len(alerts.hop(hop(2005, **DENIED))) == 1


@pytest.mark.parametrize("by", ["domain", "code", "rule"])
def test_bursts_are_counted_by_what_is_named(tmp_path, by):
    alerts = rules(tmp_path, f"name: burst, when: denials, more_than: 1 in 1s, by: {by}")
    denied = {"decision": Verdict.DENY, "code": Code.PRODUCE, "rule": "notes.produce"}
    assert alerts.hop(hop(0, **denied, agent="a")) == []
    (told,) = alerts.hop(hop(1, **denied, agent="b"))
    assert told.subject == {"domain": "notes", "code": "produce", "rule": "notes.produce"}[by]


def test_a_flow_is_new_once_and_not_while_it_is_learnt(tmp_path):
    alerts = rules(tmp_path, "name: flow, when: new_flow, learn: 1s")
    assert alerts.hop(hop(0)) == []
    assert alerts.hop(hop(999, agent="b")) == []
    assert alerts.hop(hop(1500)) == []
    assert alerts.hop(hop(1501, **DENIED, agent="c")) == []
    (told,) = alerts.hop(hop(1502, agent="c"))
    assert told.text == "c -> notes: written for the first time, under notes.produce (mesh.yaml:7)"
    assert told.decisions == (hop(1502).decision_id,)
    assert alerts.hop(hop(1503, agent="c")) == []


def test_an_honest_agent_that_turns_noisy_is_told_and_one_that_always_was_is_not(tmp_path):
    alerts = rules(tmp_path, "name: noisy, when: noisy, share: 30%, of: 10 in 1m")
    assert [each for number in range(20) for each in alerts.hop(hop(number))] == []
    assert [each for number in range(20, 23) for each in alerts.hop(hop(number, **DENIED))] == []
    (told,) = alerts.hop(hop(23, **DENIED))
    assert told.text == "writer-1: 40 % of its last 10 records were refused, 0 % before"
    assert len(told.decisions) == 4
    always = rules(tmp_path, "name: noisy, when: noisy, share: 30%, of: 10 in 1m")
    denied = [{} if number % 2 else DENIED for number in range(60)]
    assert [each for number, tail in enumerate(denied) for each in always.hop(hop(number, **tail))] == []


def test_an_agent_of_which_little_is_known_is_not_noisy(tmp_path):
    alerts = rules(tmp_path, "name: noisy, when: noisy, share: 30%, of: 10 in 1m")
    assert [each for number in range(12) for each in alerts.hop(hop(number, **DENIED))] == []
    assert alerts.hop(hop(99_000, **DENIED)) == []


def test_leases_out_of_pattern_are_told(tmp_path):
    alerts = rules(tmp_path, "name: often, when: leases, more_than: 2 in 1m", "name: late, when: leases, hours: 6-20")
    leased = {"event": "leased", "agent": "writer-1"}
    assert [alerts.issued({**leased, "at": NOON + each}) for each in (0, 1)] == [[], []]
    assert alerts.issued({"event": "refused", "agent": "writer-1", "at": NOON}) == []
    (told,) = alerts.issued({**leased, "at": NOON + 2})
    assert told.text == "writer-1: more than 2 times leased in 60 s"
    (late,) = alerts.issued({**leased, "at": NOON - 9 * 3_600_000})
    assert late.text == "writer-1: leased at 3 h UTC, outside of 6-20"
    assert alerts.hop(hop(0, **DENIED)) == []


def test_what_is_remembered_is_bounded(tmp_path):
    alerts = rules(tmp_path, "name: burst, when: denials, more_than: 3 in 1s", "name: flow, when: new_flow")
    for number in range(MAX_KEYS + 50):
        alerts.hop(hop(number, agent=f"a{number}"))
        alerts.hop(hop(number, **DENIED, agent=f"a{number}"))
    for name, state in alerts.state().items():
        assert len(state[1] if name.startswith("flow") else state) == MAX_KEYS


@given(st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=80))
def test_a_burst_is_told_only_where_there_is_one(seen):
    rule = AlertsFile.model_validate({"alerts": [{"name": "b", "when": "denials", "more_than": "4 in 1s"}]}).alerts
    alerts, at, denied = Alerts(rule), 0, []
    for gap, refused in seen:
        at += gap * 10
        told = alerts.hop(hop(at, **DENIED) if refused else hop(at))
        denied += [at] * refused
        if told:
            recent = [each for each in denied if each >= at - 1000]
            assert len(recent) > 4
            denied.clear()


def test_without_a_file_there_are_no_rules(tmp_path):
    assert read_alerts(tmp_path) == AlertsFile()


def test_an_alert_has_one_id_whenever_it_is_told(tmp_path):
    ids = set()
    for _ in range(2):
        (told,) = rules(tmp_path, "name: flow, when: new_flow").hop(hop(0))
        assert json.loads(json.dumps(told.document()))["id"] == told.id
        ids.add(told.id)
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("name: a, when: denials", "more_than"),
        ("name: a, when: denials, more_than: 3", "expected times in a time, as in 20 in 5m"),
        ("name: a, when: denials, more_than: 3 in 1s, codes: [mca]", "expected a refusal code"),
        ("name: a, when: never", "when"),
        ("name: a, when: noisy, share: 130%, of: 3 in 1s", "expected a share"),
        ("name: a, when: leases, hours: 20-6", "expected hours of a day"),
        ("name: a, when: new_flow, lern: 1d", "lern"),
    ],
)
def test_a_rule_that_is_none_is_refused_with_its_place(tmp_path, line, expected):
    with pytest.raises(PolicyError) as refused:
        rules(tmp_path, line)
    assert expected in str(refused.value)
    assert "alerts.yaml:2" in str(refused.value)


@pytest.mark.parametrize("url", ["ftp://a", "http://", "https://user:secret@host/x", "host"])
def test_a_webhook_that_is_none_or_holds_a_password_is_refused(tmp_path, url):
    (tmp_path / "alerts.yaml").write_text(f"send:\n  webhook: {url}\n")
    with pytest.raises(PolicyError, match="expected http://HOST or https://HOST"):
        read_alerts(tmp_path)


def test_a_hop_is_an_ocsf_event():
    told = ocsf(hop(3, **DENIED, facts={"user": "anna"}))
    required = "activity_id actor api category_uid class_uid metadata severity_id src_endpoint time type_uid"
    assert set(required.split()) <= told.keys()
    assert (told["type_uid"], told["status_id"], told["severity_id"], told["status_code"]) == (600301, 2, 4, "mac")
    assert told["actor"] == {"app_name": "writer-1", "user": {"uid": "anna"}}
    assert told["metadata"]["uid"] == hop(3).decision_id
    assert (ocsf(hop(3))["severity_id"], ocsf(hop(3))["status_id"]) == (1, 1)


def test_a_hop_is_a_cef_line_whatever_stands_in_it():
    told = cef(hop(3, **DENIED, agent="a=b\\c\nd", facts={"user": "u|v"}))
    head, *_ = told.split("|rt=")
    assert head.startswith("CEF:0|sealbus|sealbus|")
    assert head.endswith("|mac|DENY mac|9")
    assert "suser=a\\=b\\\\c d" in told
    assert "duser=u|v" in told
    assert "\n" not in told


def test_a_misspelt_key_is_found_at_its_own_line(tmp_path):
    (tmp_path / "alerts.yaml").write_text("alerts:\n  - name: a\n    when: new_flow\n    lern: 1d\n")
    with pytest.raises(PolicyError, match="unknown key 'lern'") as refused:
        read_alerts(tmp_path)
    assert (refused.value.line, refused.value.nearest) == (4, "learn")


def test_where_alerts_and_hops_go_is_read(tmp_path):
    text = "send: {webhook: 'https://h/x', topic: true}\nstream: {ocsf: a.json, cef: /b, otlp: 'http://c:4318'}\n"
    (tmp_path / "alerts.yaml").write_text(text)
    found = read_alerts(tmp_path)
    assert (found.send.webhook, found.send.topic) == ("https://h/x", True)
    assert (found.stream.ocsf, found.stream.cef, found.stream.otlp) == (Path("a.json"), Path("/b"), "http://c:4318/")
    (tmp_path / "alerts.yaml").write_text("stream: {ocsf: 7}\n")
    with pytest.raises(PolicyError, match="expected the path of a file, found 7"):
        read_alerts(tmp_path)


def test_a_burst_that_goes_on_is_told_once_a_time(tmp_path):
    alerts = rules(tmp_path, "name: burst, when: denials, more_than: 2 in 5m")
    told = [each for number in range(300) for each in alerts.hop(hop(number, **DENIED))]
    assert len(told) == 1
    (again,) = [each for number in range(3) for each in alerts.hop(hop(300_300 + number, **DENIED))]
    assert again.id != told[0].id


def test_refusals_that_come_out_of_order_are_no_burst_where_they_are_days_apart(tmp_path):
    alerts = rules(tmp_path, "name: burst, when: denials, more_than: 2 in 5m")
    day = 86_400_000
    assert [alerts.hop(hop(number * day, **DENIED)) for number in (5, 2, 1)] == [[], [], []]


def test_rules_remember_over_a_restart_what_they_had_seen(tmp_path):
    lines = [
        "name: burst, when: denials, more_than: 2 in 1m",
        "name: flow, when: new_flow",
        "name: noisy, when: noisy, share: 30%, of: 3 in 1m",
        "name: often, when: leases, more_than: 1 in 1m",
    ]
    seen = [hop(number, **(DENIED if number in (5, 7, 8, 11, 12) else {})) for number in range(14)]
    leased = [{"event": "leased", "agent": "a", "at": NOON + each} for each in range(2)]

    def told(alerts, hops, events):
        return [each.id for hop in hops for each in alerts.hop(hop)] + [
            each.id for event in events for each in alerts.issued(event)
        ]

    whole = rules(tmp_path, *lines)
    expected = told(whole, seen[:6], leased[:1]) + told(whole, seen[6:], leased[1:])
    first, second = rules(tmp_path, *lines), rules(tmp_path, *lines)
    before = told(first, seen[:6], leased[:1])
    second.restore(json.loads(json.dumps(first.state())))
    assert before + told(second, seen[6:], leased[1:]) == expected
    assert len(expected) >= 4
    changed = rules(tmp_path, lines[1].replace("new_flow", "new_flow, severity: low"))
    changed.restore(first.state())
    assert len(changed.hop(seen[0])) == 1


def test_two_rules_of_one_name_are_refused(tmp_path):
    with pytest.raises(PolicyError, match="names of their own, found a twice"):
        rules(tmp_path, "name: a, when: new_flow", "name: a, when: new_flow")


def test_a_policy_that_is_not_there_is_not_one_without_rules(tmp_path):
    with pytest.raises(PolicyError, match="expected the folder of the policy"):
        read_alerts(tmp_path / "nowhere")
