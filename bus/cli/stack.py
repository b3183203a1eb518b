"""`bus stack up | status | logs | restart | down | fetch`."""

from __future__ import annotations

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from bus import settings as settings_module
from bus.cli.output import EXIT_NO, emit, err, out, say
from bus.errors import StackError
from bus.stack import containers
from bus.stack.aot import train
from bus.stack.jars import cache_folder, fetch_jars, find_java, have_jars
from bus.stack.local import Stack, is_external, prepare, process_names, service_names
from bus.stack.process import Daemon


@click.group()
def stack() -> None:
    """Local Kafka (TLS 1.3, SASL, ACLs), issuer, enforcer and audit."""


def fetch_with_progress() -> None:
    """Fetch Java and jars; a progress bar on stderr when there is something to fetch."""
    find_java()
    if have_jars(cache_folder()):
        return
    columns = (TextColumn("Kafka jars"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("jars", total=None)
        fetch_jars(lambda done, total: progress.update(task, completed=done, total=total))


@stack.command()
def fetch() -> None:
    """Fetch what the stack needs (45 MB, once), check it against the lock file, and load it once for quicker starts."""
    fetch_with_progress()
    with err.status("loading Kafka's classes once: brokers start sooner"):
        train()


@stack.command()
@click.option("--port", default=0, help="Port for agents; a free one unless given.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def up(port: int, as_json: bool) -> None:
    """Start broker, issuer, enforcers and audit, and apply the policies. BUS_BOOTSTRAP names an external broker."""
    settings = prepare(settings_module.load(), port)
    if not is_external(settings):
        fetch_with_progress()
    local = Stack(settings)
    local.up(say)
    if as_json:
        emit("stack", {"bootstrap": settings.bootstrap, "settings": str(local.layout.settings)})
    else:
        out.print(f"up: {settings.bootstrap}   settings: {local.layout.settings}")


@stack.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def status(as_json: bool) -> None:
    """What runs; exit 1 unless everything does."""
    rows = Stack(settings_module.load()).status()
    if as_json:
        emit("stack-status", {"services": [{"name": r.name, "pid": r.pid, "log": str(r.log)} for r in rows]})
    else:
        for row in rows:
            out.print(f"{row.name:16} {'up    pid ' + str(row.pid) if row.pid else 'down'}")
    if any(row.pid is None for row in rows):
        raise SystemExit(EXIT_NO)


@stack.command()
@click.argument("service", required=False)
@click.option("--lines", default=40, help="How many lines of each log.")
def logs(service: str | None, lines: int) -> None:
    """The last lines of the services' logs."""
    settings = settings_module.load()
    names = process_names(settings)
    if service is not None and service not in names:
        raise StackError(f"no service {service!r}", hint=f"one of {', '.join(names)}")
    for name in [service] if service else names:
        for line in Daemon(name, settings.state / "run").tail(lines).splitlines():
            click.echo(f"{name}: {line}" if service is None else line)


@stack.command()
@click.argument("services", nargs=-1)
def restart(services: tuple[str, ...]) -> None:
    """Restart SERVICES one after the other (default: every enforcer), each ready before the next.

    \b
    bus stack restart                  after an upgrade: a rolling restart of the enforcers
    bus stack restart audit issuer
    """
    settings = settings_module.load()
    known = service_names(settings)
    for name in services:
        if name not in known:
            raise StackError(f"no service {name!r}", hint=f"one of {', '.join(known)}")
    local = Stack(settings)
    for name in services or [each for each in known if each.startswith("bus-enforcer")]:
        local.restart_service(name)
        say(f"{name}  restarted")


@stack.command()
@click.option("--purge", is_flag=True, help="Remove the stack's data and keys too.")
def down(purge: bool) -> None:
    """Stop everything that `up` started, by its recorded process ids."""
    Stack(settings_module.load()).down(say, purge=purge)


@stack.command(hidden=True)
@click.argument("step", type=click.Choice(["prepare", "apply", "enrol"]))
def container(step: str) -> None:
    """What the one-shot services of docker-compose.yml run."""
    steps = {"prepare": containers.prepare, "apply": containers.apply, "enrol": containers.enrol}
    steps[step](settings_module.load(), say)
