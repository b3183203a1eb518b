"""Figures as tables on the terminal and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from bench.tiersreport import show as show_tiers
from bus.cli.output import out


def show(document: dict[str, Any]) -> None:
    """Everything that was measured."""
    out.print(f"{document['machine']}; {document['pairs']} interleaved pairs of {document['records']:,} records;")
    out.print(
        f"transactions of at most {document['transaction_ms']} ms idle or {document['transaction_bytes']:,} B; "
        "median (smallest to largest)"
    )
    if document["rows"]:
        table = Table("", "records/s", "CPU us/record", "beside", "records/s", "CPU us/record", "ratio")
        for row in document["rows"].values():
            base, measured = row[row["base"]], row[row["measured"]]
            table.add_row(
                row["title"],
                _rate(measured["records_s"]),
                _small(measured["cpu_us"]),
                row["base"],
                _rate(base["records_s"]),
                _small(base["cpu_us"]),
                _ratio(row["ratio"]),
            )
        out.print(table)
    if told := document.get("latency"):
        table = Table("2,000 records/s, ms", *(next(iter(told.values()))))
        for name, figures in told.items():
            table.add_row(name, *(_small(each) for each in figures.values()))
        out.print(table)
    if told := document.get("restart"):
        figures = ", ".join(f"{name} {told[name]:,.0f}" for name in ("p50", "p90", "p99", "max"))
        out.print(f"two enforcers restarted in turn, ms: {figures}")
    for side, figures in document.get("quix", {}).items():
        out.print(f"{side}: {_rate(figures['records_s'])}/s, {_small(figures['cpu_us'])} us CPU")
    if told := document.get("scaling"):
        table = Table("enforcers", "records/s", "CPU us/record")
        for name, figures in told.items():
            table.add_row(name, f"{figures['records_s']:,.0f}", f"{figures['cpu_us']:.1f}")
        out.print(table)
    for name in ("recorder", "opening", "policy", "guarded", "authority"):
        for stage, figures in document.get(name, {}).items():
            if isinstance(figures, dict):
                out.print(f"{name} {stage}: {figures['records_s']:,.0f}/s at {figures['cpu_us']:.1f} us CPU")
    if "lag_s" in document.get("recorder", {}):
        out.print(f"recorder beside the enforcer: its last hop is recorded {document['recorder']['lag_s']:.2f} s later")
    if told := document.get("ledger"):
        for name, figures in told.items():
            if isinstance(figures, dict):
                rate = f"{figures['hops_s']:,.0f} hops/s, {figures['last_hops_s']:,.0f} in the last tenth"
                out.print(f"ledger {name}: {rate}, {figures['cpu_us']:.1f} us CPU, {figures['bytes']:.0f} B a hop")
            if isinstance(figures, dict) and "proof_us" in figures:
                proof = f"{figures['proof_us']:.1f} us, {figures['proof_alone_us']:.0f} alone"
                search = f"search {figures['search_ms']:.1f} ms"
                out.print(f"ledger {name}: {search}; proof of {figures['path']} hashes {proof}")
        if "ratio" in told:
            out.print(f"ledger in PostgreSQL: {told['ratio']:.2f} of the plain table's rate")
    if told := document.get("memory"):
        quarters = ", ".join(f"{told[f'resident_{n}_mib']:.0f}" for n in (1, 2, 3, 4))
        out.print(f"memory over {told['records']:,} records: {quarters} MiB after each quarter")
    if told := document.get("tiers"):
        show_tiers(told)


def _rate(told: dict[str, float]) -> str:
    return f"{told['median']:,.0f} ({told['min']:,.0f} to {told['max']:,.0f})"


def _small(told: dict[str, float]) -> str:
    return f"{told['median']:.1f} ({told['min']:.1f} to {told['max']:.1f})"


def _ratio(told: dict[str, float]) -> str:
    return f"{told['median']:.0%} ({told['min']:.0%} to {told['max']:.0%})"


def plot(document: dict[str, Any], path: Path) -> None:
    """Rate and CPU of every row beside its base, with their spread. Needs matplotlib (the extra `plot`)."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = list(document["rows"].values())
    figure, axes = plt.subplots(1, 2, figsize=(11, 0.6 * len(rows) + 1.6), layout="constrained")
    for axis, name, title in zip(axes, ("records_s", "cpu_us"), ("thousand records/s", "CPU us/record"), strict=True):
        scale = 1000 if name == "records_s" else 1
        for place, (side, colour) in enumerate((("base", "0.75"), ("measured", "tab:blue"))):
            told = [row[row[side]][name] for row in rows]
            middle = [each["median"] / scale for each in told]
            wide = [
                [(each["median"] - each["min"]) / scale for each in told],
                [(each["max"] - each["median"]) / scale for each in told],
            ]
            heights = [number + 0.4 * place for number in range(len(rows))]
            label = "base (bare relay; raw produce)" if side == "base" else "sealbus"
            axis.barh(heights, middle, 0.38, xerr=wide, color=colour, ecolor="0.3", capsize=2, label=label)
        axis.set_yticks([number + 0.2 for number in range(len(rows))], [row["title"] for row in rows])
        axis.set_xlabel(title)
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].set_yticklabels([])
    axes[0].legend(frameon=False, fontsize="small")
    figure.suptitle(f"{document['machine']}; {document['pairs']} pairs of {document['records']:,}; median and spread")
    figure.savefig(path)
    plt.close(figure)
