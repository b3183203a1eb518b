"""Builds the Kafka client that speaks GSSAPI: `python -m tests.kerberos.build_client`.

The published confluent-kafka has no GSSAPI inside and refuses another librdkafka beside it, so both are built here, of
one version, and put into a folder of their own: the project's virtual environment keeps the published one. A minute.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

VERSION = "2.15.1"
"""Of confluent-kafka and of the librdkafka whose source the package below carries: the newest that any registry has."""
SOURCE = "@confluentinc/kafka-javascript@1.10.1"
SHA256 = "ada7d703bb1d3237e2292bfabf438d663b6160c9f1ac2a2406b5dc4257c81b66"
INSIDE = "package/deps/librdkafka"
OPTIONS = ("--enable-gssapi", "--enable-ssl", "--enable-zstd", "--enable-curl", "--disable-lz4-ext")
LIBRARIES = ("sasl2", "curl", "ssl", "crypto", "z", "zstd", "m")


def folder() -> Path:
    """What stands first in PYTHONPATH for a process that is to speak GSSAPI."""
    base = os.environ.get("XDG_CACHE_HOME")
    cache = (Path(base) if base else Path.home() / ".cache") / "sealbus"
    return cache / f"kerberos-client-{VERSION}-{sysconfig.get_config_var('SOABI')}"


def build(work: Path) -> None:
    """Fetch, check, build, put in place."""

    def run(*command: str, where: Path = work, **more: str) -> None:
        subprocess.run(command, cwd=where, check=True, capture_output=True, env={**os.environ, **more})

    run("npm", "pack", "--silent", SOURCE)
    (archive,) = work.glob("*.tgz")
    if (found := hashlib.sha256(archive.read_bytes()).hexdigest()) != SHA256:
        raise SystemExit(f"{SOURCE}: expected SHA-256 {SHA256}, found {found}")
    with tarfile.open(archive) as packed:
        packed.extractall(work, filter="data")
    source, made = work / INSIDE, work / "made"
    for script in ("configure", "lds-gen.py"):
        (source / script).chmod(0o755)
    run("./configure", f"--prefix={made}", *OPTIONS, "--disable-debug-symbols", where=source)
    run("make", "-C", "src", where=source)
    run("make", "-C", "src", "install", where=source)
    for shared in (made / "lib").glob("librdkafka.so*"):
        shared.unlink()  # so that the extension holds the library, and finds no other one at run time
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-deps"),
        *("--no-binary", "confluent-kafka", f"confluent-kafka=={VERSION}", "--target", str(work / "new")),
        C_INCLUDE_PATH=str(made / "include"),
        LIBRARY_PATH=str(made / "lib"),
        LDFLAGS=" ".join(["-Wl,--no-as-needed", *(f"-l{each}" for each in LIBRARIES)]),
    )
    beside = folder().with_name(folder().name + ".new")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(work / "new", beside)
    beside.rename(folder())


def main() -> None:
    """Say where it is, or why it cannot be had."""
    if not folder().is_dir():
        if missing := [each for each in ("npm", "gcc", "g++", "make", "pkg-config") if shutil.which(each) is None]:
            print(f"no {', '.join(missing)}: a client that speaks GSSAPI cannot be built, its tests are skipped")
            return
        print(f"building confluent-kafka {VERSION} with GSSAPI: about a minute, once", flush=True)
        try:
            with tempfile.TemporaryDirectory(prefix="sealbus-kerberos-") as work:
                build(Path(work))
        except subprocess.CalledProcessError as error:
            print(f"it cannot be built, its tests are skipped: {(error.stderr or b'').decode()[-500:]}")
            sys.exit(bool(os.environ.get("CI")))
    print(f"confluent-kafka {VERSION} with GSSAPI: {folder()}")


if __name__ == "__main__":
    main()
