"""Agents that read some records and leave, again and again."""

from bus import Bus


def read_in_runs(agent, domain, session, count, run):
    """``n`` of ``count`` payloads of ``session``, in the order of delivery; each reader takes ``run`` and closes."""
    got = []
    while len(got) < count:
        with Bus(agent) as reader:
            inbox = reader.subscribe(domain)
            taken = 0
            while taken < run and len(got) < count:
                delivery = inbox.get(30)
                assert delivery is not None
                value = delivery.value()
                if isinstance(value, dict) and value.get("s") == session:
                    got.append(value["n"])
                    taken += 1
            inbox.get(0)  # asking for the next acknowledges the last
    return got
