"""What the authority gave out, as one signed line each: written to ``bus.issue`` before the answer goes out.

``sealbus.issued/1`` is canonical JSON (RFC 8785) followed by an Ed25519 signature (64 bytes). It names agents, epochs,
domains and serial numbers, never a key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import rfc8785

from bus.codes import Code
from bus.crypto.signing import Signer, verify
from bus.errors import WireError
from bus.wire import preimage
from bus.wire.objects import SIGNATURE_LENGTH

FORMAT: Final = "sealbus.issued/1"


def sign_issued(signer: Signer, deployment: bytes, event: Mapping[str, Any]) -> bytes:
    """``event`` (JSON values) signed by the issuer."""
    data = rfc8785.dumps({"format": FORMAT, **event})
    return data + signer.sign(preimage.signed_object("issued", deployment + data))


def open_issued(value: bytes, anchor: bytes, deployment: bytes) -> dict[str, Any]:
    """The event in ``value``. Raises WireError(decode, version) or Unverified(signature)."""
    data, signature = value[:-SIGNATURE_LENGTH], value[-SIGNATURE_LENGTH:]
    verify(anchor, signature, preimage.signed_object("issued", deployment + data), "issued")
    try:
        event = json.loads(data)
        canonical = rfc8785.dumps(event)
    except (ValueError, RecursionError) as error:
        raise WireError(f"issued: not JSON: {type(error).__name__}", code=Code.DECODE) from None
    if not isinstance(event, dict) or event.get("format") != FORMAT or canonical != data:
        raise WireError(f"issued: expected canonical {FORMAT}", code=Code.VERSION)
    return event
