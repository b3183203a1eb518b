"""Background processes: found and stopped by their recorded id and birth, never by an id that is another's by now."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys

import psutil
import pytest

from bus.errors import StackError
from bus.stack.process import Daemon

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
STUBBORN = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path(sys.argv[1]).touch()
time.sleep(60)
"""
ENVIRONED = """
import os, pathlib, sys, time
half = pathlib.Path(sys.argv[1] + ".new")
half.write_text(os.environ["BUS_INSTANCE"])
half.rename(sys.argv[1])
time.sleep(60)
"""


@pytest.fixture
def daemon(tmp_path):
    """A daemon that is stopped when the test ends."""
    made = Daemon("sleeper", tmp_path / "run")
    yield made
    made.stop(0.1)


@pytest.fixture
def bystander():
    """A process that is none of the daemon's."""
    process = subprocess.Popen(SLEEPER)
    yield psutil.Process(process.pid)
    process.kill()
    process.wait(10)


def write_record(daemon: Daemon, content: object) -> None:
    daemon.run.mkdir(exist_ok=True)
    daemon.record.write_text(content if isinstance(content, str) else json.dumps(content))


def ended_pid() -> int:
    """The id of a process that has ended and was waited for."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(10)
    return process.pid


def ended(pid):
    """Wait until a child has ended; one that was reaped meanwhile has."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def test_a_process_is_started_recorded_found_and_stopped(daemon):
    pid = daemon.start(SLEEPER)
    found = daemon.find()
    assert found is not None
    assert found.pid == pid
    assert json.loads(daemon.record.read_text()) == {"pid": pid, "born": found.create_time()}
    assert stat.S_IMODE(daemon.record.stat().st_mode) == 0o600
    assert daemon.stop() is True
    assert not found.is_running()  # its number may be another's by now
    assert (daemon.find(), daemon.record.exists()) == (None, False)


def test_a_process_lives_in_a_session_of_its_own_and_gets_its_environment(daemon, tmp_path):
    told = tmp_path / "told"
    pid = daemon.start([sys.executable, "-c", ENVIRONED, told], {"BUS_INSTANCE": "bus-enforcer-7"})
    daemon.wait_for(told, 20)
    assert told.read_text() == "bus-enforcer-7"
    assert os.getsid(pid) == pid != os.getsid(0)


def test_a_live_process_of_the_name_is_left_as_it_is(daemon):
    pid = daemon.start(SLEEPER)
    assert daemon.start([sys.executable, "-c", "raise SystemExit(1)"]) == pid
    assert daemon.find() == psutil.Process(pid)


def test_another_object_of_the_same_folder_finds_and_stops_it(daemon):
    pid = daemon.start(SLEEPER)
    assert Daemon("other", daemon.run).find() is None
    again = Daemon("sleeper", daemon.run)
    assert again.find() == psutil.Process(pid)
    assert again.stop() is True
    assert daemon.find() is None


def test_a_record_of_a_dead_process_counts_as_none_and_is_replaced(daemon):
    write_record(daemon, {"pid": ended_pid(), "born": 1.0})
    assert daemon.find() is None
    pid = daemon.start(SLEEPER)
    assert json.loads(daemon.record.read_text())["pid"] == pid


def test_an_id_that_another_process_has_by_now_is_never_touched(daemon, bystander):
    write_record(daemon, {"pid": bystander.pid, "born": bystander.create_time() - 5})
    assert daemon.find() is None
    assert daemon.stop() is False
    assert bystander.is_running()
    assert bystander.status() != psutil.STATUS_ZOMBIE
    assert not daemon.record.exists()
    write_record(daemon, {"pid": bystander.pid, "born": bystander.create_time()})
    assert daemon.find() == bystander


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "null",
        "[]",
        "5",
        "{}",
        {"pid": 1},
        {"born": 1.0},
        {"pid": "1", "born": 1.0},
        {"pid": -1, "born": 1.0},
        {"pid": 2**70, "born": 1.0},
        {"pid": 1.5, "born": 1.0},
    ],
    ids=str,
)
def test_an_unreadable_record_counts_as_none(daemon, content):
    write_record(daemon, content)
    assert daemon.find() is None
    assert daemon.stop() is False


def test_a_record_whose_birth_is_no_number_counts_as_none(daemon, bystander):
    for born in (None, "soon", []):
        write_record(daemon, {"pid": bystander.pid, "born": born})
        assert daemon.find() is None
    assert bystander.is_running()


def test_a_process_that_ended_and_was_not_waited_for_counts_as_none(daemon):
    pid = daemon.start([sys.executable, "-c", ""])
    ended(pid)
    with contextlib.suppress(psutil.NoSuchProcess):  # it may have been waited for after all
        assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    assert daemon.find() is None


def test_a_process_that_ignores_the_request_is_killed_after_the_timeout(daemon, tmp_path):
    ready = tmp_path / "ready"
    pid = daemon.start([sys.executable, "-c", STUBBORN, ready])
    daemon.wait_for(ready, 20)
    assert daemon.stop(0.1) is True
    ended(pid)


def test_only_the_recorded_process_is_stopped(daemon, bystander, tmp_path):
    other = Daemon("other", tmp_path / "run")
    other.start(SLEEPER)
    daemon.start(SLEEPER)
    try:
        assert daemon.stop() is True
        assert other.find() is not None
        assert bystander.status() != psutil.STATUS_ZOMBIE
    finally:
        other.stop(1)


def test_stopping_what_was_never_started_is_nothing(daemon):
    assert daemon.stop() is False


def test_output_and_errors_go_to_the_log_whose_end_can_be_read(daemon):
    assert daemon.tail() == ""
    code = "import sys; [print(n) for n in range(30)]; sys.stdout.flush(); sys.stderr.write('the end \\udcff\\n')"
    pid = daemon.start([sys.executable, "-c", code])
    ended(pid)
    assert daemon.tail(2).splitlines()[0] == "29"
    assert daemon.tail(1).startswith("the end")
    assert len(daemon.tail().splitlines()) == 12


def test_waiting_ends_when_the_process_does_and_shows_why(daemon, tmp_path):
    pid = daemon.start([sys.executable, "-c", "raise SystemExit('no port for me')"])
    ended(pid)
    with pytest.raises(StackError, match="sleeper ended while starting:\nno port for me"):
        daemon.wait_for(tmp_path / "never", 20)


def test_waiting_ends_after_the_timeout(daemon, tmp_path):
    daemon.start(SLEEPER)
    with pytest.raises(StackError, match="sleeper was not ready after 0 s"):
        daemon.wait_for(tmp_path / "never", 0)
    (tmp_path / "ready").touch()
    daemon.wait_for(tmp_path / "ready", 0)
