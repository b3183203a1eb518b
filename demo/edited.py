"""A law edited while agents write: tenants, zones and guardrails hold for the next records, and none is lost."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Self

from bus.client.bus import Bus
from bus.client.sent import Sent
from bus.errors import Denied
from bus.stack.local import BUNDLED_POLICIES, Stack
from demo.hops import WAIT_S, by_message

PAUSE_S = 0.01


def edit_law(stack: Stack, folder: Path) -> int:
    """Apply the example's law to the running stack; the number of its snapshot."""
    shutil.copytree(BUNDLED_POLICIES / "example", folder)
    law = folder / "mesh.yaml"
    # This machine may be as busy as it likes while it shows the rest.
    law.write_text(law.read_text().replace("context.load < 0.9", "context.load < 1000.0"))
    edited = Stack(replace(stack.settings, policies=folder))
    plan = edited.plan(edited.load_policy())
    edited.apply(plan)
    return plan.live_number + 1


class Writer:
    """An orchestrator that writes on while the law changes."""

    def __init__(self, me: Bus) -> None:
        self.sent: list[Sent] = []
        self._me = me
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(PAUSE_S):
            self.sent.append(self._me.publish("coordination", {"n": len(self.sent)}, confirm="queued"))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def switched(stack: Stack, home: Path) -> tuple[bool, str]:
    """Whether nothing was lost or refused over the switch, and the figures."""
    with Bus("orchestrator-1") as me, Writer(me) as writer:
        began = time.monotonic()
        number = edit_law(stack, home / "edited")
        applied = int((time.monotonic() - began) * 1000)
        at = time.time() * 1000
        while True:
            probe = me.publish("coordination", {"probe": True}, confirm="decided")
            hop = by_message(stack, [probe])[str(probe.id)]
            if hop.tail.snapshot >= number or time.monotonic() - began > WAIT_S:
                break
        live = max(0, int(hop.decided_at - at))
    told = by_message(stack, writer.sent)
    refused = [hop for hop in told.values() if hop.tail.code]
    missing = len(writer.sent) - len(told)
    figure = f"applied in {applied} ms, live {live} ms later, {len(writer.sent)} records, {missing} lost"
    return hop.tail.snapshot == number and not missing and not refused, figure


def redacted() -> tuple[bool, str]:
    """What a reader gets of a message with an address in it, and in the arguments of a tool as JSON in JSON."""
    note = {"ask": "write to ann.example@example.com", "arguments": '{"cc":"ann.example@example.com"}'}
    with Bus("orchestrator-1") as writer, Bus("executor-1") as reader:
        inbox = reader.subscribe("coordination")
        sent = writer.publish("coordination", note, confirm="decided")
        got = next((each for each in iter(lambda: inbox.get(WAIT_S), None) if each.id == sent.id), None)
    value = got.value() if got is not None else None
    return value == {"ask": "write to [EMAIL]", "arguments": '{"cc":"[EMAIL]"}'}, str(value)


def refused(target: str, rule: str) -> tuple[bool, str]:
    """Whether a record for ``target`` is refused by ``rule``."""
    with Bus("executor-1") as me:
        try:
            me.publish("coordination", {"status": "green"}, target=target)
        except Denied as denied:
            return denied.rule == rule, str(denied)
    return False, "it was sent"
