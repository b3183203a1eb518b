"""`bus secrets pull | list`: bootstrap secrets from where the site keeps them. Never shows bytes."""

from __future__ import annotations

import click
from rich.markup import escape

from bus import settings as settings_module
from bus.authority.sources import Source, place_of, pull
from bus.cli.output import EXIT_NO, emit, out
from bus.errors import SettingsError
from bus.settings import Settings

JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")


@click.group()
def secrets() -> None:
    """Bootstrap secrets that bus.toml's table `secrets` names, from Vault, AWS or Azure.

    \b
    [secrets]
    "services/bus-enforcer-1/scram" = "vault:kv/sealbus#enforcer-1"
    "signers/ledger.key" = "aws-secrets:prod/sealbus#ledger|base64"
    "keys/pin" = "azure-secrets:https://mine.vault.azure.net/secrets/hsm-pin"
    """


@secrets.command(name="pull")
@click.argument("names", nargs=-1)
@JSON
def pull_(names: tuple[str, ...], as_json: bool) -> None:
    """Write each secret (or those called NAMES) to its place in the state folder, 0600.

    What is the same stays as it is. Exit 4: its keeper does not give it now; those before it are written.
    """
    settings = settings_module.load()
    told = _sources(settings)
    if unknown := sorted(set(names) - set(told)):
        raise SettingsError(f"{settings.source}: secrets: no {unknown[0]!r} there")
    done = {}
    for name in names or sorted(told):
        done[name] = "written" if pull(settings, name, told[name]) else "unchanged"
        if not as_json:
            out.print(escape(f"{done[name]:10} {name}   {told[name]}"))
    if as_json:
        emit("secrets", {"secrets": done})


@secrets.command(name="list")
@JSON
def list_(as_json: bool) -> None:
    """Every secret that is named, its source and whether it is there. Exit 1 where one is not."""
    settings = settings_module.load()
    rows = [(name, str(each), place_of(settings.state, name).is_file()) for name, each in _sources(settings).items()]
    if as_json:
        emit("secrets", {"secrets": {name: {"source": source, "there": there} for name, source, there in rows}})
    else:
        for name, source, there in rows:
            out.print(
                f"[{'green' if there else 'red'}]{'there' if there else 'missing':8}[/] " + escape(f"{name}   {source}")
            )
    if not all(there for _, _, there in rows):
        raise SystemExit(EXIT_NO)


def _sources(settings: Settings) -> dict[str, Source]:
    """By name. Raises SettingsError where there are none, or one that cannot be."""
    if not settings.secrets:
        raise SettingsError(f"{settings.source}: no table [secrets]", hint="bus secrets --help")
    for name in settings.secrets:
        place_of(settings.state, name)
    return {name: Source.parse(text) for name, text in sorted(settings.secrets.items())}
