"""The keys that broker tokens are signed with: made, published in the JWKS, used, withdrawn.

A key is published a while before it signs, so that every broker knows it when the first token comes, and stays
published until the last token that it signed has ended: the JWKS holds one key or two. One process at a time may rotate
them: the issuer.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from bus.authority.tokens import new_key
from bus.codes import Code
from bus.errors import Refused
from bus.files import make_folder, read_secret, write_file, write_secret
from bus.settings import MAX_TOKEN_AGE_MS

KEY_LIFE_MS: Final = 86_400_000
"""How long a key signs."""
PUBLISHED_MS: Final = 600_000
"""How long before that it is in the JWKS."""


@dataclass(frozen=True, slots=True)
class TokenKeys:
    """``held`` is (ms since 1970 from which it signs, key), oldest first: one or two of them."""

    held: tuple[tuple[int, ECKey], ...]

    @classmethod
    def fresh(cls, now_ms: int) -> Self:
        """The first key of a deployment: it signs at once."""
        return cls(((now_ms, new_key()),))

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """What ``encode`` made. Raises Refused(credential)."""
        try:
            held = tuple((int(each["from"]), ECKey.import_key(each["key"])) for each in json.loads(data)["keys"])
        except (ValueError, KeyError, TypeError, RecursionError, JoseError):
            held = ()
        if not held:
            raise Refused("the token keys are not what the issuer wrote", code=Code.CREDENTIAL)
        return cls(held)

    def encode(self) -> bytes:
        """With the private keys, for a 0600 file."""
        keys = [{"from": begins, "key": key.as_dict(private=True)} for begins, key in self.held]
        return json.dumps({"keys": keys}).encode()

    def jwks(self) -> bytes:
        """The public keys, for brokers."""
        return json.dumps({"keys": [key.as_dict(private=False) for _, key in self.held]}).encode()

    def signing(self, now_ms: int) -> ECKey:
        """The newest key that signs already; the oldest for a clock that was set back."""
        return next((key for begins, key in reversed(self.held) if begins <= now_ms), self.held[0][1])

    def rotated(self, now_ms: int) -> TokenKeys:
        """What is to be held at ``now_ms``: no key whose last token has ended, and the next one when it is time."""
        kept = list(self.held)
        while len(kept) > 1 and kept[1][0] + MAX_TOKEN_AGE_MS < now_ms:
            del kept[0]
        if len(kept) == 1 and kept[0][0] + KEY_LIFE_MS - PUBLISHED_MS <= now_ms:
            kept.append((now_ms + PUBLISHED_MS, new_key()))
        return self if kept == list(self.held) else TokenKeys(tuple(kept))


def ensure_token_keys(private: Path, jwks: Path, now_ms: int) -> TokenKeys:
    """The deployment's token keys in the file ``private``, made where missing, and in ``jwks``."""
    if not private.exists():
        make_folder(private.parent)
        write_secret(private, TokenKeys.fresh(now_ms).encode())
    keys = TokenKeys.parse(read_secret(private))
    _publish(jwks, keys)
    return keys


def rotate_token_keys(private: Path, jwks: Path, keys: TokenKeys, now_ms: int) -> TokenKeys:
    """``keys`` as they are to be at ``now_ms``, stored and published where that changed."""
    fresh = keys.rotated(now_ms)
    if fresh is not keys:
        # The private file first: a key that is published and lost would stay in the JWKS without any use.
        write_secret(private, fresh.encode())
        _publish(jwks, fresh)
    return fresh


def _publish(jwks: Path, keys: TokenKeys) -> None:
    """Left alone where it says the same: brokers read it again when its time changes."""
    data = keys.jwks()
    make_folder(jwks.parent, 0o711)
    if not jwks.exists() or jwks.read_bytes() != data:
        write_file(jwks, data)
