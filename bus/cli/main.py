"""The `bus` command: groups, global error handling, `bus run`. Each group is a module of its own beside this one."""

from __future__ import annotations

import io
import logging
import sys
from typing import Any

import click
from rich.markup import escape

import bus
from bus.cli.lazy import Lazy
from bus.cli.output import EXIT_BUG, err, fail
from bus.errors import BusError

COMMANDS = {
    "agent": "bus.cli.agent",
    "audit": "bus.cli.audit",
    "bench": "bus.cli.bench",
    "demo": "bus.cli.demo",
    "doctor": "bus.cli.doctor",
    "fhe": "bus.cli.fhe",
    "keys": "bus.cli.keys",
    "map": "bus.cli.map",
    "mpc": "bus.cli.mpc",
    "policy": "bus.cli.policy",
    "probe": "bus.cli.probe",
    "publish": "bus.cli.records",
    "run": "bus.cli.run",
    "secrets": "bus.cli.secrets",
    "stack": "bus.cli.stack",
    "tail": "bus.cli.records",
}


class _Cli(Lazy):
    """click ends a command whose reader went away with 1; nothing is wrong with it."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            sys.stdout = io.StringIO()  # what is still to be flushed at the end has no reader
            raise click.exceptions.Exit(0) from None


@click.group(cls=_Cli, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(bus.__version__, prog_name="bus")
def cli() -> None:
    """A secure event bus for multi-agent AI systems on Apache Kafka.

    \b
    bus stack up            a local stack: real Kafka, policies applied, issuer, enforcer, audit
    bus policy plan         what the policy files would change on the broker
    bus publish DOMAIN JSON --as AGENT
    bus audit search        what was decided, from the ledger
    """


def main() -> None:
    """Entry point; exit codes as documented in README."""
    try:
        cli(prog_name="bus", standalone_mode=False)
    except BusError as error:
        fail(error)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # the last resort: a bug is told as one, with its trace in the log
        logging.getLogger("bus").debug("bug", exc_info=True)
        err.print(f"[bold red]bus: bug:[/] {escape(f'{type(error).__name__}: {error}')}")
        sys.exit(EXIT_BUG)


if __name__ == "__main__":
    main()
