"""The guided run. Each line is an expectation that was checked; the return value counts those that failed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition

from bus.authority.local import load_signer, now_ms
from bus.authority.trust import read_trust
from bus.cli.output import out
from bus.client.bus import Bus, Subscription
from bus.client.delivery import Delivery
from bus.client.keystore import KeyStore
from bus.errors import Denied
from bus.kafka.config import connect
from bus.ledger.export import COPY, export
from bus.ledger.opened import open_ledger
from bus.ledger.store import Ledger
from bus.ledger.verify import Report, verify_ledger
from bus.settings import Settings
from bus.stack.local import BUNDLED_POLICIES, Stack, prepare
from bus.tiers.base import TIERS
from bus.wire import derived
from bus.wire.names import AgentId, domain_topics
from demo.computing import SECRET, confined, encrypted, remembered, site, together
from demo.credentials import attested, enrolled, rotated, short_lived
from demo.edited import redacted, refused, switched
from demo.hops import WAIT_S, by_place
from demo.observer import look
from demo.raw import RawClient, plaintext
from demo.traces import Say, load_traces

CODE = Path(__file__).parent / "workload"
METADATA = {"sender_ip": "10.20.30.40", "routing_path": "gateway>planner", "internal_id": "n-17", "timestamp": "now"}


class Narrator:
    """Prints steps and counts expectations."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self.done = 0
        self.failed = 0

    def expect(self, what: str, holds: bool, figure: str) -> None:
        """One line; ``figure`` is what was measured."""
        self.done += 1
        self.failed += not holds
        if self._quiet:
            return
        mark = "[green]ok[/]" if holds else "[red]FAILED[/]"
        out.print(f"{self.done:2}  {what:58} {mark}  {figure}")


def run(*, keep: bool = False) -> int:
    """Run everything; returns how many expectations failed."""
    began = time.monotonic()
    narrator = Narrator()
    home = Path(tempfile.mkdtemp(prefix="sealbus-demo-"))
    secure = control = None
    try:
        secure = _stack(dataclasses.replace(Settings(), state=home / "sealed", policies=BUNDLED_POLICIES))
        with _configured(secure):
            _secured(secure, narrator, home)
        if not keep:
            secure.down(lambda _: None, purge=True)
            secure = None
        control = _stack(short_lived(dataclasses.replace(Settings(), state=home / "plain"), _plaintext_policies(home)))
        with _configured(control):
            _control(control, narrator)
            _credentials(control, narrator, home)
        _computing(narrator, home)
    finally:
        for stack in (secure, control):
            if stack is not None and not keep:
                stack.down(lambda _: None, purge=True)
        if not keep:
            shutil.rmtree(home, ignore_errors=True)
    good = narrator.done - narrator.failed
    out.print(f"{good} of {narrator.done} as expected in {time.monotonic() - began:.0f} s")
    if keep:
        out.print(f"left running: BUS_CONFIG={home}/sealed/bus.toml bus audit search")
    else:
        out.print("nothing left running.   next: bus stack up · bus demo --keep")
    return narrator.failed


def _stack(settings: Settings) -> Stack:
    stack = Stack(prepare(settings))
    began = time.monotonic()
    stack.up(lambda _: None)
    names = ", ".join(row.name for row in stack.status() if row.pid)
    out.print(f"stack  {stack.settings.bootstrap}: {names}   {time.monotonic() - began:.0f} s")
    return stack


class _configured:  # noqa: N801  # a context manager, used as a verb
    """Settings of ``stack`` for everything that loads them."""

    def __init__(self, stack: Stack) -> None:
        self._path = str(stack.layout.settings)

    def __enter__(self) -> None:
        self._before = os.environ.get("BUS_CONFIG")
        os.environ["BUS_CONFIG"] = self._path

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            del os.environ["BUS_CONFIG"]
        else:
            os.environ["BUS_CONFIG"] = self._before


def _plaintext_policies(home: Path) -> Path:
    """The same law with every tier PLAINTEXT: the control."""
    folder = home / "policies"
    shutil.copytree(BUNDLED_POLICIES, folder)
    mesh = folder / "mesh.yaml"
    mesh.write_text(mesh.read_text().replace('tier: "RETRIEVAL"', 'tier: "PLAINTEXT"'))
    return folder


def _replay(narrator: Narrator) -> tuple[list[Say], dict[str, str]]:
    """The agents replay their recorded messages; returns them and one record as its reader got it."""
    messages = [say for trace in load_traces() for say in trace.messages]
    received: list[dict[str, str]] = []
    shown: dict[str, str] = {}
    with (
        Bus("orchestrator-1") as coordinator,
        Bus("executor-1") as worker,
        Bus("retriever-1") as memory,
    ):
        agents = {each.agent: each for each in (coordinator, worker, memory)}
        inboxes = [coordinator.subscribe("coordination"), coordinator.subscribe("agent_memory")]
        began = time.monotonic()
        for say in messages:
            agents[say.agent].publish(
                say.domain,
                say.payload,
                purpose="care",
                correlation=say.session,
                metadata=METADATA,
                confirm="queued",
            )
        wanted = {name: sum(say.domain == name for say in messages) for name in ("coordination", "agent_memory")}
        for inbox, name in zip(inboxes, wanted, strict=True):
            for got in _take(inbox, wanted[name]):
                received.append(got.value())
                shown = {"source": got.source, "metadata": str(dict(got.metadata)), "decision": got.decision_id}
        took = time.monotonic() - began
    same = sorted(map(str, received)) == sorted(str(say.payload) for say in messages)
    narrator.expect(
        "agents replay recorded messages; permitted readers open each",
        same,
        f"{len(received)} of {len(messages)} in {took:.1f} s",
    )
    return messages, shown


def _take(inbox: Subscription, count: int) -> list[Delivery]:
    deadline = time.monotonic() + WAIT_S
    taken: list[Delivery] = []
    while len(taken) < count and (got := inbox.get(max(0.0, deadline - time.monotonic()))) is not None:
        taken.append(got)
    return taken


def _private() -> set[str]:
    return {item for trace in load_traces() for item in trace.private}


def _secured(stack: Stack, narrator: Narrator, home: Path) -> None:
    messages, shown = _replay(narrator)
    out.print(f"      a reader sees   source={shown['source']} metadata={shown['metadata']} {shown['decision']}")
    _one_record(stack, narrator)
    _refusals(stack, narrator)
    _broker_refuses(stack, narrator)
    _observer(stack, narrator)
    narrator.expect("the law is edited while agents write", *switched(stack, home))
    narrator.expect("an address in a message and in a tool's arguments", *redacted())
    narrator.expect("a record for another tenant is refused", *refused("analyst-1", "tenants"))
    narrator.expect("a record for another zone without a flow is refused", *refused("executor-2", "zones"))
    _ledger(stack, narrator, len(messages))


def _one_record(stack: Stack, narrator: Narrator) -> None:
    """One record as its agent sees it, as the broker stores it, as a permitted and a forbidden agent get it."""
    note = {"customer": "c-17", "text": "prefers mail, account 4711-0815"}
    topic = domain_topics(stack.load_policy().domains["agent_memory"].name).outbound  # type: ignore[index]
    with Bus("retriever-1") as writer, Bus("orchestrator-1") as reader:
        inbox = reader.subscribe("agent_memory")
        began = time.monotonic()
        sent = writer.publish("agent_memory", note, purpose="care", metadata=METADATA, confirm="decided")
        got = next((each for each in iter(lambda: inbox.get(WAIT_S), None) if each.id == sent.id), None)
        took = (time.monotonic() - began) * 1000
    out.print(f"      the agent wrote {note}")
    stored = _stored(stack, topic, got.place[0], got.place[1]) if got is not None else b""
    out.print(f"      the broker has  {stored[:24].hex()}… {len(stored)} bytes, {_readers(stored)} wrapped keys")
    opened = got is not None and got.value() == note and "sender_ip" not in got.metadata
    narrator.expect("a permitted agent opens it, topology masked", opened, f"{took:.0f} ms after publish")
    clear = any(value.encode() in stored for value in note.values()) or b"retriever-1" in stored
    narrator.expect("neither payload nor agent names stand in the broker's bytes", not clear, f"{len(stored)} bytes")
    with Bus("executor-1") as stranger:
        try:
            stranger.subscribe("agent_memory")
            narrator.expect("a forbidden agent is refused", False, "it may read")
        except Denied as denied:
            narrator.expect("a forbidden agent is refused", True, denied.rule)

    mine, theirs = (_opens(stack, agent, stored, topic, got) for agent in ("orchestrator-1", "executor-1"))
    figure = f"{theirs} of {mine} that a permitted agent's keys open"
    narrator.expect("given the stored bytes, its own keys open nothing", theirs == 0 < mine, figure)


def _opens(stack: Stack, agent: str, stored: bytes, topic: str, got: Delivery | None) -> int:
    """How many records of a stored bundle the keys in an agent's own folder open, whatever domain they are for."""
    if got is None:
        return 0
    trust = read_trust(stack.layout.trust)
    bundle = derived.parse(stored)
    store = KeyStore(stack.layout.agent(agent) / "keys", AgentId(agent), trust.anchor, trust.deployment)
    store.refresh(force=True)
    readable = [each.name for each in stack.load_policy().may_consume(AgentId(agent))]
    keys = tuple(key for domain in readable for held in store.all_reading(domain).values() for key in held)
    plaintexts = TIERS[bundle.head.tier].open(bundle, keys, trust.deployment, topic, got.place[0])
    return sum(each is not None for each in plaintexts)


def _readers(stored: bytes) -> int:
    return sum(len(each.entries) for each in derived.parse(stored).sets) if stored else 0


def _stored(stack: Stack, topic: str, partition: int, offset: int) -> bytes:
    consumer = Consumer(stack.admin_connection().config(group_id="bus-admin", enable_auto_commit=False))
    try:
        consumer.assign([TopicPartition(topic, partition, offset)])
        message = consumer.poll(WAIT_S)
        return message.value() or b"" if message is not None and message.error() is None else b""
    finally:
        consumer.close()


def _refusals(stack: Stack, narrator: Narrator) -> None:
    """Records made by a raw client past the SDK; the reason printed is read from the hop."""
    raw = RawClient(stack)
    memory = raw.sealer("retriever-1", "agent_memory")
    now = int(time.time() * 1000)
    honest = memory.seal(0, plaintext("retriever-1", "agent_memory"))[1]
    tampered = bytearray(memory.seal(0, plaintext("retriever-1", "agent_memory"))[1])
    tampered[-1] ^= 1
    expired = memory.seal(0, plaintext("retriever-1", "agent_memory", now=now - 600_000))[1]
    forbidden = raw.sealer("executor-1", "agent_memory").seal(0, plaintext("executor-1", "agent_memory"))[1]
    unavailable = raw.sealer("analyst-1", "financial_models").seal(0, plaintext("analyst-1", "financial_models"))[1]
    cases = [
        ("an honest record passes", "agent_memory.in", honest, ""),
        ("the same record, replayed", "agent_memory.in", honest, "replay"),
        ("one bit flipped", "agent_memory.in", bytes(tampered), "mac"),
        ("moved to another topic", "coordination.in", honest, "wrong-domain"),
        ("expired ten minutes ago", "agent_memory.in", expired, "expired"),
        ("an executor writes to agent_memory", "agent_memory.in", forbidden, "produce"),
        ("a tier that this release cannot protect for", "financial_models.in", unavailable, "tier-unavailable"),
    ]
    places = [(topic, 0, raw.produce(topic, value)) for _, topic, value, _ in cases]
    hops = by_place(stack, places)
    for (what, _, value, code), place in zip(cases, places, strict=True):
        hop = hops.get(place)
        told = f"{hop.tail.code or 'ALLOW'} {hop.tail.rule} {hop.tail.location}" if hop else "no hop"
        right = hop is not None and hop.tail.code == code and hop.origin_digest == hashlib.sha256(value).digest()
        narrator.expect(what, right, told.strip())


def _broker_refuses(stack: Stack, narrator: Narrator) -> None:
    """An agent's own credential on a topic that its ACLs do not name."""
    connection = connect(stack.settings, "executor-1")
    errors: list[KafkaError | None] = []
    producer = Producer(connection.config(message_timeout_ms=10_000))
    producer.produce("agent_memory.out", b"forged", on_delivery=lambda error, _: errors.append(error))
    producer.flush(15)
    error = errors[0] if errors else None
    refused = error is not None and error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    told = str(connection.typed(error, "write", "agent_memory.out")) if error is not None else "it was taken"
    narrator.expect("executor-1 writes agent_memory.out itself", refused, told)


def _observer(stack: Stack, narrator: Narrator) -> None:
    items = _private()
    seen = look(stack.layout.state / "kafka" / "data", items)
    figure = f"{len(seen.items)} of {len(items)} in {seen.bytes_read:,} bytes, {seen.files} files"
    narrator.expect("observer with the broker's disks finds private items", not seen.items and bool(items), figure)


def _control(stack: Stack, narrator: Narrator) -> None:
    """The same scanner on the same traffic in PLAINTEXT must find them."""
    quiet = Narrator(quiet=True)
    _replay(quiet)
    items = _private()
    seen = look(stack.layout.state / "kafka" / "data", items)
    figure = f"{len(seen.items)} of {len(items)} in {seen.bytes_read:,} bytes"
    narrator.expect("control: the same traffic in PLAINTEXT", quiet.failed == 0 and seen.items == items, figure)


def _credentials(stack: Stack, narrator: Narrator, home: Path) -> None:
    """On the control's stack, whose keys come from an authority and live for seconds."""
    narrator.expect("agents enrolled with one-time tokens, on the record", *enrolled(stack))
    told, stolen = rotated(stack, home)
    narrator.expect("keys and tokens rotate while an agent writes", *told)
    narrator.expect("a copy of its folder, after its window", *stolen.refused())
    narrator.expect("only who attests gets keys of a domain that asks for it", *attested())


def _computing(narrator: Narrator, home: Path) -> None:
    """One scene a tier, on a stack of their own."""
    with site(home / "computing") as stack:
        narrator.expect("RETRIEVAL: what one agent puts, another gets and finds", *remembered(stack.settings))
        narrator.expect("COMPUTATION by tee: scored where nothing gets out", *confined(stack.settings, CODE))
        narrator.expect("COMPUTATION by mpc: totals that no party has alone", *together(stack.settings))
        narrator.expect("FHE: scored by who cannot read it", *encrypted(stack.settings))
        seen = look(stack.layout.state / "kafka", [SECRET])
        figure = f"{len(seen.items)} of 1 in {seen.bytes_read:,} bytes"
        narrator.expect("an observer with their broker's disks finds the account", not seen.items, figure)


def _ledger(stack: Stack, narrator: Narrator, published: int) -> None:
    key = read_trust(stack.layout.trust).ledger
    report = _settled(lambda: _verify(stack.layout.ledger, stack, key), published)
    figure = f"{report.leaves} hops, {report.checkpoints} checkpoints, {report.intervals} intervals"
    narrator.expect("the ledger verifies with the public key alone", not report.problems, figure)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "evidence"
        signer = load_signer(stack.layout.signer("ledger"))
        made = export(open_ledger(stack.settings), folder, signer, now_ms())
        told = _elsewhere(folder, key)
        narrator.expect("exported, it verifies where there is nothing but it", told.endswith("all hold"), told)
        shutil.copytree(folder, Path(temporary) / "cut")
        with sqlite3.connect(Path(temporary) / "cut" / COPY) as target:
            partition, (size, _) = max(made.heads.items(), key=lambda each: each[1][0])
            target.execute("delete from entry where partition = ? and leaf >= ?", (partition, size - 3))
        told = _elsewhere(Path(temporary) / "cut", key)
        named = f"partition {partition}: leaf {size - 3} is missing"
        narrator.expect("a tail cut off a copy is named", named in told, _line(told, named))
        copy = folder / COPY
        with sqlite3.connect(copy) as target:
            partition, leaf, body = target.execute(
                "select partition, leaf, body from entry order by partition, leaf limit 1 offset 3"
            ).fetchone()
            flipped = body[:20] + bytes((body[20] ^ 1,)) + body[21:]
            target.execute("update entry set body = ? where partition = ? and leaf = ?", (flipped, partition, leaf))
        told = _elsewhere(folder, key)
    named = f"partition {partition}: leaf {leaf} does not match"
    narrator.expect("one byte flipped in a copy is named", named in told, _line(told, named))


def _line(told: str, named: str) -> str:
    """The line of ``told`` that has ``named``."""
    return next((line for line in told.splitlines() if named in line), "not seen")


def _elsewhere(folder: Path, key: bytes) -> str:
    """What a process says of an export that has its folder, the public key and nothing else of the deployment."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BUS_")}
    done = subprocess.run(
        [sys.executable, "-m", "bus.cli.main", "audit", "verify", "--offline", folder, "--key", key.hex()],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    return done.stdout.strip() or done.stderr.strip()


def _verify(path: Path, stack: Stack, key: bytes) -> Report:
    return verify_ledger(Ledger(path, stack.settings.deployment_id, read_only=True), key)


def _settled(read: Callable[[], Report], published: int) -> Report:
    """The report once every published record has its hop and the last checkpoint is signed."""
    deadline = time.monotonic() + WAIT_S
    while True:
        report = read()
        if (report.leaves >= published and not report.problems) or time.monotonic() > deadline:
            return report
        time.sleep(0.1)
