"""Passwords that are replaced while clients run: replaced in time, given to clients, no refusal final meanwhile."""

from __future__ import annotations

import json
import os
from concurrent.futures import Future

import pytest
from prometheus_client import CollectorRegistry, Counter

from bus.errors import AccessRefused, Refused, Unavailable
from bus.files import Layout, make_folder, write_secret
from bus.kafka.config import Connection, connect
from bus.kafka.identity import SETTLE_S, Identity, PasswordFile, read_identity
from bus.settings import Mechanism, Settings
from bus.stack.local import service_names
from consumers.rotator import app
from tests.unit.ledger_build import NOON, make_policy
from tests.unit.test_client_certificates import Told

AGENT = "writer-1"
REFUSED = Told(-169, "SASL authentication error: Authentication failed during authentication")


class Shows:
    """A client of librdkafka."""

    def __init__(self):
        self.given = []

    def set_sasl_credentials(self, name, word):
        self.given.append((name, word))


@pytest.fixture
def layout(tmp_path) -> Layout:
    return Layout(tmp_path)


def put(layout: Layout, word: str = "one", age_s: float = 3600) -> None:
    path = make_folder(layout.agent(AGENT)) / "scram"
    write_secret(path, json.dumps({"username": AGENT, "password": word}).encode())
    made = path.stat().st_mtime - age_s
    os.utime(path, (made, made))


@pytest.fixture
def connection(layout) -> Connection:
    put(layout)
    return connect(Settings(state=layout.state, sasl_mechanism=Mechanism.SCRAM, rotate_passwords=True), AGENT)


def test_only_where_it_is_asked_for_are_agents_passwords_followed_and_services_never(layout, connection):
    assert isinstance(connection.identity, PasswordFile)
    settings = Settings(state=layout.state, sasl_mechanism=Mechanism.SCRAM)
    assert isinstance(connect(settings, AGENT).identity, Identity)
    make_folder(layout.service("bus-audit"))
    write_secret(layout.service("bus-audit") / "scram", b'{"username": "bus-audit", "password": "x"}')
    asked = Settings(state=layout.state, sasl_mechanism=Mechanism.SCRAM, rotate_passwords=True)
    assert isinstance(connect(asked, "bus-audit").identity, Identity)


def test_a_running_client_is_given_each_new_password_once(layout, connection):
    client, word = Shows(), connection.word()
    word = connection.follow(client, word)
    assert client.given == []
    put(layout, "two")
    word = connection.follow(client, word)
    word = connection.follow(client, word)
    assert client.given == [(AGENT, "two")]
    write_secret(layout.agent(AGENT) / "scram", b"half a file")
    assert connection.follow(client, word) == word
    put(layout, "three")
    connection.follow(client, word)
    assert client.given[1:] == [(AGENT, "three")]
    assert connection.config()["sasl.password"] == "three"


def test_a_refusal_is_final_but_not_while_the_password_is_replaced_nor_shortly_after(layout, connection):
    write_secret(layout.agent(AGENT) / "scram.changing", b"")
    connection.on_error(REFUSED)
    connection.check()
    (layout.agent(AGENT) / "scram.changing").unlink()
    put(layout, "two", age_s=SETTLE_S / 2)
    connection.on_error(REFUSED)
    connection.check()
    put(layout, "two", age_s=SETTLE_S * 2)
    connection.on_error(REFUSED)
    with pytest.raises(AccessRefused):
        connection.check()


def test_who_has_no_file_is_told_so(layout, connection):
    (layout.agent(AGENT) / "scram").unlink()
    with pytest.raises(Refused, match="no credential"):
        connection.config()
    connection.on_error(REFUSED)
    with pytest.raises(AccessRefused):
        connection.check()
    assert "password" not in repr(connection).lower().replace("passwordfile", "")


def test_the_rotator_is_a_service_only_where_it_is_asked_for_and_agents_have_passwords():
    asked = Settings(sasl_mechanism=Mechanism.SCRAM, rotate_passwords=True)
    assert service_names(asked) == ["issuer", "bus-enforcer-1", "audit", "rotator"]
    assert "rotator" not in service_names(Settings(sasl_mechanism=Mechanism.SCRAM))
    assert "rotator" not in service_names(Settings(rotate_passwords=True))


class Broker:
    """What the rotator asks of the broker: with ``away`` it says nothing."""

    def __init__(self, layout):
        self._layout = layout
        self.away = False
        self.words: list[str] = []
        self.announced: list[bool] = []

    def alter_user_scram_credentials(self, changes, **_):
        self.announced.append((self._layout.agent(AGENT) / "scram.changing").exists())
        if self.away:
            raise TimeoutError
        self.words += [each.password.decode() for each in changes if each.user == AGENT]
        done: Future[None] = Future()
        done.set_result(None)
        return {each.user: done for each in changes}


@pytest.fixture
def rotator(layout, connection, monkeypatch):
    broker = Broker(layout)
    monkeypatch.setattr(app, "AdminClient", lambda _config: broker)
    counted = Counter("replaced", "x", registry=CollectorRegistry())
    return app.Rotator(connection, Settings(state=layout.state), counted), broker


def test_every_agents_password_is_replaced_at_a_quarter_of_the_interval(layout, rotator):
    rotate, broker = rotator
    policy = make_policy()
    quarter = policy.rotation_interval_ms // 4
    assert rotate.step(policy, NOON) == NOON + quarter
    assert rotate.step(policy, NOON + quarter - 1) == NOON + quarter
    assert len(broker.words) == 1
    rotate.step(policy, NOON + quarter)
    rotate.step(policy, NOON - 3 * quarter)  # the clock was set back
    assert len(set(broker.words)) == 3
    assert read_identity(layout.agent(AGENT), AGENT).password.reveal().decode() == broker.words[-1]
    assert {each.name for each in (layout.state / "agents").iterdir()} == set(policy.agents)
    assert broker.announced == [True] * 3
    assert not (layout.agent(AGENT) / "scram.changing").exists()


def test_a_replacement_that_did_not_end_is_told_until_the_next_one_did(layout, rotator):
    rotate, broker = rotator
    policy, broker.away = make_policy(), True
    with pytest.raises(Unavailable):
        rotate.step(policy, NOON)
    assert (layout.agent(AGENT) / "scram.changing").exists()
    broker.away = False
    rotate.step(policy, NOON + 1)
    assert not (layout.agent(AGENT) / "scram.changing").exists()


def test_what_an_agent_puts_in_its_folder_is_not_read(layout, rotator, tmp_path):
    rotate, broker = rotator
    secret = tmp_path / "secret"
    write_secret(secret, b'{"username": "bus-admin", "password": "of somebody else"}')
    path = layout.agent(AGENT) / "scram"
    path.unlink()
    path.symlink_to(secret)
    rotate.step(make_policy(), NOON)
    assert not path.is_symlink()
    assert read_identity(layout.agent(AGENT), AGENT).password.reveal().decode() == broker.words[0]
    assert b"of somebody else" in secret.read_bytes()
