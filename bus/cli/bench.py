"""`bus bench`: the enforcer beside a bare exactly-once relay on the same broker."""

from __future__ import annotations

from importlib import import_module

import click

from bus.cli.stack import fetch_with_progress


@click.command()
@click.option("--pairs", default=5, help="Interleaved pairs of relay and enforcer.")
@click.option("--records", default=60_000, help="Records of each run.")
@click.option("--size", default=1024, help="Payload bytes.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def bench(pairs: int, records: int, size: int, as_json: bool) -> None:
    """Records a second and CPU microseconds a record, relay and enforcer in turn."""
    fetch_with_progress()
    import_module("bench.relay").run(pairs=pairs, records=records, size=size, as_json=as_json)
