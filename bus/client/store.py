"""``Store``: an agent's own data at rest, for caches and checkpoints: names and values sealed under leased keys.

Names, values and the store's own name stand in the file as ciphertext and keyed tokens. How long they live is
``bus.client.shelves``'s: as long as the agent goes on leasing the keys of the domain that the store belongs to.
"""

from __future__ import annotations

from typing import Any, TypeVar

from bus.client.composer import check_text
from bus.client.payload import BINARY, JSON, decode_payload, encode_payload
from bus.client.shelves import Shelves
from bus.client.storefile import Row
from bus.codes import Code
from bus.crypto.entries import Entry, EntryKeys, check_size
from bus.errors import Refused
from bus.wire.names import LOWER_NAME, DomainName, is_lower_name

T = TypeVar("T")


class Store:
    """Entries by name. Thread-safe; several processes of one agent may use it at once, each call whole or not at all.

    Every call raises Denied where the policy took the domain from this agent (its entries are wiped then),
    AccessRefused where keys wait for an attestation, Refused(store) where the file is damaged or not writable,
    Refused(closed), and RetryLater where there are no keys now, the file is busy for 10 s or its disk is full.
    """

    def __init__(self, shelves: Shelves, name: str, domain: DomainName) -> None:
        """Raises Refused(schema) for a name that no store may have."""
        if not is_lower_name(name):
            raise Refused(f"store: expected {LOWER_NAME}, found {name!r}", code=Code.SCHEMA)
        self.name = name
        self.domain = domain
        self._shelves = shelves
        self._file = shelves.file
        shelves.enter(domain)

    def put(self, name: str, value: object, *, expires_in: float | None = None) -> None:
        """``value`` under ``name``, in place of what was there: bytes, or what JSON can hold. Gone after ``expires_in``
        seconds.

        Raises TooLarge over 1 KiB of name or 16 MiB of value, Refused(schema) for what is neither bytes nor JSON.
        """
        data, content_type = encode_payload(value)
        entry = Entry(self.name, _checked(name), data, content_type == JSON)
        check_size(name, data)
        if expires_in is not None and not expires_in > 0:
            raise Refused(f"expires_in: expected seconds above 0, found {expires_in}", code=Code.SCHEMA)
        self._shelves.enter(self.domain)
        ends = 0 if expires_in is None else self._shelves.clock() + int(expires_in * 1000)
        with self._file.transaction():
            keys, closes = self._shelves.newest(self.domain)
            self._file.remove("token", self._tokens(name, self._used()))
            token = keys.token(self.name, name)
            row = (token, ends, keys.seal(token, entry, ends))
            self._file.put(self.domain, keys.epoch, closes, keys.shelf(self.name), row)

    def get(self, name: str, default: Any = None, *, kind: type[T] | None = None) -> Any:
        """What was put under ``name``, as ``kind`` where that is told (a pydantic model, a dataclass, bytes), or
        ``default`` where there is nothing, or nothing any more.

        Raises Unverified for an entry that was changed in the file, Refused(schema) for one that is no ``kind``.
        """
        _checked(name)
        self._shelves.enter(self.domain)
        with self._file.transaction(write=False):
            used = self._used()
            row = self._file.find(self._tokens(name, used))
        if row is None or self._ended(row):
            return default
        return _value(self._open(row, used), kind)

    def delete(self, name: str) -> bool:
        """Whether there was an entry under ``name``."""
        _checked(name)
        self._shelves.enter(self.domain)
        with self._file.transaction():
            return self._file.remove("token", self._tokens(name, self._used())) > 0

    def names(self, prefix: str = "") -> list[str]:
        """Names of entries that begin with ``prefix``, sorted. Opens every entry: names are sealed with values."""
        return [entry.name for entry in self._entries(prefix)]

    def items(self, prefix: str = "") -> list[tuple[str, Any]]:
        """Names and values of one moment, by name. Raises as ``get``."""
        return [(entry.name, _value(entry, None)) for entry in self._entries(prefix)]

    def clear(self) -> int:
        """Remove every entry of this store; how many there were."""
        self._shelves.enter(self.domain)
        with self._file.transaction():
            return self._file.remove("shelf", [keys.shelf(self.name) for keys in self._used()])

    def _entries(self, prefix: str) -> list[Entry]:
        _checked(prefix)
        self._shelves.enter(self.domain)
        with self._file.transaction(write=False):
            used = self._used()
            rows = self._file.after("shelf", [keys.shelf(self.name) for keys in used], 0, -1)
        opened = (self._open(row, used) for row in rows if not self._ended(row))
        return sorted((each for each in opened if each.name.startswith(prefix)), key=lambda each: each.name)

    def _used(self) -> list[EntryKeys]:
        return self._shelves.used(self.domain)

    def _tokens(self, name: str, used: list[EntryKeys]) -> list[bytes]:
        return [keys.token(self.name, name) for keys in used]

    def _ended(self, row: Row) -> bool:
        return 0 < row.expires <= self._shelves.clock()

    def _open(self, row: Row, used: list[EntryKeys]) -> Entry:
        keys = next(each for each in used if each.epoch == row.epoch)
        return keys.open(row.token, row.body, row.expires)


def _checked(name: str) -> str:
    check_text("name", name)
    return name


def _value(entry: Entry, kind: type[T] | None) -> Any:
    return decode_payload(entry.data, JSON if entry.is_json else BINARY, kind)
