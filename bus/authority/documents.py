"""Where wrapped roots lie: numbered documents in a folder of 0600 files. A database's are ``bus.authority.tables``.

A number is claimed with all its documents or not at all, by whoever is first: two processes never mix theirs. What the
documents say, under which key they are wrapped and which of them are erased is ``bus.authority.roots``'s business.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Protocol

from bus.codes import Code
from bus.errors import RetryLater
from bus.files import alone, read_secret, write_secret

WHOLE: Final = ""
"""Name of the only document of a number that has no others."""
Place = tuple[int, str]
"""A document's number and name. A root's are its epoch and ``<zone>.<domain>``."""


class Documents(Protocol):
    """Bytes by number and name. Every method raises RetryLater where the store is away."""

    def reach(self) -> None:
        """Raise RetryLater where the store is away: others in place of its documents would part it from their use."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """One at a time of all processes that share the store. Not twice in one thread."""
        ...

    def places(self) -> frozenset[Place]:
        """Of every document."""
        ...

    def names(self, number: int) -> frozenset[str]:
        """Names of the documents of ``number``; none where it was removed."""
        ...

    def read(self, number: int, name: str) -> bytes:
        """One document. Raises FileNotFoundError."""
        ...

    def add(self, number: int, documents: Mapping[str, bytes]) -> bool:
        """Claim ``number`` with all of ``documents``, or change nothing and return False where it is taken."""
        ...

    def replace(self, number: int, name: str, before: bytes, after: bytes) -> bool:
        """Put ``after`` in the place of ``before``; False where something else, or nothing, is there. Within
        ``alone``, as whatever removes."""
        ...

    def discard(self, number: int, name: str) -> bool:
        """Remove one document, with copies beside it under its name (``<name>.bak``); whether there was any. A number
        that has no others is free again."""
        ...

    def remove(self, number: int) -> None:
        """Remove every document of ``number``, if there is any."""
        ...


class Folder:
    """``<number>/<name>``, or the file ``<number>`` alone. Any number of processes on one machine."""

    def __init__(self, path: Path) -> None:
        self._folder = path

    def reach(self) -> None:
        """See ``Documents``."""
        reach(self._folder)

    def alone(self) -> AbstractContextManager[None]:
        """See ``Documents``."""
        self.reach()
        return alone(self._folder)

    def places(self) -> frozenset[Place]:
        """See ``Documents``."""
        self.reach()
        numbers = [int(each.name) for each in self._folder.iterdir() if each.name.isdigit()]
        return frozenset((number, name) for number in numbers for name in self.names(number))

    def names(self, number: int) -> frozenset[str]:
        """See ``Documents``."""
        place = self._path(number, WHOLE)
        try:
            return frozenset(path.name for path in place.iterdir() if path.suffix != ".new")
        except NotADirectoryError:
            return frozenset({WHOLE})
        except FileNotFoundError:
            return frozenset()  # removed a moment ago

    def read(self, number: int, name: str) -> bytes:
        """See ``Documents``."""
        self.reach()
        return read_secret(self._path(number, name))

    def add(self, number: int, documents: Mapping[str, bytes]) -> bool:
        """See ``Documents``. Made beside its place; a rename or a link, which only one wins, puts it there."""
        self.reach()
        made = Path(tempfile.mkdtemp(".new", f".{number}.", self._folder))
        try:
            for name, data in documents.items():
                write_secret(made / (name or "whole"), data)
            if WHOLE in documents:
                os.link(made / "whole", self._path(number, WHOLE))
            else:
                made.rename(self._path(number, WHOLE))
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                return False
            raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return True

    def replace(self, number: int, name: str, before: bytes, after: bytes) -> bool:
        """See ``Documents``."""
        path = self._path(number, name)
        # What was removed meanwhile must not come back.
        if not path.exists() or read_secret(path) != before:
            return False
        write_secret(path, after, path.stat().st_uid)
        return True

    def discard(self, number: int, name: str) -> bool:
        """See ``Documents``."""
        path = self._path(number, name)
        beside = path.parent.iterdir() if name and path.parent.is_dir() else [path]
        found = [each for each in beside if each.name == path.name or (name and each.name.startswith(f"{name}."))]
        held = [each for each in found if each.exists()]
        for each in held:
            each.unlink()
        if name:
            with contextlib.suppress(OSError):  # there are others
                path.parent.rmdir()
        return bool(held)

    def remove(self, number: int) -> None:
        """See ``Documents``."""
        place = self._path(number, WHOLE)
        if place.is_dir():
            shutil.rmtree(place)
        place.unlink(missing_ok=True)
        for left in self._folder.glob(f".{number}.*.new"):  # by a crash
            shutil.rmtree(left, ignore_errors=True)

    def _path(self, number: int, name: str) -> Path:
        return self._folder / str(number) / name if name else self._folder / str(number)


def reach(folder: Path) -> None:
    """Raise RetryLater where a folder of the key store is away."""
    if not folder.is_dir():
        raise RetryLater(
            f"{folder} is not there: the key store is away",
            code=Code.RETRY,
            hint="mount it again, or `bus stack up` for a new deployment",
        )
