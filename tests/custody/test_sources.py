"""Bootstrap secrets from Vault's KV engine, moto's Secrets Manager, and Azure's client with messages as documented.

Azure Key Vault itself was not run: a transport of the test answers Azure's own client in the form of its REST pages.
"""

from __future__ import annotations

import functools
import io
import json
import time
from dataclasses import replace

import pytest
from click.testing import CliRunner

from bus.authority.sources import Source, fetch
from bus.cli.main import cli
from bus.errors import Refused, RetryLater, SettingsError
from bus.files import write_secret
from bus.settings import Settings
from bus.stack.local import write_settings
from tests.custody import sites
from tests.custody.sites import need

SECRET = "hunter2-5382"
AZURE = "https://mine.vault.azure.net/secrets/pin"


@pytest.fixture
def vault(tmp_path):
    """Settings for a Vault with a KV engine that has one secret, and what makes another version of it."""
    hvac = need("hvac", "vault")
    with sites.running_vault() as told:
        root = hvac.Client(url=told["address"], token=told["token"])
        root.sys.enable_secrets_engine("kv", path="kv", options={"version": "2"})
        write = functools.partial(root.secrets.kv.v2.create_or_update_secret, mount_point="kv")
        write("prod/sealbus", secret={"pin": SECRET, "key": "AAE=", "number": 5})
        root.sys.create_or_update_policy("boot", 'path "kv/data/prod/sealbus" { capabilities = ["read"] }')
        token = root.auth.token.create(policies=["boot"], no_default_policy=True)["auth"]["client_token"]
        write_secret(tmp_path / "token", token.encode())
        write_secret(tmp_path / "refused", b"hvs.unknown")
        settings = Settings(state=tmp_path, vault_address=told["address"], vault_token_file=tmp_path / "token")
        yield settings, lambda **secret: write("prod/sealbus", secret=secret)


def test_vault_gives_the_newest_version_of_a_field(vault):
    settings, write = vault
    assert fetch(settings, Source.parse("vault:kv/prod/sealbus#pin")) == SECRET.encode()
    assert fetch(settings, Source.parse("vault:kv/prod/sealbus#key|base64")) == b"\0\1"
    write(pin="newer")
    assert fetch(settings, Source.parse("vault:kv/prod/sealbus#pin")) == b"newer"


def test_vault_refused_away_and_without_the_secret_are_told_apart(vault):
    settings, _ = vault
    source = Source.parse("vault:kv/prod/sealbus#pin")
    with sites.unanswering() as (closed, silent):
        away = [
            replace(settings, vault_address=f"http://{closed}"),
            replace(settings, vault_address=f"http://{silent}", key_timeout_ms=sites.TIMEOUT_MS),
            replace(settings, vault_token_file=settings.state / "refused"),
            replace(settings, vault_token_file=settings.state / "none"),
        ]
        for each in away:
            with pytest.raises(RetryLater, match="key provider vault: "):
                fetch(each, source)
    with pytest.raises(RetryLater, match="Forbidden"):
        fetch(settings, Source.parse("vault:kv/other#pin"))
    with pytest.raises(Refused, match="no such field"):
        fetch(settings, Source.parse("vault:kv/prod/sealbus#gone"))
    with pytest.raises(Refused, match="expected a string, found a int"):
        fetch(settings, Source.parse("vault:kv/prod/sealbus#number"))
    with pytest.raises(SettingsError, match="vault_token_file is not set"):
        fetch(Settings(vault_address="http://127.0.0.1:1"), source)


def test_the_command_writes_what_bus_toml_names_and_says_what_is_missing(vault, monkeypatch):
    settings, _ = vault
    named = {"keys/pin": "vault:kv/prod/sealbus#pin", "services/bus-audit/scram": "vault:kv/prod/sealbus#gone"}
    write_settings(replace(settings, secrets=named), settings.state / "bus.toml")
    monkeypatch.setenv("BUS_CONFIG", str(settings.state / "bus.toml"))

    def run(*arguments):
        return CliRunner().invoke(cli, ["secrets", *arguments])

    listed = run("list")
    assert (listed.exit_code, SECRET in listed.output) == (1, False)
    ran = run("pull", "keys/pin", "--json")
    assert json.loads(ran.output) == {"format": "bus.secrets/1", "secrets": {"keys/pin": "written"}}
    assert (settings.state / "keys" / "pin").read_text() == SECRET
    assert "unchanged  keys/pin" in run("pull", "keys/pin").output
    ran = run("pull")
    assert isinstance(ran.exception, Refused)
    assert "#gone: expected a string, found no such field" in str(ran.exception)
    told = json.loads(run("list", "--json").output)["secrets"]
    assert {name: each["there"] for name, each in told.items()} == {"keys/pin": True, "services/bus-audit/scram": False}
    with pytest.raises(SettingsError, match="no 'pin' there"):
        raise run("pull", "pin").exception


def test_secrets_manager_gives_strings_fields_and_bytes(tmp_path, monkeypatch):
    boto3, moto = need("boto3", "aws"), need("moto.server", "custody-tests")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", f"http://{host}:{port}")
        client = boto3.client("secretsmanager", region_name="eu-west-1")
        client.create_secret(Name="text", SecretString=SECRET)
        arn = client.create_secret(Name="prod/bus", SecretString=json.dumps({"pin": SECRET}))["ARN"]
        client.create_secret(Name="bytes", SecretBinary=b"\0\1\2")
        settings = Settings(state=tmp_path, aws_region="eu-west-1")
        assert fetch(settings, Source.parse("aws-secrets:text")) == SECRET.encode()
        assert fetch(settings, Source.parse(f"aws-secrets:{arn}#pin")) == SECRET.encode()
        assert fetch(settings, Source.parse("aws-secrets:bytes")) == b"\0\1\2"
        with pytest.raises(Refused, match="aws-secrets:gone: no such secret"):
            fetch(settings, Source.parse("aws-secrets:gone"))
        with pytest.raises(Refused, match="expected a JSON object"):
            fetch(settings, Source.parse("aws-secrets:text#pin"))
    finally:
        server.stop()
    with sites.unanswering() as (closed, silent):
        for address in (closed, silent):
            monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", f"http://{address}")
            with pytest.raises(RetryLater, match="key provider aws-secrets: "):
                fetch(replace(settings, key_timeout_ms=sites.TIMEOUT_MS), Source.parse("aws-secrets:text"))


class KeyVault:
    """A transport that asks for a token first, as Key Vault does, and has one secret."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def open(self):
        pass

    def close(self):
        pass

    def send(self, request, **_):
        self.asked.append((request.method, request.url, request.headers.get("Authorization", "")))
        if "Authorization" not in request.headers:
            told = 'Bearer authorization="https://login.microsoftonline.com/t", resource="https://vault.azure.net"'
            return answer(request, 401, {}, {"WWW-Authenticate": told})
        if "/secrets/pin" in request.url:
            return answer(request, 200, {"value": SECRET, "id": f"{AZURE}/1", "attributes": {}})
        if "/secrets/gone" in request.url:
            return answer(request, 404, {"error": {"code": "SecretNotFound", "message": "x"}})
        return answer(request, 403, {"error": {"code": "Forbidden", "message": SECRET}})


def answer(request, status, document, headers=None):
    """What azure-core makes of an answer that `requests` has."""
    basic, requests = need("azure.core.rest._requests_basic", "azure"), need("requests", "azure")
    inner = requests.Response()
    inner.status_code, inner.raw = status, io.BytesIO(json.dumps(document).encode())
    inner.headers.update({"Content-Type": "application/json", **(headers or {})})
    return basic.RestRequestsTransportResponse(request=request, internal_response=inner)


def test_azures_client_is_asked_for_one_secret_with_a_token(tmp_path, monkeypatch):
    secrets, identity = need("azure.keyvault.secrets", "azure"), need("azure.identity", "azure")
    credentials = need("azure.core.credentials", "azure")
    transport = KeyVault()
    real = secrets.SecretClient
    monkeypatch.setattr(secrets, "SecretClient", functools.partial(real, transport=transport))

    class Credential:
        def get_token(self, *_, **__):
            return credentials.AccessToken("a-token", int(time.time()) + 3600)

    monkeypatch.setattr(identity, "DefaultAzureCredential", Credential)
    settings = Settings(state=tmp_path)
    source = Source.parse(f"azure-secrets:{AZURE}")
    assert fetch(settings, source) == SECRET.encode()
    method, url, token = transport.asked[-1]
    assert (method, url.partition("?")[0], token) == ("GET", f"{source.name}/", "Bearer a-token")
    with pytest.raises(Refused, match="no such secret"):
        fetch(settings, Source.parse("azure-secrets:https://mine.vault.azure.net/secrets/gone"))
    with pytest.raises(RetryLater, match="HttpResponseError") as refused:
        fetch(settings, Source.parse("azure-secrets:https://mine.vault.azure.net/secrets/other"))
    assert SECRET not in str(refused.value)
