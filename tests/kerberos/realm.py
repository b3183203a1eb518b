"""A realm of MIT Kerberos in a folder, on a port of its own: KDC, principals, keytabs. No root is needed."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import threading
from pathlib import Path

REALM = "BUS.TEST"
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
TOOLS = ("krb5kdc", "kdb5_util", "kadmin.local", "kinit")

KRB5_CONF = """
[libdefaults]
 default_realm = {realm}
 dns_lookup_kdc = false
 dns_canonicalize_hostname = false
 rdns = false
 udp_preference_limit = 1
[realms]
 {realm} = {{
  kdc = 127.0.0.1:{port}
 }}
"""
KDC_CONF = """
[kdcdefaults]
 kdc_listen = 127.0.0.1:{port}
 kdc_tcp_listen = 127.0.0.1:{port}
[realms]
 {realm} = {{
  database_name = {folder}/principal
  key_stash_file = {folder}/stash
  acl_file = {folder}/acl
  max_life = 10h
  default_principal_flags = +preauth
 }}
[logging]
 kdc = FILE:{folder}/kdc.log
"""


def missing() -> list[str]:
    """Programs that are not there."""
    return [each for each in TOOLS if shutil.which(each, path=PATH) is None]


class Realm:
    """Tickets of agents live ``life_s`` seconds; Kafka's own login cannot follow one of less than a minute."""

    def __init__(self, folder: Path, life_s: int) -> None:
        folder.mkdir()
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = ("127.0.0.1", port)
        told = {"realm": REALM, "port": port, "folder": folder}
        self._life_s = life_s
        (folder / "krb5.conf").write_text(KRB5_CONF.format(**told))
        (folder / "kdc.conf").write_text(KDC_CONF.format(**told))
        self.config = str(folder / "krb5.conf")
        self.run("kdb5_util", "create", "-s", "-r", REALM, "-P", secrets.token_hex(16))
        self._kdc: subprocess.Popen[bytes] | None = None
        self.start()

    def run(self, *command: str, **more: str) -> str:
        """Run one of Kerberos's programs for this realm; its output."""
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=self._environ(**more))
        return done.stdout

    def _environ(self, **more: str) -> dict[str, str]:
        kdc = {"KRB5_CONFIG": self.config, "KRB5_KDC_PROFILE": str(self.folder / "kdc.conf")}
        return {**os.environ, "PATH": PATH, **kdc, **more}

    def start(self) -> None:
        """Begin to answer."""
        self._kdc = subprocess.Popen(
            ["krb5kdc", "-n"], env=self._environ(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while True:
            assert self._kdc.poll() is None, "the KDC ended"
            try:
                socket.create_connection(self.address, 1).close()
            except OSError:
                threading.Event().wait(0.05)
            else:
                return

    def stop(self) -> None:
        """Answer nobody."""
        if self._kdc is not None:
            self._kdc.terminate()
            self._kdc.wait(20)
            self._kdc = None

    def keytab(self, principal: str, path: Path) -> Path:
        """A keytab of ``principal`` alone, which is made where missing and gets a new key each time."""
        self.run("kadmin.local", "-q", f"addprinc -randkey {principal}")
        if not principal.startswith("kafka/"):
            self.run("kadmin.local", "-q", f'modprinc -maxlife "{self._life_s} seconds" {principal}')
        path.unlink(missing_ok=True)
        self.run("kadmin.local", "-q", f"ktadd -k {path} {principal}")
        path.chmod(0o600)
        return path

    def tickets(self, principal: str) -> int:
        """How many tickets to get tickets with the KDC gave ``principal``."""
        lines = (self.folder / "kdc.log").read_text().splitlines()
        return sum("AS_REQ" in each and "ISSUE" in each and f"{principal}@{REALM} for" in each for each in lines)
