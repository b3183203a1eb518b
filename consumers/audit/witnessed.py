"""Has checkpoints co-signed: shows the newest of each partition to every witness, and keeps what they say.

In a thread and with a connection of its own: recording waits for no witness. One that does not answer is asked again;
one that refuses has seen another log: the log says so each time, and recording goes on.
"""

from __future__ import annotations

import http.client
import logging
import threading
from collections.abc import Callable, Mapping
from urllib.parse import SplitResult, urlsplit

from bus.errors import BusError, RetryLater, SettingsError, Unverified
from bus.ledger import witness
from bus.ledger.checkpoint import open_checkpoint
from bus.ledger.cosignature import WitnessKey, cosigned_at
from bus.ledger.store import Ledger
from consumers.posting import TIMEOUT_S, post

log = logging.getLogger("bus.audit")
EVERY_S = 2.0


class Conflict(BusError):
    """A witness holds another size than it was thought to."""

    def __init__(self, size: int) -> None:
        super().__init__(f"it holds {size}")
        self.size = size


class Witnessing:
    """``witnesses``: URLs by verifier key. A context manager; does nothing where there are none."""

    def __init__(self, opened: Callable[[], Ledger], public_key: bytes, witnesses: Mapping[str, str]) -> None:
        """Raises SettingsError for what is no verifier key or URL."""
        self._witnesses = [(WitnessKey.parse(key), _url(url)) for key, url in sorted(witnesses.items())]
        self._opened = opened
        self._public_key = public_key
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witnessing", daemon=True)

    def __enter__(self) -> None:
        if self._witnesses:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._witnesses:
            self._thread.join(2 * TIMEOUT_S)

    def _run(self) -> None:
        ledger = None
        while not self._stop.wait(EVERY_S):
            try:
                ledger = ledger or self._opened()
                for key, url in self._witnesses:
                    self._show(ledger, key, url)
            except BusError as error:  # the ledger's disk or server
                log.warning("witnesses: not now: %s", error)
            except Exception:
                log.exception("witnesses: not now")
        if ledger is not None:
            ledger.close()

    def _show(self, ledger: Ledger, key: WitnessKey, url: SplitResult) -> None:
        """Every partition, as far as it answers."""
        for partition in ledger.partitions():
            if self._stop.is_set():
                return
            try:
                self._partition(ledger, partition, key, url)
            except (OSError, http.client.HTTPException, RetryLater) as error:  # as a full disk
                log.warning("witness %s: not now: %s", key.name, error)
                return
            except BusError as error:
                log.warning("witness %s, partition %d: not co-signed: %s", key.name, partition, error)

    def _partition(self, ledger: Ledger, partition: int, key: WitnessKey, url: SplitResult) -> None:
        note = ledger.checkpoint(partition)
        old = ledger.cosigned(partition, str(key))
        if note is None or (size := open_checkpoint(note, self._public_key).size) == old:
            return
        try:
            line = self._ask(ledger, partition, old, size, note, url)
        except Conflict as conflict:
            if conflict.size > size:
                raise Unverified(
                    f"it co-signed {conflict.size} leaves, {size} are here: an older copy?", step="witness"
                ) from None
            line = self._ask(ledger, partition, conflict.size, size, note, url)
        cosigned_at(line, open_checkpoint(note, self._public_key).body(), key)
        ledger.cosign(partition, str(key), size, line)

    def _ask(self, ledger: Ledger, partition: int, old: int, size: int, note: str, url: SplitResult) -> str:
        data = witness.request(old, ledger.tree(partition).consistency(old, size), note)
        path = f"{url.path.rstrip('/')}{witness.PATH}"
        status, answer = post(url, path, data, "text/plain", witness.MAX_REQUEST)
        told = answer.decode("utf-8", "replace").strip()
        if status == 200:
            return told
        if status == 409 and told.isascii() and told.isdecimal() and int(told) != old:
            raise Conflict(int(told))
        raise Unverified(f"{status}: {told[:200]}", step="witness")


def _url(text: str) -> SplitResult:
    """Raises SettingsError."""
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.netloc or url.query or url.fragment:
        raise SettingsError(f"witnesses: expected http://HOST:PORT or https://HOST, found {text!r}")
    return url
