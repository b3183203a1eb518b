"""One agent in a process of its own, with the client that speaks GSSAPI: `python -m tests.kerberos.agent WHAT AGENT`.

Prints one JSON line for each thing that happened.
"""

import json
import sys
import time

from confluent_kafka import Producer

from bus import Bus, settings
from bus.errors import BusError, RetryLater
from bus.files import Layout
from bus.kafka.config import Connection, connect
from bus.kafka.kerberos import Keytab

DOMAIN = "agent_memory"


def tell(**what):
    print(json.dumps(what), flush=True)


def publish(me, seconds):
    """Until ``seconds`` are over, 20 a second; at least one."""
    until = time.monotonic() + float(seconds)
    with Bus(me) as bus:
        bus.publish(DOMAIN, {"n": 0}, confirm="decided")
        tell(ready=True)
        number = 0
        while number < 1 or time.monotonic() < until:
            try:
                tell(sent=str(bus.publish(DOMAIN, {"n": number}).id))
            except RetryLater as error:
                tell(later=str(error))
            number += 1
            time.sleep(0.05)


def read(me, _seconds):
    """Until stdin ends."""
    with Bus(me) as bus:
        subscription = bus.subscribe(DOMAIN)
        subscription(lambda _payload, delivery: tell(seen=str(delivery.id)))
        subscription.wait_assigned(60)
        tell(ready=True)
        sys.stdin.read()


def ask(connection, topic):
    """Write to ``topic`` with a client of librdkafka alone."""
    producer = Producer(connection.config(message_timeout_ms=10_000))
    told = []
    producer.produce(topic, b"x", on_delivery=lambda error, _: told.append(error))
    while not told:
        producer.poll(0.1)
        connection.check()
    if told[0] is not None:
        raise connection.typed(told[0], "write", topic)
    tell(written=topic)


def write(me, topic):
    ask(connect(settings.load(), me), topic)


class Given(Keytab):
    """With the tickets that the environment names; nothing is looked at here."""

    def sasl(self):
        return {
            "sasl.mechanism": "GSSAPI",
            "sasl.kerberos.service.name": self.service,
            "sasl.kerberos.min.time.before.relogin": 0,
        }


def any_ticket(me, topic):
    law = settings.load()
    layout = Layout(law.state)
    ask(Connection(law.bootstrap, layout.ca, Given(me, layout.keytab(me), law.kerberos_service)), topic)


def second(me, other):
    """Two agents in one process."""
    connect(settings.load(), me).config()
    connect(settings.load(), other).config()


def main():
    what, me, *more = sys.argv[1:]
    try:
        globals()[what](me, *(more or [""]))
    except BusError as error:
        tell(error=type(error).__name__, code=str(error.code), message=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()
