"""Health, readiness and metrics of a service over HTTP: `GET /healthz`, `/readyz`, `/metrics` (Prometheus).

Health says that the service's loop turns: a supervisor restarts it where it does not. Readiness says that it does its
work now, and if not, why. The endpoint is for the platform's own network: it has no credentials, and tells names of
domains, topics, rules and codes, no content and no agents. `http = "HOST:PORT"` turns it on; port 0 takes a free one,
which is written to `run/<service>.http`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, Self

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import choose_encoder

import bus
from bus.errors import SettingsError
from bus.files import make_folder, write_file

log = logging.getLogger("bus.http")

STALE_S: Final = 60.0
"""A loop that has not turned for so long hangs: the longest step that it allows itself ends after 45 s."""


class Vitals:
    """What a service says of itself; set by its loop, read by the endpoint.

    A context manager: the file ``path`` is there while the service does its work.
    """

    def __init__(self, path: Path, on_ready: Callable[[], None] = lambda: None) -> None:
        self._path = path
        self._on_ready = on_ready
        self._beaten = time.monotonic()
        self._waits = "starting"

    def __enter__(self) -> Self:
        self._path.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)

    def beat(self) -> None:
        """The loop turned."""
        self._beaten = time.monotonic()

    def ready(self) -> None:
        """It does its work."""
        self._beaten = time.monotonic()
        if self._waits:
            self._waits = ""
            make_folder(self._path.parent)
            write_file(self._path, b"")
            self._on_ready()

    def waiting(self, why: str) -> None:
        """It does not, because of ``why``."""
        self._waits = why
        self._path.unlink(missing_ok=True)

    def health(self) -> str:
        """Empty, or what is wrong."""
        silent = time.monotonic() - self._beaten
        return f"the loop has not turned for {silent:.0f} s" if silent > STALE_S else ""

    def readiness(self) -> str:
        """Empty, or why it does not do its work."""
        return self.health() or self._waits


class Endpoint:
    """The HTTP server of one service. A context manager."""

    def __init__(self, name: str, address: str, run: Path, vitals: Vitals, registry: CollectorRegistry) -> None:
        """``address`` is HOST:PORT, or empty for none. Raises SettingsError where it cannot be taken."""
        self._server: ThreadingHTTPServer | None = None
        self._told = run / f"{name}.http"
        build = Gauge("sealbus_build_info", "Version and service.", ["version", "service"], registry=registry)
        build.labels(bus.__version__, name).set(1)
        Gauge("sealbus_ready", "1 while the service does its work.", registry=registry).set_function(
            lambda: float(not vitals.readiness())
        )
        if not address:
            return
        self._server = listening(address, "http", _handler(vitals, registry))

    def __enter__(self) -> Self:
        if self._server is not None:
            make_folder(self._told.parent)
            write_file(self._told, f"{url_of(self._server)}\n".encode())
            threading.Thread(target=self._server.serve_forever, name="http", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._told.unlink(missing_ok=True)


class Answering(BaseHTTPRequestHandler):
    """What answers one connection: whole bodies, nothing on stderr."""

    protocol_version = "HTTP/1.1"
    timeout = 10

    def answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        """Send it."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, text: str, *args: object) -> None:
        """Each request, for debugging alone."""
        log.debug(text, *args)


def listening(address: str, setting: str, handler: type[Answering]) -> ThreadingHTTPServer:
    """A server at ``address`` (HOST:PORT), not serving yet. Raises SettingsError, which names ``setting``."""
    host, _, port = address.rpartition(":")
    try:
        server = ThreadingHTTPServer((host, int(port)), handler)
    except (OSError, ValueError, OverflowError) as error:
        raise SettingsError(f"{setting}: expected HOST:PORT that is free, found {address!r}: {error}") from error
    server.daemon_threads = True
    return server


def url_of(server: ThreadingHTTPServer) -> str:
    """Where it listens."""
    host, port = server.server_address[:2]
    return f"http://{host!s}:{port}"


def _handler(vitals: Vitals, registry: CollectorRegistry) -> type[Answering]:
    class Handler(Answering):
        def do_GET(self) -> None:  # http.server's name
            if self.path == "/metrics":
                encode, kind = choose_encoder(
                    self.headers.get("Accept", "")
                )  # OpenMetrics, which has exemplars, or text
                self.answer(200, encode(registry), kind)
                return
            asked = {"/healthz": vitals.health, "/readyz": vitals.readiness}.get(self.path)
            if asked is None:
                self.answer(404, b"expected /healthz, /readyz or /metrics\n")
                return
            wrong = asked()
            self.answer(503 if wrong else 200, f"{wrong or 'ok'}\n".encode())

    return Handler
