"""`bus keys status | rotate | rewrap | erase`: custody of the roots' wrapping keys. Never shows bytes."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from typing import Any

import click
from rich.markup import escape

from bus import settings as settings_module
from bus.authority.custody import Custodian, open_provider
from bus.authority.local import open_roots
from bus.authority.providers.file import FileProvider
from bus.authority.providers.pkcs11 import Pkcs11Provider
from bus.authority.rewrapping import probe, rewrap_all
from bus.authority.trust import read_trust
from bus.cli.erasing import erase, erasure_rows, erasures, show_erasures
from bus.cli.output import EXIT_LATER, emit, out
from bus.errors import BusError, Refused, RetryLater
from bus.files import Layout
from bus.settings import Custody, Settings

ELSEWHERE = {
    Custody.VAULT: "vault write -f <mount>/keys/<key>/rotate",
    Custody.AWS_KMS: "aws kms rotate-key-on-demand --key-id <key>",
    Custody.AZURE: "az keyvault key rotate --vault-name <vault> --name <key>",
    Custody.GCP_KMS: "gcloud kms keys versions create --primary --key <key>",
}
"""Providers whose keys an administrator of theirs rotates: the services need no right to."""


@click.group()
def keys() -> None:
    """Roots, epochs and the keys that wrap them. Key bytes are never shown."""


@keys.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def status(as_json: bool) -> None:
    """Which key wraps which roots, whether the provider answers (exit 4 where not), and how far erasures have come."""
    settings = settings_module.load()
    layout = Layout(settings.state)
    store = open_roots(settings, layout, read_trust(layout.trust))
    kept = list(store.kept())
    erased, unknown = erasures(settings, store)
    failure: BusError | None = None
    current, began = "", time.monotonic()
    try:
        current = probe(Custodian(settings, layout))
    except RetryLater as error:
        failure = error
    took_ms = round((time.monotonic() - began) * 1000)
    held = Counter(each.kek for each in kept)
    epochs = sorted({each.number for each in kept if each.name})
    document: dict[str, Any] = {
        "provider": str(settings.key_provider),
        "wraps": current,
        "failure": str(failure or ""),
        "probe_ms": took_ms,
        "epochs": epochs,
        "roots": sum(1 for each in kept if each.name),
        "audit_days": sum(1 for each in kept if not each.name),
        "keks": dict(sorted(held.items())),
        "erasures": erasure_rows(erased),
    }
    if as_json:
        emit("keys", document)
    else:
        state = f"does not answer: {failure}" if failure else f"wraps under {current}, {took_ms} ms for both ways"
        out.print(escape(f"provider  {settings.key_provider}: {state}"))
        span = f"epochs {epochs[0]} to {epochs[-1]}" if epochs else "no epochs"
        out.print(f"roots     {document['roots']} of {span}, {document['audit_days']} of audit days")
        for kek, number in sorted(held.items()):
            out.print(escape(f"kek       {kek}: {number} roots" + ("" if kek == current else "   (not the newest)")))
        show_erasures(erased, unknown)
    if failure is not None:
        raise SystemExit(EXIT_LATER)


@keys.command()
def rotate() -> None:
    """Make a new wrapping key (`file`, `pkcs11`); the earlier ones stay until `bus keys rewrap` made them idle."""
    settings = settings_module.load()
    if command := ELSEWHERE.get(settings.key_provider):
        raise Refused(
            f"a key of {settings.key_provider} is rotated by its own administrator",
            hint=f"{command}, then bus keys rewrap",
        )
    provider = open_provider(settings.key_provider, settings, Layout(settings.state))
    if not isinstance(provider, FileProvider | Pkcs11Provider):
        raise TypeError(f"{settings.key_provider} has no rotation")
    out.print(escape(f"new roots are wrapped by {provider.rotate()}; now: bus keys rewrap"))


@keys.command()
@click.option("--to", type=click.Choice([str(each) for each in Custody]), help="Wrap by this provider instead.")
@click.option("--all", "everything", is_flag=True, help="Roots too that the newest key wraps already (AWS KMS).")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def rewrap(to: str | None, everything: bool, as_json: bool) -> None:
    """Wrap every stored root anew under the newest key. Ended early (exit 4), run it again: it goes on."""
    settings = settings_module.load()
    done, left, current = _rewrap(settings, Custody(to) if to else settings.key_provider, everything=everything)
    if as_json:
        emit("rewrap", {"wraps": current, "rewrapped": done, "as_they_were": left})
    else:
        out.print(escape(f"{done} roots wrapped anew by {current}, {left} as they were"))


def _rewrap(settings: Settings, to: Custody, *, everything: bool) -> tuple[int, int, str]:
    layout = Layout(settings.state)
    store = open_roots(settings, layout, read_trust(layout.trust))
    return rewrap_all(store, Custodian(replace(settings, key_provider=to), layout), everything=everything)


keys.add_command(erase)
