"""A PostgreSQL of the tests: a throw-away cluster in a folder of its own; TLS on loopback, passwords."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bus.authority.database import Database
from bus.authority.postgres import Postgres
from bus.errors import RetryLater
from bus.stack.broker import free_ports
from bus.stack.pki import ensure_pki, issue_server
from tests.integration.oracle import until

USER = "sealbus"
PASSWORD = "a password of the tests"


def programs() -> Path:
    """The folder with initdb and postgres; skips where there is none."""
    pytest.importorskip("psycopg", reason="psycopg is not installed: make test-postgres")
    pytest.importorskip("alembic", reason="alembic is not installed: make test-postgres")
    pytest.importorskip("psycopg_pool", reason="psycopg_pool is not installed: make test-postgres")
    found = [Path(each).parent for each in [shutil.which("initdb")] if each]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for folder in found:
        if (folder / "postgres").exists():
            return folder
    pytest.skip("PostgreSQL is not installed: make test-postgres installs it where root may")


def owner() -> dict[str, object]:
    """PostgreSQL does not run as root: who it runs as, for subprocess."""
    return {} if os.getuid() else {"user": "postgres", "group": "postgres", "extra_groups": []}


@dataclass
class Cluster:
    """A server that can be stopped and started again."""

    home: Path
    bin: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def address(self, database: str = "postgres", *, tls: bool = False) -> str:
        """A connection string; the password is in the file that it names."""
        told = f"port={self.port} dbname={database} user={USER} passfile={self.home / 'passfile'}"
        if tls:
            return f"host=localhost {told} sslmode=verify-full sslrootcert={self.home / 'pki' / 'ca.pem'}"
        return f"host={self.home / 'run'} {told}"

    def start(self) -> None:
        command = [self.bin / "postgres", "-D", self.home / "data", "-p", str(self.port), "-k", self.home / "run"]
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **owner())
        probe = Postgres(self.address(), 2000)
        until(lambda: self._answers(probe))
        probe.close()

    def _answers(self, probe: Database) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.home / "log").read_text()[-2000:]
        with contextlib.suppress(RetryLater), probe.read() as db:
            return bool(db.execute("SELECT 1").fetchone())
        return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)  # ends connections, writes everything
            self.process.wait(30)
            self.process = None

    def database(self, name: str) -> str:
        """The address of a new, empty database."""
        import psycopg

        with psycopg.connect(self.address(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.address(name)


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """A cluster, removed at the end."""
    folder = programs()
    home = Path(tempfile.mkdtemp(prefix="sealbus-postgres-"))  # its user cannot enter pytest's folders
    cluster = Cluster(home, folder, free_ports()[0].agents)
    try:
        home.chmod(0o711)
        for name, text in (("passfile", f"*:*:*:{USER}:{PASSWORD}\n"), ("password", PASSWORD)):
            (home / name).write_text(text)
            (home / name).chmod(0o600)
        (home / "run").mkdir()
        ensure_pki(home / "pki")
        key, chain = issue_server(home / "pki", "localhost")
        for name, data in (("server.key", key), ("server.pem", chain)):
            (home / name).write_bytes(data)
            (home / name).chmod(0o600)
        if not os.getuid():
            for name in ("password", "run", "server.key", "server.pem"):
                shutil.chown(home / name, "postgres", "postgres")
            (home / "data").mkdir()
            shutil.chown(home / "data", "postgres", "postgres")
        subprocess.run(
            [
                folder / "initdb",
                f"--pgdata={home / 'data'}",
                f"--username={USER}",
                f"--pwfile={home / 'password'}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
            ],
            check=True,
            capture_output=True,
            cwd="/",
            **owner(),
        )
        with (home / "data" / "postgresql.conf").open("a") as settings:
            settings.write(
                f"listen_addresses = '127.0.0.1'\nssl = on\nssl_cert_file = '{home / 'server.pem'}'\n"
                f"ssl_key_file = '{home / 'server.key'}'\n"
            )
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(home, ignore_errors=True)
