"""What the tiers cost beside each other: the same mix with each part in the domain of its tier, and all of it in one.

Each way is measured in three steps, one process at a time: its sources publish (`Bus.publish`, queued; rows are
encrypted there), one enforcer takes all of it from assignment to the last commit, its readers take it by
`Bus.subscribe` (batches are loaded and scored linearly). CPU is of these processes, user and system, all threads, from
when they are ready; broker, issuer and audit are not in it. Bytes are those of the domain's log segments, `.in` and
`.out`. Latency is of one record at a time through a running enforcer.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from bench import fhe, mpc, opening, trickle
from bench.load import ends
from bench.mix import PLACES, TIERED, Mix, batches, saved, uniform
from bench.rows import Figures, finish, spread, start
from bus.client.fhe import create
from bus.settings import Settings
from bus.stack.local import BUNDLED_POLICIES, Stack, prepare
from bus.tiers.fhe import MAX_ROWS
from bus.tiers.fheframe import Scheme
from bus.wire.names import Tier

SIZE: Final = 1024
BATCHES: Final = 4
"""Of a way that is all FHE."""
FIGURES: Final = ("source_us", "enforcer_us", "reader_us", "cpu_us", "bytes")
Parts = Mapping[Tier, int | list[int]]
"""Records, or of FHE the rows of each batch, by tier."""


@dataclass(frozen=True, slots=True)
class Site:
    """A stack, and the context that its figures are encrypted under (hex)."""

    stack: Stack
    context: str


@contextmanager
def site(state: Path, **changes: Any) -> Iterator[Site]:
    """One whose law protects COMPUTATION and FHE at their source, without attestation; with an issuer alone. Keyword
    arguments are settings."""
    law = state.parent / f"law-{state.name}"
    shutil.copytree(BUNDLED_POLICIES, law)
    stack = Stack(prepare(dataclasses.replace(Settings(), state=state, policies=law, **changes)))
    try:
        context = create(stack.layout, PLACES[Tier.FHE].reader, Scheme.CKKS).hex()
        mesh = yaml.safe_load((law / "mesh.yaml").read_text())
        for domain in mesh["security_mesh"]["domains"]:
            domain.pop("attestation_required", None)
            if domain["tier"] != Tier.RETRIEVAL.name:
                domain["protect_at"] = "source"
            if domain["tier"] == Tier.FHE.name:
                domain["fhe_context"] = context
        (law / "mesh.yaml").write_text(yaml.safe_dump(mesh))
        stack.up(lambda _: None, services=False)
        stack.start_service("issuer")
        yield Site(stack, context)
    finally:
        stack.down(lambda _: None, purge=True)


def measure(home: Path, mix: Mix, turns: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Every way in turn, ``turns`` times; then the latency of each tier, opening, and the steps of FHE."""
    rows = batches(mix.parts[Tier.FHE])
    plans = _plans(mix, rows)
    told: dict[str, list[Figures]] = {name: [] for name in plans}
    with site(home) as made:
        for turn in range(turns):
            for name, parts in list(plans.items())[:: 1 if turn % 2 == 0 else -1]:
                told[name].append(through(made, parts))
                cpu, size = told[name][-1]["cpu_us"], told[name][-1]["bytes"]
                say(f"bench  tiers {turn + 1}/{turns} {name}: {cpu:.1f} us CPU and {size:,.0f} B a record")
        warm = opened(made.stack, mix.records)
        say(f"bench  tiers: a COMPUTATION record opens in {warm['ratio']:.2f} times the CPU of a RETRIEVAL one")
        delays = trickle.measure(made.stack, rows[0])
    steps = fhe.measure()
    return {
        "mix": {tier.name: count for tier, count in mix.parts.items()},
        "batch_rows": {TIERED: rows[0], uniform(Tier.FHE): MAX_ROWS},
        "turns": turns,
        "ways": {
            name: {figure: spread([each[figure] for each in figures]) for figure in FIGURES}
            for name, figures in told.items()
        },
        "latency": trickle.summary(delays, mix),
        "beside": beside(told),
        "saved": spared(told, mix, rows[0], steps),
        "open": warm,
        "fhe": steps,
        "mpc": mpc.measure(),
    }


def small(rows: int) -> str:
    """The name of the whole mix in FHE by batches of so many rows."""
    return f"{uniform(Tier.FHE)}, batches of {rows:,}"


def _plans(mix: Mix, rows: Sequence[int]) -> dict[str, Parts]:
    """Records, or rows by batch, of each way. All in FHE is fewer records: a batch costs what the last one did."""
    return {
        TIERED: {**mix.parts, Tier.FHE: [*rows]},
        uniform(Tier.RETRIEVAL): {Tier.RETRIEVAL: mix.records},
        uniform(Tier.COMPUTATION): {Tier.COMPUTATION: mix.records},
        uniform(Tier.FHE): {Tier.FHE: [MAX_ROWS] * BATCHES},
        small(rows[0]): {Tier.FHE: [rows[0]] * BATCHES},
    }


def through(made: Site, parts: Parts) -> Figures:
    """CPU us and bytes a record of what ``parts`` puts through sources, one enforcer and readers."""
    stack, domains = made.stack, [PLACES[tier].domain for tier in parts]
    sizes, before = _bytes(stack, domains), _inputs(stack, domains)
    counts = {tier: part if isinstance(part, int) else sum(part) for tier, part in parts.items()}
    sources = [_source(made, tier, part) for tier, part in parts.items()]
    enforcer = finish(start(stack, "enforcer", {"records": _inputs(stack, domains) - before}))
    readers = [
        # One more than was measured, where a source sends a record before it is.
        {"agent": PLACES[tier].reader, "domain": PLACES[tier].domain, "records": count + (tier is not Tier.FHE)}
        for tier, count in counts.items()
    ]
    total = sum(counts.values())
    used = {
        "source_us": sum(each["cpu_s"] for each in sources),
        "enforcer_us": enforcer["cpu_s"],
        "reader_us": sum(finish(start(stack, "read", options))["cpu_s"] for options in readers),
    }
    told = {name: seconds / total * 1e6 for name, seconds in used.items()}
    return {**told, "cpu_us": sum(told.values()), "bytes": (_bytes(stack, domains) - sizes) / total}


def _source(made: Site, tier: Tier, part: int | list[int]) -> Figures:
    place = PLACES[tier]
    options: dict[str, Any] = {"agent": place.source, "domain": place.domain}
    if isinstance(part, int):
        return finish(start(made.stack, "publish", {**options, "records": part, "size": SIZE}))
    options |= {"records": sum(part), "batches": part, "context": made.context}
    return finish(start(made.stack, "publish-batches", options))


def _inputs(stack: Stack, domains: Sequence[str]) -> int:
    """Records that were ever written to the inputs."""
    return sum(sum(ends(stack, f"{domain}.in").values()) for domain in domains)


def _bytes(stack: Stack, domains: Sequence[str]) -> int:
    """Of the log segments of these domains' inputs and outputs."""
    logs = (stack.layout.state / "kafka").rglob("*.log")
    topics = {f"{domain}.{side}" for domain in domains for side in ("in", "out")}
    return sum(path.stat().st_size for path in logs if path.parent.name.rpartition("-")[0] in topics)


def opened(stack: Stack, records: int) -> dict[str, Any]:
    """Warm readers of both tiers in turn over full bundles of 1 KiB records, best of five, and their ratio."""
    readers = {
        tier.name: opening.Reader(
            stack, PLACES[tier].reader, PLACES[tier].domain, records, at_source=tier is Tier.COMPUTATION
        )
        for tier in (Tier.RETRIEVAL, Tier.COMPUTATION)
    }
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    for _ in range(opening.TURNS):
        for name, reader in readers.items():
            turns[name].append(reader.turn())
    told = {name: opening.best(each) for name, each in turns.items()}
    return {**told, "ratio": told[Tier.COMPUTATION.name]["cpu_us"] / told[Tier.RETRIEVAL.name]["cpu_us"]}


def beside(told: Mapping[str, Sequence[Figures]]) -> dict[str, dict[str, Figures]]:
    """Tiered over every other way of the same turn, in CPU and bytes."""
    return {
        name: {
            figure: spread([one[figure] / other[figure] for one, other in zip(told[TIERED], figures, strict=True)])
            for figure in ("cpu_us", "bytes")
        }
        for name, figures in told.items()
        if name != TIERED
    }


def spared(told: Mapping[str, Sequence[Figures]], mix: Mix, rows: int, steps: Figures) -> dict[str, dict[str, float]]:
    """What tiers spare beside FHE of everything, in CPU and bytes, by what is assumed of it.

    ``full``: batches of 4,096 rows; ``whole``: these, and 1 KiB of a record that is no figure is 128 numbers instead of
    eight (scaled: a column costs what another one does); ``same``: batches of the rows that the tiered mix has;
    ``alone``: every record by itself, its encryption and its bytes only, in the tiered mix as well.
    """
    share = mix.shares()[Tier.FHE]
    scale = share + (1 - share) * SIZE / 8 / fhe.COLUMNS
    made: dict[str, dict[str, float]] = {"full": {}, "whole": {}, "same": {}, "alone": {}}
    for figure, alone in (("cpu_us", steps["alone_us"]), ("bytes", 2 * steps["alone_bytes"])):
        tiered, full, same = (
            spread([each[figure] for each in told[name]])["median"] for name in (TIERED, uniform(Tier.FHE), small(rows))
        )
        made["full"][figure] = saved(tiered, full)
        made["whole"][figure] = saved(tiered, full * scale)
        made["same"][figure] = saved(tiered, same)
        made["alone"][figure] = saved(tiered + share * alone, alone)
    return made
