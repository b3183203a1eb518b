"""What becomes of a record: it goes on, or it is refused and nothing of it is believed that was not checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Union

from bus.codes import Code
from bus.crypto.keyring import AgentKey
from bus.policy.decide import Decision
from bus.wire import envelope
from bus.wire.hop import NO_INSTANCE
from consumers.enforcer.decided import DecidedProfile

if TYPE_CHECKING:
    import sealbus_native


class Accepted(NamedTuple):
    """A record that goes on. ``plaintext`` = uint32 length | Released | zeros; the rest is for its hop."""

    digest: bytes
    key: AgentKey
    decided: DecidedProfile
    plaintext: bytes
    message_id: bytes
    instance_sequence: bytes
    offset: int
    append_time: int
    gap: int
    size: int
    session: bytes
    causes: bytes

    @property
    def length(self) -> int:
        """Bytes of ``plaintext``."""
        return len(self.plaintext)


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that ends here. ``body`` is the opened plaintext, from step 6 on."""

    digest: bytes
    decision: Decision
    offset: int
    append_time: int
    size: int
    key: AgentKey | None = None
    instance_sequence: bytes = NO_INSTANCE + bytes(8)
    gap: int = 0
    body: bytes | None = field(default=None, repr=False)
    decided: DecidedProfile | None = None
    message_id: bytes = envelope.NO_MESSAGE_ID
    session: bytes = b""
    causes: bytes = b"\x00"


AnyAccepted = Union[Accepted, "sealbus_native.Accepted"]
"""An accepted record of the plain or of the compiled steps: the same fields."""
Outcome = AnyAccepted | Refused


def refused(
    code: Code,
    value: bytes,
    digest: bytes,
    offset: int,
    append_time: int,
    key: AgentKey | None = None,
    gap: int = 0,
    plain: bytes | None = None,
    decided: DecidedProfile | None = None,
) -> Refused:
    """A refusal. Nothing of the record is believed where its MAC was not checked (codes of steps 1 and 2)."""
    if code in (Code.BOUNDS, Code.VERSION, Code.WRONG_DOMAIN) and plain is None:
        key = None
    message_id, session, causes = envelope.NO_MESSAGE_ID, b"", b"\x00"
    if plain is not None and decided is not None:
        _, message, _, session, start, end = envelope.split(plain)
        message_id, causes = plain[message : message + 16], plain[start:end]
    decision = decided.decision if decided is not None and decided.decision.code is code else Decision(code, "", "")
    return Refused(
        digest=digest,
        decision=decision,
        offset=offset,
        append_time=append_time,
        size=len(value),
        key=key,
        instance_sequence=value[28:52] if key is not None else NO_INSTANCE + bytes(8),
        gap=max(gap, 0),
        body=plain,
        decided=decided,
        message_id=message_id,
        session=session,
        causes=causes,
    )
