"""Kafka's classes as the JVM has loaded and linked them (JEP 483, JEP 514): brokers start with half the CPU time.

Made once by a broker that runs for a moment, kept beside the jars, and named by runtime and jars. Where it is missing
or does not fit, Java starts without it and says nothing.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from bus.errors import BusError
from bus.settings import Mechanism, Settings
from bus.stack.jars import aot_file, cache_folder, fetch_jars, find_java
from bus.stack.local import BUNDLED_POLICIES, Stack, prepare

OPTIONS: Final = "JDK_JAVA_OPTIONS"


def train() -> bool:
    """Make the file for the runtime and jars that the stack takes; whether there is one now."""
    java = find_java()
    file = aot_file(java)
    if file is None or file.exists():
        return file is not None
    fetch_jars()
    with tempfile.TemporaryDirectory(prefix="sealbus-train-", dir=cache_folder()) as home:
        made = Path(home) / "kafka.aot"
        settings = replace(
            Settings(), state=Path(home) / "state", policies=BUNDLED_POLICIES, sasl_mechanism=Mechanism.SCRAM
        )
        with contextlib.suppress(BusError), _recording(made):
            stack = Stack(prepare(settings))
            try:
                stack.up(lambda _: None, services=False)
            finally:
                stack.down(lambda _: None, purge=True)
        if not made.exists():
            return False
        made.replace(file)
    return True


@contextlib.contextmanager
def _recording(file: Path) -> Iterator[None]:
    before = os.environ.get(OPTIONS)
    os.environ[OPTIONS] = f"{before or ''} -XX:AOTCacheOutput={file}".strip()
    try:
        yield
    finally:
        if before is None:
            del os.environ[OPTIONS]
        else:
            os.environ[OPTIONS] = before
