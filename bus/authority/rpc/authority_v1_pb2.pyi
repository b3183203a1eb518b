from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class NowRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Moment(_message.Message):
    __slots__ = ("at",)
    AT_FIELD_NUMBER: _ClassVar[int]
    at: int
    def __init__(self, at: _Optional[int] = ...) -> None: ...

class EnrolRequest(_message.Message):
    __slots__ = ("token", "request")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    token: str
    request: bytes
    def __init__(self, token: _Optional[str] = ..., request: _Optional[bytes] = ...) -> None: ...

class EnrolChallengeRequest(_message.Message):
    __slots__ = ("agent", "request", "offer")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    agent: str
    request: bytes
    offer: bytes
    def __init__(self, agent: _Optional[str] = ..., request: _Optional[bytes] = ..., offer: _Optional[bytes] = ...) -> None: ...

class EnrolAttestRequest(_message.Message):
    __slots__ = ("agent", "request", "nonce", "evidence")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    agent: str
    request: bytes
    nonce: bytes
    evidence: bytes
    def __init__(self, agent: _Optional[str] = ..., request: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., evidence: _Optional[bytes] = ...) -> None: ...

class ChallengeRequest(_message.Message):
    __slots__ = ("offer",)
    OFFER_FIELD_NUMBER: _ClassVar[int]
    offer: bytes
    def __init__(self, offer: _Optional[bytes] = ...) -> None: ...

class Asked(_message.Message):
    __slots__ = ("nonce", "challenge")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    CHALLENGE_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    challenge: bytes
    def __init__(self, nonce: _Optional[bytes] = ..., challenge: _Optional[bytes] = ...) -> None: ...

class AttestRequest(_message.Message):
    __slots__ = ("nonce", "evidence")
    NONCE_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    nonce: bytes
    evidence: bytes
    def __init__(self, nonce: _Optional[bytes] = ..., evidence: _Optional[bytes] = ...) -> None: ...

class Attested(_message.Message):
    __slots__ = ("result", "not_after")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    result: str
    not_after: int
    def __init__(self, result: _Optional[str] = ..., not_after: _Optional[int] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("counter", "request")
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    counter: int
    request: bytes
    def __init__(self, counter: _Optional[int] = ..., request: _Optional[bytes] = ...) -> None: ...

class Certified(_message.Message):
    __slots__ = ("agent", "certificate", "counter", "not_after")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    agent: str
    certificate: bytes
    counter: int
    not_after: int
    def __init__(self, agent: _Optional[str] = ..., certificate: _Optional[bytes] = ..., counter: _Optional[int] = ..., not_after: _Optional[int] = ...) -> None: ...

class LeaseRequest(_message.Message):
    __slots__ = ("held", "result")
    class HeldEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: bytes
        def __init__(self, key: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...
    HELD_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    held: _containers.ScalarMap[int, bytes]
    result: str
    def __init__(self, held: _Optional[_Mapping[int, bytes]] = ..., result: _Optional[str] = ...) -> None: ...

class Leases(_message.Message):
    __slots__ = ("bundles", "kept", "due", "withheld", "attested", "policy")
    class BundlesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: bytes
        def __init__(self, key: _Optional[int] = ..., value: _Optional[bytes] = ...) -> None: ...
    class WithheldEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    BUNDLES_FIELD_NUMBER: _ClassVar[int]
    KEPT_FIELD_NUMBER: _ClassVar[int]
    DUE_FIELD_NUMBER: _ClassVar[int]
    WITHHELD_FIELD_NUMBER: _ClassVar[int]
    ATTESTED_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    bundles: _containers.ScalarMap[int, bytes]
    kept: _containers.RepeatedScalarFieldContainer[int]
    due: int
    withheld: _containers.ScalarMap[str, str]
    attested: bool
    policy: bytes
    def __init__(self, bundles: _Optional[_Mapping[int, bytes]] = ..., kept: _Optional[_Iterable[int]] = ..., due: _Optional[int] = ..., withheld: _Optional[_Mapping[str, str]] = ..., attested: _Optional[bool] = ..., policy: _Optional[bytes] = ...) -> None: ...
