"""A TLS proxy between clients and the broker that loses and delays named requests and answers.

It ends TLS with the certificate of the test deployment's CA, speaks TLS to the broker and passes SASL through. Kafka's
frames are followed by correlation id, so that an answer is known by the api key of its request; where an answer tells
the broker's address, the proxy's own is put in its place (same length: the host stays, the port is an int32).
"""

import asyncio
import contextlib
import ssl
import struct
import threading
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from pathlib import Path

HOST = "127.0.0.1"
LINGER_S = 3.0
"""How long the broker's side stays open after its client left: what the client has sent must still arrive."""
REFUSED_S = 0.3
"""How long a client waits to learn that there is no broker: it would come again at once, and again."""
_HEAD = struct.Struct(">ihhi")


class Api(IntEnum):
    """Api keys of the Kafka protocol that a fault may name, and those whose answers hold the broker's address."""

    PRODUCE = 0
    METADATA = 3
    OFFSET_FETCH = 9
    FIND_COORDINATOR = 10
    JOIN_GROUP = 11
    HEARTBEAT = 12
    INIT_PRODUCER_ID = 22
    ADD_PARTITIONS_TO_TXN = 24
    ADD_OFFSETS_TO_TXN = 25
    END_TXN = 26
    TXN_OFFSET_COMMIT = 28
    DESCRIBE_CLUSTER = 60


ADDRESSES = frozenset({Api.METADATA, Api.FIND_COORDINATOR, Api.DESCRIBE_CLUSTER})


class Action(StrEnum):
    """What happens to an exchange. The broker carries out the request in each case."""

    DROP_ANSWER = "drop"
    DELAY_ANSWER = "delay"
    HOLD_REQUEST = "hold"


@dataclass(slots=True)
class Rule:
    """The next ``times`` exchanges of ``api`` meet ``action``; ``seconds`` is how long it waits."""

    api: Api
    action: Action
    seconds: float = 0.0
    times: int = 1


class Proxy:
    """Listens on a port of its own, in a thread of its own. A context manager."""

    def __init__(self, pki: Path, broker_port: int) -> None:
        self._broker_port = broker_port
        self._rules: list[Rule] = []
        self._met: list[tuple[Api, Action]] = []
        self._lock = threading.Lock()
        self._server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._server_side.minimum_version = ssl.TLSVersion.TLSv1_3
        self._server_side.load_cert_chain(pki / "broker.pem")
        self._client_side = ssl.create_default_context(cafile=str(pki / "ca.pem"))
        self._client_side.minimum_version = ssl.TLSVersion.TLSv1_3
        self._listening = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self.port = 0

    def __enter__(self):
        self._thread.start()
        assert self._listening.wait(10), "the proxy does not listen"
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._ended.set_result, None)
        self._thread.join(10)

    @property
    def bootstrap(self) -> str:
        """Where clients connect."""
        return f"{HOST}:{self.port}"

    def arm(self, rule: Rule) -> None:
        """Put ``rule`` in force."""
        with self._lock:
            self._rules.append(rule)

    def disarm(self) -> None:
        """No rule is in force any more; what is held now is still held to its end."""
        with self._lock:
            self._rules.clear()

    def met(self) -> list[tuple[Api, Action]]:
        """The exchanges that met a rule since the last call."""
        with self._lock:
            met, self._met = self._met, []
            return met

    def _rule(self, api: int, *actions: Action) -> Rule | None:
        with self._lock:
            for rule in self._rules:
                if rule.api == api and rule.action in actions and rule.times > 0:
                    rule.times -= 1
                    self._met.append((rule.api, rule.action))
                    return rule
            return None

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._ended = self._loop.create_future()
        tasks: set[asyncio.Task] = set()

        async def accept(reader, writer):
            tasks.add(asyncio.current_task())
            try:
                await self._connection(reader, writer)
            except asyncio.CancelledError:
                pass  # the proxy ends
            finally:
                tasks.discard(asyncio.current_task())

        server = await asyncio.start_server(accept, HOST, 0, ssl=self._server_side)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._ended
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader, writer) -> None:
        try:
            broker_reader, broker_writer = await asyncio.open_connection(
                HOST, self._broker_port, ssl=self._client_side, server_hostname=HOST
            )
        except OSError:
            await asyncio.sleep(REFUSED_S)
            writer.close()
            return
        asked: dict[int, int] = {}
        answers = asyncio.ensure_future(self._answers(broker_reader, writer, asked))
        try:
            await self._requests(reader, broker_writer, asked)
            await asyncio.wait([answers], timeout=LINGER_S if asked else 0)
        finally:
            answers.cancel()
            for each in (writer, broker_writer):
                each.close()
            await asyncio.gather(answers, return_exceptions=True)

    async def _requests(self, reader, broker_writer, asked: dict[int, int]) -> None:
        """Client to broker until the client is gone. A held request holds those behind it, and is sent all the same."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await _frame(reader)
                _, api, _, correlation = _HEAD.unpack_from(frame)
                asked[correlation] = api
                rule = self._rule(api, Action.HOLD_REQUEST)
                if rule is not None:
                    await asyncio.sleep(rule.seconds)
                broker_writer.write(frame)
                await broker_writer.drain()

    async def _answers(self, broker_reader, writer, asked: dict[int, int]) -> None:
        """Broker to client, until the broker is gone or an answer is dropped: then the client's connection ends too."""
        here, there = (HOST.encode() + struct.pack(">i", port) for port in (self.port, self._broker_port))
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await _frame(broker_reader)
                api = asked.pop(struct.unpack_from(">i", frame, 4)[0], -1)
                if api in ADDRESSES:
                    frame = frame.replace(there, here)
                rule = self._rule(api, Action.DROP_ANSWER, Action.DELAY_ANSWER)
                if rule is not None:
                    await asyncio.sleep(rule.seconds)
                    if rule.action is Action.DROP_ANSWER:
                        break
                writer.write(frame)
                await writer.drain()
        writer.close()


async def _frame(reader) -> bytes:
    size = await reader.readexactly(4)
    return size + await reader.readexactly(int.from_bytes(size, "big"))
