"""Wrapping every stored root anew: under the newest key, or under another provider."""

from __future__ import annotations

from bus.authority.providers.base import KeyProvider
from bus.authority.roots import RootStore
from bus.crypto.keys import Secret
from bus.errors import Refused
from bus.wire import preimage


def probe(provider: KeyProvider) -> str:
    """Name of the key that wraps now: a random key is wrapped and unwrapped. Raises what the provider raises."""
    key, context = Secret.random("probe"), preimage.label("probe")
    wrapped = provider.wrap(key, context)
    if provider.unwrap(wrapped, context, "probe") != key:
        raise Refused(f"{wrapped.kek}: unwraps to another key than it wrapped")
    return wrapped.kek


def rewrap_all(store: RootStore, provider: KeyProvider, *, everything: bool = False) -> tuple[int, int, str]:
    """How many roots were wrapped anew by ``provider`` and how many left as they were, and the key that wraps now.

    ``everything`` takes those too that the newest key wraps already. Raises what the providers raise; what was done
    until then stays done.
    """
    current = probe(provider)
    done = left = 0
    for kept in list(store.kept()):
        if (everything or kept.kek != current) and store.rewrap(kept, provider):
            done += 1
        else:
            left += 1
    return done, left, current
