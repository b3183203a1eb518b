"""A workload's process: what it computes, what it cannot reach, how it ends. Each attempt works outside of it."""

import importlib.util
import json
import os
import py_compile
import socket
import struct
from pathlib import Path

import psutil
import pytest

from bus.client.payload import JSON
from bus.errors import Refused
from bus.workload import calls, channel
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
        assert call(confined, "connect", port) == "PermissionError"
        assert call(confined, "datagram", port) == "PermissionError"
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


def test_it_starts_nothing_and_speaks_to_nothing(confined, tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        inside = {"fork": 0, "run": 0, "unix": path, "pair": 0, "keyring": 0, "vsock": 0}
        if os.geteuid() == 0:
            inside["packet"] = 0
        for what, argument in inside.items():
            assert jobs.attempt([what, argument]) not in ("PermissionError", "CalledProcessError"), what
            assert call(confined, what, argument) == "PermissionError", what
    assert call(confined, "thread", 0) == "in a thread"


@pytest.mark.parametrize("what", ["no-end", "flood", "loop"])
def test_all_of_it_ends_with_it_whatever_it_does(what):
    made = Confined("jobs:attempt", CODE)
    inside = psutil.Process(made.pid).children(recursive=True)
    assert len(inside) == 2, "the control: who waits, and who computes"
    with pytest.raises(Refused, match="no answer in"):
        call(made, what, 0, timeout=1)
    gone, alive = psutil.wait_procs(inside, timeout=20)
    assert (len(gone), alive) == (2, [])


def test_the_name_of_an_error_says_nothing_that_the_function_chose():
    with Confined("jobs:named", CODE) as made, pytest.raises(Refused) as refused:
        made.call(b'"a-secret"', JSON, 20)
    assert str(refused.value) == "workload: an error of its own"


def test_compiled_files_beside_the_code_are_not_read(tmp_path):
    source = tmp_path / "honest.py"
    source.write_text("def answer(_): return 'measured'")
    compiled = Path(importlib.util.cache_from_source(str(source)))
    other = tmp_path / "other.py"
    other.write_text("def answer(_): return 'not measured'")
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(other), cfile=str(compiled), dfile=str(source), invalidation_mode=mode)
    with Confined("honest:answer", tmp_path) as made:
        assert json.loads(made.call(b"1", JSON, 20).data) == "measured"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_is_a_program_whose_jumps_stay_in_it(machine):
    code = list(struct.iter_unpack("=HBBI", calls.program(machine)))
    assert len(code) < 256
    for place, (kind, yes, no, _) in enumerate(code):
        if kind & 7 == 5:
            assert place + 1 + max(yes, no) < len(code)
    assert [each[0] for each in code[-2:]] == [6, 6]


def test_another_architecture_is_refused():
    with pytest.raises(Refused, match="sandbox: expected aarch64, x86_64, found riscv64"):
        calls.program("riscv64")


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
        channel.read(Bytes(b"\0\0\0\3\x09\0\0"))
    with pytest.raises(ValueError, match="a content type of 7 bytes in a frame of 3"):
        channel.read(Bytes(b"\0\0\0\3\2\0\7"))
    long = "text/" + "x" * 500
    assert channel.read(Bytes(channel.pack(channel.Kind.INPUT, long, b"d"))) == (channel.Kind.INPUT, long, b"d")
