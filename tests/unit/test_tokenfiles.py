"""The issuer's tokens and their keys under a clock of the test: renewed in time, withdrawn, keys published before."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from bus.authority.tokenfiles import TokenIssuer
from bus.authority.tokenkeys import KEY_LIFE_MS, PUBLISHED_MS, TokenKeys, ensure_token_keys, rotate_token_keys
from bus.authority.tokens import Claims, audience, public_keys, verify
from bus.errors import Refused
from bus.files import Layout
from bus.settings import MAX_TOKEN_AGE_MS
from tests.unit.ledger_build import DEPLOYMENT, NOON

LIFE = 600_000


@pytest.fixture
def layout(tmp_path) -> Layout:
    return Layout(tmp_path)


@pytest.fixture
def issuer(layout) -> TokenIssuer:
    return TokenIssuer(layout, DEPLOYMENT, {}, NOON)


def held(layout: Layout, agent: str, now: int) -> Claims:
    """The token of ``agent``, verified by the JWKS of now without any skew."""
    keys = public_keys(layout.jwks.read_bytes())
    return verify(layout.token(agent).read_bytes(), keys, audience(DEPLOYMENT), now, skew_ms=0, life_ms=LIFE)


def kids(layout: Layout) -> list[str]:
    return [each["kid"] for each in json.loads(layout.jwks.read_bytes())["keys"]]


def test_every_agent_gets_a_token_of_its_own_that_only_it_may_read(layout, issuer):
    assert issuer.step(["writer-1", "reader-1"], LIFE, NOON) == NOON + LIFE // 4
    for agent in ("writer-1", "reader-1"):
        claims = held(layout, agent, NOON)
        assert (claims.principal, claims.begins, claims.ends) == (agent, NOON, NOON + LIFE)
        assert stat.S_IMODE(layout.token(agent).stat().st_mode) == 0o600
        assert stat.S_IMODE(layout.agent(agent).stat().st_mode) == 0o700


def test_a_token_is_replaced_at_a_quarter_of_its_life_and_not_before(layout, issuer):
    issuer.step(["writer-1"], LIFE, NOON)
    first = held(layout, "writer-1", NOON)
    assert issuer.step(["writer-1"], LIFE, NOON + LIFE // 4 - 1) == NOON + LIFE // 4
    assert held(layout, "writer-1", NOON + LIFE // 4 - 1) == first
    issuer.step(["writer-1"], LIFE, NOON + LIFE // 4)
    assert held(layout, "writer-1", NOON + LIFE // 4).begins == NOON + LIFE // 4


def test_a_life_that_no_client_could_follow_is_longer(layout, issuer):
    assert issuer.step(["writer-1"], 1000, NOON) == NOON + 2000
    assert held(layout, "writer-1", NOON).ends == NOON + 8000


def test_a_token_that_was_removed_or_made_by_a_clock_ahead_is_made_again(layout, issuer):
    issuer.step(["writer-1"], LIFE, NOON)
    layout.token("writer-1").unlink()
    issuer.step(["writer-1"], LIFE, NOON + 1000)
    assert held(layout, "writer-1", NOON + 1000).begins == NOON + 1000
    issuer.step(["writer-1"], LIFE, NOON - 3_600_000)
    assert held(layout, "writer-1", NOON - 3_600_000).begins == NOON - 3_600_000


def test_an_agent_that_left_the_policy_loses_its_token_at_once(layout, issuer):
    issuer.step(["writer-1", "reader-1"], LIFE, NOON)
    issuer.step(["reader-1"], LIFE, NOON + 1)
    assert not layout.token("writer-1").exists()
    assert held(layout, "reader-1", NOON + 1).principal == "reader-1"


def test_an_issuer_that_was_restarted_signs_with_the_same_key_and_leaves_the_jwks_alone(layout, issuer):
    issuer.step(["writer-1"], LIFE, NOON)
    before = layout.jwks.stat().st_mtime_ns
    TokenIssuer(layout, DEPLOYMENT, {}, NOON + 1).step(["writer-1"], LIFE, NOON + 1)
    assert layout.jwks.stat().st_mtime_ns == before
    assert held(layout, "writer-1", NOON + 1000).principal == "writer-1"


def test_keys_rotate_and_no_token_of_either_is_ever_without_its_key(layout, issuer):
    """Every minute of three days: the token is by a published key, and there are never more than two."""
    seen: list[str] = []
    for now in range(NOON, NOON + 3 * KEY_LIFE_MS, 60_000):
        issuer.step(["writer-1"], LIFE, now)
        assert held(layout, "writer-1", now).ends > now
        published = kids(layout)
        assert len(published) in (1, 2)
        seen += [kid for kid in published if kid not in seen]
    assert len(seen) == 4


def test_a_key_is_published_before_it_signs_and_until_its_last_token_has_ended():
    first = TokenKeys.fresh(NOON)
    (_, old), (begins, new) = (both := first.rotated(NOON + KEY_LIFE_MS - PUBLISHED_MS)).held
    assert first.rotated(NOON + KEY_LIFE_MS - PUBLISHED_MS - 1) is first
    assert begins == NOON + KEY_LIFE_MS
    assert (both.signing(begins - 1), both.signing(begins)) == (old, new)
    assert both.rotated(begins + MAX_TOKEN_AGE_MS) is both
    assert both.rotated(begins + MAX_TOKEN_AGE_MS + 1).held == ((begins, new),)


def test_the_private_keys_are_in_their_0600_file_alone(layout, issuer):
    issuer.step(["writer-1"], LIFE, NOON)
    path = layout.signer("tokens")
    secret = json.loads(path.read_bytes())["keys"][0]["key"]["d"].encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    others = [each for each in layout.state.rglob("*") if each.is_file() and each != path]
    assert layout.jwks in others
    assert not [each for each in others if secret in each.read_bytes()]


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"keys": []}', b'{"keys": [{"from": "x"}]}', b'{"keys": [{"from": 1, "key": {}}]}']
)
def test_a_file_that_the_issuer_did_not_write_is_refused(layout, data):
    path = layout.signer("tokens")
    ensure_token_keys(path, layout.jwks, NOON)
    path.write_bytes(data)
    with pytest.raises(Refused, match="token keys"):
        ensure_token_keys(path, layout.jwks, NOON)


def test_a_key_of_others_to_read_is_refused(layout):
    path = layout.signer("tokens")
    keys = ensure_token_keys(path, layout.jwks, NOON)
    path.chmod(0o644)
    with pytest.raises(Refused, match="0600"):
        ensure_token_keys(path, layout.jwks, NOON)
    rotate_token_keys(path, layout.jwks, keys, NOON + KEY_LIFE_MS)  # writes it anew
    assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
