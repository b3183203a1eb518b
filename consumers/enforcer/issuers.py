"""The file of issuers that are trusted to vouch for users (setting ``user_issuers``), read again when it changes.

A file that cannot be read, or holds something else, leaves the issuers of before in force; that is logged once.
"""

from __future__ import annotations

import logging
from pathlib import Path

from bus.codes import Code
from bus.crypto.users import Issuers, parse_issuers
from bus.errors import BusError, Refused

log = logging.getLogger("bus.enforcer")


class IssuersFile:
    """One file. Raises Refused(settings) where it holds no issuers at the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = b""
        try:
            self._data = path.read_bytes()
            self.first: Issuers = parse_issuers(self._data)
        except (OSError, BusError) as error:
            raise Refused(f"user_issuers: {path}: {error}", code=Code.SETTINGS, hint="docs/delegation.md") from None

    def read(self) -> Issuers | None:
        """The issuers where the file changed."""
        try:
            data = self._path.read_bytes()
            if data == self._data:
                return None
            self._data = data
            return parse_issuers(data)
        except (OSError, BusError) as error:
            if self._data:
                log.error("user_issuers: %s: %s: those of before hold", self._path, error)  # noqa: TRY400
            self._data = b""
            return None
