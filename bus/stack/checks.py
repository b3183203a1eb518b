"""The checks of `bus doctor`: each says what it found and one line that mends it. They change nothing."""

from __future__ import annotations

import functools
import importlib.util
import ssl
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException, libversion

import bus
from bus.errors import BusError
from bus.native import native
from bus.settings import Settings
from bus.stack import clocks, stored
from bus.stack.attested import attestation
from bus.stack.external import tls_version
from bus.stack.jars import cache_folder, find_java, have_jars, java_version
from bus.stack.local import Stack, is_external

STORED: dict[str, Callable[[Stack], str]] = {
    "keys": stored.keys,
    "attestation": attestation,
    "credentials": stored.credentials,
    "snapshot": stored.snapshot,
    "windows": stored.windows,
    "ledger": stored.ledger,
    "lag": stored.lag,
}
NEED_BROKER = frozenset({"broker", "clock", "acls", "snapshot", "windows", "lag"})
DEPENDENCIES = ("bus", "consumers", "confluent_kafka", "cryptography", "fastavro", "pydantic", "yaml")


@dataclass(frozen=True, slots=True)
class Check:
    """One result."""

    name: str
    ok: bool
    found: str
    mend: str = ""


def run_checks(settings: Settings) -> list[Check]:
    """Every check, in an order in which the first failure is usually the cause of the rest."""
    stack = Stack(settings)
    steps: list[tuple[str, Callable[[], Check]]] = [
        ("tools", lambda: _tools(stack)),
        ("imports", _imports),
        ("settings", lambda: _settings(stack)),
        ("tls", lambda: _tls(stack)),
        ("broker", lambda: _broker(stack)),
        ("clock", lambda: _clock(stack)),
        ("acls", lambda: _acls(stack)),
        ("services", lambda: _services(stack)),
        *((name, functools.partial(_stored, name, look, stack)) for name, look in STORED.items()),
    ]
    results: list[Check] = []
    for name, step in steps:
        if name in NEED_BROKER and any(each.name == "tls" and not each.ok for each in results):
            results.append(Check(name, ok=False, found="not asked: no TLS connection to the broker", mend="see tls"))
            continue
        try:
            results.append(step())
        except BusError as error:
            results.append(Check(name, ok=False, found=str(error), mend=error.hint or "bus stack up"))
        except (OSError, KafkaException) as error:
            results.append(Check(name, ok=False, found=str(error), mend="bus stack up"))
    return results


def _imports() -> Check:
    """Nothing stands before what this project is made of: a `yaml.py` in the current folder would run with its keys."""
    home = Path(bus.__file__).resolve().parents[1]
    packages = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    for name in DEPENDENCIES:
        found = importlib.util.find_spec(name)
        origin = Path(found.origin).resolve() if found is not None and found.origin else None
        if origin is None or not any(origin.is_relative_to(each) for each in {home, *packages}):
            text = f"{name} is imported from {origin}"
            return Check("imports", ok=False, found=text, mend="run it from another folder, or remove that file")
    steps = "compiled" if native is not None else "plain Python: no Rust compiler at set-up"
    return Check("imports", ok=True, found=f"from {home}; the enforcer's steps: {steps}")


def _stored(name: str, look: Callable[[Stack], str], stack: Stack) -> Check:
    return Check(name, ok=True, found=look(stack))


def _tools(stack: Stack) -> Check:
    if is_external(stack.settings):
        return Check("tools", ok=True, found=f"librdkafka {libversion()[0]}; the broker is external")
    java = find_java()
    version, jars = java_version(java), have_jars(cache_folder())
    found = f"Java {version}, Kafka jars {'present' if jars else 'missing'}, librdkafka {libversion()[0]}"
    return Check("tools", ok=version >= 17 and jars, found=found, mend="bus stack fetch")


def _settings(stack: Stack) -> Check:
    settings = stack.settings
    policy = stack.load_policy()
    settings.check_interval(policy.rotation_interval_ms)
    return Check(
        "settings", ok=bool(settings.deployment_id), found=f"{settings.source}: deployment {settings.deployment}"
    )


def _tls(stack: Stack) -> Check:
    external = is_external(stack.settings)
    try:
        version = tls_version(stack.settings.bootstrap, stack.layout.ca)
    except ssl.SSLError as error:
        mend = "ask its operator" if external else "bus stack down; up"
        return Check("tls", ok=False, found=str(error), mend=f"is {stack.layout.ca} the broker's CA? {mend}")
    except OSError as error:
        mend = "start the external broker, or set bootstrap" if external else "bus stack up"
        return Check("tls", ok=False, found=str(error), mend=mend)
    mend = "the listener must set ssl.enabled.protocols=TLSv1.3"
    return Check("tls", ok=version == "TLSv1.3", found=f"{version}, certificate verified", mend=mend)


def _broker(stack: Stack) -> Check:
    plan = stack.plan(stack.load_policy())
    found = f"cluster {plan.cluster}, snapshot {plan.live_number}"
    ok = plan.live_number > 0 and not plan.changes
    return Check("broker", ok=ok, found=f"{found}, {len(plan.changes)} changes to apply", mend="bus policy apply")


def _acls(stack: Stack) -> Check:
    plan = stack.plan(stack.load_policy())
    wrong = [*plan.grant, *plan.revoke, *(change for change in plan.drift if change.kind == "acl")]
    found = "as the policy says" if not wrong else f"{len(wrong)} differ, the first: {wrong[0]}"
    mend = "bus policy apply" if plan.grant or plan.revoke else "bus policy apply --prune"
    return Check("acls", ok=not wrong, found=found, mend=mend)


def _clock(stack: Stack) -> Check:
    readings = clocks.read(stack)
    mend = clocks.mend(readings, stack.settings.max_clock_skew_ms)
    return Check("clock", ok=not mend, found=clocks.describe(readings, stack.settings.max_clock_skew_ms), mend=mend)


def _services(stack: Stack) -> Check:
    down = [row.name for row in stack.status() if row.pid is None]
    found = "all up" if not down else f"down: {', '.join(down)}"
    return Check("services", ok=not down, found=found, mend="bus stack up")
