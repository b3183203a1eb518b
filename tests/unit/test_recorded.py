"""The history of a plan: a line, JSON, and what would go on beside the access; an unreadable ledger is told."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import pytest

from bus.admin.plan import Plan
from bus.cli import recorded as module
from bus.cli.plans import show
from bus.cli.recorded import History, parse_window, recorded
from bus.codes import Code
from bus.ledger.query import LedgerQuery
from bus.ledger.store import Ledger
from bus.settings import Settings
from bus.wire.hop import Verdict
from tests.unit.ledger_build import (
    DEPLOYMENT,
    NOON,
    domain,
    keys_of,
    make_policy,
    name_of,
)
from tests.unit.test_ledger_query import HOUR, held
from tests.unit.test_plan import EMPTY, applied, plan

LIVE = make_policy()
NARROW = make_policy({"notes": domain(produce=["READER"]), "plans": domain(produce=["READER"])})
DENIED = {"decision": Verdict.DENY, "code": Code.PRODUCE}


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "ledger" / "ledger.db"


@pytest.fixture
def read(path, monkeypatch) -> Callable[..., History | None]:
    """The history of a plan from LIVE to a draft, half an hour after NOON + 24 h, over the ledger at ``path``."""

    def open_query(settings: Settings) -> LedgerQuery:
        return LedgerQuery(Ledger(path, settings.deployment_id, read_only=True), keys_of)

    monkeypatch.setattr("bus.cli.audit.open_query", open_query)
    monkeypatch.setattr(module, "now_ms", lambda: NOON + 24 * HOUR + HOUR // 2)

    def history(made: Plan, window: str = "24h") -> History | None:
        return recorded(Settings(deployment=DEPLOYMENT.hex()), made, parse_window(window))

    return history


def printed(made: Plan, history: History | None, capsys, *, as_json: bool = False) -> str:
    show(made, as_json=as_json, history=history)
    return capsys.readouterr().out


def test_a_draft_that_stops_what_went_on_is_told_in_one_line_and_in_json(path, read, capsys):
    held(path, 0, HOUR, 2 * HOUR)  # the first lies before the window
    held(path, 3 * HOUR, facts={})
    made = plan(NARROW, applied(LIVE))
    history = read(made)
    lines = printed(made, history, capsys).splitlines()
    told = "history: 24h, 3 decisions, 2 replayed (66 % have facts): 0 new ALLOW, 2 new DENY (writer-1 -> notes)"
    assert [line for line in lines if line.startswith("history")] == [told]
    assert [line for line in lines if line.startswith("keys")] == ["keys: notes re-keys; 1 untouched"]
    assert not any("would allow" in line for line in lines)
    document = json.loads(printed(made, history, capsys, as_json=True))
    assert document["keys"] == ["notes"]
    assert document["history"] == {
        "window": "24h",
        "read": 3,
        "decided": 2,
        "without_facts": 1,
        "complete": True,
        "unread": "",
        "flips": [
            {
                "agent": "writer-1",
                "domain": "notes",
                "before": "ALLOW",
                "after": "DENY",
                "rule": "notes.produce",
                "location": "mesh.yaml:7",
                "count": 2,
                "example": name_of(2 * HOUR),
            }
        ],
    }


def test_a_draft_that_lets_go_on_what_was_stopped_says_so_beside_the_access(path, read, capsys):
    held(path, HOUR, **DENIED)
    made = plan(LIVE, applied(NARROW))
    lines = printed(made, read(made), capsys).splitlines()
    line = "~ would allow writer-1 -> notes: 1 that the live policy stops  mesh.yaml:7"
    assert lines.index(line) < next(place for place, text in enumerate(lines) if " acl " in text)
    assert (
        "history: 24h, 1 decisions, 1 replayed (100 % have facts): 1 new ALLOW (writer-1 -> notes), 0 new DENY" in lines
    )


@pytest.mark.parametrize(
    ("draft", "line"),
    [
        (make_policy(retention_ms=HOUR), "keys: no domain re-keys; 2 untouched"),
        (make_policy(agents={"writer-1": ["WRITER"]}), "keys: notes, plans re-key; 0 untouched"),
        (make_policy({"notes": domain(tier="FHE"), "new": domain()}), "keys: notes re-keys; 0 untouched"),
    ],
)
def test_domains_that_come_or_go_are_neither_rekeyed_nor_untouched(draft, line, capsys):
    assert line in printed(plan(draft, applied(LIVE)), None, capsys).splitlines()


def test_ways_beyond_three_are_counted(path, read):
    agents = {f"writer-{number}": ["WRITER"] for number in range(5)}
    for place, agent in enumerate(agents):
        for again in range(place + 1):
            held(path, HOUR + 10 * place + again, agent=agent)
    history = read(plan(make_policy(agents={"reader-1": ["READER"]}), applied(make_policy(agents=agents))))
    named = "writer-4 -> notes, writer-3 -> notes, writer-2 -> notes, 2 more"
    assert str(history).endswith(f"0 new ALLOW, 15 new DENY ({named})")


def test_a_longer_window_reads_more_and_none_reads_nothing(path, read):
    held(path, 0, HOUR, 2 * HOUR)
    made = plan(NARROW, applied(LIVE))
    assert (read(made, "24h").read, read(made, "7d").read, read(made, "none")) == (2, 3, None)
    assert str(read(made, "1m")) == "1m, no decisions recorded"


@pytest.mark.parametrize("text", ["", "24", "24 h", "-1h", "1w", "4000d", "NONE"])
def test_another_window_is_wrong_usage(text):
    with pytest.raises(click.UsageError, match="expected a duration"):
        parse_window(text)


def test_nothing_is_read_where_nothing_can_flip(read, capsys):
    """There is no ledger: reading would be told."""
    first, same = plan(LIVE, EMPTY), plan(LIVE, applied(LIVE))
    assert (read(first), read(same)) == (None, None)
    for made in (first, same):
        told = printed(made, None, capsys)
        assert "keys" not in told
        assert "history" not in told
    assert json.loads(printed(same, None, capsys, as_json=True))["history"] is None


def test_of_a_long_history_the_newest_are_replayed_and_progress_is_told(path, read, monkeypatch, capsys):
    held(path, *(HOUR + number for number in range(5)))
    made = plan(NARROW, applied(LIVE))
    monkeypatch.setattr(module, "TELL_EVERY", 2)
    whole = read(made)
    assert (whole.read, whole.cut) == (5, False)
    assert capsys.readouterr().err.splitlines() == ["history: 2 hops replayed", "history: 4 hops replayed"]
    for limit, cut in ((5, False), (4, True)):
        monkeypatch.setattr(module, "MAX_READ", limit)
        history = read(made)
        assert (history.read, history.cut, history.document()["complete"]) == (limit, cut, not cut)
    assert "24h, the newest 4 hops alone: 4 decisions" in str(history)
    assert name_of(HOUR) not in json.dumps(history.document())


def test_a_ledger_that_cannot_be_read_is_a_note_and_no_failure(path, read, monkeypatch, capsys):
    made = plan(NARROW, applied(LIVE))
    absent = read(made)
    assert printed(made, absent, capsys).splitlines()[-2] == f"history: 24h not replayed: no ledger at {path}"
    assert (absent.document()["complete"], absent.document()["unread"]) == (False, f"no ledger at {path}")

    held(path, HOUR)._ledger.close()
    monkeypatch.setattr("sqlite3.connect", partial(sqlite3.connect, timeout=0))
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("pragma locking_mode = exclusive")
    lock.execute("pragma journal_mode = delete")
    lock.execute("begin exclusive")
    assert "database is locked" in str(read(made))
    lock.close()
    assert read(made).made.decided == 1

    path.write_bytes(b"no database" * 1000)
    assert "not a ledger" in str(read(made))
