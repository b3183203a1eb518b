"""`bus probe attacks`: attacks on the stack that runs, each beside a control that must pass.

The number of records and connections is fixed, some forty in all, and all that is written has one correlation id.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from bus.authority.local import now_ms, read_applied
from bus.authority.trust import read_trust
from bus.client.bus import Bus
from bus.errors import StackError
from bus.settings import Issuing
from bus.stack.local import Stack
from probe import access
from probe.forged import Forge
from probe.found import Row
from probe.outcomes import judge
from probe.scene import Scene, choose


@dataclass(frozen=True, slots=True)
class Report:
    """What was tried as whom, under which correlation id; ``skipped``: what was not, and why."""

    agent: str
    domain: str
    session: str
    rows: list[Row]
    skipped: dict[str, str]

    def failed(self) -> list[str]:
        """Every attack that was not refused as it must be, every control that failed."""
        return [fault for row in self.rows for fault in row.faults()]


def run(stack: Stack, agent: str, told: Callable[[str], None]) -> Report:
    """Try everything once, as ``agent`` or as the first one that may write a domain.

    Raises StackError where no stack runs or it is not of this machine, Refused where there is nothing to try.
    """
    _check(stack)
    live = read_applied(stack.layout, read_trust(stack.layout.trust))
    if live is None:
        raise StackError("no policy was applied yet", hint="bus stack up")
    scene = choose(live.policy, agent)
    session = f"probe-{os.urandom(8).hex()}"
    with ExitStack() as opened:
        if stack.settings.issuing is Issuing.AUTHORITY:  # keys are in an agent's folder while it runs
            ways = [way for way in (scene.own, scene.unreadable, scene.source) if way is not None]
            for name in sorted({scene.agent, *(way.writer for way in ways), *(way.reader for way in ways)}):
                opened.enter_context(Bus(name, settings=stack.settings))
        forge = Forge(stack, scene, session)
        since = now_ms() - stack.settings.max_clock_skew_ms
        told("records, and what the ledger says of them")
        rows = judge(stack, list(forge.all()), since)
        told("topics, credentials and connections")
        rows += access.attacks(forge, since)
    return Report(scene.agent, scene.own.domain.name, session, rows, _skipped(scene))


def _check(stack: Stack) -> None:
    for address in stack.settings.bootstrap.split(","):
        host = address.rpartition(":")[0].strip("[] ")
        if host != "localhost" and not _is_loopback(host):
            raise StackError(
                f"{address or 'no broker'}: expected a broker on this machine",
                hint="this attacks a stack of one's own: `bus stack up` makes one",
            )
    down = [row.name for row in stack.status() if row.pid is None]
    if down:
        raise StackError(f"{', '.join(down)} of this stack do not run", hint="bus stack up")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _skipped(scene: Scene) -> dict[str, str]:
    """What this law has no case of."""
    lacks = {
        "a record on another partition": (scene.own.domain.partitions > 1, f"{scene.own.domain.name} has one"),
        "a record on another domain's topic": (scene.elsewhere is not None, "there is one domain"),
        "a domain that it may not write": (scene.unwritable is not None, "it may write all that could be tried"),
        "a domain that it may not read": (scene.unreadable is not None, "it may read all that could be tried"),
        "a payload that is not protected": (scene.source is not None, "no domain to try it in is protect_at: source"),
    }
    return {attack: why for attack, (has, why) in lacks.items() if not has}
