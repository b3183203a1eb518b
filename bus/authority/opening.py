"""A record as its agent sent it, opened with the root of its domain and epoch: what an operator may."""

from __future__ import annotations

from bus.authority.roots import RootStore
from bus.codes import Code
from bus.crypto.keys import agent_keys
from bus.crypto.seal import open_sealed
from bus.errors import Erased, Refused
from bus.wire.envelope import Envelope, decode_envelope, unpad
from bus.wire.hop import Hop
from bus.wire.names import NO_ZONE


def open_record(store: RootStore, deployment: bytes, hop: Hop, value: bytes) -> Envelope:
    """The envelope in ``value``, the record that ``hop`` was decided on.

    Raises Erased where the root is gone, RetryLater where the provider is away, Unverified where it does not open so.
    """
    tail = hop.tail
    try:
        root = store.open(tail.epoch, f"{NO_ZONE}.{tail.domain}").root
    except (FileNotFoundError, Refused) as error:
        if isinstance(error, Refused) and error.code is not Code.ERASED:
            raise
        text = f"the keys of {tail.domain}/{tail.epoch} are gone: erased, or beyond the backlog horizon"
        raise Erased(text, epoch=tail.epoch, domain=tail.domain) from None
    plain = open_sealed(agent_keys(root, tail.agent), deployment, tail.topic, hop.partition, value)
    return decode_envelope(unpad(plain))
