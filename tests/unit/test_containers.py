"""A deployment in containers: names in the certificate, one signer for each service, a second run changes nothing."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from bus.authority.tokenkeys import TokenKeys
from bus.errors import SettingsError, StackError
from bus.settings import BrokerSource, Issuing, Mechanism, Mode, Settings, load
from bus.stack.containers import nodes, prepare

POLICIES = Path(__file__).parents[2] / "policies"


def prepared(state: Path, brokers: int = 1) -> Settings:
    prepare(dataclasses.replace(Settings(), state=state, policies=POLICIES, brokers=brokers), lambda _: None)
    return load({"BUS_CONFIG": str(state / "bus.toml")})


def files(state: Path) -> dict[str, bytes]:
    return {str(path.relative_to(state)): path.read_bytes() for path in state.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("brokers", "bootstrap"), [(1, "broker:9092"), (3, "broker:9092,broker-2:9092,broker-3:9092")])
def test_settings_name_the_services_and_a_broker_that_no_stack_starts(tmp_path, brokers, bootstrap):
    settings = prepared(tmp_path, brokers)
    assert (settings.bootstrap, settings.broker, settings.brokers) == (bootstrap, BrokerSource.EXTERNAL, brokers)
    assert len(settings.deployment) == 32


def test_the_certificate_is_for_the_names_of_the_services(tmp_path):
    prepared(tmp_path, 3)
    pem = (tmp_path / "nodes" / "2" / "pki" / "broker.pem").read_bytes()
    certificate = x509.load_pem_x509_certificates(pem)[0]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    wanted = {"broker", "broker-2", "broker-3", "peer-1", "peer-2", "peer-3"}
    assert set(names.get_values_for_type(x509.DNSName)) == wanted | {"localhost"}


def test_each_folder_holds_what_its_container_needs_and_no_more(tmp_path):
    prepared(tmp_path)
    node = {"server.properties", "log4j2.properties", "java.options", "pki/ca.pem", "pki/broker.pem"}
    held = set(files(tmp_path))
    assert {path for path in held if path.startswith("nodes/")} == {f"nodes/1/{name}" for name in node}
    assert {path for path in held if path.startswith("signers-of/")} == {
        "signers-of/issuer/issuer.key",
        "signers-of/issuer/session.key",
        "signers-of/issuer/tokens.key",
        "signers-of/audit/ledger.key",
    }
    assert {path for path in held if path.endswith("ca.key")} == {"ca/ca.key"}
    assert {path for path in held if path.startswith("pki/")} == {"pki/ca.pem"}


def test_a_node_takes_tokens_by_the_keys_that_the_issuer_alone_holds(tmp_path):
    settings = prepared(tmp_path)
    properties = (tmp_path / "nodes" / "1" / "server.properties").read_text()
    assert f"expected.audience=sealbus:{settings.deployment}\n" in properties
    assert "jwks.endpoint.url=file:///state/jwks/jwks.json\n" in properties
    assert "file:///state/jwks/jwks.json" in (tmp_path / "nodes" / "1" / "java.options").read_text()
    held = TokenKeys.parse((tmp_path / "signers-of" / "issuer" / "tokens.key").read_bytes())
    assert (tmp_path / "jwks" / "jwks.json").read_bytes() == held.jwks()
    assert not (tmp_path / "signers" / "tokens.key").exists()


def test_outside_development_nodes_ask_for_certificates_of_a_ca_whose_key_the_issuer_has(tmp_path):
    prepare(dataclasses.replace(Settings(), state=tmp_path, policies=POLICIES, mode=Mode.PRODUCTION), lambda _: None)
    held = files(tmp_path)
    assert b"agents.ssl.client.auth=required\n" in held["nodes/1/server.properties"]
    assert b"agents.ssl.truststore.location=/state/kafka/pki/clients.pem\n" in held["nodes/1/server.properties"]
    assert held["nodes/1/pki/clients.pem"] == held["clients/ca.pem"]
    assert held["signers-of/issuer/clients.key"] == held["signers/clients.key"]
    assert not [path for path in held if path.endswith("client.pem")]  # those are `apply`'s, which has their volumes


def test_an_authority_takes_the_issuers_place_with_a_ca_of_its_own(tmp_path):
    prepare(
        dataclasses.replace(Settings(), state=tmp_path, policies=POLICIES, issuing=Issuing.AUTHORITY), lambda _: None
    )
    settings = load({"BUS_CONFIG": str(tmp_path / "bus.toml")})
    assert (settings.issuing, settings.authorities) == (Issuing.AUTHORITY, "authority:7443")
    assert {path for path in files(tmp_path) if path.startswith("authority/")} == {
        "authority/attestation.key",
        "authority/ca.key",
        "authority/ca.pem",
        "authority/server.key",
        "authority/server.pem",
    }
    before = files(tmp_path)
    prepare(dataclasses.replace(settings, policies=POLICIES), lambda _: None)
    assert files(tmp_path) == before


@pytest.mark.parametrize("override", ["docker-compose.three-brokers.yml", "docker-compose.authority.yml"])
def test_every_service_is_contained_and_names_volumes_and_networks_that_there_are(override):
    told = [yaml.safe_load((POLICIES.parent / name).read_text()) for name in ("docker-compose.yml", override)]
    volumes = {name for each in told for name in each["volumes"]}
    networks = {name for each in told for name in each.get("networks", {})}
    services = {name for each in told for name in each["services"]}
    made = [each["services"] for each in told]
    image = (POLICIES.parent / "Dockerfile").read_text()
    for name, service in [pair for each in made for pair in each.items()]:
        for volume in service.get("volumes", []):
            source, target, *_ = volume.split(":")
            assert source.startswith("./") or source in volumes, (name, volume)
            place = target.removeprefix("/state/")
            assert source.startswith("./") or target in ("/state", "/state/kafka") or place in image, (name, volume)
        assert set(service.get("networks", [])) <= networks, name
        assert set(service.get("depends_on", {})) <= services, name
        if "image" in service or "command" in service:
            assert service["read_only"], name
            assert (service["cap_drop"], service["user"]) == (["ALL"], "10001:10001"), name
            assert service["security_opt"] == ["no-new-privileges:true"], name


def test_the_authority_sees_what_the_issuer_sees_and_its_own(tmp_path):
    base, override = (
        yaml.safe_load((POLICIES.parent / name).read_text())["services"]
        for name in ("docker-compose.yml", "docker-compose.authority.yml")
    )
    own = {"authority:/state/authority", "authority-login:/state/services/bus-authority:ro"}
    seen, stones = set(base["issuer"]["volumes"]), "tombstones:/state/keys/tombstones"
    assert set(override["authority"]["volumes"]) == seen - {f"{stones}:ro"} | {stones} | own, "its tables are there"
    holders = {
        name
        for services in (base, override)
        for name, service in services.items()
        for volume in service.get("volumes", [])
        if volume.startswith("authority:")
    }
    assert holders == {"prepare", "authority", "enrol"}
    needed = {need for service in base.values() for need in service.get("depends_on", {})}
    assert "issuer" not in needed, "the override takes it away"


def test_an_authority_is_refused_where_clients_show_certificates(tmp_path):
    told = dataclasses.replace(
        Settings(), state=tmp_path, policies=POLICIES, issuing=Issuing.AUTHORITY, mode=Mode.PRODUCTION
    )
    with pytest.raises(SettingsError, match="an authority runs in development alone"):
        prepare(told, lambda _: None)
    assert files(tmp_path) == {}


def test_agents_with_passwords_are_refused(tmp_path):
    with pytest.raises(SettingsError, match="sasl_mechanism"):
        prepare(Settings(state=tmp_path, policies=POLICIES, sasl_mechanism=Mechanism.SCRAM), lambda _: None)


def test_peers_of_one_node_are_itself_and_of_three_each_other_off_the_agents_networks():
    assert [each.peer for each in nodes(1)] == ["127.0.0.1"]
    assert [each.peer for each in nodes(3)] == ["peer-1", "peer-2", "peer-3"]
    assert {each.bind for each in nodes(3)} == {"0.0.0.0"}


def test_a_second_run_changes_nothing(tmp_path):
    prepared(tmp_path)
    before = files(tmp_path)
    prepared(tmp_path)
    assert files(tmp_path) == before
    (tmp_path / "first" / "password").unlink()  # the broker was taken over since
    prepared(tmp_path)
    assert not (tmp_path / "first" / "password").exists()


def test_volumes_of_one_broker_do_not_become_those_of_three(tmp_path):
    prepared(tmp_path)
    with pytest.raises(StackError, match="these volumes are of 1 brokers, not 3"):
        prepared(tmp_path, 3)


def test_what_the_image_is_built_from_is_not_kept_from_it():
    home = Path(__file__).parents[2]
    copied = re.findall(r"^COPY (?!--)(.+) \S+$", (home / "Dockerfile").read_text(), re.MULTILINE)
    allowed = {
        line[1:].rstrip("/") for line in (home / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    named = {name for each in copied for name in each.split()}
    assert {"bus", "probe", "pyproject.toml"} <= named
    assert {name for name in named if name.split("/")[0] not in allowed and name not in allowed} == set()
