"""The deployment under chaos: broker, issuer, audit and enforcers as processes that faults may hurt.

It stands where a service manager would: what has ended by itself is started again (``mend``), and counted.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import psutil

from bus.errors import StackError
from bus.settings import Settings
from bus.stack import broker as broker_module
from bus.stack.local import Stack, prepare
from tests.chaos.proxy import Proxy

DOMAINS = ["agent_memory", "coordination"]
SETTINGS = {"lead_ms": 3000, "grace_ms": 40_000, "max_clock_skew_ms": 2000, "enforcers": 3}
INTERVAL_MS = 10_000
"""An epoch: some begin and end in every few rounds. The grace is more than a broker takes to start again."""
LEDGER_MB = 256
MESH = f"""
security_mesh:
  global:
    tls_min_version: "1.3"
    credential_rotation_interval_ms: {INTERVAL_MS}
    audit_scope: "FULL_MESH"
  topics:
    backlog_horizon: "10m"
  domains:
    - name: "agent_memory"
      tier: "RETRIEVAL"
      allowed_roles: ["RETRIEVER", "ORCHESTRATOR"]
      metadata_masking: true
      audit_level: "FULL_MESH"
    - name: "coordination"
      tier: "RETRIEVAL"
      allowed_roles: ["ORCHESTRATOR", "EXECUTOR"]
      metadata_masking: false
      audit_level: "OUTPUT_ONLY"
"""
AGENTS = """
agents:
  orchestrator-1: {role: ORCHESTRATOR}
  retriever-1: {role: RETRIEVER}
  executor-1: {role: EXECUTOR}
"""
ENFORCERS = ["bus-enforcer-1", "bus-enforcer-2", "bus-enforcer-3"]
PROXIED = ENFORCERS[0]


_properties = broker_module.server_properties


def impatient(*arguments, **more) -> dict[str, str]:
    """The broker's settings, but the controller forgets a killed broker after 2 s: it takes its successor 9 s else."""
    return _properties(*arguments, **more) | {
        "broker.session.timeout.ms": "2000",
        "broker.heartbeat.interval.ms": "500",
    }


class Site:
    """A stack in ``folder``. A context manager; processes are ended on exit, files stay."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: dict[str, subprocess.Popen] = {}
        self._wanted: dict[str, dict] = {}
        self._lock = threading.RLock()
        self._mounted = False
        self._broker_down = False
        self.ended: Counter[str] = Counter()

    def __enter__(self):
        policies = self._folder / "policies"
        policies.mkdir(parents=True)
        (policies / "mesh.yaml").write_text(MESH)
        (policies / "agents.yaml").write_text(AGENTS)
        state = self._folder / "state"
        self.ledger_folder = state / "ledger"
        with contextlib.ExitStack() as undo:
            self._mount(undo)
            broker_module.server_properties = impatient
            undo.callback(setattr, broker_module, "server_properties", _properties)
            settings = dataclasses.replace(Settings(), state=state, policies=policies, **SETTINGS)
            self.stack = Stack(prepare(settings))
            undo.callback(self.stack.down, lambda _: None)
            self.stack.up(lambda _: None, services=False)
            self.proxy = Proxy(state / "pki", int(self.stack.settings.bootstrap.rpartition(":")[2]))
            undo.enter_context(self.proxy)
            self.stack.start_service("issuer")
            undo.callback(self._end_children)
            names = ["audit", *ENFORCERS[:2]]
            for name in names:
                self.start(name)
            for name in names:
                self.wait_ready(name)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_):
        self._undo.close()

    def _end_children(self) -> None:
        with self._lock:
            self._wanted.clear()
            for process in self._children.values():
                if process.poll() is None:
                    process.send_signal(signal.SIGCONT)
                    process.terminate()
            for process in self._children.values():
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait(10)

    def _mount(self, undo: contextlib.ExitStack) -> None:
        """A file system of its own for the ledger, where this user may mount one: it is filled later."""
        self.ledger_folder.mkdir(parents=True, mode=0o700)
        self.ledger_folder.parent.chmod(0o711)
        command = ["mount", "-t", "tmpfs", "-o", f"size={LEDGER_MB}m,mode=0700", "tmpfs", str(self.ledger_folder)]
        self._mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
        if self._mounted:
            undo.callback(self._unmount)

    def _unmount(self) -> None:
        """The ledger itself stays, on the state folder's own disk."""
        kept = self.ledger_folder.with_name("ledger.kept")
        shutil.copytree(self.ledger_folder, kept)
        subprocess.run(["umount", str(self.ledger_folder)], check=True)
        self.ledger_folder.rmdir()
        kept.rename(self.ledger_folder)

    @property
    def mounted(self) -> bool:
        """Whether the ledger has a file system of its own."""
        return self._mounted

    def log(self, name: str) -> Path:
        """Where a process writes."""
        return self.stack.layout.state / "run" / f"{name}.log"

    def start(self, name: str, **wrong) -> None:
        """Start ``name`` (and see to it that it runs from now on); keyword arguments as in ``child``."""
        with self._lock:
            assert name not in self._children or self._children[name].poll() is not None, f"{name} runs already"
            self._wanted[name] = wrong
            (self.stack.layout.state / "run" / f"{name}.ready").unlink(missing_ok=True)
            environ = {**os.environ, "BUS_CONFIG": str(self.stack.layout.settings)}
            if name != "audit":
                environ["BUS_INSTANCE"] = name
            if name == PROXIED:
                environ["BUS_BOOTSTRAP"] = self.proxy.bootstrap
            kind = "audit" if name == "audit" else "enforcer"
            command = [sys.executable, "-m", "tests.chaos.child", kind, json.dumps(wrong)]
            with self.log(name).open("ab") as out:
                self._children[name] = subprocess.Popen(command, env=environ, stdout=out, stderr=subprocess.STDOUT)

    def process(self, name: str) -> subprocess.Popen:
        """The present process of ``name``."""
        return self._children[name]

    def signal(self, name: str, number: int) -> None:
        """Send a signal; a process that has ended gets none."""
        self._children[name].send_signal(number)

    def kill(self, name: str) -> None:
        """kill -9, and wait for its end; it is not started again until ``start``."""
        with self._lock:
            self._wanted.pop(name, None)
            process = self._children[name]
            process.kill()
            process.wait(10)

    def leave(self, name: str) -> None:
        """SIGTERM: the last transaction is finished and the group left."""
        with self._lock:
            self._wanted.pop(name, None)
        process = self._children[name]
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
            raise AssertionError(f"{name} did not end within 60 s of SIGTERM") from None

    def wait_ready(self, name: str, timeout: float = 60) -> None:
        """Until ``name`` says that it is ready."""
        ready = self.stack.layout.state / "run" / f"{name}.ready"
        pause = threading.Event()
        for _ in range(int(timeout / 0.05)):
            if ready.exists():
                return
            assert self._children[name].poll() is None, f"{name} ended while starting: {self.log(name)}"
            pause.wait(0.05)
        raise AssertionError(f"{name} was not ready in {timeout:.0f} s: {self.log(name)}")

    def mend(self) -> None:
        """Start again, without a fault, what should run and has ended."""
        with self._lock:
            if self._broker_down:
                return
            for name in list(self._wanted):
                code = self._children[name].poll()
                if code is not None:
                    planned = code == -signal.SIGKILL and "point" in self._wanted[name]
                    if not planned:
                        self.ended[f"{name} {code}"] += 1
                    self.start(name, **{k: v for k, v in self._wanted[name].items() if k == "broken"})

    def heal(self, name: str) -> None:
        """Run ``name`` without any fault: a process started with one is ended gracefully first."""
        with self._lock:
            wrong = self._wanted.get(name, {})
        if name in self._children and self._children[name].poll() is None:
            if not wrong and name in self._wanted:
                return
            self.leave(name)
        self.start(name)

    def kill_broker(self) -> None:
        """kill -9 of the broker."""
        with self._lock:
            self._broker_down = True
        broker = psutil.Process(self.stack._daemon("broker").find().pid)
        broker.kill()
        broker.wait(10)

    def start_broker(self) -> None:
        """Start the broker again on its files and port."""
        try:
            self.stack.start_broker(self.stack.load_policy(), lambda _: None)
        except StackError:
            if self.stack._daemon("broker").find() is None:
                raise
            # A busy machine: it runs and was not ready within a minute. Whoever needs it waits for it.
        with self._lock:
            self._broker_down = False
