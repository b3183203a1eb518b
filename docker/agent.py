"""A sample agent: `agent.py publish | receive AGENT DOMAIN COUNT`. Ends with 0 when all of them are through."""

import sys

from bus import Bus


def publish(me: Bus, domain: str, count: int) -> None:
    """So many messages, each decided before the next."""
    for number in range(count):
        me.publish(domain, {"n": number}, purpose="care", confirm="decided").decision()


def receive(me: Bus, domain: str, count: int) -> None:
    """As many different messages, whoever sent them."""
    seen = set()
    for got in me.subscribe(domain):
        seen.add(got.value()["n"])
        if len(seen) == count:
            return


def main() -> None:
    """Do it and say so."""
    what, agent, domain, count = sys.argv[1:]
    with Bus(agent) as me:
        {"publish": publish, "receive": receive}[what](me, domain, int(count))
    print(f"{agent}: {what} {count} of {domain}", flush=True)  # noqa: T201


main()
