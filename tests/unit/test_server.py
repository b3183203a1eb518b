"""What a Kafka node is told: no listener in the clear, everything kept on every node, peers on their own address."""

from __future__ import annotations

from pathlib import Path

import pytest

from bus.stack.server import Node, Ports, Tokens, properties_file, server_properties

DATA, PKI = Path("/data"), Path("/pki")


def told(count: int, number: int = 1) -> dict[str, str]:
    nodes = [Node(each, Ports(9000 + each, 9100 + each, 9200 + each)) for each in range(1, count + 1)]
    return server_properties(nodes[number - 1], nodes, DATA, PKI, 60)


@pytest.mark.parametrize(("count", "replicas", "in_sync"), [(1, "1", "1"), (3, "3", "2")])
def test_everything_is_kept_on_every_node_and_written_to_all_but_one(count, replicas, in_sync):
    properties = told(count)
    factors = {key: value for key, value in properties.items() if "replication.factor" in key}
    assert set(factors) == {
        "default.replication.factor",
        "offsets.topic.replication.factor",
        "transaction.state.log.replication.factor",
        "share.coordinator.state.topic.replication.factor",
    }
    assert set(factors.values()) == {replicas}
    least = {value for key, value in properties.items() if key.endswith((".min.isr", "min.insync.replicas"))}
    assert least == {in_sync}


@pytest.mark.parametrize("count", [1, 3])
def test_every_node_votes_and_knows_the_same_voters(count):
    voters = {told(count, number)["controller.quorum.voters"] for number in range(1, count + 1)}
    assert voters == {",".join(f"{each}@127.0.0.1:{9200 + each}" for each in range(1, count + 1))}
    assert [told(count, number)["node.id"] for number in range(1, count + 1)] == [str(n) for n in range(1, count + 1)]
    assert told(count)["process.roles"] == "broker,controller"


def test_no_listener_is_in_the_clear_and_only_agents_come_without_a_certificate():
    properties = told(3)
    kinds = dict(each.split(":") for each in properties["listener.security.protocol.map"].split(","))
    names = {each.split(":")[0] for each in properties["listeners"].split(",")}
    assert names == set(kinds) == {"AGENTS", "INTERNAL", "CONTROLLER"}
    assert kinds == {"AGENTS": "SASL_SSL", "INTERNAL": "SSL", "CONTROLLER": "SSL"}
    asked = {key for key, value in properties.items() if key.endswith("ssl.client.auth") and value == "required"}
    assert asked == {"listener.name.internal.ssl.client.auth", "listener.name.controller.ssl.client.auth"}
    assert properties["ssl.enabled.protocols"] == "TLSv1.3"
    assert properties["allow.everyone.if.no.acl.found"] == "false"


def test_with_a_ca_of_clients_agents_are_asked_for_its_certificates_and_for_no_others():
    node, clients = Node(1, Ports(1, 2, 3)), Path("/clients/ca.pem")
    properties = server_properties(node, [node], DATA, PKI, 60, clients=clients)
    assert properties["listener.name.agents.ssl.client.auth"] == "required"
    assert properties["listener.name.agents.ssl.truststore.location"] == "/clients/ca.pem"
    assert properties["ssl.truststore.location"] == "/pki/ca.pem"
    assert not [key for key in told(1) if key.startswith("listener.name.agents.ssl")]


def test_a_node_listens_for_agents_and_for_its_peers_on_different_addresses():
    node = Node(2, Ports(1, 2, 3), host="broker-2", bind="0.0.0.0", peer="peer-2")
    properties = server_properties(node, [node], DATA, PKI, 60)
    assert properties["listeners"] == "AGENTS://0.0.0.0:1,INTERNAL://peer-2:2,CONTROLLER://peer-2:3"
    assert properties["advertised.listeners"] == "AGENTS://broker-2:1,INTERNAL://peer-2:2"
    assert properties["controller.quorum.voters"] == "2@peer-2:3"


def test_the_file_has_a_line_for_each_setting():
    lines = properties_file(told(3)).decode().splitlines()
    assert dict(line.split("=", 1) for line in lines) == told(3)


def test_tokens_are_taken_beside_passwords_by_one_file_of_keys_and_for_one_deployment():
    tokens = Tokens(Path("/state/jwks/jwks.json"), "sealbus:00", 30_000)
    node = Node(1, Ports(1, 2, 3))
    properties = server_properties(node, [node], DATA, PKI, 60, session_ms=4000, tokens=tokens)
    stem = "listener.name.agents.oauthbearer.sasl"
    assert properties["listener.name.agents.sasl.enabled.mechanisms"] == "SCRAM-SHA-512,OAUTHBEARER"
    assert properties[f"{stem}.oauthbearer.jwks.endpoint.url"] == "file:///state/jwks/jwks.json"
    assert properties[f"{stem}.oauthbearer.expected.audience"] == "sealbus:00"
    assert properties[f"{stem}.oauthbearer.expected.issuer"] == "sealbus-issuer"
    assert properties[f"{stem}.oauthbearer.clock.skew.seconds"] == "30"
    assert properties[f"{stem}.server.callback.handler.class"].endswith(".OAuthBearerValidatorCallbackHandler")
    assert [option.partition("=")[2] for option in tokens.options()] == [
        "file:///state/jwks/jwks.json",
        "/state/jwks/jwks.json",
    ]
    assert properties["connections.max.reauth.ms"] == "4000"


def test_without_keys_no_tokens_are_taken_and_no_session_is_longer_than_ten_minutes():
    properties = told(1)
    assert properties["listener.name.agents.sasl.enabled.mechanisms"] == "SCRAM-SHA-512"
    assert not [key for key in properties if "oauthbearer" in key]
    node = Node(1, Ports(1, 2, 3))
    longest = server_properties(node, [node], DATA, PKI, 60, session_ms=3_600_000)
    assert longest["connections.max.reauth.ms"] == properties["connections.max.reauth.ms"] == "600000"
