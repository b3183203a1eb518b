"""`bus bench`: makes a stack, measures the rows in it, prints them, and removes it."""

from __future__ import annotations

import dataclasses
import os
import platform
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import yaml

from bench import authority, guarded, law, ledger, opening, report, tiers
from bench.latency import latency, rolling
from bench.load import load, make_target
from bench.memory import memory
from bench.mix import Mix
from bench.rows import BY_NAME, Figures, Row, finish, measure, shared, spread, start
from bench.rows import quix as quix_figures
from bus.cli.output import emit, say
from bus.errors import Refused
from bus.settings import Settings
from bus.stack.local import BUNDLED_POLICIES, Stack, prepare

OTHERS: Final = (
    "policy", "guarded", "latency", "restart", "scaling", "recorder", "opening", "memory", "authority", "tiers",
    "ledger",
)  # fmt: skip
NAMES: Final = (*BY_NAME, *OTHERS)
EPOCH_MS: Final = 20_000


def run(
    names: Sequence[str],
    *,
    pairs: int,
    records: int,
    plot: Path | None,
    quix: Path | None,
    as_json: bool,
    hops: int = 1_000_000,
    postgres: str = "",
) -> None:
    """Measure ``names`` (all where empty) and print; ``quix`` is a Python that has Quix Streams, ``postgres`` an empty
    database."""
    for name in names:
        if name not in NAMES:
            raise Refused(f"no row {name!r}", hint=f"one of {', '.join(NAMES)}")
    wanted = names or NAMES
    if not names and find_spec("tenseal") is None:
        say("bench  without tiers: tenseal is not installed (pip install 'sealbus[fhe]')")
        wanted = tuple(name for name in NAMES if name != "tiers")
    document: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "pairs": pairs,
        "records": records,
        "transaction_ms": Settings().transaction_ms,
        "transaction_bytes": Settings().transaction_bytes,
        "rows": {},
    }
    home = Path(tempfile.mkdtemp(prefix="sealbus-bench-"))
    if "policy" in wanted:
        document["policy"] = law.measure()
    if "guarded" in wanted:
        document["guarded"] = guarded.measure()
    try:
        if "ledger" in wanted:
            home.mkdir(exist_ok=True)
            document["ledger"] = ledger.measure(home, hops, postgres, say)
        if {*wanted} - {"policy", "guarded", "memory", "authority", "tiers", "ledger"}:
            with _Site(home / "a", "a") as stack:
                make_target(stack)
                for row in (BY_NAME[name] for name in wanted if name in BY_NAME and name != "publish"):
                    document["rows"][row.name] = _row(stack, row, pairs, records)
                if "latency" in wanted:
                    document["latency"] = _latency(stack, min(pairs, 5))
                if quix is not None:
                    document["quix"] = _quix(stack, quix, records)
                if "restart" in wanted:
                    document["restart"] = rolling(stack, 15.0)
                if "scaling" in wanted:
                    document["scaling"] = _scaling(stack, records)
                if "recorder" in wanted:
                    document["recorder"] = _recorder(stack, records)
                if "opening" in wanted:
                    document["opening"] = opening.measure(stack, records)
                if "publish" in wanted:  # last: no enforcer reads what it leaves in the input
                    document["rows"]["publish"] = _row(stack, BY_NAME["publish"], pairs, records)
        if "memory" in wanted:
            with _Site(home / "b", "b", EPOCH_MS) as stack:
                make_target(stack)
                document["memory"] = memory(stack, 1_000_000, say)
        if "authority" in wanted:
            say("bench  starting a broker and an authority")
            document["authority"] = authority.measure(home / "c")
        if "tiers" in wanted:
            say("bench  starting a broker")
            document["tiers"] = tiers.measure(home / "d", Mix.of(records), min(pairs, 3), say)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    if plot is not None:
        report.plot(document, plot)
        say(f"bench  {plot} written")
    if as_json:
        emit("bench", document)
    else:
        report.show(document)


class _Site:
    """A stack with an issuer, places for four enforcers and the bundled law, if asked with an interval of its own."""

    def __init__(self, state: Path, name: str, interval_ms: int = 0) -> None:
        policies = BUNDLED_POLICIES
        if interval_ms:
            policies = state.parent / f"law-{name}"
            shutil.copytree(BUNDLED_POLICIES, policies)
            mesh = yaml.safe_load((policies / "mesh.yaml").read_text())
            mesh["security_mesh"]["global"]["credential_rotation_interval_ms"] = interval_ms
            (policies / "mesh.yaml").write_text(yaml.safe_dump(mesh))
        self._stack = Stack(prepare(dataclasses.replace(Settings(), state=state, policies=policies, enforcers=4)))

    def __enter__(self) -> Stack:
        say("bench  starting a broker")
        self._stack.up(lambda _: None, services=False)
        self._stack.start_service("issuer")
        return self._stack

    def __exit__(self, *_: object) -> None:
        self._stack.down(lambda _: None, purge=True)


def _row(stack: Stack, row: Row, pairs: int, records: int) -> dict[str, Any]:
    made = measure(stack, row, pairs, records, say)
    sides = {row.base: [pair.base for pair in made], row.kind: [pair.measured for pair in made]}
    return {
        "title": row.title,
        "base": row.base,
        "measured": row.kind,
        "ratio": spread([pair.ratio for pair in made]),
        **{
            side: {figure: spread([each[figure] for each in told]) for figure in ("records_s", "cpu_us")}
            for side, told in sides.items()
        },
    }


def _latency(stack: Stack, turns: int) -> dict[str, Any]:
    told: dict[str, list[Figures]] = {"relay": [], "enforcer": []}
    for turn in range(turns):
        for kind in ("relay", "enforcer") if turn % 2 == 0 else ("enforcer", "relay"):
            told[kind].append(latency(stack, kind, 8.0))
        relay, enforcer = (told[kind][-1]["p99"] for kind in ("relay", "enforcer"))
        say(f"bench  latency {turn + 1}/{turns}: p99 {relay:.1f} ms over the relay, {enforcer:.1f} over the enforcer")
    names = ("p50", "p90", "p99")
    sides = {kind: {name: spread([each[name] for each in figures]) for name in names} for kind, figures in told.items()}
    pairs = list(zip(told["relay"], told["enforcer"], strict=True))
    added = {name: spread([enforcer[name] - relay[name] for relay, enforcer in pairs]) for name in names}
    return {**sides, "added": added}


def _scaling(stack: Stack, records: int) -> dict[str, Any]:
    """Records/s of 1, 2 and 4 enforcers that share the input, median of three."""
    made: dict[str, Any] = {}
    for processes in (1, 2, 4):
        rates = []
        for _ in range(3):
            told = shared(stack, processes, records, load(stack, records, 1024))
            total = sum(each["records"] for each in told)
            seconds = max(each["ended"] for each in told) - told[0]["began"]
            rates.append({"records_s": total / seconds, "cpu_us": sum(each["cpu_s"] for each in told) / total * 1e6})
        made[str(processes)] = {name: statistics.median(each[name] for each in rates) for name in rates[0]}
        say(f"bench  scaling {processes}: {made[str(processes)]['records_s']:,.0f}/s")
    return made


def _quix(stack: Stack, python: Path, records: int) -> dict[str, Any]:
    """The enforcer and Quix Streams in turn, three times."""
    told: dict[str, list[Figures]] = {"enforcer": [], "quix": []}
    for _ in range(3):
        load(stack, records, 1024)()
        told["enforcer"].append(finish(start(stack, "enforcer", {"records": records})))
        told["quix"].append(quix_figures(stack, python, records))
        say(f"bench  quix: {told['quix'][-1]['records_s']:,.0f}/s, enforcer {told['enforcer'][-1]['records_s']:,.0f}/s")
    return {
        side: {name: spread([each[name] for each in figures]) for name in ("records_s", "cpu_us")}
        for side, figures in told.items()
    }


def _recorder(stack: Stack, records: int) -> dict[str, Any]:
    """Hops/s of the enforcer, then of the audit consumer over what it wrote; then both at once: how much later the last
    of so many hops is recorded than it was written (s). Run alone, so that the audit begins where the enforcer does."""
    load(stack, records, 1024)()
    enforcer = finish(start(stack, "enforcer", {"records": records}))
    audit = finish(start(stack, "record", {"records": records}))  # the oldest that are there: it begins where it stands
    load(stack, records, 1024)()
    beside = start(stack, "record", {"records": records})
    first = finish(start(stack, "enforcer", {"records": records}))
    lag = finish(beside)["ended"] - first["ended"]
    return {"enforcer": enforcer, "audit": audit, "ratio": audit["records_s"] / enforcer["records_s"], "lag_s": lag}
