"""No (key, nonce) pair ever seals two plaintexts: over partitions, topics, epochs, processes, failures and aborts.

Every AESGCM of the product is replaced by one that records each encryption and refuses a pair that comes with other
bytes. A state machine and a written script then drive agents, enforcers, ledger and root store. Each rule that keeps
pairs apart is broken in turn, and each break must be caught: a test of nonces that cannot fail proves nothing.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import itertools
import os
import pkgutil
import queue
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from cryptography.hazmat.primitives.ciphers import aead
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

import bus
import consumers
from bus.authority.bundle import DomainBundle
from bus.authority.providers import base
from bus.authority.providers.file import FileProvider
from bus.client import publisher
from bus.codes import Code
from bus.crypto import dek, entries, keys, session
from bus.crypto.dek import Dek
from bus.crypto.entries import Entry, EntryKeys
from bus.crypto.keys import Secret
from bus.crypto.seal import CountingAead, Sealer
from bus.crypto.session import SourceSealer, session_key
from bus.errors import BusError
from bus.kafka.config import Connection
from bus.kafka.identity import Identity
from bus.kafka.windows import restored
from bus.ledger.leaf import DayKeys, day_keys
from bus.stack.pki import ensure_pki
from bus.wire import preimage
from bus.wire.hopblock import DAY_MS
from bus.wire.names import CLAIMS, DomainName, domain_topics
from bus.wire.records import Window
from consumers.audit.recorder import record_block
from consumers.enforcer import context as enforcer_context
from consumers.enforcer.context import EnforcerContext
from consumers.enforcer.derive import derive
from tests.unit.build import (
    DEPLOYMENT,
    MEMORY,
    NOTES,
    OUTSIDER,
    READER,
    WRITER,
    World,
    enforce,
    make_policy,
    plaintext,
    state,
)

PRODUCT = (bus, consumers)
Place = tuple[str, int]


class NonceReused(BaseException):
    """One key and nonce, two plaintexts."""


class SealingFailed(Exception):
    """Something went wrong after the nonce was taken."""


class Recorder:
    """Every encryption: (SHA-256 of the key, nonce) to SHA-256 of what was sealed.

    ``again`` counts repetitions of the same bytes, ``callers`` names the modules that encrypted.
    """

    def __init__(self) -> None:
        self.callers: set[str] = set()
        self.forget()

    def forget(self) -> None:
        """Begin with a new deployment."""
        self.used: dict[tuple[bytes, bytes], bytes] = {}
        self.repeats: list[tuple[bytes, bytes]] = []
        self.again = 0
        self._left: int | None = None

    def fail_after(self, count: int | None) -> None:
        """Let ``count`` more encryptions succeed and the next one fail; None: none fails."""
        self._left = count

    def record(self, key: bytes, nonce: bytes, data: bytes, aad: bytes, caller: str) -> None:
        """Take one encryption; a pair counts as used where the encryption then fails, too."""
        sealed = hashlib.sha256(len(data).to_bytes(8, "big") + data + aad).digest()
        held = self.used.setdefault((key, nonce), b"")
        self.callers.add(caller)
        if held not in (b"", sealed):
            self.repeats.append((key, nonce))
            raise NonceReused(f"{caller}: nonce {nonce.hex()} seals a second plaintext")
        self.again += held == sealed
        self.used[key, nonce] = sealed
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                self._left = None
                raise SealingFailed


def recording(recorder: Recorder) -> type:
    """An AESGCM that tells ``recorder``."""

    class Recording:
        def __init__(self, key: bytes) -> None:
            self._aead = aead.AESGCM(key)
            self._name = hashlib.sha256(key).digest()

        def encrypt(self, nonce: bytes, data: bytes, aad: bytes | None) -> bytes:
            caller = sys._getframe(1).f_globals["__name__"]
            recorder.record(self._name, bytes(nonce), bytes(data), bytes(aad or b""), caller)
            return self._aead.encrypt(nonce, data, aad)

        def decrypt(self, nonce: bytes, data: bytes, aad: bytes | None) -> bytes:
            return self._aead.decrypt(nonce, data, aad)

    return Recording


def product_modules() -> list[ModuleType]:
    """Every module of the product, imported."""
    for package in PRODUCT:
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(found.name)
    names = {package.__name__ for package in PRODUCT}
    return [module for name, module in sorted(sys.modules.items()) if name.split(".")[0] in names]


def holders() -> list[tuple[ModuleType, str]]:
    """Every name in the product that is AESGCM."""
    return [
        (module, name) for module in product_modules() for name, value in vars(module).items() if value is aead.AESGCM
    ]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Records every encryption of the product.

    The compiled steps are left out: that they write the plain steps' bytes, nonces included, is test_compiled's.
    """
    made = Recorder()
    for module, name in holders():
        monkeypatch.setattr(module, name, recording(made))
    for module in product_modules():
        if hasattr(module, "native"):
            monkeypatch.setattr(module, "native", None)
    return made


OTHERS = {
    ("bus.authority.handed", "cryptography.hazmat.primitives.hpke"),
    ("bus.tiers.mpcframe", "cryptography.hazmat.primitives.hpke"),
    ("bus.tiers.mpc", "cryptography.hazmat.primitives.ciphers"),
}
"""HPKE makes a key for each message; a share's seed makes one stream of AES-CTR, once, and is that share itself."""
TPM = "bus.attestation.tpm_credential"
"""TPM 2.0 says how a credential is encrypted: once under a random seed, so that its IV may be zeros."""


# What is recorded is all there is.
def sources() -> Iterator[tuple[str, ast.Module]]:
    for module in product_modules():
        yield module.__name__, ast.parse(Path(module.__file__).read_text(encoding="utf-8"))


def test_the_product_encrypts_with_nothing_but_the_aes_gcm_that_is_recorded():
    """A cipher that is imported otherwise, inside a function say, would be out of the recorder's sight."""
    imported = set()
    for name, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cryptography"):
                imported |= {(name, f"{node.module}.{each.name}") for each in node.names}
            elif isinstance(node, ast.Import):
                imported |= {(name, each.name) for each in node.names if each.name.startswith("cryptography")}
    ciphers = {(name, what) for name, what in imported if "ciphers" in what or "fernet" in what or "hpke" in what}
    ciphers = {(name, what) for name, what in ciphers if name != TPM and (name, what.rpartition(".")[0]) not in OTHERS}
    assert {what for _, what in ciphers} == {"cryptography.hazmat.primitives.ciphers.aead.AESGCM"}
    assert {name for name, _ in ciphers} == {module.__name__ for module, _ in holders()}
    assert not {what for _, what in imported if what in ("cryptography", "cryptography.hazmat.primitives")}


def test_every_place_that_encrypts_is_driven(recorder, tmp_path):
    places = {
        name
        for name, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "encrypt"
    }
    # In the token, with nonces as random as the other providers'; and numbers, by a library that draws its own noise.
    places -= {"bus.authority.providers.pkcs11", TPM, "bus.client.fhe", "bus.client.party"}
    places -= {name for name, _ in OTHERS}
    a_busy_day(Mesh(recorder, tmp_path))
    assert recorder.callers == places
    assert recorder.repeats == []


# A deployment in memory, of the product's own classes; each method is one event.
@dataclass
class Process:
    """A sending process: its sealers for an input topic and for claims, and what it sent."""

    agent: str
    domain: str
    sealer: Sealer
    claims: Sealer
    sent: list[tuple[int, bytes]] = field(default_factory=list)


class Mesh:
    """Agents' processes, enforcers, input logs with committed offsets and windows, the audit log, a root store."""

    sealer = Sealer

    def __init__(self, recorder: Recorder, folder: Path) -> None:
        self.recorder = recorder
        self.world = World()
        self.trust = self.world.trust()
        self.provider = FileProvider.create(folder / "kek")
        self.epoch = self.number = 1
        self.processes: list[Process] = []
        self.enforcers: list[EnforcerContext] = []
        self.log: dict[Place, list[bytes]] = {}
        self.committed: dict[Place, tuple[int, list[Window]]] = {}
        self.audit: list[bytes] = []

    @property
    def clock(self) -> int:
        """50 s into the epoch: the one before is still within its grace."""
        return self.world.root(MEMORY, self.epoch)[0].not_before + 50_000

    def start_process(self, agent: str, domain: str) -> None:
        """A process with the agent's present keys."""
        own, topic = self.world.keys(agent, domain, self.epoch), domain_topics(DomainName(domain)).inbound
        made = (self.sealer(own, DEPLOYMENT, topic), self.sealer(own, DEPLOYMENT, CLAIMS))
        self.processes.append(Process(agent, domain, *made))

    def _plaintext(self, process: Process, size: int, *, expired: bool = False) -> bytes:
        return plaintext(
            process.agent,
            process.domain,
            bytes(size),
            target=READER if size % 3 == 0 else "",
            notify=size % 2 == 0,
            created_at=self.clock,
            expires_at=self.clock - expired,
        )

    def _process(self, number: int) -> Process:
        return self.processes[number % len(self.processes)]

    def publish(self, number: int, partition: int, *, size: int, expired: bool = False) -> None:
        """A record is sealed and reaches the broker."""
        process = self._process(number)
        _, value = process.sealer.seal(partition, self._plaintext(process, size, expired=expired))
        process.sent.append((partition, value))
        self.log.setdefault((process.domain, partition), []).append(value)

    def publish_in_vain(self, number: int, partition: int, *, size: int) -> None:
        """Sealing fails after the sequence was consumed."""
        process = self._process(number)
        self.recorder.fail_after(0)
        with pytest.raises(SealingFailed):
            process.sealer.seal(partition, self._plaintext(process, size))

    def resend(self, number: int) -> None:
        """The stored bytes reach the broker again."""
        process = self._process(number)
        for partition, value in process.sent[-1:]:
            self.log[process.domain, partition].append(value)

    def claim(self, number: int, partition: int) -> None:
        """The process seals to another topic."""
        self._process(number).claims.seal(partition, b"claim")

    def start_enforcer(self) -> None:
        """A new enforcer process."""
        self.enforcers.append(self.world.context(range(1, self.epoch + 1)))

    def transaction(self, number: int, domain: str, partition: int, *, end: str, after: int = 0, day: int = 0) -> None:
        """An enforcer takes what is not committed yet, and commits, aborts, or fails after some encryptions."""
        context = self.enforcers[number % len(self.enforcers)]
        start, saved = self.committed.get((domain, partition), (0, []))
        values = self.log.get((domain, partition), [])[start:]
        place, upto = state(domain, partition, restored(saved, start)), start + len(values)
        context.now_ms = self.clock + day * DAY_MS
        self.recorder.fail_after(after if end == "fail" else None)
        try:
            made = derive(enforce(context, place, *values, at=self.clock, first=start), start, upto, place, context)
        except SealingFailed:
            end = "fail"
        self.recorder.fail_after(None)
        if end != "commit":
            context.reset()
            return
        self.committed[domain, partition] = (upto, place.windows.snapshot(bytes(16), upto))
        self.audit.extend(made.blocks)

    def new_policy(self) -> None:
        """Every enforcer takes a newer policy."""
        self.number += 1
        for context in self.enforcers:
            context.set_policy(make_policy(number=self.number), self.number)

    def next_epoch(self) -> None:
        """A new root for every domain; every enforcer gets them, agents use them when they start anew."""
        self.epoch += 1
        for context, domain in itertools.product(self.enforcers, self.world.policy.domains):
            context.keyring.add(
                *self.world.root(domain, self.epoch), self.world.policy.agents, self.world.openers(domain)
            )

    def read_keys_again(self, number: int) -> None:
        """An enforcer loses its keyring and reads all roots anew."""
        context = self.enforcers[number % len(self.enforcers)]
        context.keyring.retire(2**62)
        for domain, epoch in itertools.product(self.world.policy.domains, range(1, self.epoch + 1)):
            context.keyring.add(*self.world.root(domain, epoch), self.world.policy.agents, self.world.openers(domain))

    def record_audit(self) -> None:
        """An audit consumer stores every hop of the audit log; a second one makes the same bytes."""
        for offset, value in enumerate(self.audit):
            _, intervals = record_block(value, 0, offset, self.trust, self._day_keys)
            assert intervals, "the block verified"

    def _day_keys(self, day: int) -> DayKeys:
        return day_keys(day, self.world.audit_roots[day])

    def store_roots(self) -> None:
        """The issuer wraps the roots."""
        for domain in (MEMORY, NOTES):
            self.provider.wrap(self.world.root(domain, self.epoch)[1], domain.encode())

    def put_aside(self, value: bytes) -> None:
        """An agent puts an entry into its store, in place of what is there, as a second process would."""
        key = keys.store_key(self.world.root(MEMORY, self.epoch)[1], WRITER)
        held = EntryKeys(key, DEPLOYMENT, MEMORY, self.epoch)
        held.seal(held.token("cache", "name"), Entry("cache", "name", value, is_json=False), 0)

    def protect(self, count: int) -> None:
        """Two processes of an agent protect payloads at their source."""
        secret = Secret(b"s" * 32, "session")
        key = session_key(self.world.root(MEMORY, self.epoch)[1], secret, MEMORY, self.epoch)
        for process in range(2):
            made = SourceSealer(key, self.epoch, DEPLOYMENT, MEMORY, WRITER)
            for number in range(count):
                made.seal(bytes(16), b"payload %d of %d" % (number, process))


# A written script: what an agent, an enforcer and a recorder go through, in one order.
def a_busy_day(mesh: Mesh) -> None:
    """Everything that may happen to a key, once or twice."""
    for agent, domain in itertools.product((WRITER, OUTSIDER), (MEMORY, NOTES)):
        mesh.start_process(agent, domain)
    for process, partition in itertools.product(range(4), (0, 1)):
        mesh.publish(process, partition, size=10)
        mesh.publish_in_vain(process, partition, size=11)
        mesh.publish(process, partition, size=12)
        mesh.resend(process)
        mesh.claim(process, partition)
    mesh.start_process(WRITER, MEMORY)
    mesh.publish(4, 0, size=13)
    mesh.start_enforcer()
    mesh.start_enforcer()
    for domain, partition in itertools.product((MEMORY, NOTES), (0, 1)):
        mesh.transaction(0, domain, partition, end="abort")
        mesh.transaction(1, domain, partition, end="fail", after=3)
        mesh.transaction(0, domain, partition, end="fail", after=1)
        mesh.transaction(1, domain, partition, end="abort")
        mesh.publish(0, partition, size=14)
        mesh.transaction(0, domain, partition, end="commit")
    mesh.new_policy()
    mesh.next_epoch()
    for day, partition in itertools.product((0, 1), (0, 1)):
        mesh.start_process(WRITER, MEMORY)
        mesh.publish(-1, partition, size=15 + day)
        mesh.publish(0, partition, size=17 + day)
        mesh.transaction(0, MEMORY, partition, end="commit", day=day)
    mesh.read_keys_again(0)
    mesh.publish(-1, 0, size=20)
    mesh.publish(-1, 0, size=20, expired=True)
    mesh.transaction(0, MEMORY, 0, end="commit")
    mesh.record_audit()
    mesh.record_audit()
    mesh.store_roots()
    for value in (b"first", b"second"):
        mesh.put_aside(value)
    mesh.protect(3)


def test_no_pair_repeats_in_a_busy_day(recorder, tmp_path):
    a_busy_day(Mesh(recorder, tmp_path))
    assert recorder.repeats == []
    assert len(recorder.used) > 200
    assert recorder.again > 0, "a second recorder makes the same bytes: the one repetition that is meant to be"


# The rules that keep pairs apart, each broken.
class GivesBack(Sealer):
    """A sealer that gives its sequence back when sealing fails."""

    def seal(self, partition: int, plaintext: bytes) -> tuple[int, bytes]:
        before = self.next_sequence(partition)
        try:
            return super().seal(partition, plaintext)
        except Exception:
            self._sequences[partition] = before
            raise


class OneInstance(Sealer):
    """A sealer whose instance is the agent's and not the process's."""

    def __init__(self, own: keys.AgentKeys, deployment: bytes, topic: str, _instance: bytes | None = None) -> None:
        super().__init__(own, deployment, topic, bytes(16))


class OneInstanceATopic(Sealer):
    """A sealer that is new per process but shares its instance with the process's other topics."""

    known: dict[int, bytes] = {}  # noqa: RUF012  # shared on purpose: that is the fault

    def __init__(self, own: keys.AgentKeys, deployment: bytes, topic: str, instance: bytes | None = None) -> None:
        shared = self.known.setdefault(id(own), instance or keys.fresh_instance())
        super().__init__(own, deployment, topic, shared)


def broken_reset(self: EnforcerContext) -> None:
    """After an abort the DEKs live on and count from the start."""
    if not hasattr(self, "_deks"):
        RESET(self)
    for each in self._deks.values():
        each._counter = 0


RESET = EnforcerContext.reset
NO_RANDOM = SimpleNamespace(urandom=bytes, getpid=os.getpid)
FAULTS = {
    "a failed sealing gives its sequence back": (Mesh, "sealer", GivesBack),
    "a nonce ignores the partition": (preimage, "sealed_nonce", lambda _, sequence: preimage.counter_nonce(sequence)),
    "two processes share an instance": (Mesh, "sealer", OneInstance),
    "two topics share an instance": (Mesh, "sealer", OneInstanceATopic),
    "two enforcers share an instance of a domain's keys": (keys, "fresh_instance", lambda: bytes(16)),
    "an abort keeps the instance": (enforcer_context, "fresh_instance", lambda: bytes(16)),
    "an abort keeps the DEK and not its counter": (EnforcerContext, "reset", broken_reset),
    "a DEK's counter stands still": (Dek, "take", lambda _self, _count: 0),
    "an instance's counter stands still": (CountingAead, "next", lambda _self: 7),
    "a DEK is not random": (dek, "os", NO_RANDOM),
    "a root is wrapped with a fixed nonce": (base, "os", NO_RANDOM),
    "two entries of a store share a salt": (entries, "secrets", SimpleNamespace(token_bytes=bytes)),
    "two processes share an instance of a session key": (session, "fresh_instance", lambda: bytes(16)),
    "a session's counter stands still": (session, "itertools", SimpleNamespace(count=lambda: itertools.repeat(0))),
    "a stored hop's key ignores its position": (preimage, "hop_key", lambda *_: b"one for all"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_broken_rule_is_caught(fault, recorder, tmp_path, monkeypatch):
    mesh = Mesh(recorder, tmp_path)
    monkeypatch.setattr(*fault)
    with pytest.raises(NonceReused):
        a_busy_day(mesh)
    assert recorder.repeats


def test_a_pair_that_seals_the_same_bytes_again_is_no_repetition():
    made = Recorder()
    seal = recording(made)(bytes(32))
    assert seal.encrypt(bytes(12), b"x", b"aad") == aead.AESGCM(bytes(32)).encrypt(bytes(12), b"x", b"aad")
    seal.encrypt(bytes(12), b"x", b"aad")
    assert made.repeats == []
    for data, aad in ((b"y", b"aad"), (b"x", b"other"), (b"xa", b"ad")):
        with pytest.raises(NonceReused):
            recording(made)(bytes(32)).encrypt(bytes(12), data, aad)
    recording(made)(b"k" * 32).encrypt(bytes(12), b"y", b"aad")
    assert len(made.repeats) == 3


# Any order of events.
SMALL = st.integers(0, 7)


def machine(recorder: Recorder, folder: Path) -> type[RuleBasedStateMachine]:
    """A state machine whose every example is a new deployment."""

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            recorder.forget()
            self.mesh = Mesh(recorder, folder)
            self.mesh.start_process(WRITER, MEMORY)
            self.mesh.start_enforcer()

        @rule(agent=st.sampled_from([WRITER, OUTSIDER]), domain=st.sampled_from([MEMORY, NOTES]))
        def a_process_starts(self, agent, domain):
            self.mesh.start_process(agent, domain)

        @rule(process=SMALL, partition=st.integers(0, 2), size=SMALL, expired=st.booleans())
        def a_record_is_published(self, process, partition, size, expired):
            self.mesh.publish(process, partition, size=size, expired=expired)

        @rule(process=SMALL, partition=st.integers(0, 2), size=SMALL)
        def a_record_is_published_in_vain(self, process, partition, size):
            self.mesh.publish_in_vain(process, partition, size=size)

        @rule(process=SMALL)
        def a_record_is_sent_again(self, process):
            self.mesh.resend(process)

        @rule(process=SMALL, partition=st.integers(0, 1))
        def a_claim_is_sent(self, process, partition):
            self.mesh.claim(process, partition)

        @rule()
        def an_enforcer_starts(self):
            self.mesh.start_enforcer()

        @rule(
            enforcer=SMALL,
            domain=st.sampled_from([MEMORY, NOTES]),
            partition=st.integers(0, 2),
            end=st.sampled_from(["commit", "commit", "abort", "fail"]),
            after=SMALL,
            day=st.integers(0, 1),
        )
        def a_transaction_ends(self, enforcer, domain, partition, end, after, day):
            self.mesh.transaction(enforcer, domain, partition, end=end, after=after, day=day)

        @rule()
        def the_policy_changes(self):
            self.mesh.new_policy()

        @rule()
        def the_epoch_changes(self):
            self.mesh.next_epoch()

        @rule(enforcer=SMALL)
        def an_enforcer_reads_its_keys_again(self, enforcer):
            self.mesh.read_keys_again(enforcer)

        @rule()
        def the_ledger_is_written(self):
            self.mesh.record_audit()

        @rule()
        def roots_are_stored(self):
            self.mesh.store_roots()

        def teardown(self) -> None:
            if recorder.repeats:
                raise NonceReused("wherever the first report of it went")

    return Machine


QUIET = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


def test_no_pair_repeats_in_any_order_of_events(recorder, tmp_path):
    run_state_machine_as_test(machine(recorder, tmp_path), settings=QUIET)


@pytest.mark.parametrize("fault", list(FAULTS)[:2])
def test_the_state_machine_finds_a_broken_rule_by_itself(fault, recorder, tmp_path, monkeypatch):
    monkeypatch.setattr(*FAULTS[fault])
    finding = settings(QUIET, max_examples=200, phases=[Phase.generate], derandomize=True, report_multiple_bugs=False)
    with pytest.raises(NonceReused):
        run_state_machine_as_test(machine(recorder, tmp_path), settings=finding)


# The real publisher, and a broker that is not there.
class OneEpoch:
    """An agent's keys, as its key store would give them."""

    def __init__(self) -> None:
        self.world = World()

    def check(self, domain: str) -> None:
        """No key is withheld."""

    def sending(self, domain: str, _now_ms: int) -> DomainBundle:
        epoch = replace(self.world.root(domain)[0], not_after=time.time_ns() // 1_000_000 + 60_000)
        return DomainBundle(epoch, self.world.keys(WRITER, domain), (), Secret.random("store"))


@pytest.fixture
def connection(tmp_path: Path) -> Connection:
    """A loopback port on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    return Connection(f"127.0.0.1:{port}", ensure_pki(tmp_path / "pki"), Identity(WRITER, Secret(b"x", "password")))


def test_sends_that_fail_use_their_sequences_up(recorder, connection):
    """Records that the broker never took are `unknown`: whoever publishes them anew seals other bytes, under others."""
    answers: queue.SimpleQueue[BusError | None] = queue.SimpleQueue()
    sending = publisher.Publisher(connection, OneEpoch(), WRITER, DEPLOYMENT, deadline_ms=400)
    try:
        sent = [sending.send(MEMORY, number % 2, plaintext(), answers.put) for number in range(6)]
        failed = [answers.get(timeout=30) for _ in sent]
        assert {error.code for error in failed} == {Code.UNKNOWN}
        recorder.fail_after(0)
        with pytest.raises(SealingFailed):
            sending.send(MEMORY, 0, plaintext(), answers.put)
        sent += [sending.send(MEMORY, number % 2, plaintext(), answers.put) for number in range(4)]
    finally:
        sending.close(0)
    assert [(partition, sequence) for _, partition, sequence in sent] == [
        *[(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2)],
        *[(0, 4), (1, 3), (0, 5), (1, 4)],
    ]
    assert {instance for instance, _, _ in sent} == {sent[0][0]}
    assert recorder.repeats == []
    assert len(recorder.used) == len(sent) + 1


def test_a_publisher_whose_sealer_gives_sequences_back_is_caught(recorder, connection, monkeypatch):
    monkeypatch.setattr(publisher, "Sealer", GivesBack)
    sending = publisher.Publisher(connection, OneEpoch(), WRITER, DEPLOYMENT, deadline_ms=400)
    try:
        recorder.fail_after(0)
        with pytest.raises(SealingFailed):
            sending.send(MEMORY, 0, plaintext(), lambda _: None)
        with pytest.raises(NonceReused):
            sending.send(MEMORY, 0, plaintext(), lambda _: None)
    finally:
        sending.close(0)


def test_two_publishers_of_one_agent_never_share_a_pair(recorder, connection):
    held = OneEpoch()
    both = [publisher.Publisher(connection, held, WRITER, DEPLOYMENT, deadline_ms=400) for _ in range(2)]
    try:
        sent = [each.send(MEMORY, 0, plaintext(), lambda _: None) for each in both for _ in range(3)]
    finally:
        for each in both:
            each.close(0)
    assert len(set(sent)) == len(recorder.used) == 6
    assert {(partition, sequence) for _, partition, sequence in sent} == {(0, 0), (0, 1), (0, 2)}
