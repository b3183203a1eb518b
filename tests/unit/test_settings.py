"""Settings: where they come from, which one wins, and that a value which cannot be lived with is refused by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bus.codes import Code
from bus.errors import SettingsError
from bus.settings import (
    MAX_TOKEN_AGE_MS,
    AttesterKind,
    BrokerSource,
    Custody,
    GuardrailEngine,
    Issuing,
    Mechanism,
    Mode,
    Settings,
    load,
)
from bus.stack.local import write_settings

ID = "0123456789abcdef0123456789abcdef"


def load_text(folder: Path, text: str, **environ: str) -> Settings:
    """The settings of a bus.toml with ``text`` in ``folder``."""
    (folder / "bus.toml").write_text(text, encoding="utf-8")
    return load(environ, folder)


def defaults_among(loaded: Settings) -> set[str]:
    """Names of the settings that are as they are without a file."""
    names = {each.name for each in dataclasses.fields(loaded)}
    return {name for name in names if getattr(loaded, name) == getattr(Settings(), name)}


def test_without_a_file_and_variables_the_defaults_hold(tmp_path):
    loaded = load({}, tmp_path)
    assert loaded == dataclasses.replace(Settings(), source="environment")
    assert loaded.mode is Mode.DEVELOPMENT
    with pytest.raises(SettingsError, match="no deployment id") as refused:
        _ = loaded.deployment_id
    assert "bus stack up" in refused.value.hint


def test_the_file_is_looked_for_in_the_written_order(tmp_path):
    here, local, named = tmp_path / "bus.toml", tmp_path / ".sealbus" / "bus.toml", tmp_path / "other.toml"
    local.parent.mkdir()
    for number, path in enumerate((local, here, named), 2):
        path.write_text(f"enforcers = {number}")
        environ = {"BUS_CONFIG": str(named)} if path is named else {}
        loaded = load(environ, tmp_path)
        assert loaded.enforcers == number
        assert loaded.source == str(path)


def test_a_variable_overrides_the_file_and_only_its_own_key(tmp_path):
    loaded = load_text(tmp_path, "enforcers = 3\ngrace_ms = 90000", BUS_ENFORCERS="5", PATH="/bin", BUSY="1")
    assert (loaded.enforcers, loaded.grace_ms) == (5, 90_000)


def test_every_key_can_be_set_in_the_file(tmp_path):
    text = f"""
        deployment = "{ID}"
        mode = "production"
        bootstrap = "127.0.0.1:9092"
        broker = "external"
        brokers = 3
        state = "/var/lib/sealbus"
        policies = "/etc/sealbus"
        max_clock_skew_ms = 1000
        lead_ms = 2000
        grace_ms = 3000
        backlog_horizon_ms = 4000
        transaction_ms = 50
        transaction_bytes = 65536
        compiled = false
        guardrail_engine = "presidio"
        guardrail_model = "/models/de"
        enforcers = 7
        issuing = "authority"
        authority = "127.0.0.1:9443"
        enrolment = "127.0.0.1:9444"
        attester = "tpm"
        attester_code = "/srv/agent"
        tpm_tcti = "swtpm:port=2321"
        tpm_chain = "/etc/maker.pem"
        tpm_pcr = 11
        user_issuers = "/etc/sealbus/users.json"
        sasl_mechanism = "SCRAM-SHA-512"
        rotate_passwords = true
        kerberos_service = "broker"
        kerberos_realm = "EXAMPLE.ORG"
        kerberos_keytab = "/etc/broker.keytab"
        instance = "bus-enforcer-2"
        http = "127.0.0.1:9464"
        key_provider = "pkcs11"
        key_timeout_ms = 700
        vault_address = "https://vault:8200"
        vault_key = "keys/bus"
        vault_token_file = "/run/vault-token"
        vault_ca = "/etc/vault-ca.pem"
        aws_key = "alias/bus"
        aws_region = "eu-west-1"
        aws_endpoint = "https://kms.internal"
        azure_key = "https://v.vault.azure.net/keys/bus"
        gcp_key = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
        authority_addresses = "one:9443, two:9443"
        authority_database = "host=/run/pg dbname=bus"
        ledger_database = "host=/run/pg dbname=ledger"
        pkcs11_module = "/usr/lib/hsm.so"
        pkcs11_token = "bus"
        pkcs11_key = "kek"
        pkcs11_pin_file = "/run/pin"
        [owners]
        writer-1 = 1001
        [secrets]
        "keys/pin" = "vault:kv/bus#pin"
        [peers]
        us = "../us/bus.toml"
        [witnesses]
        "w1+00000000+AAAA" = "https://witness.example"
    """
    loaded = load_text(tmp_path, text)
    assert loaded == Settings(
        deployment=ID,
        mode=Mode.PRODUCTION,
        bootstrap="127.0.0.1:9092",
        broker=BrokerSource.EXTERNAL,
        brokers=3,
        state=Path("/var/lib/sealbus"),
        policies=Path("/etc/sealbus"),
        max_clock_skew_ms=1000,
        lead_ms=2000,
        grace_ms=3000,
        backlog_horizon_ms=4000,
        transaction_ms=50,
        transaction_bytes=65536,
        compiled=False,
        guardrail_engine=GuardrailEngine.PRESIDIO,
        guardrail_model="/models/de",
        enforcers=7,
        issuing=Issuing.AUTHORITY,
        authority="127.0.0.1:9443",
        enrolment="127.0.0.1:9444",
        attester=AttesterKind.TPM,
        attester_code=Path("/srv/agent"),
        tpm_tcti="swtpm:port=2321",
        tpm_chain=Path("/etc/maker.pem"),
        tpm_pcr=11,
        user_issuers=Path("/etc/sealbus/users.json"),
        authority_addresses="one:9443, two:9443",
        authority_database="host=/run/pg dbname=bus",
        ledger_database="host=/run/pg dbname=ledger",
        sasl_mechanism=Mechanism.SCRAM,
        rotate_passwords=True,
        kerberos_service="broker",
        kerberos_realm="EXAMPLE.ORG",
        kerberos_keytab=Path("/etc/broker.keytab"),
        instance="bus-enforcer-2",
        http="127.0.0.1:9464",
        key_provider=Custody.PKCS11,
        key_timeout_ms=700,
        vault_address="https://vault:8200",
        vault_key="keys/bus",
        vault_token_file=Path("/run/vault-token"),
        vault_ca=Path("/etc/vault-ca.pem"),
        aws_key="alias/bus",
        aws_region="eu-west-1",
        aws_endpoint="https://kms.internal",
        azure_key="https://v.vault.azure.net/keys/bus",
        gcp_key="projects/p/locations/l/keyRings/r/cryptoKeys/k",
        pkcs11_module=Path("/usr/lib/hsm.so"),
        pkcs11_token="bus",
        pkcs11_key="kek",
        pkcs11_pin_file=Path("/run/pin"),
        owners={"writer-1": 1001},
        secrets={"keys/pin": "vault:kv/bus#pin"},
        peers={"us": "../us/bus.toml"},
        witnesses={"w1+00000000+AAAA": "https://witness.example"},
        source=str(tmp_path / "bus.toml"),
    )
    assert loaded.deployment_id == bytes.fromhex(ID)
    assert defaults_among(loaded) == set()


def test_every_key_but_the_tables_can_be_set_by_a_variable(tmp_path):
    environ = {
        "BUS_DEPLOYMENT": ID,
        "BUS_MODE": "production",
        "BUS_ATTESTER": "software",
        "BUS_ATTESTER_CODE": "/srv/agent",
        "BUS_TPM_TCTI": "tabrmd",
        "BUS_TPM_CHAIN": "/etc/maker.pem",
        "BUS_TPM_PCR": "0",
        "BUS_USER_ISSUERS": "/etc/sealbus/users.json",
        "BUS_BOOTSTRAP": "kafka:9092",
        "BUS_BROKER": "external",
        "BUS_BROKERS": "3",
        "BUS_STATE": "/s",
        "BUS_POLICIES": "/p",
        "BUS_MAX_CLOCK_SKEW_MS": "1000",
        "BUS_LEAD_MS": "2000",
        "BUS_GRACE_MS": "3000",
        "BUS_BACKLOG_HORIZON_MS": "4000",
        "BUS_TRANSACTION_MS": "50",
        "BUS_TRANSACTION_BYTES": "65536",
        "BUS_COMPILED": "false",
        "BUS_GUARDRAIL_ENGINE": "presidio",
        "BUS_GUARDRAIL_MODEL": "/models/de",
        "BUS_ENFORCERS": "7",
        "BUS_ISSUING": "authority",
        "BUS_AUTHORITY": "127.0.0.1:9443",
        "BUS_AUTHORITY_ADDRESSES": "one:9443,two:9443",
        "BUS_AUTHORITY_DATABASE": "host=/run/pg dbname=bus",
        "BUS_LEDGER_DATABASE": "host=/run/pg dbname=ledger",
        "BUS_ENROLMENT": "127.0.0.1:9444",
        "BUS_SASL_MECHANISM": "SCRAM-SHA-512",
        "BUS_ROTATE_PASSWORDS": "true",
        "BUS_KERBEROS_SERVICE": "broker",
        "BUS_KERBEROS_REALM": "EXAMPLE.ORG",
        "BUS_KERBEROS_KEYTAB": "/etc/broker.keytab",
        "BUS_INSTANCE": "bus-enforcer-2",
        "BUS_HTTP": "127.0.0.1:9464",
        "BUS_KEY_PROVIDER": "vault",
        "BUS_KEY_TIMEOUT_MS": "700",
        "BUS_VAULT_ADDRESS": "https://vault:8200",
        "BUS_VAULT_KEY": "keys/bus",
        "BUS_VAULT_TOKEN_FILE": "/run/vault-token",
        "BUS_VAULT_CA": "/etc/vault-ca.pem",
        "BUS_AWS_KEY": "alias/bus",
        "BUS_AWS_REGION": "eu-west-1",
        "BUS_AWS_ENDPOINT": "https://kms.internal",
        "BUS_AZURE_KEY": "https://v.vault.azure.net/keys/bus",
        "BUS_GCP_KEY": "projects/p/locations/l/keyRings/r/cryptoKeys/k",
        "BUS_PKCS11_MODULE": "/usr/lib/hsm.so",
        "BUS_PKCS11_TOKEN": "bus",
        "BUS_PKCS11_KEY": "kek",
        "BUS_PKCS11_PIN_FILE": "/run/pin",
    }
    assert defaults_among(load(environ, tmp_path)) == {"owners", "secrets", "peers", "witnesses"}


@pytest.mark.parametrize(
    ("key", "nearest"), [("grace_mss", "grace_ms"), ("enforcer", "enforcers"), ("max_clock_skew", "max_clock_skew_ms")]
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(tmp_path, key, nearest):
    with pytest.raises(SettingsError, match=f"bus.toml: {key}: unknown setting") as in_file:
        load_text(tmp_path, f"{key} = 1")
    (tmp_path / "bus.toml").unlink()
    variable = f"BUS_{key.upper()}"
    with pytest.raises(SettingsError, match=f"{variable}: unknown setting") as in_variable:
        load({variable: "1"}, tmp_path)
    for refused in (in_file, in_variable):
        assert refused.value.hint == f"did you mean {nearest}?"
        assert refused.value.code is Code.SETTINGS


def test_a_key_like_no_other_is_refused_with_the_list_of_known_ones(tmp_path):
    with pytest.raises(SettingsError) as refused:
        load_text(tmp_path, "zzz = 1")
    assert refused.value.hint.startswith("known: attester, attester_code, authority, authority_addresses, ")


@pytest.mark.parametrize("name", ["BUS_SOURCE", "BUS_", "BUS_DEPLOYMENT_ID"])
def test_what_is_derived_cannot_be_set(tmp_path, name):
    with pytest.raises(SettingsError, match="unknown setting"):
        load({name: "x"}, tmp_path)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("compiled = 1.5", "bool"),
        ('compiled = "yes"', "bool"),
        ("enforcers = 1.5", "int"),
        ("enforcers = true", "int"),
        ('enforcers = "two"', "int"),
        ("enforcers = [2]", "int"),
        ("bootstrap = 9092", "str"),
        ("state = 5", r"\w*Path"),
        ("state = false", r"\w*Path"),
        ("deployment = 12345678901234567890123456789012", "str"),
        ('mode = "producktion"', "development or production"),
        ("mode = 1", "development or production"),
        ('broker = "docker"', "jars or external"),
        ("broker = 1", "jars or external"),
        ('guardrail_engine = "model"', "patterns or presidio"),
        ("owners = 5", "dict"),
        ('owners = {writer-1 = "root"}', "dict"),
        ("owners = {writer-1 = true}", "dict"),
        ("secrets = {pin = 5}", "dict"),
    ],
)
def test_a_value_of_another_type_is_refused_in_the_file(tmp_path, line, expected):
    key = line.split(" ")[0]
    with pytest.raises(SettingsError, match=rf"bus\.toml: {key}: expected {expected}, found"):
        load_text(tmp_path, line)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("BUS_ENFORCERS", "two"),
        ("BUS_ENFORCERS", "1.5"),
        ("BUS_ENFORCERS", ""),
        ("BUS_MODE", "PRODUCTION"),
        ("BUS_OWNERS", "{}"),
    ],
)
def test_a_value_of_another_type_is_refused_in_a_variable(tmp_path, name, text):
    with pytest.raises(SettingsError, match=f"{name}: expected .*, found {text!r}"):
        load({name: text}, tmp_path)


@pytest.mark.parametrize(
    ("accepted", "refused"),
    [
        ("max_clock_skew_ms = 59950", "max_clock_skew_ms = 59951"),
        ("grace_ms = 60100", "grace_ms = 60099"),
        ("enforcers = 1", "enforcers = 0"),
        ("enforcers = 64", "enforcers = 65"),
        ("lead_ms = 0", "lead_ms = -1"),
        ("backlog_horizon_ms = 0", "backlog_horizon_ms = -1"),
        ("brokers = 1", "brokers = 2"),
        ("brokers = 3", "brokers = 4"),
        ("transaction_ms = 1", "transaction_ms = 0"),
        ("tpm_pcr = 15", "tpm_pcr = 16"),
        ("transaction_ms = 5000", "transaction_ms = 5001"),
        ("transaction_bytes = 65536", "transaction_bytes = 65535"),
        ("transaction_bytes = 67108864", "transaction_bytes = 67108865"),
    ],
)
def test_limits_are_met_exactly(tmp_path, accepted, refused):
    key, _, value = accepted.partition(" = ")
    assert getattr(load_text(tmp_path, accepted), key) == int(value)
    with pytest.raises(SettingsError, match="expected"):
        load_text(tmp_path, refused)


def test_grace_leaves_time_to_seal_between_two_clocks_that_differ(tmp_path):
    assert load_text(tmp_path, "max_clock_skew_ms = 10000\ngrace_ms = 20100").seal_deadline_ms == 100
    with pytest.raises(SettingsError, match=r"grace_ms: expected at least 2 x max_clock_skew_ms \+ 100 = 20100"):
        load_text(tmp_path, "max_clock_skew_ms = 10000\ngrace_ms = 20099")


def test_a_stolen_key_is_of_use_for_at_most_fifteen_minutes(tmp_path):
    loaded = load_text(tmp_path, "lead_ms = 60000\ngrace_ms = 240000")
    assert MAX_TOKEN_AGE_MS == 900_000
    loaded.check_interval(600_000)
    with pytest.raises(SettingsError, match="expected at most 900000, found 900001"):
        loaded.check_interval(600_001)


def test_the_next_epoch_is_there_before_it_begins(tmp_path):
    for text in ("lead_ms = 1\nmax_clock_skew_ms = 0", "lead_ms = 0\nmax_clock_skew_ms = 1"):
        load_text(tmp_path, text)
    with pytest.raises(SettingsError, match="lead_ms: expected at least 1"):
        load_text(tmp_path, "lead_ms = 0\nmax_clock_skew_ms = 0")


def test_lead_and_grace_leave_an_interval(tmp_path):
    assert load_text(tmp_path, "lead_ms = 599999\ngrace_ms = 300000").lead_ms == 599_999
    with pytest.raises(SettingsError, match="lead_ms: expected less than 900000 - grace_ms = 600000, found 600000"):
        load_text(tmp_path, "lead_ms = 600000\ngrace_ms = 300000")


def test_a_relative_path_in_a_file_is_meant_from_that_files_folder(tmp_path):
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "bus.toml").write_text('state = "../state"\npolicies = "law"')
    loaded = load({"BUS_CONFIG": str(folder / "bus.toml")}, tmp_path)
    assert (loaded.state, loaded.policies) == (tmp_path / "state", folder / "law")


def test_a_relative_path_in_a_variable_is_meant_from_where_the_command_runs(tmp_path):
    assert load_text(tmp_path, 'state = "a"', BUS_STATE="b").state == Path("b")


@pytest.mark.parametrize("text", [ID.upper(), ID[:-1], ID + "0", ID[:-1] + "g", f" {ID}", f"{ID}\n", f"0x{ID[2:]}"])
def test_a_deployment_id_is_32_lower_case_hex_digits(tmp_path, text):
    assert load({"BUS_DEPLOYMENT": ID}, tmp_path).deployment_id == bytes.fromhex(ID)
    with pytest.raises(SettingsError, match="deployment: expected 32 lower-case hex digits"):
        load({"BUS_DEPLOYMENT": text}, tmp_path)


@pytest.mark.parametrize("data", [b"enforcers 2", b"enforcers = ", b"a = 1\na = 2", b"\xff\xfe", b"\x00", b"{}"])
def test_a_file_that_is_not_toml_is_refused_by_name(tmp_path, data):
    (tmp_path / "bus.toml").write_bytes(data)
    with pytest.raises(SettingsError, match=r"bus\.toml: cannot be read"):
        load({}, tmp_path)


@pytest.mark.parametrize("name", ["absent.toml", "."])
def test_a_named_file_that_is_not_there_is_refused_and_not_passed_over(tmp_path, name):
    (tmp_path / "bus.toml").write_text("enforcers = 2")
    with pytest.raises(SettingsError, match="cannot be read"):
        load({"BUS_CONFIG": str(tmp_path / name)}, tmp_path)


@pytest.mark.parametrize(
    "folder", ["plain", "with space", "Ünïcode", "it's", 'a "quoted" one', "both ' and \"", "back\\slash"]
)
def test_what_the_stack_writes_is_what_is_read_back(tmp_path, folder):
    file = tmp_path / "bus.toml"
    written = dataclasses.replace(
        Settings(),
        deployment=ID,
        mode=Mode.PRODUCTION,
        broker=BrokerSource.EXTERNAL,
        brokers=3,
        state=tmp_path / folder,
        policies=tmp_path / "law",
        enforcers=3,
        owners={"writer-1": 1001},
        secrets={"keys/pin": "vault:kv/bus#pin", "services/bus-audit/scram": 'aws-secrets:"ä"#x|base64'},
        source=str(file),
    )
    write_settings(written, file)
    assert load({}, tmp_path) == written


def test_a_database_of_the_authority_needs_the_authority_and_is_not_repeated_in_the_message(tmp_path):
    with pytest.raises(SettingsError, match='authority_database: expected issuing = "authority" with it') as refused:
        load_text(tmp_path, 'authority_database = "host=/run/pg password=hunter2"')
    assert "hunter2" not in str(refused.value)
