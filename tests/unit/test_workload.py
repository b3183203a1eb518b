"""A workload's process: what it computes, what it cannot reach, how it ends. Each attempt works outside of it."""

import json
import os
import socket
from pathlib import Path

import psutil
import pytest

from bus.client.payload import JSON
from bus.errors import Refused
from bus.workload import channel
from bus.workload.runner import Confined
from tests.data.workloads import jobs

CODE = Path(jobs.__file__).parent


@pytest.fixture(scope="module")
def confined():
    try:
        made = Confined("jobs:attempt", CODE)
    except Refused as why:
        pytest.skip(f"this kernel does not confine: {why}")
    with made:
        yield made


def call(confined, *what, timeout=20):
    told = confined.call(json.dumps(what).encode(), JSON, timeout)
    return json.loads(told.data)


def test_a_payload_goes_in_by_the_function_s_type_and_its_result_comes_out():
    with Confined("jobs:score", CODE) as made:
        told = made.call(b'{"income": 3.0, "name": "a"}', JSON, 20)
        assert (json.loads(told.data), told.content_type) == ({"score": 1.5, "length": 1}, JSON)
        with pytest.raises(Refused, match=r"workload: Refused$"):
            made.call(b'{"income": "none-of-your-business"}', JSON, 20)
        assert json.loads(made.call(b'{"income": 1, "name": ""}', JSON, 20).data)["score"] == 0.5
    assert made.ended
    with Confined("jobs:nothing", CODE) as made:
        assert made.call(b"{}", JSON, 20) is None


def test_it_reaches_no_file_but_its_code(confined, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("a key of the agent")
    outside = [
        ("read", str(secret)),
        ("list", str(tmp_path)),
        ("write", str(tmp_path / "new")),
        ("read", "/etc/passwd"),
    ]
    for what in outside:
        assert jobs.attempt(list(what)) != "PermissionError"
        assert call(confined, *what) == "PermissionError", what
    assert call(confined, "read", str(CODE / "jobs.py")).startswith('"""Functions')
    assert call(confined, "write", str(CODE / "new")) == "PermissionError"
    assert call(confined, "read", f"/proc/{os.getpid()}/environ") == "PermissionError"


def test_it_reaches_no_network_and_no_process(confined):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert jobs.attempt(["connect", port]) == "connected"
        assert jobs.attempt(["datagram", port]) == "1"
        assert call(confined, "connect", port) in ("PermissionError", "OSError", "ConnectionRefusedError")
        assert call(confined, "datagram", port) == "OSError"
    assert jobs.attempt(["signal", os.getpid()]) == "None"
    assert call(confined, "signal", os.getpid()) in ("ProcessLookupError", "PermissionError")
    assert call(confined, "signal", os.getppid()) in ("ProcessLookupError", "PermissionError")


def test_it_has_no_environment_and_bounded_memory(confined):
    assert "PATH" in jobs.attempt(["environ", 0])
    assert "PATH" not in call(confined, "environ", 0)
    assert call(confined, "memory", 4 * 1024**3) == "MemoryError"
    assert call(confined, "memory", 1024) == "1024"


def test_what_it_prints_is_no_answer(confined):
    assert call(confined, "print", "a secret") == "None"
    assert call(confined, "memory", 5) == "5"


def test_all_of_it_ends_with_it():
    made = Confined("jobs:attempt", CODE)
    assert call(made, "fork", 0) == "forked"
    inside = psutil.Process(made.pid).children(recursive=True)
    assert len(inside) >= 2, "the control: what was forked is there"
    made.close()
    gone, alive = psutil.wait_procs(inside, timeout=20)
    assert (len(gone), alive) == (len(inside), [])


@pytest.mark.parametrize(("what", "timeout"), [("loop", 0.5), ("exit", 20), ("garbage", 20)])
def test_one_that_does_not_answer_is_ended_and_told(what, timeout):
    made = Confined("jobs:attempt", CODE)
    with pytest.raises(Refused, match="no answer in"):
        call(made, what, 0, timeout=timeout)
    assert made.ended
    with pytest.raises(Refused, match="no answer in"):
        call(made, "memory", 1)


@pytest.mark.parametrize(
    ("target", "why"),
    [("jobs:none", "AttributeError"), ("none:none", "ModuleNotFoundError"), ("jobs", "AttributeError")],
)
def test_a_function_that_is_not_there_is_refused(target, why):
    with pytest.raises(Refused, match=f"workload {target}: {why}"):
        Confined(target, CODE)


class Bytes:
    def __init__(self, data):
        self.data = data

    def read(self, size):
        found, self.data = self.data[:1], self.data[1:]
        return found if size else b""


def test_frames_come_whole_however_they_are_cut():
    frame = channel.pack(channel.Kind.OUTPUT, "text/plain", b"data")
    assert channel.read(Bytes(frame)) == (channel.Kind.OUTPUT, "text/plain", b"data")
    for end in range(len(frame)):
        assert channel.read(Bytes(frame[:end])) is None
    with pytest.raises(ValueError, match="a frame of 1 bytes"):
        channel.read(Bytes(b"\0\0\0\1x"))
    with pytest.raises(ValueError, match="9 is not a valid Kind"):
        channel.read(Bytes(b"\0\0\0\2\x09\x00"))
