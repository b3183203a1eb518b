"""What the tiers cost, on the terminal: each way beside the tiered mix, and what is assumed in every comparison."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rich.table import Table

from bench.mix import PUBLISHED, TIERED
from bus.cli.output import out

ASSUMED: Final = {
    "full": "a record is eight numbers, gathered to full batches",
    "whole": "so gathered, and what is no figure is encrypted whole, as 128 numbers",
    "same": "a record is eight numbers, in batches as the tiered mix has them",
    "alone": "every record by itself (encryption alone)",
}


def show(told: dict[str, Any]) -> None:
    """All of it."""
    mix, rows = told["mix"], told["batch_rows"]
    parts = ", ".join(f"{count:,} {name}" for name, count in mix.items())
    full = ", ".join(f"{count:,} rows a batch {name}" for name, count in rows.items())
    out.print(f"tiers: {sum(mix.values()):,} records ({parts}; {full}), {told['turns']} turns")
    table = Table("CPU us a record", "source", "enforcer", "reader", "all", "bytes", "p50 ms", "p99 ms")
    for name, figures in told["ways"].items():
        delays = told["latency"].get(name)
        table.add_row(
            name,
            *(f"{figures[each]['median']:.1f}" for each in ("source_us", "enforcer_us", "reader_us")),
            "{median:.1f} ({min:.1f} to {max:.1f})".format(**figures["cpu_us"]),
            f"{figures['bytes']['median']:,.0f}",
            *(f"{delays[each]:.1f}" if delays else "" for each in ("p50", "p99")),
        )
    out.print(table)
    out.print(
        "CPU of sources, one enforcer and readers (FHE: loaded and scored); broker, issuer and audit are not in it"
    )
    out.print("ms of one record at a time; of FHE a batch, without the wait until its rows are gathered")
    for name, ratios in told["beside"].items():
        out.print(
            f"{TIERED} beside {name}: {ratios['cpu_us']['median']:.2f} of its CPU, {ratios['bytes']['median']:.2f} of "
            "its bytes"
        )
    for line in compared(told["saved"]):
        out.print(line)
    opened, steps = told["open"], told["fhe"]
    out.print(
        f"open, keys held: RETRIEVAL {opened['RETRIEVAL']['records_s']:,.0f}/s, COMPUTATION "
        f"{opened['COMPUTATION']['records_s']:,.0f}/s: {opened['ratio']:.2f} times the CPU"
    )
    out.print(
        f"FHE, {steps['rows']:,} rows of {steps['columns']}: a column {steps['encrypt_column_ms']:.1f} ms to encrypt, "
        f"load {steps['load_ms']:.1f} ms, linear {steps['linear_us_a_value']:.2f} us a value, logistic "
        f"{steps['logistic_us_a_value']:.2f}; a row alone {steps['alone_us'] / 1000:.0f} ms and "
        f"{steps['alone_bytes']:,} B"
    )
    for line in _shares(told["mpc"]):
        out.print(line)


def _shares(told: dict[str, dict[str, float]]) -> Iterator[str]:
    for parties, found in told.items():
        yield (
            f"mpc, {parties} parties, batches of 500 rows: {found['share_us']:.2f} us a row to share, "
            f"{found['party_us']:.2f} to open at each party, {found['combine_us']:.3f} to add up and combine: "
            f"{found['all_us']:.2f} us and {found['bytes']:.1f} bytes a row in all"
        )


def compared(saved: dict[str, dict[str, float]]) -> Iterator[str]:
    """A sentence for each assumption, beside what is published."""
    for name, found in saved.items():
        words = " and ".join(f"{_less(found[each])} {unit}" for each, unit in (("cpu_us", "CPU"), ("bytes", "bytes")))
        reached = [each >= PUBLISHED for each in found.values()]
        verdict = "reached" if all(reached) else "reached in part" if any(reached) else "not reached"
        yield f"beside FHE of everything, {ASSUMED[name]}: {words}; published: up to {PUBLISHED:.0%} less: {verdict}"


def _less(part: float) -> str:
    return f"{part:.1%} less" if part >= 0 else f"{1 - part:.1f} times the"
