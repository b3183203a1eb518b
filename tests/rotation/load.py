"""An agent publishes and another reads while what they show the broker is replaced again and again; counted."""

import dataclasses
import threading
import time
from dataclasses import dataclass

import psutil

from bus import Bus
from bus.errors import BusError
from bus.settings import Mechanism
from tests.integration.conftest import POLICIES

WRITER, READER, DOMAIN = "retriever-1", "orchestrator-1", "agent_memory"
INTERVAL_MS = 8000
"""Tokens and passwords are replaced at a quarter of it: every two seconds."""
SHORT = {
    "lead_ms": 1500,
    "grace_ms": 8000,
    "max_clock_skew_ms": 500,
    "sasl_mechanism": Mechanism.OAUTHBEARER,
}
SCRAM = {**SHORT, "sasl_mechanism": Mechanism.SCRAM, "rotate_passwords": True}
PACE_S = 0.02
ARRIVAL_S = 60


def short_policies(folder):
    """The bundled law with a short interval."""
    folder.mkdir()
    mesh = (POLICIES / "mesh.yaml").read_text()
    assert "600000" in mesh
    (folder / "mesh.yaml").write_text(mesh.replace("600000", str(INTERVAL_MS)))
    (folder / "agents.yaml").write_text((POLICIES / "agents.yaml").read_text())
    return folder


@dataclass(slots=True)
class Figures:
    """``failed`` and ``refused`` hold reasons; ``kept`` connections lived from the first delivery to the last."""

    published: int = 0
    failed: list[str] = dataclasses.field(default_factory=list)
    refused: list[str] = dataclasses.field(default_factory=list)
    missed: int = 0
    rotations: int = 0
    kept: int = 0
    seconds: float = 0.0


def connections(stack):
    """Local ports of this process's connections to the broker."""
    port = int(stack.settings.bootstrap.rpartition(":")[2])
    return {
        each.laddr.port for each in psutil.Process().net_connections("tcp") if each.raddr and each.raddr.port == port
    }


def shown(stack):
    """What the writer shows the broker."""
    if stack.settings.sasl_mechanism is Mechanism.SCRAM:
        return stack.layout.agent(WRITER) / "scram"
    return stack.layout.token(WRITER)


def rotate_under_load(stack, rotations, minutes=0.0):
    """Publish and read until the writer's credential was replaced so often, and for so many minutes at least."""
    told = Figures()
    sent, seen = set(), set()
    began = time.monotonic()
    with Bus(READER, settings=stack.settings) as reader, Bus(WRITER, settings=stack.settings) as writer:
        for each in (reader, writer):
            each.on_refused(lambda error: told.refused.append(f"{type(error).__name__}: {error}"))
        subscription = reader.subscribe(DOMAIN)
        subscription(lambda _payload, delivery: seen.add(str(delivery.id)))
        assert subscription.wait_assigned(60)
        pace, path = threading.Event(), shown(stack)
        before, first = None, set()
        while told.rotations < rotations or time.monotonic() - began < minutes * 60:
            try:
                sent.add(str(writer.publish(DOMAIN, {"n": len(sent)}, partition_key=str(len(sent))).id))
                told.published += 1
            except BusError as error:
                told.failed.append(f"{type(error).__name__}: {error}")
            if not first and seen:
                first = connections(stack)
            found = path.read_bytes()
            if found != before:
                told.rotations += before is not None
                before = found
            pace.wait(PACE_S)
        deadline = time.monotonic() + ARRIVAL_S
        while not sent <= seen and time.monotonic() < deadline:
            pace.wait(PACE_S)
        told.kept = len(first & connections(stack))
    told.missed = len(sent - seen)
    told.seconds = time.monotonic() - began
    return told
