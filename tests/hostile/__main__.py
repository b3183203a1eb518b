"""Every attack in turn beside an honest pair: `python -m tests.hostile [--json] [--seconds 10] [--only TEXT]`.

Prints a table; exit 1 when a bound is broken: lag back to 0 in 60 s, honest p99 at most doubled, every code as
expected, dead-letter bytes at most input bytes, every honest message delivered, no process of the stack lost.
"""

import argparse
import contextlib
import dataclasses
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from confluent_kafka import KafkaException
from rich.console import Console
from rich.table import Table

from bus.settings import Settings
from bus.stack.local import BUNDLED_POLICIES, Stack, prepare
from tests.hostile.agent import DOMAIN, TOPIC, HostileAgent
from tests.hostile.attacks import ATTACKS
from tests.hostile.measure import Looker, latencies, quantile

LAG_LIMIT_S = 60
RATIO_LIMIT = 2.0
RATE = 200
SETTLED_MS = 250
QUOTAS = "{default: {produce: 256KiB/s, requests: 20%}}"
ATTACKER, PUBLISHER, SUBSCRIBER = "retriever-1", "orchestrator-1", "retriever-1-x"


def make_stack(home, enforcers, quotas):
    """The bundled policies with ``quotas``, and one agent more, whose id begins with the attacker's."""
    policies = home / "policies"
    shutil.copytree(BUNDLED_POLICIES, policies)
    with (policies / "agents.yaml").open("a") as out:
        out.write(f"  {SUBSCRIBER}: {{role: RETRIEVER}}\n")
    mesh = policies / "mesh.yaml"
    mesh.write_text(mesh.read_text().replace("  domains:\n", f"  broker_quotas: {quotas}\n  domains:\n", 1))
    settings = dataclasses.replace(Settings(), state=home / "state", policies=policies, enforcers=enforcers)
    return Stack(prepare(settings))


class Pair:
    """The honest publisher and subscriber, in a process of their own."""

    def __init__(self, stack, file):
        self.file = file
        command = [sys.executable, "-m", "tests.hostile.honest", PUBLISHER, SUBSCRIBER, str(RATE), str(file)]
        environ = {"BUS_CONFIG": str(stack.layout.settings), "PATH": "/usr/bin:/bin"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ, text=True
        )

    def settle(self):
        """Until what is delivered was published a moment ago: the first records waited for the subscriber to join."""
        deadline = time.monotonic() + 60
        while not (fresh := latencies(self.file, time.monotonic_ns() - 2 * 10**9)) or fresh[-1] > SETTLED_MS:
            if self._process.poll() is not None:
                raise RuntimeError("the honest pair does not run")
            if time.monotonic() > deadline:
                return  # a slow machine: the quiet time says how slow
            time.sleep(0.5)

    def end(self):
        """What it published, stored and delivered."""
        out, _ = self._process.communicate("", timeout=300)
        return json.loads(out)

    def kill(self):
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def attack_once(attack, agent, looker, pair, seconds):
    """One row: quiet time, attack, the way back to no lag."""
    run = attack.prepare(agent, seconds)
    looker.seconds_to_no_lag(looker.ends(TOPIC), LAG_LIMIT_S)
    starts = looker.ends(f"{DOMAIN}.dead")
    quiet = time.monotonic_ns()
    time.sleep(max(seconds / 2, 3))
    before = looker.processes()
    used = resource.getrusage(resource.RUSAGE_SELF)
    begin = time.monotonic_ns()
    told = run()
    end = time.monotonic_ns()
    after = resource.getrusage(resource.RUSAGE_SELF)
    took = (end - begin) / 1e9
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    processes = looker.processes()
    lag, codes, dead_bytes, seconds_to_none = -1, Counter(), 0, None
    with contextlib.suppress(KafkaException):
        ends = looker.ends(TOPIC)
        lag = looker.lag(ends)
        seconds_to_none = looker.seconds_to_no_lag(ends, LAG_LIMIT_S)
        codes, dead_bytes = looker.dead_since(starts)
    alive = looker.processes()
    time.sleep(1)  # what was published last is still on its way to the subscriber
    for each in told.held:
        each.close()
    calm, loud = latencies(pair.file, quiet, begin), latencies(pair.file, begin, end)
    expected = Counter({code: count for code, count in told.expected.items() if code})
    row = {
        "attack": attack.name,
        "seconds": took,
        "records": told.records,
        "codes": dict(codes),
        "expected": dict(expected),
        "broker": dict(told.answers),
        "lag": lag,
        "seconds_to_no_lag": seconds_to_none,
        "input_bytes": told.input_bytes,
        "dead_bytes": dead_bytes,
        "attacker_cpu": cpu / took,
        "before": {"n": len(calm), "p50": quantile(calm, 0.5), "p99": quantile(calm, 0.99)},
        "during": {"n": len(loud), "p50": quantile(loud, 0.5), "p99": quantile(loud, 0.99)},
        "rss_mb": {name: told and max(told[0], (processes[name] or told)[0]) for name, told in alive.items()},
        "cpu": {
            name: (told[1] - before[name][1]) / took if told and before[name] else None
            for name, told in processes.items()
        },
    }
    row["ratio"] = row["during"]["p99"] / row["before"]["p99"] if calm and loud else None
    row["broken"] = broken(row)
    return row


def broken(row):
    """Which bounds do not hold."""
    found = []
    if row["seconds_to_no_lag"] is None:
        found.append("lag")
    if row["ratio"] is None or row["ratio"] > RATIO_LIMIT:
        found.append("p99")
    if row["codes"] != row["expected"]:
        found.append("codes")
    if row["dead_bytes"] > row["input_bytes"]:
        found.append("dead bytes")
    if None in row["rss_mb"].values():
        found.append("process lost")
    return found


def run_attacks(attacks, seconds, enforcers, quotas):
    """Rows of ``attacks`` on one stack; the honest pair's account is a row of its own."""
    home = Path(tempfile.mkdtemp(prefix="sealbus-hostile-"))
    stack = make_stack(home, enforcers, quotas)
    pair = looker = None
    try:
        stack.up(lambda _: None)
        agent, looker = HostileAgent(stack, ATTACKER), Looker(stack)
        pair = Pair(stack, home / "honest")
        pair.settle()
        for attack in attacks:
            yield attack_once(attack, agent, looker, pair, seconds)
        told = pair.end()
        unstored, lost = told["published"] - told["stored"], told["stored"] - told["delivered"]
        losses = {f"{unstored} not stored": unstored, f"{lost} stored and not delivered": lost > 0}
        losses[f"{told['doubled']} doubled"] = told["doubled"]
        yield {"attack": "honest pair", **told, "broken": [text for text, count in losses.items() if count]}
    finally:
        if pair is not None:
            pair.kill()
        if looker is not None:
            looker.close()
        stack.down(lambda _: None, purge=True)
        shutil.rmtree(home, ignore_errors=True)


def number(value, form=",.0f"):
    return "-" if value is None else format(value, form)


def table(rows):
    made = Table(
        "attack", "records", "refused", "broker said", "lag", "s to 0", "p50 ms", "p99 ms", "ratio", "in B", "dead B",
        "attacker", "RSS MB", "broken",
    )  # fmt: skip
    for row in rows:
        if "records" not in row:
            text = f"{row['published']} published, {row['stored']} stored, {row['delivered']} delivered"
            made.add_row(row["attack"], text, "", "; ".join(row["errors"][:2]), *[""] * 9, ", ".join(row["broken"]))
            continue
        before, during = row["before"], row["during"]
        made.add_row(
            row["attack"],
            number(row["records"]),
            " ".join(f"{code}:{count:,}" for code, count in row["codes"].items()),
            " ".join(f"{name}:{count:,}" for name, count in row["broker"].items()),
            number(row["lag"]),
            number(row["seconds_to_no_lag"], ".1f"),
            f"{number(before['p50'], '.0f')} > {number(during['p50'], '.0f')}",
            f"{number(before['p99'], '.0f')} > {number(during['p99'], '.0f')}",
            number(row["ratio"], ".1f"),
            number(row["input_bytes"]),
            number(row["dead_bytes"]),
            f"{row['attacker_cpu']:.0%}",
            " ".join(f"{name.removeprefix('bus-')}:{rss}" for name, rss in row["rss_mb"].items() if name != "issuer"),
            ", ".join(row["broken"]),
        )
    return made


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON document a row")
    parser.add_argument("--seconds", type=int, default=10, help="how long each attack lasts")
    parser.add_argument("--only", default="", help="attacks whose name holds this text")
    parser.add_argument("--enforcers", type=int, default=2)
    parser.add_argument("--quotas", default=QUOTAS, help=f"the policy's broker_quotas ({QUOTAS}); {{}} for none")
    asked = parser.parse_args()
    chosen = [each for each in ATTACKS if asked.only in each.name]
    together = [each for each in chosen if not each.alone]
    rows = []
    for attacks in ([together] if together else []) + [[each] for each in chosen if each.alone]:
        for row in run_attacks(attacks, asked.seconds, asked.enforcers, asked.quotas):
            rows.append(row)
            if asked.json:
                print(json.dumps(row), flush=True)
            else:
                print(f"{row['attack']}: {', '.join(row['broken']) or 'holds'}", file=sys.stderr, flush=True)
    if not asked.json:
        Console(width=250).print(table(rows))
    sys.exit(1 if any(row["broken"] for row in rows) else 0)


if __name__ == "__main__":
    main()
