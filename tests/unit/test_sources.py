"""Names of bootstrap secrets and their places; what keepers answer is tried in tests/custody/test_sources.py."""

import pytest

from bus.authority.sources import Scheme, Source, place_of, pull
from bus.errors import Refused, SettingsError
from bus.settings import Settings

AZURE = "https://mine.vault.azure.net/secrets/pin"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("vault:kv/prod/sealbus#pin", Source(Scheme.VAULT, "kv/prod/sealbus", "pin")),
        ("vault:kv/sealbus#key|base64", Source(Scheme.VAULT, "kv/sealbus", "key", encoded=True)),
        ("aws-secrets:prod/sealbus", Source(Scheme.AWS, "prod/sealbus")),
        ("aws-secrets:arn:aws:secretsmanager:eu-west-1:1:secret:x-AbCdEf#pin", None),
        (f"azure-secrets:{AZURE}", Source(Scheme.AZURE, AZURE)),
        (f"azure-secrets:{AZURE}/{'0' * 32}#pin|base64", None),
    ],
)
def test_a_source_is_read_and_written_alike(text, expected):
    found = Source.parse(text)
    assert expected in (None, found)
    assert str(found) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "vault",
        "vault:",
        "file:/etc/pin",
        "vault:kv/sealbus",
        "vault:kv#pin",
        "vault:/path#pin",
        "vault:kv/#pin",
        "azure-secrets:http://mine.vault.azure.net/secrets/pin",
        "azure-secrets:https://mine.vault.azure.net/keys/pin",
        f"azure-secrets:{AZURE}/short",
        "aws-secrets:#pin",
        "aws-secrets:|base64",
    ],
)
def test_what_is_no_source_is_refused_and_says_what_was_expected(text):
    with pytest.raises(SettingsError, match="source: expected"):
        Source.parse(text)


def test_a_place_is_inside_the_state_folder(tmp_path):
    assert place_of(tmp_path, "services/bus-audit/scram") == tmp_path / "services" / "bus-audit" / "scram"


@pytest.mark.parametrize("name", ["", ".", "/etc/passwd", "../pin", "keys/../../pin", "keys//pin", "keys/"])
def test_no_other_place_is_written(tmp_path, name):
    with pytest.raises(SettingsError, match="expected a path inside the state folder"):
        place_of(tmp_path, name)


def given(monkeypatch, value):
    monkeypatch.setitem(pull.__globals__["_KEEPERS"], Scheme.AWS, lambda _settings, _source: value)


@pytest.mark.parametrize(
    ("value", "text", "expected"),
    [
        ("pin", "aws-secrets:x", b"pin"),
        (b"\0\1", "aws-secrets:x", b"\0\1"),
        ('{"pin": "5382"}', "aws-secrets:x#pin", b"5382"),
        ({"pin": "AAE="}, "aws-secrets:x#pin|base64", b"\0\1"),
    ],
)
def test_a_secret_is_written_once_and_for_its_owner_alone(tmp_path, monkeypatch, value, text, expected):
    given(monkeypatch, value)
    settings, path = Settings(state=tmp_path), tmp_path / "keys" / "pin"
    assert pull(settings, "keys/pin", Source.parse(text))
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (expected, 0o600)
    before = path.stat().st_ino
    assert not pull(settings, "keys/pin", Source.parse(text))
    assert path.stat().st_ino == before
    path.chmod(0o644)
    assert pull(settings, "keys/pin", Source.parse(text)), "what others may have read is written anew, closed"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("value", "text", "why"),
    [
        ("not json", "aws-secrets:x#pin", "expected a JSON object"),
        ("[1]", "aws-secrets:x#pin", "expected a JSON object"),
        ("[" * 100_000, "aws-secrets:x#pin", "expected a JSON object"),
        ('{"other": "x"}', "aws-secrets:x#pin", "found no such field"),
        ('{"pin": 5382}', "aws-secrets:x#pin", "expected a string, found a int"),
        (None, "aws-secrets:x", "expected a string"),
        ("", "aws-secrets:x", "expected 1 to 65536 bytes, found 0"),
        ("x" * 65_537, "aws-secrets:x", "found 65537"),
        ("SECRET!", "aws-secrets:x|base64", "expected base64"),
        ("ä", "aws-secrets:x|base64", "expected base64"),
    ],
)
def test_what_is_no_secret_is_refused_and_not_shown(tmp_path, monkeypatch, value, text, why):
    given(monkeypatch, value)
    (tmp_path / "pin").write_bytes(b"as it was")
    with pytest.raises(Refused, match=why) as refused:
        pull(Settings(state=tmp_path), "pin", Source.parse(text))
    assert "SECRET" not in str(refused.value)
    assert (tmp_path / "pin").read_bytes() == b"as it was"
