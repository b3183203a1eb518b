"""`bus doctor` on agents' broker credentials: names who has none, one that has ended, or one of another key."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bus.authority.local import now_ms
from bus.authority.tokenfiles import TokenIssuer
from bus.authority.tokens import audience, mint, new_key
from bus.errors import Expired, Refused
from bus.files import Layout, write_secret
from bus.kafka.config import Connection, connect
from bus.kafka.identity import TokenFile
from bus.settings import Mechanism, Settings
from bus.stack.stored import credentials
from tests.unit.ledger_build import DEPLOYMENT, make_policy

AGENT = "writer-1"


@pytest.fixture
def stack(tmp_path):
    settings = Settings(deployment=DEPLOYMENT.hex(), state=tmp_path)
    policy = make_policy()
    layout = Layout(tmp_path)
    issuer = TokenIssuer(layout, DEPLOYMENT, {}, now_ms())
    issuer.step(policy.agents, policy.rotation_interval_ms, now_ms())
    return SimpleNamespace(settings=settings, layout=layout, load_policy=lambda: policy)


def test_tokens_that_hold_are_counted(stack):
    agents = len(stack.load_policy().agents)
    assert credentials(stack).startswith(f"{agents} tokens, the first to end in 59")


def test_a_missing_one_an_ended_one_and_one_of_another_key_are_named(stack):
    path = stack.layout.token(AGENT)
    path.unlink()
    with pytest.raises(Refused, match=f"{AGENT}: no token") as refused:
        credentials(stack)
    assert "issuer" in refused.value.hint
    write_secret(path, mint(new_key(), audience(DEPLOYMENT), AGENT, now_ms() - 700_000, 600_000).encode())
    with pytest.raises(Expired, match=AGENT):
        credentials(stack)
    write_secret(path, mint(new_key(), audience(DEPLOYMENT), AGENT, now_ms(), 600_000).encode())
    with pytest.raises(Refused, match=f"{AGENT}: token: made with none of this deployment's keys"):
        credentials(stack)
    write_secret(path, stack.layout.token("reader-1").read_bytes())
    with pytest.raises(Refused, match=f"expected a token of {AGENT}"):
        credentials(stack)


def test_with_passwords_a_missing_one_is_named(stack):
    stack.settings = Settings(deployment=DEPLOYMENT.hex(), state=stack.settings.state, sasl_mechanism=Mechanism.SCRAM)
    with pytest.raises(Refused, match="no credential"):
        credentials(stack)
    for agent in stack.load_policy().agents:
        write_secret(stack.layout.agent(agent) / "scram", b'{"username": "a", "password": "b"}')
    assert "passwords" in credentials(stack)


def test_an_agent_shows_its_token_and_a_service_its_password(stack):
    assert connect(stack.settings, AGENT).identity == TokenFile(AGENT, stack.layout.token(AGENT))
    with pytest.raises(Refused, match=r"no credential: .*bus-audit/scram"):
        connect(stack.settings, "bus-audit")
    with pytest.raises(Refused, match="has no password"):
        _ = connect(stack.settings, AGENT).password


def test_what_librdkafka_is_told_is_half_the_time_and_a_refusal_is_final_for_the_token_that_was_given(stack):
    file = TokenFile(AGENT, stack.layout.token(AGENT))
    token, again = file.renew("")
    assert token == stack.layout.token(AGENT).read_text()
    assert again * 1000 - now_ms() == pytest.approx(300_000, abs=2000)
    assert file.rejected()
    write_secret(file.path, mint(new_key(), audience(DEPLOYMENT), AGENT, now_ms(), 600_000).encode())
    assert not file.rejected()  # another is there: librdkafka asks for it
    file.renew("")
    assert not file.rejected()  # what is refused now may have been begun with the one before
    file.path.unlink()
    assert TokenFile(AGENT, file.path).rejected()


def test_a_token_that_ended_while_the_issuer_was_away_is_not_the_end_of_the_agent(stack):
    file = TokenFile(AGENT, stack.layout.token(AGENT))
    write_secret(file.path, mint(new_key(), audience(DEPLOYMENT), AGENT, now_ms() - 700_000, 600_000).encode())
    assert not file.rejected()
    with pytest.raises(Expired):
        file.read()


def test_no_token_is_in_a_repr(stack):
    file = TokenFile(AGENT, stack.layout.token(AGENT))
    token, _ = file.renew("")
    assert token not in repr(file) + repr(Connection("x:1", stack.layout.ca, file))
