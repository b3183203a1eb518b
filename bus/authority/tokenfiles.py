"""The local issuer's broker tokens: one 0600 file ``token`` in each agent's folder, replaced at a quarter of its life.

Clients read the file again when two fifths of what the token that they hold had left are over: there is time for both
to be late. An agent that left the policy loses its file at once; the token it read ends by itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Final

from bus.authority.tokenkeys import ensure_token_keys, rotate_token_keys
from bus.authority.tokens import audience, mint
from bus.files import Layout, make_folder, write_secret

RENEWALS: Final = 4
"""How many tokens an agent gets in the life of one."""
MIN_LIFE_MS: Final = 8000
"""Where the rotation interval is shorter: librdkafka looks once a second whether a token is to be replaced."""

log = logging.getLogger("bus.authority")


def token_life(interval_ms: int) -> int:
    """How long a token lives where credentials are replaced every ``interval_ms``."""
    return max(interval_ms, MIN_LIFE_MS)


class TokenIssuer:
    """Writes what is due. Not for two processes at once."""

    def __init__(self, layout: Layout, deployment: bytes, owners: Mapping[str, int], now_ms: int) -> None:
        self._layout = layout
        self._audience = audience(deployment)
        self._owners = owners
        self._files = layout.signer("tokens"), layout.jwks
        self._keys = ensure_token_keys(*self._files, now_ms)
        self._due: dict[str, int] = {}

    def step(self, agents: Iterable[str], interval_ms: int, now_ms: int) -> int:
        """Bring the tokens of ``agents`` up to ``now_ms``; returns when (ms since 1970) one is due next.

        A clock that was set back makes new ones: a token from the future is of no use to anybody.
        """
        life_ms = token_life(interval_ms)
        self._keys = rotate_token_keys(*self._files, self._keys, now_ms)
        wanted = sorted(agents)
        for name in wanted:
            due = self._due.get(name)
            path = self._layout.token(name)
            if due is None or not due - life_ms // RENEWALS <= now_ms < due or not path.exists():
                owner = self._owners.get(name)
                make_folder(path.parent, owner=owner)
                token = mint(self._keys.signing(now_ms), self._audience, name, now_ms, life_ms)
                write_secret(path, token.encode(), owner)
                self._due[name] = now_ms + life_ms // RENEWALS
        self._withdraw(set(wanted))
        return min(self._due.values(), default=now_ms + life_ms // RENEWALS)

    def _withdraw(self, wanted: set[str]) -> None:
        self._due = {name: due for name, due in self._due.items() if name in wanted}
        for path in self._layout.tokens():
            if path.parent.name not in wanted:
                path.unlink(missing_ok=True)
                log.info("%s: no token any more", path.parent.name)
