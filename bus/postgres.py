"""What the authority's state and the shared ledger have in common on PostgreSQL: the address, and how errors are told.

The address is a libpq connection string without a password: that is read from a 0600 file that ``passfile`` names. To
another machine only TLS with a verified name is spoken.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from bus.codes import Code
from bus.errors import RetryLater, SettingsError


def checked(conninfo: Any, address: str, setting: str) -> str:
    """How the database at ``address`` is called in messages: host and name.

    ``conninfo`` is psycopg's. Raises SettingsError where it holds a password, or would speak to another machine without
    TLS.
    """
    try:
        told = conninfo.conninfo_to_dict(address)
    except Exception as error:
        raise SettingsError(f"{setting}: not a connection string: {type(error).__name__}") from None
    if told.get("password"):
        raise SettingsError(
            f"{setting}: a password does not belong into settings", hint="passfile=/path/to/a/0600/file"
        )
    hosts = str(told.get("hostaddr") or told.get("host") or "")
    if not all(map(_here, hosts.split(","))) and told.get("sslmode") != "verify-full":
        raise SettingsError(
            f"{setting}: expected sslmode=verify-full, or the host of this machine", hint="sslrootcert=/path/to/ca.pem"
        )
    return f"postgresql {told.get('host', hosts)}/{told.get('dbname', '')}"


def away(name: str, error: Any) -> RetryLater:
    """Its text may quote a row: the kind and, where the server said one, the code are told."""
    code = f" {error.sqlstate}" if getattr(error, "sqlstate", None) else ""
    return RetryLater(f"{name} is away: {type(error).__name__}{code}", code=Code.RETRY)


def _here(host: str) -> bool:
    """Whether ``host`` is a folder with a socket, or this machine's loopback."""
    try:
        return host.startswith("/") or host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
