"""An agent's store: what it gives back, what can be read at rest, and what a file can go through."""

from __future__ import annotations

import dataclasses
import os
import signal
import sqlite3
import stat
import subprocess
import sys

import pytest

from bus.client import storefile
from bus.client.store import Store
from bus.codes import Code
from bus.errors import Refused, RetryLater, TooLarge, Unverified
from tests.unit.store_build import AGENT, HORIZON, INTERVAL, NOTES, PLANS, Desk, make_desk


@pytest.fixture
def desk(tmp_path) -> Desk:
    return make_desk(tmp_path)


@dataclasses.dataclass
class State:
    step: int


def test_what_is_put_comes_back_and_goes_when_it_is_told(desk):
    store = desk.store()
    store.put("a/1", {"step": 1, "of": None})
    store.put("a/2", b"\x00bytes")
    store.put("b/1", State(3))
    assert (store.get("a/1"), store.get("a/2")) == ({"step": 1, "of": None}, b"\x00bytes")
    assert store.get("b/1", kind=State) == State(3)
    assert (store.get("a"), store.get("a", "none")) == (None, "none")
    store.put("a/1", None)
    assert store.get("a/1", "none") is None, "null is a value"
    assert store.names() == ["a/1", "a/2", "b/1"]
    assert store.items("a/") == [("a/1", None), ("a/2", b"\x00bytes")]
    assert (store.delete("a/1"), store.delete("a/1")) == (True, False)
    assert store.names("a/") == ["a/2"]
    assert (store.clear(), store.clear(), store.names()) == (2, 0, [])


def test_stores_and_domains_are_apart(desk):
    shelves = desk.shelves()
    first, second, third = (Store(shelves, *place) for place in (("one", NOTES), ("two", NOTES), ("one", PLANS)))
    for store in (first, second, third):
        store.put("name", [store.name, store.domain])
    assert [store.get("name") for store in (first, second, third)] == [["one", NOTES], ["two", NOTES], ["one", PLANS]]
    first.clear()
    assert [store.names() for store in (first, second, third)] == [[], ["name"], ["name"]]


def test_an_entry_ends_at_its_time_and_a_file_keeps_nothing_of_it(desk):
    store = desk.store()
    store.put("short", "s", expires_in=10)
    store.put("long", "l")
    desk.now += 9_999
    assert store.get("short") == "s"
    desk.now += 1
    assert (store.get("short"), store.names(), store.items()) == (None, ["long"], [("long", "l")])
    desk.store()
    assert rows(desk) == 1


@pytest.mark.parametrize("wrong", [0, -1, float("nan")])
def test_an_end_in_the_past_is_refused(desk, wrong):
    with pytest.raises(Refused, match="expires_in"):
        desk.store().put("a", 1, expires_in=wrong)


def test_what_cannot_be_kept_is_refused_and_what_was_there_stays(desk):
    store = desk.store()
    store.put("a", 1)
    for value, error in ((object(), Refused), (float("nan"), Refused), (bytes(16 * 1024 * 1024 + 1), TooLarge)):
        with pytest.raises(error):
            store.put("a", value)
    for name in ("\ud800", "n" * 1025):
        with pytest.raises(Refused):
            store.put(name, 1)
    assert store.items() == [("a", 1)]
    with pytest.raises(Refused, match="found 'No/Store'"):
        desk.store("No/Store")


def rows(desk: Desk) -> int:
    with sqlite3.connect(desk.path) as db:
        return db.execute("select count(*) from entry").fetchone()[0]


def test_nothing_of_names_and_values_can_be_read_at_rest(desk):
    store = desk.store("checkpoints")
    store.put("thread-CONFIDENTIALNAME", {"text": "CONFIDENTIALVALUE" * 50})
    store.put("thread-CONFIDENTIALNAME", b"CONFIDENTIALBYTES" * 50)
    store.put("gone-CONFIDENTIALNAME", "CONFIDENTIALGONE")
    store.delete("gone-CONFIDENTIALNAME")
    files = sorted(desk.path.parent.glob("store.db*"))
    assert [each.name for each in files] == ["store.db", "store.db-shm", "store.db-wal"]
    held = b"".join(each.read_bytes() for each in files)
    assert len(held) > 10_000
    assert NOTES.encode() in held, "it is looked for rightly: the domain is plain to see"
    for text in (b"CONFIDENTIAL", b"checkpoints", b"thread"):
        assert text not in held
    assert {stat.S_IMODE(each.stat().st_mode) for each in files} == {0o600}


def test_a_file_that_others_could_read_is_closed_to_them(desk):
    desk.store().put("a", 1)
    desk.path.chmod(0o644)
    assert desk.store().get("a") == 1
    assert stat.S_IMODE(desk.path.stat().st_mode) == 0o600


def test_a_changed_entry_is_told_and_the_others_are_there(desk):
    store = desk.store()
    store.put("a", 1)
    store.put("b", 2)
    with sqlite3.connect(desk.path) as db:
        db.execute("update entry set body = cast(substr(body, 1, length(body) - 1) || x'00' as blob) where id = 1")
    with pytest.raises(Unverified):
        store.get("a")
    with pytest.raises(Unverified):
        store.items()
    assert store.get("b") == 2
    assert store.delete("a")
    assert store.items() == [("b", 2)]


@pytest.mark.parametrize("wrong", ["body = 7", "body = 'text'", "body = cast(x'ff' as text)", "expires = 'never'"])
def test_a_row_of_other_types_is_damage(desk, wrong):
    store = desk.store()
    store.put("a", 1)
    with sqlite3.connect(desk.path) as db:
        db.execute(f"update entry set {wrong}")
    for call in (lambda: store.get("a"), store.items):
        with pytest.raises(Refused, match="damaged") as refused:
            call()
        assert refused.value.code == Code.STORE


def test_an_entry_in_anothers_place_and_a_longer_life_do_not_open(desk):
    store = desk.store()
    store.put("a", "low")
    store.put("b", "high", expires_in=10)
    with sqlite3.connect(desk.path) as db:
        (body,) = db.execute("select body from entry where id = 2").fetchone()
        db.execute("update entry set body = ? where id = 1", (body,))
        db.execute("update entry set expires = expires + 1 where id = 2")
    for name in ("a", "b"):
        with pytest.raises(Unverified):
            store.get(name)


def test_keys_of_another_root_find_nothing(desk, tmp_path):
    desk.store().put("a", 1)
    other = make_desk(tmp_path / "other")
    other.path.write_bytes(b"")
    with sqlite3.connect(desk.path) as source, sqlite3.connect(other.path) as target:
        source.backup(target)
    store = other.store()
    assert (store.get("a"), store.names()) == (None, [])
    assert desk.store().get("a") == 1


def test_a_file_of_another_deployment_is_refused_by_name(desk):
    desk.store()
    with sqlite3.connect(desk.path) as db:
        db.execute("update meta set value = 'ff'")
    with pytest.raises(Refused, match="it belongs to deployment ff") as refused:
        desk.store()
    assert refused.value.code == Code.STORE


@pytest.mark.parametrize("damage", ["none of ours", "first page", "middle"])
def test_a_damaged_file_is_refused_with_what_to_do(desk, damage):
    if damage == "none of ours":
        desk.path.write_bytes(b"this is not a database" * 500)
    else:
        store = desk.store()
        for number in range(200):
            store.put(f"n{number}", "x" * 500)
        store._shelves.close()
        size = desk.path.stat().st_size
        with desk.path.open("r+b") as file:
            file.seek(100 if damage == "first page" else 4096)
            file.write(os.urandom(4000 if damage == "first page" else size - 8192))
    with pytest.raises(Refused, match=r"store\.db: ") as refused:
        desk.store().items()
    assert refused.value.code == Code.STORE
    assert str(desk.path) in refused.value.hint
    for each in desk.path.parent.glob("store.db*"):
        each.unlink()
    desk.store().put("a", 1)


def test_a_database_of_something_else_is_left_alone(desk):
    with sqlite3.connect(desk.path) as db:
        db.execute("create table theirs (x)")
    before = desk.path.read_bytes()
    with pytest.raises(Refused, match="not a store"):
        desk.store()
    assert desk.path.read_bytes() == before


def test_a_full_disk_is_told_as_such_and_loses_nothing(desk):
    store = desk.store()
    store.put("a", 1)
    pages = store._file._db.execute("pragma page_count").fetchone()[0]
    store._file._db.execute(f"pragma max_page_count = {pages}")  # SQLite's own answer to a disk that is full
    for _ in range(2):
        with pytest.raises(RetryLater, match="the disk is full; nothing was written") as later:
            store.put("a", "x" * 100_000)
        assert later.value.code == Code.STORE
    assert store.items() == [("a", 1)]
    store._file._db.execute(f"pragma max_page_count = {pages + 1000}")
    store.put("a", "x" * 100_000)
    assert store.get("a") == "x" * 100_000


def test_a_file_that_another_process_holds_is_tried_again_later(desk, monkeypatch):
    monkeypatch.setattr(storefile, "BUSY_S", 0.05)
    store = desk.store()
    store.put("a", 1)
    other = sqlite3.connect(desk.path, isolation_level=None)
    other.execute("begin immediate")
    with pytest.raises(RetryLater, match="locked") as later:
        store.put("a", 2)
    assert later.value.code == Code.STORE
    assert store.get("a") == 1, "who reads is not held up"
    other.execute("rollback")
    store.put("a", 2)
    assert store.get("a") == 2


def test_a_folder_that_may_not_be_written_is_refused(desk, tmp_path):
    (tmp_path / "file").write_text("")
    desk.authority.layout = dataclasses.replace(desk.authority.layout, state=tmp_path / "file")
    with pytest.raises(Refused) as refused:
        storefile.StoreFile(tmp_path / "file" / "store.db", bytes(16))
    assert refused.value.code == Code.STORE


def test_a_closed_store_says_so(desk):
    store = desk.store()
    store._shelves.close()
    with pytest.raises(Refused) as refused:
        store.put("a", 1)
    assert refused.value.code == Code.CLOSED


def child(desk: Desk, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.unit.store_build", str(desk.authority.layout.state), str(desk.now)]
    return subprocess.Popen([*command, name, str(count)], stdout=subprocess.PIPE, text=True)


def test_two_processes_of_an_agent_put_at_once_and_lose_nothing(desk):
    store = desk.store()
    children = [child(desk, name, 50) for name in ("one", "two")]
    for each in children:
        assert each.communicate(timeout=60)[0].split() == [str(number) for number in range(50)]
        assert each.returncode == 0
    assert len(store.names("one/")) == len(store.names("two/")) == 50
    assert store.get("shared")["by"] in {"one", "two"}
    assert rows(desk) == 101, "one entry a name"


def test_a_process_that_is_killed_in_a_write_loses_nothing_that_it_had_put(desk):
    for attempt in range(3):
        running = child(desk, f"run{attempt}", 0)
        assert running.stdout is not None
        said = [running.stdout.readline() for _ in range(3 + attempt * 7)]
        os.kill(running.pid, signal.SIGKILL)
        said += running.stdout.readlines()
        running.wait()
        store = desk.store()
        put = dict(store.items(f"run{attempt}/"))
        told = sum(each.endswith("\n") for each in said)
        assert len(put) - told in (0, 1)
        assert put == {f"run{attempt}/{number}": {"step": number, "state": "s" * 2000} for number in range(len(put))}
        assert store._file._db.execute("pragma integrity_check").fetchone() == ("ok",)
        store._shelves.close()


def test_an_agent_has_one_file_whatever_it_stores(desk):
    desk.store("one").put("a", 1)
    desk.store("two", PLANS).put("a", 1)
    assert desk.path == desk.authority.layout.agent(AGENT) / "store.db"
    assert HORIZON > INTERVAL
    assert rows(desk) == 2
