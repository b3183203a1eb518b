# What the compiled steps offer; the Rust sources say what each argument holds.

from collections.abc import Callable, Sequence
from typing import Any, Protocol

class _Windows(Protocol):
    highest_time: int

    @property
    def accept(self) -> Callable[[bytes, int], int]: ...

def released(
    plain: bytes, mark: bytes
) -> tuple[bytes, bytes, int, int, str, bytes, str, tuple[bytes, int, int] | None, bytes] | None: ...

class Accepted:
    def __init__(
        self,
        digest: bytes,
        key: object,
        decided: object,
        plaintext: bytes,
        message_id: bytes,
        instance_sequence: bytes,
        offset: int,
        append_time: int,
        gap: int,
        size: int,
        session: bytes,
        causes: bytes,
    ) -> None: ...
    @property
    def digest(self) -> bytes: ...
    @property
    def key(self) -> Any: ...
    @property
    def decided(self) -> Any: ...
    @property
    def plaintext(self) -> bytes: ...
    @property
    def message_id(self) -> bytes: ...
    @property
    def instance_sequence(self) -> bytes: ...
    @property
    def offset(self) -> int: ...
    @property
    def append_time(self) -> int: ...
    @property
    def gap(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def session(self) -> bytes: ...
    @property
    def causes(self) -> bytes: ...
    @property
    def length(self) -> int: ...
    @property
    def payload(self) -> int: ...
    def variant(self, decided: object, plaintext: bytes | None = None) -> Accepted: ...

class Acceptor:
    def __init__(
        self, head: bytes, mark: bytes, aad: bytes, mac_prefix: bytes, partition: int, skew: int, limit: int
    ) -> None: ...
    def __len__(self) -> int: ...
    def clear(self, cell: int) -> None: ...
    def learn(
        self,
        name: bytes,
        key: object,
        mac_key: bytes,
        seal_key: bytes,
        opens: int,
        closes: int,
        prefixed: bytes,
        masked: bytes,
        decided: object,
    ) -> None: ...
    def accept(
        self,
        values: list[bytes],
        times: list[int],
        offsets: list[int],
        at: int,
        stop: int,
        windows: _Windows,
        outcomes: list[Any],
    ) -> int: ...

class Cipher:
    def __init__(self, key: bytes) -> None: ...
    def protect(
        self,
        outcomes: list[Accepted],
        counter: int,
        head: bytes,
        aad: bytes,
        set_number: bytes,
        record_ids: bytes,
        partition: int,
        decided_at: int,
        tail: bytes,
        full: bool,
    ) -> list[tuple[bytes, bytes, bytes]]: ...
    def open(self, nonce: bytes, body: bytes, aad: bytes) -> bytes | None: ...
    def open_entries(self, covered: bytes, entries: Sequence[tuple[bytes, int, int, bytes]]) -> list[bytes | None]: ...

class DayRecorder:
    def __init__(
        self,
        hops: bytes,
        search: bytes,
        decision: bytes,
        correlation: bytes,
        message: bytes,
        limit: int,
        entry: type[tuple[Any, ...]],
    ) -> None: ...
    def __len__(self) -> int: ...
    def learn(self, tail: bytes, topic: str, event: bool, tokens: list[bytes]) -> None: ...
    def record(
        self,
        opened: bytes,
        count: int,
        topic: str,
        partition: int,
        first: int,
        upto: int,
        key_place: bytes,
        place: bytes,
        day: int,
        offset: int,
    ) -> list[Any] | None: ...

def postings(
    entries: list[Any], place: int, segment_bits: int, bucket_bits: int, max_block: int
) -> tuple[list[tuple[int, bytes, int, bytes]], list[tuple[int, int, int, bytes]]]: ...
def path_root(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None: ...
def tree_root(leaves: list[bytes]) -> bytes: ...

class Sealer:
    def __init__(
        self, mac_key: bytes, mac_prefix: bytes, seal_key: bytes, aad: bytes, header: bytes, partition: int
    ) -> None: ...
    def seal(self, sequence: int, plaintext: bytes) -> bytes: ...
