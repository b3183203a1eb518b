"""Functions for tests of workloads: honest ones, and ones that try to get out."""

import os
import signal
import socket
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


def fork_and_stay(_):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.pause()
        os._exit(0)
    return "forked"


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
    "fork": fork_and_stay,
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
