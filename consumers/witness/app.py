"""The witness service: `add-checkpoint` over HTTP, its heads in a file, its key in another. Knows no deployment's keys.

A head is on the disk before its cosignature is given: a witness that stops between the two says the same again. One
process a folder; requests are answered one after another.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from bus.crypto.signing import Signer
from bus.files import alone, make_folder, read_secret, write_secret
from bus.ledger import witness
from bus.ledger.checkpoint import Checkpoint
from bus.ledger.cosignature import WitnessKey
from consumers.endpoint import Answering, listening, url_of

log = logging.getLogger("bus.witness")
SCHEMA = "create table if not exists head (origin text primary key, size integer not null, root blob not null)"
STORE = "insert into head values (?,?,?) on conflict (origin) do update set size = excluded.size, root = excluded.root"


class Heads:
    """Newest heads by origin, in one SQLite file."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("pragma synchronous = full")
        self._db.execute(SCHEMA)

    def newest(self, origin: str) -> Checkpoint | None:
        """The head that was co-signed last."""
        row = self._db.execute("select size, root from head where origin = ?", (origin,)).fetchone()
        return Checkpoint(origin, row[0], row[1]) if row else None

    def hold(self, head: Checkpoint) -> None:
        """Store it; on the disk when this returns."""
        self._db.execute(STORE, (head.origin, head.size, head.root))

    def close(self) -> None:
        """Close the file."""
        self._db.close()


class Witness:
    """One witness. ``logs``: public keys by log. A context manager: answers within it."""

    def __init__(self, folder: Path, name: str, logs: Mapping[str, bytes], address: str) -> None:
        """Raises SettingsError where ``address`` (HOST:PORT) cannot be taken. Entering waits while another process has
        ``folder``."""
        make_folder(folder)
        self._name = name
        self._logs = logs
        self._folder = folder
        key = folder / "witness.key"
        if not key.exists():
            write_secret(key, Signer.generate().seed())
        self._signer = Signer(read_secret(key))
        self._turn = threading.Lock()
        self._server = listening(address, "--listen", _handler(self))

    @property
    def key(self) -> WitnessKey:
        """What verifies its cosignatures."""
        return WitnessKey(self._name, self._signer.public_key)

    @property
    def url(self) -> str:
        """Where it listens."""
        return url_of(self._server)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(alone(self._folder))
            self._heads = Heads(self._folder / "heads.db")
            stack.callback(self._heads.close)
            stack.callback(self._server.server_close)
            self._ends = stack.pop_all()
        threading.Thread(target=self._server.serve_forever, name="witness", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._ends.close()

    def answer(self, data: bytes) -> witness.Answer:
        """To one request. From any thread."""
        with self._turn:
            held = self._heads.newest(witness.origin_of(data))
            told = witness.add_checkpoint(data, held, self._logs, self._name, self._signer, int(time.time()))
            if told.head is not None and told.head != held:
                self._heads.hold(told.head)
        if told.status != 200:
            log.warning("%s: %d %s", witness.origin_of(data)[:200], told.status, told.body.strip())
        return told


def _handler(served: Witness) -> type[Answering]:
    class Handler(Answering):
        def do_POST(self) -> None:  # noqa: N802 - http.server's name
            told = self._told()
            self.answer(told.status, told.body.encode(), told.kind)

        def _told(self) -> witness.Answer:
            """What was not read ends the connection."""
            length = self.headers.get("Content-Length", "")
            if not (length.isascii() and length.isdecimal()) or int(length) > witness.MAX_REQUEST:
                self.close_connection = True
                return witness.Answer(413, f"expected at most {witness.MAX_REQUEST} bytes, and their number\n")
            data = self.rfile.read(int(length))
            if self.path != witness.PATH:
                return witness.Answer(404, f"expected {witness.PATH}\n")
            try:
                return served.answer(data)
            except sqlite3.Error:  # a full disk: nothing is signed that is not held
                log.exception("nothing is co-signed")
                return witness.Answer(503, "heads cannot be kept now\n")

    return Handler
