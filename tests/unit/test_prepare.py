"""Whose broker a state folder's stack uses, and that it never turns from one into the other."""

from __future__ import annotations

import dataclasses

import pytest

from bus.codes import Code
from bus.errors import Refused, SettingsError, StackError
from bus.files import Layout, write_secret
from bus.settings import BrokerSource, Settings, load
from bus.stack.local import Stack, prepare, process_names

GIVEN = "kafka.example:9093"


@pytest.fixture
def layout(tmp_path) -> Layout:
    return Layout(tmp_path / "state")


def operator_gives(layout: Layout, *names: str) -> None:
    for name in names:
        path = {"ca": layout.ca, "scram": layout.service("bus-admin") / "scram"}[name]
        path.parent.mkdir(parents=True)
        write_secret(path, b'{"username": "admin", "password": "x"}')


def prepared(layout: Layout, **changes: object) -> Settings:
    return prepare(dataclasses.replace(Settings(), state=layout.state, **changes))


def test_a_stack_has_its_own_broker_on_loopback_unless_told_otherwise(layout):
    settings = prepared(layout)
    assert settings.broker is BrokerSource.JARS
    assert settings.bootstrap.startswith("127.0.0.1:")
    assert process_names(settings)[0] == "broker"
    assert prepared(layout).bootstrap == settings.bootstrap, "the recorded port is taken again"


def test_three_brokers_have_three_addresses_and_three_processes(layout):
    settings = prepared(layout, brokers=3)
    ports = [address.removeprefix("127.0.0.1:") for address in settings.bootstrap.split(",")]
    assert len({int(port) for port in ports}) == 3
    assert process_names(settings)[:3] == ["broker", "broker-2", "broker-3"]
    assert prepared(layout).bootstrap == settings.bootstrap


def test_the_number_of_brokers_is_fixed_when_a_stack_is_made(layout, monkeypatch):
    prepared(layout, brokers=3)
    monkeypatch.setenv("BUS_BROKERS", "1")
    with pytest.raises(StackError, match="brokers: expected 3 as when this stack was made, found 1"):
        prepared(layout)


def test_the_variable_names_an_external_broker_which_is_recorded(layout, monkeypatch):
    operator_gives(layout, "ca", "scram")
    monkeypatch.setenv("BUS_BOOTSTRAP", GIVEN)
    settings = prepared(layout)
    assert (settings.broker, settings.bootstrap) == (BrokerSource.EXTERNAL, GIVEN)
    monkeypatch.delenv("BUS_BOOTSTRAP")
    recorded = load({"BUS_CONFIG": str(layout.settings)})
    assert (recorded.broker, recorded.bootstrap) == (BrokerSource.EXTERNAL, GIVEN)
    assert process_names(recorded) == ["issuer", "bus-enforcer-1", "audit"]
    assert prepared(layout) == settings


def test_the_setting_with_an_address_does_so_too(layout):
    operator_gives(layout, "ca", "scram")
    settings = prepared(layout, broker=BrokerSource.EXTERNAL, bootstrap=GIVEN)
    assert (settings.broker, settings.bootstrap) == (BrokerSource.EXTERNAL, GIVEN)


def test_for_everything_else_the_variable_only_overrides_the_address(layout):
    prepared(layout)
    settings = load({"BUS_CONFIG": str(layout.settings), "BUS_BOOTSTRAP": GIVEN})
    assert (settings.broker, settings.bootstrap) == (BrokerSource.JARS, GIVEN)


@pytest.mark.parametrize(
    ("held", "error", "code"),
    [
        (("scram",), SettingsError, Code.SETTINGS),
        (("ca",), Refused, Code.CREDENTIAL),
        ((), SettingsError, Code.SETTINGS),
    ],
)
def test_what_the_operator_did_not_give_is_named_and_nothing_is_recorded(layout, held, error, code):
    operator_gives(layout, *held)
    with pytest.raises(error, match="external broker: no ") as refused:
        prepared(layout, broker=BrokerSource.EXTERNAL, bootstrap=GIVEN)
    assert refused.value.code is code
    assert "operator" in refused.value.hint
    assert not layout.settings.exists()


def test_neither_kind_of_stack_becomes_the_other(layout, tmp_path, monkeypatch):
    external = Layout(tmp_path / "external")
    operator_gives(external, "ca", "scram")
    prepared(external, broker=BrokerSource.EXTERNAL, bootstrap=GIVEN)
    own = prepared(layout)
    monkeypatch.setenv("BUS_BROKER", "jars")
    with pytest.raises(StackError, match="with an external broker"):
        prepared(external)
    monkeypatch.delenv("BUS_BROKER")
    monkeypatch.setenv("BUS_BOOTSTRAP", GIVEN)
    with pytest.raises(StackError, match="with its own broker"):
        prepared(layout)
    monkeypatch.setenv("BUS_BOOTSTRAP", own.bootstrap)
    assert prepared(layout).broker is BrokerSource.JARS, "its own address is no external one"


def test_an_operators_ca_is_not_replaced_where_the_address_was_forgotten(layout):
    operator_gives(layout, "ca")
    with pytest.raises(StackError, match="is there already") as refused:
        prepared(layout)
    assert "BUS_BOOTSTRAP" in refused.value.hint


def test_purge_keeps_what_the_operator_gave(layout):
    operator_gives(layout, "ca", "scram")
    settings = prepared(layout, broker=BrokerSource.EXTERNAL, bootstrap=GIVEN)
    for folder in ("ledger", "services/bus-audit"):
        (layout.state / folder).mkdir(parents=True)
    Stack(settings).down(lambda _: None, purge=True)
    left = {str(path.relative_to(layout.state)) for path in layout.state.rglob("*") if path.is_file()}
    assert left == {"pki/ca.pem", "services/bus-admin/scram"}
    assert not (layout.state / "services" / "bus-audit").exists()
    assert not (layout.state / "ledger").exists()
