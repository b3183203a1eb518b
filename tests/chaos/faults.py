"""The kinds of fault. Each hurts the site for a while, heals it again and says in a few words what it did.

A kind names what it takes hold of (``holds``), so that two faults of one round never pull at the same process.
"""

import errno
import random
import resource
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.proxy import Action, Api, Rule
from tests.chaos.site import ENFORCERS, PROXIED, SETTINGS, Site

SESSION_S = 8.0
TRANSACTION_S = 10.0
Fault = Callable[[Site, random.Random], str]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault. ``weight`` says how often it is drawn."""

    name: str
    act: Fault
    holds: frozenset[str]
    weight: int


KINDS: list[Kind] = []


def fault(*holds: str, weight: int = 3):
    """Register a function as a kind of fault, under its name."""

    def register(act: Fault) -> Fault:
        KINDS.append(Kind(act.__name__, act, frozenset(holds), weight))
        return act

    return register


def span(seconds: float) -> None:
    """Let the fault last; nothing is waited for."""
    threading.Event().wait(seconds)


@fault(PROXIED)
def enforcer_killed(site: Site, rng: random.Random) -> str:
    return _killed(site, rng, PROXIED)


@fault(ENFORCERS[1])
def other_enforcer_killed(site: Site, rng: random.Random) -> str:
    return _killed(site, rng, ENFORCERS[1])


def _killed(site: Site, rng: random.Random, name: str) -> str:
    span(rng.uniform(0.2, 2))
    site.kill(name)
    away = rng.choice((0.0, 0.0, rng.uniform(0, 3)))
    span(away)
    site.start(name)
    return f"{name} killed, started after {away:.1f} s"


@fault(ENFORCERS[1], weight=6)
def enforcer_killed_at_a_point(site: Site, rng: random.Random) -> str:
    point = rng.choice(("produced", "offsets-sent", "committed"))
    count = rng.randrange(1, 12)
    site.kill(ENFORCERS[1])
    site.start(ENFORCERS[1], point=point, count=count)
    return _until_killed(site, ENFORCERS[1], f"{point} {count}")


@fault("audit")
def audit_killed_at_a_point(site: Site, rng: random.Random) -> str:
    point = rng.choice(("opened", "appended", "signed"))
    count = rng.randrange(1, 12)
    site.kill("audit")
    site.start("audit", point=point, count=count)
    return _until_killed(site, "audit", f"{point} {count}")


def _until_killed(site: Site, name: str, what: str) -> str:
    """Wait for the process to come to its point; a rebalance may give it nothing to do: then it lives on."""
    process = site.process(name)
    deadline = threading.Event()
    for _ in range(120):
        if process.poll() is not None:
            site.mend()
            return f"{name} killed at {what}"
        deadline.wait(0.05)
    site.heal(name)
    return f"{name} did not come to {what}"


@fault(ENFORCERS[1])
def transaction_fails(site: Site, rng: random.Random) -> str:
    point = rng.choice(("produced", "offsets-sent"))
    count = rng.randrange(1, 8)
    site.leave(ENFORCERS[1])
    site.start(ENFORCERS[1], fail=point, count=count)
    span(rng.uniform(2, 4))
    site.heal(ENFORCERS[1])
    return f"{ENFORCERS[1]}: transaction {count} fails at {point}"


@fault(ENFORCERS[1], weight=5)
def enforcer_stopped(site: Site, rng: random.Random) -> str:
    seconds = rng.choice((rng.uniform(0.1, 2), rng.uniform(0.1, 2), rng.uniform(0.1, 2), SESSION_S + 1))
    return _stopped(site, rng, ENFORCERS[1], seconds)


@fault(PROXIED, weight=2)
def proxied_enforcer_stopped(site: Site, rng: random.Random) -> str:
    seconds = rng.choice((rng.uniform(0.1, 2), rng.uniform(0.1, 2), TRANSACTION_S + 2))
    return _stopped(site, rng, PROXIED, seconds)


@fault("audit")
def audit_stopped(site: Site, rng: random.Random) -> str:
    return _stopped(site, rng, "audit", rng.choice((rng.uniform(0.1, 3), SESSION_S + 1)))


def _stopped(site: Site, rng: random.Random, name: str, seconds: float) -> str:
    span(rng.uniform(0.1, 1))
    site.signal(name, signal.SIGSTOP)
    span(seconds)
    site.signal(name, signal.SIGCONT)
    return f"{name} stopped for {seconds:.1f} s"


@fault("audit")
def audit_killed(site: Site, rng: random.Random) -> str:
    span(rng.uniform(0.2, 2))
    site.kill("audit")
    span(rng.uniform(0, 2))
    site.start("audit")
    return "audit killed"


@fault("broker", "proxy", weight=3)
def broker_killed(site: Site, rng: random.Random) -> str:
    span(rng.uniform(0.3, 1.5))
    site.kill_broker()
    away = rng.choice((0.0, rng.uniform(0, 2)))
    span(away)
    site.start_broker()
    return f"broker killed, started after {away:.1f} s"


@fault(ENFORCERS[2], weight=4)
def enforcer_joins_and_leaves(site: Site, rng: random.Random) -> str:
    span(rng.uniform(0, 1))
    site.start(ENFORCERS[2])
    span(rng.uniform(1.5, 4))
    if rng.random() < 0.5:
        site.kill(ENFORCERS[2])
        return f"{ENFORCERS[2]} joined and was killed"
    site.leave(ENFORCERS[2])
    return f"{ENFORCERS[2]} joined and left"


@fault(ENFORCERS[1], ENFORCERS[2], weight=2)
def enforcer_leaves_for_another(site: Site, rng: random.Random) -> str:
    span(rng.uniform(0, 1))
    site.start(ENFORCERS[2])
    span(rng.uniform(0, 2))
    site.leave(ENFORCERS[1])
    span(rng.uniform(0.5, 2))
    site.start(ENFORCERS[1])
    span(rng.uniform(0, 1))
    site.leave(ENFORCERS[2])
    return f"{ENFORCERS[1]} left, {ENFORCERS[2]} stood in and left"


@fault("audit", weight=3)
def ledger_disk_full(site: Site, rng: random.Random) -> str:
    seconds = rng.uniform(0.5, 3)
    span(rng.uniform(0.2, 1))
    if not site.mounted:
        return _files_limited(site, seconds)
    filler = site.ledger_folder / "filler"
    with filler.open("wb", buffering=0) as out:
        size = 1 << 20
        while size:  # to the last byte
            try:
                out.write(bytes(size))
            except OSError as error:
                assert error.errno == errno.ENOSPC, error
                size //= 2
    span(seconds)
    filler.unlink()
    return f"ledger's disk full for {seconds:.1f} s"


def _files_limited(site: Site, seconds: float) -> str:
    """Without a file system of its own: no file of the audit process may grow."""
    process = site.process("audit")
    limit = min(path.stat().st_size for path in site.ledger_folder.iterdir())
    before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    span(seconds)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)
    return f"ledger's files may not grow for {seconds:.1f} s"


@fault(ENFORCERS[1], weight=2)
def key_provider_slow(site: Site, rng: random.Random) -> str:
    seconds = rng.uniform(0.2, 1)
    site.leave(ENFORCERS[1])
    site.start(ENFORCERS[1], slow_s=seconds)
    span(rng.uniform(2, 4))
    site.heal(ENFORCERS[1])
    return f"{ENFORCERS[1]}: key provider takes {seconds:.1f} s a key"


@fault("keys", ENFORCERS[1], ENFORCERS[2], "audit", weight=3)
def key_provider_away(site: Site, rng: random.Random) -> str:
    """The folder of the `file` provider is gone, for a process that starts then too; the issuer stands still."""
    keys = site.stack.layout.kek.parent
    away = keys.with_name("keys.away")
    seconds = rng.uniform(0.5, 3)
    restart = rng.random() < 0.5
    issuer = site.stack._daemon("issuer").find()
    issuer.suspend()
    try:
        keys.rename(away)
        try:
            if restart:
                site.kill(ENFORCERS[1])
                site.start(ENFORCERS[1])
            span(seconds)
        finally:
            away.rename(keys)
    finally:
        issuer.resume()
    site.mend()
    return f"keys away for {seconds:.1f} s{', an enforcer started meanwhile' if restart else ''}"


@fault(ENFORCERS[1], weight=3)
def clock_off_within_skew(site: Site, rng: random.Random) -> str:
    shift = rng.randrange(-SETTINGS["max_clock_skew_ms"], SETTINGS["max_clock_skew_ms"] + 1)
    return _clock(site, rng, shift)


@fault(ENFORCERS[1], weight=2)
def clock_off_beyond_skew(site: Site, rng: random.Random) -> str:
    shift = rng.choice((-1, 1)) * rng.choice((10_000, 50_000, 90_000, 3_600_000, 90_000_000, 172_800_000))
    return _clock(site, rng, shift)


def _clock(site: Site, rng: random.Random, shift_ms: int) -> str:
    after = rng.choice((0.0, rng.uniform(1, 2)))
    site.leave(ENFORCERS[1])
    site.start(ENFORCERS[1], shift_ms=shift_ms, after_s=after)
    span(rng.uniform(3, 5))
    site.heal(ENFORCERS[1])
    return f"{ENFORCERS[1]}: clock off by {shift_ms} ms"


@fault("proxy", weight=8)
def exchanges_lost_or_late(site: Site, rng: random.Random) -> str:
    """Names of the exactly-once path; long delays are longer than a step's own 10 s."""
    rules = []
    for _ in range(rng.randrange(1, 4)):
        api = rng.choice((Api.END_TXN, Api.END_TXN, Api.PRODUCE, Api.PRODUCE, *_OTHERS))
        action = rng.choice(list(Action))
        seconds = 0.0 if action is Action.DROP_ANSWER else rng.choice((0.2, 1.0, 2.5, rng.uniform(0, 3)))
        rules.append(Rule(api, action, seconds, rng.randrange(1, 3)))
    return _exchanges(site, rng, rules)


@fault("proxy", weight=1)
def end_of_transaction_very_late(site: Site, rng: random.Random) -> str:
    action = rng.choice((Action.HOLD_REQUEST, Action.DELAY_ANSWER))
    return _exchanges(site, rng, [Rule(Api.END_TXN, action, rng.choice((5.0, TRANSACTION_S + 1)))])


_OTHERS = (
    Api.TXN_OFFSET_COMMIT,
    Api.ADD_OFFSETS_TO_TXN,
    Api.ADD_PARTITIONS_TO_TXN,
    Api.INIT_PRODUCER_ID,
    Api.OFFSET_FETCH,
    Api.JOIN_GROUP,
    Api.HEARTBEAT,
)


def _exchanges(site: Site, rng: random.Random, rules: list[Rule]) -> str:
    site.proxy.met()
    for rule in rules:
        site.proxy.arm(rule)
        span(rng.uniform(0.2, 1))
    span(max(rule.seconds for rule in rules) + rng.uniform(0.5, 1.5))
    site.proxy.disarm()
    met = [f"{api.name} {action}" for api, action in site.proxy.met()]
    return f"{PROXIED} through the proxy: {', '.join(met) or 'met nothing'}"


def draw(rng: random.Random, most: int, kinds: list[Kind]) -> list[Kind]:
    """One to ``most`` kinds that hold nothing in common."""
    wanted, drawn = rng.randrange(1, most + 1), []
    held: set[str] = set()
    for _ in range(20):
        kind = rng.choices(kinds, [each.weight for each in kinds])[0]
        if len(drawn) < wanted and not kind.holds & held:
            drawn.append(kind)
            held |= kind.holds
    return drawn
