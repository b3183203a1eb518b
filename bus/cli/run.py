"""`bus run SERVICE`: one service in the foreground, as the stack and containers call it, or what an agent serves."""

from __future__ import annotations

import importlib
import logging
import re
from pathlib import Path

import click

from bus import settings as settings_module
from bus.cli.output import say
from bus.errors import SettingsError
from bus.signals import stop_on_signal

SERVICES = {
    "audit": ("consumers.audit.app", "Persist every hop in the ledger."),
    "authority": ("consumers.authority.app", "Enrol agents, make and lease keys."),
    "enforcer": ("consumers.enforcer.app", "Check, mask, redact and seal what agents publish."),
    "issuer": ("consumers.issuer.app", "Write keys for agents on this machine."),
    "watch": ("consumers.watch.app", "Alert on hops by alerts.yaml, and hand them to a SIEM or a tracer."),
    "rotator": ("consumers.rotator.app", "Replace passwords as epochs begin."),
}


@click.group()
def run() -> None:
    """Run one service in the foreground.

    \b
    bus run enforcer
    bus run party fraud_stats --as party-eu
    bus run workload scoring:score --as analyst-1 --from pii_inference --to scores
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")


def _service(name: str) -> click.Command:
    module, text = SERVICES[name]
    return click.Command(
        name, help=text, callback=lambda: importlib.import_module(module).run(settings_module.load()), params=[]
    )


for _name in SERVICES:
    run.add_command(_service(_name))


@run.command()
@click.option("--log", "logs", multiple=True, required=True, help="DEPLOYMENT=KEY (`bus audit key`); again for each.")
@click.option("--name", required=True, help="This witness's name, as witness.example/w1.")
@click.option("--state", type=click.Path(path_type=Path, file_okay=False), required=True, help="Its key and heads.")
@click.option("--listen", default="127.0.0.1:7980", help="HOST:PORT.")
def witness(logs: tuple[str, ...], name: str, state: Path, listen: str) -> None:
    """Co-sign checkpoints of ledgers that extend what was co-signed before (C2SP tlog-witness). Needs no bus.toml: run
    it where the ledger's operator has no say.

    \b
    bus run witness --log "$DEPLOYMENT=$KEY" --name witness.example/w1 --state witness
    """
    from bus.ledger.cosignature import NAME

    known = {}
    for each in logs:
        deployment, _, key = each.partition("=")
        if not (re.fullmatch("[0-9a-f]{32}", deployment) and re.fullmatch("[0-9a-f]{64}", key)):
            raise SettingsError(f"--log: expected DEPLOYMENT=KEY, 32 and 64 hex digits, found {each!r}")
        known[f"sealbus/{deployment}"] = bytes.fromhex(key)
    if not NAME.fullmatch(name):
        raise SettingsError(f"--name: expected letters, digits and ._/-, at most 128, found {name!r}")
    stop = stop_on_signal()
    with importlib.import_module("consumers.witness.app").Witness(state, name, known, listen) as served:
        click.echo(str(served.key))
        say(f"witness at {served.url}")
        stop.wait()


@run.command()
@click.argument("domain")
@click.option("--as", "agent", required=True, help="The party, as the policy names it.")
def party(domain: str, agent: str) -> None:
    """Keep this party's shares of DOMAIN, and answer jobs of who may have totals.

    \b
    bus run party fraud_stats --as party-eu
    """
    from bus import Bus
    from bus.client.party import PartyOf
    from bus.files import Layout

    settings = settings_module.load()
    stop = stop_on_signal()
    with Bus(agent, settings=settings) as me:
        me.on_refused(lambda error: say(f"refused: {error.code}: {error}"))
        served = PartyOf(me, Layout(settings.state), domain)
        say(f"{agent}  party of {domain}")
        served.run(stop)


@run.command()
@click.option("--as", "agent", required=True, help="The agent that reads the rows.")
@click.option("--from", "source", required=True, help="The domain that rows come in.")
@click.option("--to", "sink", required=True, help="The domain of tier FHE that takes batches.")
@click.option("--rows", default=4096, help="Rows of a full batch.")
@click.option("--every", default=60.0, help="Seconds after which 256 rows are enough.")
def gatherer(agent: str, source: str, sink: str, rows: int, every: float) -> None:
    """Gather single rows of many sources into batches for homomorphic encryption.

    \b
    bus run gatherer --as lender-1 --from figures --to credit
    """
    from bus import Bus
    from bus.client.gatherer import Gatherer

    stop = stop_on_signal()
    with Bus(agent, settings=settings_module.load()) as me:
        me.on_refused(lambda error: say(f"refused: {error.code}: {error}"))
        served = Gatherer(me, source, sink, rows=rows, every=every)
        say(f"{agent}  gatherer of {source} for {sink}, {served.waiting} rows wait")
        served.run(stop)


@run.command()
@click.argument("function", metavar="MODULE:FUNC")
@click.option("--as", "agent", required=True, help="The agent that attests.")
@click.option("--from", "source", required=True, help="The domain whose messages are given to the function.")
@click.option("--to", "sink", default="", help="The domain for results; unless told, they are replies to who sent.")
@click.option("--timeout", default=60.0, help="Seconds that one call may take.")
def workload(function: str, agent: str, source: str, sink: str, timeout: float) -> None:
    """Attest, lease the session keys, and give what comes to FUNC in a confined process.

    MODULE is found in the folder that `attester_code` names, which is measured; FUNC takes the payload, by its
    annotation, and returns the result or None.

    \b
    bus run workload scoring:score --as analyst-1 --from pii_inference --to scores
    """
    from bus import Bus
    from bus.workload.runner import Workload

    settings = settings_module.load()
    stop = stop_on_signal()
    with Bus(agent, settings=settings) as me:
        me.on_refused(lambda error: say(f"refused: {error.code}: {error}"))
        served = Workload(me, settings, function, source, sink, timeout)
        say(f"{agent}  workload {function} of {source}")
        served.run(stop)
