"""Processes that fault tests start: `python -m tests.integration.children KIND …`, settings by BUS_CONFIG.

``enforcer POINT COUNT`` and ``audit POINT COUNT`` run a service that kills itself (SIGKILL) when it comes to the named
point for the COUNTth time. ``publisher AGENT DOMAIN EPOCHS FILE``
publishes with the SDK until so many epochs have begun, waits until the broker has every message, and writes a line for
each: its id.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from bus import Bus
from bus import settings as settings_module
from consumers.audit.app import Auditor
from consumers.enforcer.app import Enforcer


def at(point, count, act):
    """A step that calls ``act`` at the ``count``th ``point``; at "never" it never does."""
    seen = 0

    def step(name):
        nonlocal seen
        if name == point:
            seen += 1
            if seen == count:
                act()

    return step


def killer(point, count):
    """A step that ends this process at the ``count``th ``point``."""
    return at(point, count, lambda: os.kill(os.getpid(), signal.SIGKILL))


def publisher(agent, domain, epochs, file):
    keys = settings_module.load().state / "agents" / agent / "keys"

    def newest():
        return max((int(each.name) for each in keys.iterdir() if each.name.isdigit()), default=0)

    made = []
    with Bus(agent) as me:
        last = newest() + epochs
        number = 0
        pace = threading.Event()
        while newest() < last:
            for _ in range(10):
                made.append(me.publish(domain, {"n": number}, partition_key=str(number), confirm="queued"))
                number += 1
            pace.wait(0.02)  # a rate of some 500 a second, so that every epoch has its share
        for sent in made:
            sent.wait_stored(30)
    Path(file).write_text("".join(f"{sent.id}\n" for sent in made))


def main():
    kind, *rest = sys.argv[1:]
    settings = settings_module.load()
    if kind == "publisher":
        publisher(rest[0], rest[1], int(rest[2]), rest[3])
    elif kind == "enforcer":
        Enforcer(settings, step=killer(rest[0], int(rest[1]))).run(threading.Event())
    else:
        Auditor(settings, step=killer(rest[0], int(rest[1]))).run(threading.Event())


if __name__ == "__main__":
    main()
