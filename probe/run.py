"""`bus probe`: makes a stack, replays traces over it, looks as each observer does, and says who saw what.

Phases: (1) the bundled law, no guardrails and no padding; (2) every pattern redacted, records padded to whole cells.
"""

from __future__ import annotations

import dataclasses
import shutil
import statistics
import tempfile
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from bus.client.delivery import Delivery
from bus.errors import Refused
from bus.guardrails.types import TYPES
from bus.settings import Mechanism, Settings
from bus.stack.local import BUNDLED_POLICIES, Stack, prepare
from demo.traces import inside
from probe.replay import CONTROL, Got, Told, bare, data_folder, opened_by, received, send, stored_values
from probe.scan import Scanner
from probe.traces import OUTPUT, Say, spelled

READER: Final = "orchestrator-1"
UNCLEARED: Final = "analyst-1"
CELL: Final = 16_384
Pair = tuple[str, str]
"""A session, and a private item in it."""
Content = tuple[int, str]
"""Number of a message, and what an observer has of it."""


def run(messages: Sequence[Say], told: Told) -> dict[str, Any]:
    """What each observer saw. Raises Refused without messages."""
    if not messages:
        raise Refused("no messages in these traces")
    home = Path(tempfile.mkdtemp(prefix="sealbus-probe-"))
    law = home / "law"
    shutil.copytree(BUNDLED_POLICIES, law, ignore=shutil.ignore_patterns("example"))
    settings = dataclasses.replace(Settings(), state=home / "state", policies=law, sasl_mechanism=Mechanism.SCRAM)
    stack = Stack(prepare(settings))
    try:
        stack.up(lambda _: None)
        return _observed(stack, messages, law / "mesh.yaml", told)
    finally:
        stack.down(lambda _: None, purge=True)
        shutil.rmtree(home, ignore_errors=True)


def _observed(stack: Stack, messages: Sequence[Say], mesh: Path, told: Told) -> dict[str, Any]:
    pairs = {(each.session, item) for each in messages for item in each.items}
    send(stack, messages, 1, told)
    bare(stack, messages)
    first = received(stack, READER, len(messages), 1, told)
    mesh.write_text(_guarded(mesh.read_text()))
    stack.apply(stack.plan(stack.load_policy()))
    send(stack, messages, 2, told)
    second = received(stack, READER, len(messages), 2, told)

    told("scanned", 0, 2)
    written = {(spelled(item, each.content), (each.session, item)) for each in messages for item in each.items}
    scanner = Scanner({text for text, _ in written})
    disk = scanner.folder(data_folder(stack), without=CONTROL)
    told("scanned", 1, 2)
    control = [scanner.folder(each) for each in data_folder(stack).glob(f"{CONTROL}-*")]
    told("scanned", 2, 2)
    names = Scanner({each.place[0] for each in messages})
    logs = [names.folder(each) for each in data_folder(stack).glob("*.in-*")]
    logs += [names.folder(each) for each in data_folder(stack).glob("*.out-*")]
    told("opened", 0, 2)
    values = stored_values(stack)
    held = {agent: _contents(opened_by(stack, agent, values), 1) for agent in (UNCLEARED, READER)}
    told("opened", 2, 2)
    plain, guarded = ([(each.number, each.content) for each in got] for got in (first, second))
    return {
        "messages": len(messages),
        "sessions": len({each.session for each in messages}),
        "channels": dict(sorted(Counter(each.channel for each in messages).items())),
        "items": len(pairs),
        "bytes_scanned": disk.bytes_read,
        "observers": {
            "TLS only: broker's disks (control)": _of(written, {text for each in control for text in each.items}),
            "broker's disks": _of(written, disk.items),
            f"all keys of a cleared role, {READER} (control)": _read(messages, held[READER]),
            f"all keys of an uncleared role, {UNCLEARED}": _read(messages, held[UNCLEARED]),
            "full-mesh auditor": _read(messages, plain),
            "output-only auditor": _read(messages, _outputs(messages, plain)),
            "final output, guardrails on": _read(messages, _outputs(messages, guarded)),
            "all channels, guardrails on": _read(messages, guarded),
        },
        "records_opened_by_uncleared_role": len(held[UNCLEARED]),
        "names_in_domain_topics": sorted({name for each in logs for name in each.items}),
        "guess": {"as it is": guess(messages, first), f"cells of {CELL:,}": guess(messages, second)},
    }


def _contents(deliveries: Iterable[Delivery], phase: int) -> list[Content]:
    values = [each.value() for each in deliveries]
    return [(value["number"], value["content"]) for value in values if value["phase"] == phase]


def _outputs(messages: Sequence[Say], contents: Iterable[Content]) -> list[Content]:
    return [each for each in contents if messages[each[0]].channel == OUTPUT]


def _guarded(text: str) -> str:
    """The bundled law with every pattern redacted, and cells."""
    rule = f"    all: {{detect: [{', '.join(sorted(TYPES))}], then: redact}}"
    text = text.replace("  domains:\n", f"  guardrails:\n{rule}\n  domains:\n", 1)
    for name in ("agent_memory", "coordination"):
        line = f'    - name: "{name}"\n'
        text = text.replace(line, f"{line}      guardrails: [all]\n      padding: {CELL}\n")
    return text


def _of(written: Iterable[tuple[str, Pair]], found: Collection[str]) -> int:
    return len({pair for text, pair in written if text in found})


def _read(messages: Sequence[Say], contents: Iterable[Content]) -> int:
    """Items of their sessions in what was opened."""
    found: set[Pair] = set()
    for number, content in contents:
        each = messages[number]
        found |= {(each.session, item) for item in inside(each.items, content)}
    return len(found)


def guess(messages: Sequence[Say], got: Sequence[Got]) -> dict[str, dict[str, float]]:
    """How often channel and source are told by a record's size, beside always saying the commonest: shares of 1.

    Half of the sessions teach, the other half is guessed; records of one domain, as a broker tells domains by topic.
    """
    found: dict[str, dict[str, float]] = {}
    for what in ("channel", "source"):
        right, chance = [], []
        domains: dict[str, list[tuple[int, str, bool]]] = defaultdict(list)
        for each in got:
            say = messages[each.number]
            domains[say.place[1]].append((each.size, getattr(say, what), hash_of(say.session) % 2 == 0))
        for rows in domains.values():
            taught: dict[int, Counter[str]] = defaultdict(Counter)
            for size, label, teaches in rows:
                if teaches:
                    taught[size][label] += 1
            asked = [(size, label) for size, label, teaches in rows if not teaches]
            if not taught or not asked:
                continue
            common = sum(taught.values(), Counter[str]()).most_common(1)[0][0]
            sizes = sorted(taught)
            for size, label in asked:
                nearest = min(sizes, key=lambda held: abs(held - size))  # asked at once
                right.append(taught[nearest].most_common(1)[0][0] == label)
                chance.append(common == label)
        found[what] = {"guessed": statistics.fmean(right), "chance": statistics.fmean(chance)} if right else {}
    return found


def hash_of(text: str) -> int:
    """The same in every run."""
    return sum(text.encode())


def failures(document: dict[str, Any]) -> list[str]:
    """What of the claims does not hold."""
    seen, items = document["observers"], document["items"]
    found = []
    control, disk, cleared, uncleared, mesh = list(seen.values())[:5]
    if min(control, cleared) < items:
        found.append(f"the controls found {control} and {cleared} of {items} items: the probe misses some")
    if disk or uncleared or document["records_opened_by_uncleared_role"]:
        found.append(f"{disk} items on the broker's disks, {uncleared} by an uncleared role")
    if mesh < items:
        found.append(f"the full-mesh auditor saw {mesh} of {items} items")
    if document["names_in_domain_topics"]:
        found.append(f"names in stored bytes: {', '.join(document['names_in_domain_topics'])}")
    for what, told in document["guess"][f"cells of {CELL:,}"].items():
        if not told:
            found.append(f"{what} could not be guessed: too few sessions")
        elif told["guessed"] > told["chance"] + 0.02:
            found.append(f"{what} is told by size in {told['guessed']:.1%}, by chance in {told['chance']:.1%}")
    return found
