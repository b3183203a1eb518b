"""The authority's session secret: with a root it gives the session key of a domain and epoch (``bus.crypto.session``).

Issuer and authority alone hold it; replicas share it as they share the issuer's signing key. It is made once and not
replaced: payloads that were protected under it would open no more, whatever roots are kept.
"""

from __future__ import annotations

from bus.crypto.keys import KEY_LENGTH, Secret
from bus.errors import StackError
from bus.files import Layout, read_secret


def read_session(layout: Layout) -> Secret | None:
    """The secret, or None where there is none: no domain has session keys then. Raises StackError for another length,
    Refused where others may read it."""
    path = layout.signer("session")
    if not path.exists():
        return None
    data = read_secret(path)
    if len(data) != KEY_LENGTH:
        raise StackError(f"{path}: expected {KEY_LENGTH} bytes, found {len(data)}")
    return Secret(data, "session")
