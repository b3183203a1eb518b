"""`bus bench`: the enforcer beside a bare exactly-once relay on the same broker, and the other parts beside theirs."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import click

from bus.cli.stack import fetch_with_progress


@click.command()
@click.argument("rows", nargs=-1)
@click.option("--pairs", default=7, help="Interleaved pairs of each row.")
@click.option("--records", default=60_000, help="Records of each run.")
@click.option("--plot", type=click.Path(path_type=Path), help="Write a picture of the rows (.svg or .png).")
@click.option("--quix", type=click.Path(path_type=Path), help="A Python with quixstreams: measure it, too.")
@click.option("--hops", default=1_000_000, help="Of the row `ledger`.")
@click.option("--postgres", default="", help="An empty database (libpq's connection string): `ledger` uses it, too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def bench(
    rows: tuple[str, ...],
    pairs: int,
    records: int,
    plot: Path | None,
    quix: Path | None,
    hops: int,
    postgres: str,
    as_json: bool,
) -> None:
    """Records a second and CPU microseconds a record, each beside its base in the same run.

    \b
    bus bench                          everything, some 25 minutes
    bus bench 1KiB --pairs 3           one row
    bus bench 1KiB publish latency     rows: 1KiB 256B 16KiB bundle-1 metadata plain two publish
                                       latency restart scaling recorder opening memory policy
                                       guarded authority tiers ledger
    bus bench ledger --hops 10000000 --postgres "host=/run/pg dbname=bench user=me"
    """
    fetch_with_progress()
    import_module("bench.run").run(
        rows, pairs=pairs, records=records, plot=plot, quix=quix, as_json=as_json, hops=hops, postgres=postgres
    )
