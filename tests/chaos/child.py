"""Services that chaos starts: `python -m tests.chaos.child enforcer | audit JSON`, settings by BUS_CONFIG.

The JSON object names what is wrong with the process; without any it is the product as it stands:

* ``point``, ``count``: kill itself (SIGKILL) at the ``count``th time of a named step (``tests.integration.children``)
* ``fail``, ``count``: raise at that step instead, so that a transaction is aborted and the process lives on
* ``shift_ms``, ``after_s``: this process's clock is off by so much, from so long after its start on
* ``slow_s``: the key provider takes so long for each key
* ``broken``: one of ``BROKEN``, a build with a deliberate fault that the oracle must find
"""

import json
import sys
import time

from bus import settings as settings_module
from bus.authority.providers.file import FileProvider
from bus.kafka import loop, transaction
from bus.signals import stop_on_signal
from consumers.audit.app import Auditor
from consumers.enforcer import app, worker
from consumers.enforcer.app import Enforcer
from tests.integration.children import at, killer


def failer(point, count):
    """A step that raises at the ``count``th ``point``."""

    def fail():
        raise RuntimeError(f"chaos: the transaction fails at {point}")

    return at(point, count, fail)


def shift_clock(shift_ms, after_s):
    real, began = time.time_ns, time.monotonic()
    time.time_ns = lambda: real() + (shift_ms * 1_000_000 if time.monotonic() - began >= after_s else 0)


def slow_provider(seconds):
    unwrap = FileProvider.unwrap

    def slow(self, wrapped, context, name):
        time.sleep(seconds)  # the fault itself, not a wait for something
        return unwrap(self, wrapped, context, name)

    FileProvider.unwrap = slow


def break_offsets():
    """Offsets are committed by themselves, before the transaction's end; windows are restored whatever they hold."""
    consumers = []
    commit = transaction.Transactor._commit

    class Remembered(loop.Consumer):
        def __init__(self, config):
            super().__init__(config)
            consumers.append(self)

    loop.Consumer = Remembered

    class Outside:
        """The producer, but its send_offsets_to_transaction commits with the consumer."""

        def __init__(self, producer):
            self._producer = producer

        def __getattr__(self, name):
            return getattr(self._producer, name)

        def send_offsets_to_transaction(self, positions, _group, _timeout):
            consumers[0].commit(offsets=positions, asynchronous=False)

    def outside(self, producer, staged):
        commit(self, Outside(producer), staged)

    transaction.Transactor._commit = outside
    restored = worker.restored
    worker.restored = lambda records, _: restored(records, records[-1].upto if records else 0)


def break_rollback():
    """The windows of an aborted transaction are kept: what is read again looks like a replay."""
    kept = {}
    windows = worker.EnforcerWorker._windows

    def keeping(self, domain, values, partition, told):
        return kept.setdefault((domain, partition), windows(self, domain, values, partition, told))

    worker.EnforcerWorker._windows = keeping


BROKEN = {"offsets-outside": break_offsets, "windows-kept": break_rollback}


def main():
    kind, text = sys.argv[1:]
    wrong = json.loads(text)
    if "shift_ms" in wrong:
        shift_clock(wrong["shift_ms"], wrong.get("after_s", 0.0))
    if "slow_s" in wrong:
        slow_provider(wrong["slow_s"])
    if "broken" in wrong:
        BROKEN[wrong["broken"]]()
    count = wrong.get("count", 1)
    step = failer(wrong["fail"], count) if "fail" in wrong else killer(wrong.get("point", ""), count)
    app.configure_logging()
    service = {"enforcer": Enforcer, "audit": Auditor}[kind](settings_module.load(), step=step)
    service.run(stop_on_signal())


if __name__ == "__main__":
    main()
