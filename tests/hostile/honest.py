"""The honest pair beside an attack: `python -m tests.hostile.honest PUBLISHER SUBSCRIBER RATE FILE`.

Publishes RATE small messages a second to the attacked domain and reads them with the SDK, in a process of its own,
until standard input closes. Each delivery is a line of FILE: number, and when it was published and delivered (ns, one
clock). The last line of standard output is what was published, stored and delivered.
"""

import json
import sys
import threading
import time
from pathlib import Path

from bus import Bus
from bus.errors import BusError
from tests.hostile.agent import DOMAIN

SPREAD = 16
"""Partition keys in use: every partition of the domain gets its share."""


def publish(agent, session, rate, stop, told):
    began = time.monotonic()
    with Bus(agent) as me:
        sent = []
        number = 0
        while not stop.is_set():
            ahead = began + number / rate - time.monotonic()
            if ahead > 0:
                stop.wait(ahead)
            try:
                body = {"s": session, "n": number, "t": time.monotonic_ns()}
                sent.append(me.publish(DOMAIN, body, partition_key=str(number % SPREAD), confirm="queued"))
            except BusError as error:
                told["errors"].append(f"{type(error).__name__}: {error}")
            number += 1
        deadline = time.monotonic() + 60
        for each in sent:
            try:
                each.wait_stored(max(deadline - time.monotonic(), 0))
                told["stored"] += 1
            except BusError as error:
                told["errors"].append(f"{type(error).__name__}: {error}")
    told["published"] = number


def read(agent, publisher, session, out, end, told):
    with Bus(agent) as me:
        inbox = me.subscribe(DOMAIN)
        places = {}
        while not end.is_set():
            delivery = inbox.get(0.2)
            if delivery is None or delivery.source != publisher:
                continue  # the attacker's records that are allowed come too
            body = delivery.value()
            if body["s"] != session:
                continue
            if body["n"] in places:  # a reader that lost its group reads again; another place is another record
                told["again" if places[body["n"]] == delivery.place else "doubled"] += 1
                continue
            places[body["n"]] = delivery.place
            told["delivered"] += 1
            out.write(f"{body['n']} {body['t']} {time.monotonic_ns()}\n")
            out.flush()


def main():
    publisher, subscriber, rate, file = sys.argv[1:]
    session = f"honest-{time.time_ns()}"
    told = {"published": 0, "stored": 0, "delivered": 0, "again": 0, "doubled": 0, "errors": []}
    stop, end = threading.Event(), threading.Event()
    with Path(file).open("w") as out:
        reader = threading.Thread(target=read, args=(subscriber, publisher, session, out, end, told))
        writer = threading.Thread(target=publish, args=(publisher, session, float(rate), stop, told))
        reader.start()
        writer.start()
        sys.stdin.read()
        stop.set()
        writer.join()
        deadline = time.monotonic() + 60
        while told["delivered"] < told["stored"] and time.monotonic() < deadline:
            end.wait(0.1)
        end.set()
        reader.join()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
