"""Functions for tests of workloads: honest ones, and ones that try to get out."""

import ctypes
import os
import platform
import signal
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Case:
    income: float
    name: str


def score(case: Case) -> dict:
    return {"score": round(case.income * 0.5, 3), "length": len(case.name)}


def nothing(_: dict) -> None:
    return None


def attempt(what: list) -> str:
    """What came of an attempt: the name of its error, or what it got."""
    try:
        return str(ATTEMPTS[what[0]](*what[1:]))
    except OSError as error:
        return type(error).__name__
    except MemoryError:
        return "MemoryError"


def connect(port):
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        return "connected"


def datagram(port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        return sender.sendto(b"x", ("127.0.0.1", port))


def fork(_):
    if os.fork() == 0:
        os._exit(0)
    return "forked"


def run(_):
    return subprocess.run(["/bin/true"], check=True).returncode


def thread(_):
    found = []
    made = threading.Thread(target=lambda: found.append("in a thread"))
    made.start()
    made.join()
    return found[0]


def unix(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.connect(path)
        return "connected"


def pair(_):
    one, other = socket.socketpair()
    one.close()
    other.close()
    return "a pair"


def no_end(_):
    """Holds on where its parent's end should end it."""
    ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
    while True:
        time.sleep(1)


def flood(_):
    for number in range(3, 9):
        if _writable(number):
            while True:
                os.write(number, b"x" * 65536)


class Secret(Exception):
    pass


def named(text):
    raise type(text, (Secret,), {})


def keyring():
    """add_key("user", "a", "b", into this process's)."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = {"x86_64": 248, "aarch64": 217}[platform.machine()]
    if libc.syscall(number, b"user", b"sealbus-test", b"b", 1, -2) < 0:
        raise OSError(ctypes.get_errno(), "add_key")
    return "added"


def loop(_):
    while True:
        pass


ATTEMPTS = {
    "read": lambda path: Path(path).read_text()[:20],
    "write": lambda path: Path(path).write_text("x"),
    "list": lambda path: len(list(Path(path).iterdir())),
    "connect": connect,
    "datagram": datagram,
    "signal": lambda pid: os.kill(pid, 0),
    "memory": lambda size: len(bytearray(size)),
    "environ": lambda _: sorted(os.environ),
    "fork": fork,
    "run": run,
    "thread": thread,
    "unix": unix,
    "pair": pair,
    "vsock": lambda _: socket.socket(socket.AF_VSOCK).close(),
    "packet": lambda _: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close(),
    "keyring": lambda _: keyring(),
    "capabilities": lambda _: Path("/proc/self/status").read_text(),
    "no-end": no_end,
    "flood": flood,
    "named": named,
    "loop": loop,
    "deaf": lambda _: signal.pause(),
    "exit": lambda _: os._exit(3),
    "garbage": lambda _: [os.write(number, b"\xff" * 64) for number in range(3, 9) if _writable(number)],
    "print": lambda text: print(text),
}


def _writable(number):
    try:
        os.write(number, b"")
    except OSError:
        return False
    return True
