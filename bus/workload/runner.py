"""Runs a workload: an attested agent's deliveries go to a function in a confined process, its results are published.

The agent, its keys and the broker stay in this process; the function's has none of them. A function that takes too
long, or whose process ends, loses that one delivery (told by ``on_refused``), and the next one gets a new process:
measured again, as it must be the code that was attested.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Final, Self

from bus.attester.chosen import measured_code
from bus.client.bus import Bus
from bus.client.delivery import Delivery
from bus.client.payload import Encoded
from bus.client.serving import serve
from bus.codes import Code
from bus.errors import Refused, RetryLater
from bus.settings import UNSET, AttesterKind, Settings
from bus.wire.envelope import Kind
from bus.workload import channel
from bus.workload.child import readable

START_S: Final = 30.0
MEMORY: Final = 2 * 1024**3
_PART: Final = 64 * 1024


class Confined:
    """One function in a confined process."""

    def __init__(self, target: str, code: Path, memory: int = MEMORY) -> None:
        """Raises Refused where the process cannot be confined, or the function not be found."""
        # Compiled files beside the code are not measured, and not read.
        flags = ["-I", "-B", "-X", "pycache_prefix=/nonexistent"]
        self._process = subprocess.Popen(
            [sys.executable, *flags, "-m", "bus.workload.child", target, str(code), str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
        os.set_blocking(self._pipe(self._process.stdin).fileno(), False)
        told = self._answer(START_S)
        if told is None or told[0] is not channel.Kind.READY:
            self.close()
            why = told[2].decode("utf-8", "replace") if told is not None else "its process ended"
            raise Refused(f"workload {target}: {why}", code=Code.SETTINGS)

    @property
    def pid(self) -> int:
        """Of the process outside that ends with it."""
        return self._process.pid

    def call(self, data: bytes, content_type: str, timeout: float) -> Encoded | None:
        """What the function returns for a payload; None where it returns nothing.

        Raises Refused (internal) where it raised (its error's type is told, nothing else), or did not answer in
        ``timeout`` s: it is ended then.
        """
        told = None
        if not self.ended and self._give(channel.pack(channel.Kind.INPUT, content_type, data), timeout):
            told = self._answer(timeout)
        if told is None:
            self.close()
            raise Refused(f"workload: no answer in {timeout:g} s, or its process ended", code=Code.INTERNAL)
        kind, answered, result = told
        if kind is channel.Kind.FAILED:
            raise Refused(f"workload: {result.decode('utf-8', 'replace')[:100]}", code=Code.INTERNAL)
        return Encoded(result, answered) if kind is channel.Kind.OUTPUT else None

    @property
    def ended(self) -> bool:
        """Whether there is no process any more."""
        return self._process.poll() is not None

    def _give(self, frame: bytes, timeout: float) -> bool:
        """Whether the process took ``frame`` in time: one that stopped reading must not stop its runner."""
        number, at, deadline = self._pipe(self._process.stdin).fileno(), 0, time.monotonic() + timeout
        with selectors.DefaultSelector() as waiting:
            waiting.register(number, selectors.EVENT_WRITE)
            while at < len(frame):
                if not waiting.select(max(deadline - time.monotonic(), 0)):
                    return False
                try:
                    at += os.write(number, frame[at : at + _PART])
                except BlockingIOError:
                    continue
                except OSError:
                    return False
        return True

    def _answer(self, timeout: float) -> tuple[channel.Kind, str, bytes] | None:
        try:
            return channel.read(_Timed(self._pipe(self._process.stdout), time.monotonic() + timeout))
        except (ValueError, UnicodeDecodeError):
            return None  # no frame: it wrote to the channel itself

    def _pipe(self, pipe: IO[bytes] | None) -> IO[bytes]:
        if pipe is None:
            raise OSError
        return pipe

    def close(self) -> None:
        """End the process, and with it all of its namespace."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._process.wait(START_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Timed:
    """Reads a pipe until a deadline."""

    def __init__(self, pipe: IO[bytes], deadline: float) -> None:
        self._pipe = pipe
        self._deadline = deadline

    def read(self, size: int, /) -> bytes | None:
        with selectors.DefaultSelector() as waiting:
            waiting.register(self._pipe, selectors.EVENT_READ)
            if not waiting.select(max(self._deadline - time.monotonic(), 0)):
                return None
        raw: bytes | None = self._pipe.read1(size)  # type: ignore[attr-defined]
        return raw


class Workload:
    """``function`` ("module:name") as agent ``me`` over what ``source`` has for it. Results go to the domain ``sink``,
    or as replies to whoever asked."""

    def __init__(self, me: Bus, settings: Settings, function: str, source: str, sink: str, timeout: float) -> None:
        """Raises Refused for a function of a code folder that is not named, or has keys in it."""
        self._me = me
        self._settings = settings
        self._function = function
        self._source = source
        self._sink = sink
        self._timeout = timeout
        self._code = settings.attester_code.resolve()
        if settings.attester_code == UNSET or not self._code.is_dir():
            raise Refused("workload: expected attester_code, the folder of its code", code=Code.SETTINGS)
        state = settings.state.resolve()
        if any(state.is_relative_to(each) for each in (each.resolve() for each in readable(self._code))):
            raise Refused(f"workload: it could read the state folder {state}", code=Code.SETTINGS)
        if sink == source:
            raise Refused("workload: expected another domain for results than that it reads", code=Code.SETTINGS)
        self._measured = measured_code(settings) if settings.attester is AttesterKind.SOFTWARE else None
        self._confined = self._start()

    def _start(self) -> Confined:
        if self._measured is not None and measured_code(self._settings) != self._measured:
            raise Refused(
                "workload: its code is not what was attested any more",
                code=Code.ATTESTATION,
                hint="accept its new measurement in agents.yaml, apply, and start it anew",
            )
        return Confined(self._function, self._code)

    def run(self, stop: threading.Event) -> None:
        """Until ``stop``. A delivery is acknowledged when its result is stored, or it is refused."""
        serve(self._me, self._source, stop, self._compute, self._refused)
        self._confined.close()

    def _refused(self, got: Delivery, error: Refused) -> None:
        if error.code is Code.ATTESTATION:
            raise error
        error.message_id = error.message_id or str(got.id)
        self._me._tell(error)

    def _compute(self, got: Delivery) -> None:
        if got.kind is Kind.RPC_REPLY:
            return
        if self._confined.ended:
            try:
                self._confined = self._start()
            except Refused as refused:
                if refused.code is Code.ATTESTATION:
                    raise
                raise RetryLater(str(refused), after=5) from None  # no delivery is lost for want of a process
        result = self._confined.call(got.payload, got.content_type, self._timeout)
        if result is None:
            return
        if self._sink:
            self._me.publish(self._sink, result, causation=[got], purpose=got.purpose)
        else:
            self._me.publish(
                self._source, result, kind=Kind.RPC_REPLY, target=got.source, causation=[got], purpose=got.purpose
            )
