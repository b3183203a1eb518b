"""Reports: figures are counted again by hand, by their proofs, and from an export; what was changed is named."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import pytest

from bus.codes import Code
from bus.crypto.issued import sign_issued
from bus.crypto.signing import Signer
from bus.errors import Unverified
from bus.ledger.export import export, open_export
from bus.ledger.proof import parse_proof, verify_proof
from bus.ledger.query import LedgerQuery
from bus.ledger.report.checked import check_report
from bus.ledger.report.events import section, within
from bus.ledger.report.figures import CLAUSES, KINDS, Framework
from bus.ledger.report.folder import _sign, write_report
from bus.ledger.report.leaves import Leaves, runs
from bus.ledger.report.made import Asked, make_report
from bus.ledger.store import Ledger
from bus.wire.hop import Verdict, decode_hop
from tests.unit.ledger_build import (
    DEPLOYMENT,
    LEDGER_SIGNER,
    NOON,
    STRANGER,
    keys_of,
    make_block,
    make_hop,
    record,
)

KEY = LEDGER_SIGNER.public_key
LEVELS = ("public", "internal", "secret")
TAILS = (
    {"purpose": "billing"},
    {"purpose": "care", "facts": {"user": "anna@issuer"}, "on_behalf_of": b"d" * 32},
    {"decision": Verdict.DENY, "code": Code.PRODUCE, "rule": "notes.produce"},
    {"decision": Verdict.DENY, "code": Code.MAC, "rule": "", "agent": "", "location": ""},
    {"labels": ("internal",), "facts": {"labels": "secret"}},
    {"labels": ("secret",), "facts": {"labels": "internal"}},
    {"labels": ("internal",), "facts": {"labels": "internal,health"}},
    {"guardrails": (("pii", "EMAIL", 2), ("pii", "IBAN", 0))},
    {"guardrails": (("pii", "IBAN", 0),)},
    {"decision": Verdict.RETRY, "code": Code.ERASED, "rule": "erased", "agent": "", "facts": {"epochs": "notes/1"}},
    {"decision": Verdict.RETRY, "code": Code.START, "rule": "start", "agent": ""},
    {"decision": Verdict.DENY, "code": Code.BREAKER_OPEN, "rule": "b", "breaker": "b", "reopens": bytes(8)},
)
VALUES = {
    "accesses": 14, "persons": 2, "delegations": 0, "denials": 6, "declassifications": 4, "redactions": 2, "keys": 2,
    "breakers": 2,
}  # fmt: skip


@pytest.fixture
def ledger(tmp_path):
    made = Ledger(tmp_path / "state" / "ledger.db", DEPLOYMENT)
    hops = [make_hop(number, **TAILS[number % len(TAILS)]) for number in range(2 * len(TAILS))]
    record(made, [make_block(hops[at : at + 6], at, at + 6) for at in range(0, len(hops), 6)])
    made.sign(1, LEDGER_SIGNER)
    return made


def asked(**changes) -> Asked:
    return Asked(**{"framework": Framework.GDPR, "begin": 0, "end": NOON * 2, "levels": LEVELS, **changes})


def make(ledger, what=None, **more):
    return make_report(ledger, LedgerQuery(ledger, keys_of), KEY, what or asked(), NOON, **more)


@pytest.fixture
def folder(ledger, tmp_path):
    report, proofs = make(ledger)
    write_report(tmp_path / "report", report, proofs, LEDGER_SIGNER)
    return tmp_path / "report"


def test_figures_are_the_hops_that_they_say(ledger):
    document = make(ledger)[0].document()
    assert {each["name"]: each["value"] for each in document["figures"]} == VALUES
    accesses = next(each for each in document["figures"] if each["name"] == "accesses")
    assert sum(row[-1] for row in accesses["rows"]) == VALUES["accesses"]
    assert ["writer-1", "notes", "care", "notes.produce (mesh.yaml:7, policy 1)", 2] in accesses["rows"]
    assert document["gaps"]["problems"] == []
    assert document["gaps"]["inputs"] == {"notes.in/0": [0, 24]}


def test_each_figure_is_recomputed_from_the_export_alone(ledger, folder, tmp_path):
    export(ledger, tmp_path / "out", LEDGER_SIGNER, NOON)
    copy = open_export(tmp_path / "out", KEY)
    hops = {(each.partition, each.leaf): each.hop for each in LedgerQuery(copy, keys_of).search({})}
    document = json.loads((folder / "report.json").read_text())
    counted = Counter(
        {
            "accesses": sum(hop.tail.decision == "ALLOW" for hop in hops.values()),
            "persons": sum("user" in hop.tail.facts for hop in hops.values()),
            "denials": sum(hop.tail.decision == "DENY" for hop in hops.values()),
            "redactions": sum(sum(each[2] for each in hop.tail.guardrails) > 0 for hop in hops.values()),
            "keys": sum(hop.tail.code == "erased" for hop in hops.values()),
            "breakers": sum(hop.tail.breaker != "" for hop in hops.values()),
            "declassifications": sum(hop.tail.labels == ("internal",) for hop in hops.values()),
        }
    )
    for figure in document["figures"]:
        assert figure["value"] == counted[figure["name"]], figure["name"]
        told = {int(number): Leaves(text) for number, text in figure["leaves"].items()}
        assert sum(leaf in told.get(partition, ()) for partition, leaf in hops) == figure["value"]


def test_a_report_is_counted_again_with_the_public_key_alone(folder):
    checked = check_report(folder, KEY)
    assert (checked.problems, checked.figures, checked.counted) == ([], len(KINDS), len(KINDS))
    assert checked.proofs == sum(VALUES.values())
    line = (folder / "proofs" / "denials.jsonl").read_text().splitlines()[0]
    assert verify_proof(parse_proof(line), KEY)[0].tail.decision is Verdict.DENY


def test_of_a_large_figure_the_newest_are_shown_and_all_are_named(ledger, tmp_path):
    report, proofs = make(ledger, asked(proofs=3))
    write_report(tmp_path / "short", report, proofs, LEDGER_SIGNER)
    checked = check_report(tmp_path / "short", KEY)
    assert (checked.problems, checked.proofs) == ([], 3 + 2 + 3 + 3 + 2 + 2 + 2)
    assert checked.counted == len(KINDS) - 3
    assert "the newest 3 are proven" in (tmp_path / "short" / "report.html").read_text()


@pytest.mark.parametrize(("changes", "value"), [({"person": "anna@issuer"}, 2), ({"person": "b"}, 0)])
def test_a_report_on_one_person_counts_no_other(ledger, changes, value):
    figures = {each["name"]: each["value"] for each in make(ledger, asked(**changes))[0].document()["figures"]}
    assert (figures["accesses"], figures["persons"], figures["denials"]) == (value, value, 0)


def test_a_period_begins_and_ends_where_it_says(ledger):
    hops = [each.hop for each in LedgerQuery(ledger, keys_of).search({})]
    begin, end = hops[3].decided_at, hops[9].decided_at
    figures = make(ledger, asked(begin=begin, end=end))[0].document()["figures"]
    expected = sum(hop.tail.decision == "DENY" for hop in hops[3:9])
    assert next(each for each in figures if each["name"] == "denials")["value"] == expected


def test_what_is_not_signed_yet_is_not_counted(ledger):
    record(ledger, [make_block([make_hop(24)], 24, 25)])
    document = make(ledger)[0].document()
    assert document["figures"][0]["value"] == VALUES["accesses"]
    assert document["gaps"]["problems"] == ["partition 1: leaves 24 to 24 are not signed"]


@pytest.mark.parametrize("framework", list(Framework))
def test_every_figure_names_a_clause_of_every_framework(ledger, tmp_path, framework):
    assert CLAUSES[framework].keys() == {*KINDS, "gaps"}
    report, proofs = make(
        ledger,
        asked(framework=framework),
        erasures=[
            {"domain": "notes", "epoch": 1, "state": "erased", "waiting": [], "erased_at": NOON, "effective": NOON}
        ],
    )
    files = {each.name for each in write_report(tmp_path / "r", report, proofs, LEDGER_SIGNER)}
    assert {"report.html", "report.json", "report.note", "report.pdf"} <= files
    page = (tmp_path / "r" / "report.html").read_text()
    for clause in CLAUSES[framework].values():
        assert clause in page
    assert '<a href="proofs/denials.jsonl"><span class=value>6</span></a>' in page
    assert (tmp_path / "r" / "report.pdf").read_bytes().startswith(b"%PDF-")
    with pytest.raises(FileExistsError):
        write_report(tmp_path / "r", report, proofs, LEDGER_SIGNER)


def test_names_in_a_page_are_text(ledger, tmp_path):
    record(ledger, [make_block([make_hop(24, purpose="<script>alert(1)</script>")], 24, 25)])
    ledger.sign(1, LEDGER_SIGNER)
    report, proofs = make(ledger)
    write_report(tmp_path / "r", report, proofs, LEDGER_SIGNER)
    assert "<script>" not in (tmp_path / "r" / "report.html").read_text()


def test_a_changed_report_or_another_key_is_refused(folder):
    with pytest.raises(Unverified, match="no signature by this key"):
        check_report(folder, STRANGER.public_key)
    data = (folder / "report.json").read_text()
    (folder / "report.json").write_text(data.replace('"value": 6', '"value": 5'))
    with pytest.raises(Unverified, match="not what was signed"):
        check_report(folder, KEY)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda lines: lines[1:], "6 hops are said to be shown, 5 are"),
        (lambda lines: [*lines[1:], lines[1]], "6 hops are said to be shown, 5 are"),
        (lambda lines: [lines[0].replace('"leaf": ', '"leaf": 1'), *lines[1:]], "proof 1: "),
        (lambda lines: ["{}", *lines[1:]], "proof 1: proof: not a proof document"),
    ],
)
def test_proofs_that_are_missing_doubled_or_changed_are_named(folder, change, problem):
    path = folder / "proofs" / "denials.jsonl"
    path.write_text("".join(f"{each}\n" for each in change(path.read_text().splitlines())))
    assert any(problem in each for each in check_report(folder, KEY).problems)


def test_a_hop_of_another_figure_is_not_counted(folder):
    denials, accesses = (folder / "proofs" / f"{name}.jsonl" for name in ("denials", "accesses"))
    lines = [*accesses.read_text().splitlines()[:1], *denials.read_text().splitlines()[1:]]
    denials.write_text("".join(f"{each}\n" for each in lines))
    assert "denials: proof 1: not a hop that this figure counts" in check_report(folder, KEY).problems


@pytest.mark.parametrize("leaves", [[], [0], [0, 1, 2], [5, 7, 8], [3, 1, 2]])
def test_runs_come_back(leaves):
    told = Leaves(runs(leaves))
    assert {leaf for leaf in range(12) if leaf in told} == set(leaves)
    assert (len(told), told.below) == (len(leaves), max(leaves, default=-1) + 1)


@pytest.mark.parametrize("text", ["a", "1-b", "1--2", "3-2", "5,3", "0-4,4", "0-" + "9" * 40])
def test_what_is_no_run_is_refused(text):
    with pytest.raises(Unverified, match="runs of leaves"):
        Leaves(text)


def test_a_hop_without_levels_is_never_declassified():
    hop = decode_hop(make_hop(0, labels=("internal",), facts={"labels": "secret"}))
    assert not KINDS["declassifications"].question(hop, ())
    assert KINDS["declassifications"].question(hop, LEVELS)


ISSUER = Signer(bytes([8]) * 32)


def issued(number: int, **more) -> bytes:
    return sign_issued(ISSUER, DEPLOYMENT, {"event": "leased", "agent": "writer-1", "at": NOON + number, **more})


def with_events(ledger, folder, values):
    what = asked(begin=NOON)
    report, proofs = make(ledger, what)
    kept, rows, wrong = within(values, ISSUER.public_key, DEPLOYMENT, what.begin, what.end)
    events = section(what.framework, ISSUER.public_key, kept, rows, wrong)
    write_report(folder, dataclasses.replace(report, events=events), proofs, LEDGER_SIGNER, kept)
    return events


def test_events_of_the_issuer_are_counted_by_their_signatures(ledger, tmp_path):
    strange = sign_issued(STRANGER, DEPLOYMENT, {"event": "leased", "agent": "x", "at": NOON})
    values = [
        issued(0),
        issued(1),
        issued(2, agent="b", event="opened", by="operator", domain="notes"),
        issued(-1),
        strange,
    ]
    told = with_events(ledger, tmp_path / "r", values)
    assert (told["value"], told["wrong"]) == (3, 1)
    assert told["rows"] == [["leased", "writer-1", "", "", 2], ["opened", "b", "notes", "operator", 1]]
    checked = check_report(tmp_path / "r", KEY)
    assert (checked.problems, checked.counted) == ([], len(KINDS) + 1)
    assert "3</span></a> events of bus.issue" in (tmp_path / "r" / "report.html").read_text()


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[1:],
        lambda lines: [lines[0][:-2] + "00", *lines[1:]],
        lambda lines: [issued(7).hex(), *lines[1:], issued(8).hex()],
        lambda lines: [issued(7, agent="other").hex(), *lines[1:]],
    ],
)
def test_events_that_are_missing_doubled_forged_or_others_are_named(ledger, tmp_path, change):
    with_events(ledger, tmp_path / "r", [issued(0), issued(1)])
    path = tmp_path / "r" / "proofs" / "issued.jsonl"
    path.write_text("\n".join(change(path.read_text().split())))
    assert any(each.startswith("events: ") for each in check_report(tmp_path / "r", KEY).problems)


def test_an_event_that_was_written_twice_is_one(ledger, tmp_path):
    assert with_events(ledger, tmp_path / "r", [issued(0), issued(0)])["value"] == 1
    assert check_report(tmp_path / "r", KEY).problems == []


@pytest.mark.parametrize("name", ["report.html", "report.pdf", "proofs/denials.jsonl"])
def test_a_page_that_was_changed_is_named(folder, name):
    (folder / name).write_bytes((folder / name).read_bytes() + b"<script>")
    assert f"{name} is not what was signed" in check_report(folder, KEY).problems


def resigned(folder, change) -> list[str]:
    """Problems of a report that the ledger's key signed, after ``change``."""
    document = json.loads((folder / "report.json").read_text())
    change(document)
    files = {"report.json": json.dumps(document).encode()}
    (folder / "report.json").write_bytes(files["report.json"])
    (folder / "report.note").write_text(_sign(document["deployment"], files, LEDGER_SIGNER))
    return check_report(folder, KEY).problems


def figure(document, name):
    return next(each for each in document["figures"] if each["name"] == name)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda told: figure(told, "denials")["rows"][0].__setitem__(-1, 99), "denials: says 6, its table"),
        (lambda told: told["figures"].pop(), "figures: not those of a report"),
        (lambda told: figure(told, "denials").update(value=7), "denials: says 7, names 6 leaves"),
        (
            lambda told: figure(told, "denials")["leaves"].update({"1": "2-3,90-93"}),
            "names leaves that no checkpoint covers",
        ),
        (
            lambda told: told["checkpoints"].update({"2": told["checkpoints"]["1"]}),
            "partition 2: its checkpoint names another",
        ),
        (lambda told: told["gaps"]["problems"].append("x"), "gaps: the report itself names 1"),
        (lambda told: told.update(person="somebody"), "not a hop that this figure counts"),
    ],
)
def test_what_does_not_agree_is_named_whoever_signed_it(folder, change, problem):
    assert any(problem in each for each in resigned(folder, change))


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[" * 100_000, b"{}", b"[]", b'{"format": 1}'])
def test_what_is_no_report_is_refused_and_nothing_else_raised(folder, data):
    (folder / "report.json").write_bytes(data)
    (folder / "report.note").write_text(_sign(DEPLOYMENT.hex(), {"report.json": data}, LEDGER_SIGNER))
    with pytest.raises(Unverified):
        check_report(folder, KEY)
    (folder / "report.note").write_bytes(data)
    with pytest.raises(Unverified):
        check_report(folder, KEY)


def test_the_newest_of_all_partitions_are_shown(tmp_path):
    made = Ledger(tmp_path / "ledger.db", DEPLOYMENT)
    for partition, first in ((1, 10), (2, 0), (3, 20)):
        record(made, [make_block([make_hop(first), make_hop(first + 1)], first, first + 2)], partition)
        made.sign(partition, LEDGER_SIGNER)
    _, proofs = make(made, asked(proofs=3))
    assert [(each.at.partition, each.leaf) for each in proofs["accesses"]] == [(3, 1), (3, 0), (1, 1)]
