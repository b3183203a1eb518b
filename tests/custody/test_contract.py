"""One contract for every key provider, each run against the real thing where it can be had on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from bus.authority.custody import NEEDS, open_provider
from bus.authority.providers.base import Wrapped
from bus.crypto.keys import Secret
from bus.errors import RetryLater, SettingsError, Unverified
from bus.files import Layout
from bus.settings import Custody, Settings
from tests.custody.sites import SITES, Site

KEY = Secret(bytes(range(32)), "root(notes, 4)")
CONTEXT = b"\x00\x10sealbus/v1/root" + bytes(range(200, 256))


@pytest.fixture(scope="module", params=[pytest.param(name, id=str(name)) for name in SITES])
def site(request, tmp_path_factory) -> Iterator[Site]:
    with SITES[request.param](tmp_path_factory.mktemp(request.param)) as made:
        yield made


def test_what_was_wrapped_is_unwrapped_by_another_process(site):
    wrapped = site.provider().wrap(KEY, CONTEXT)
    assert wrapped.provider == site.settings.key_provider
    assert KEY.reveal() not in wrapped.data
    assert site.provider().unwrap(wrapped, CONTEXT, "root") == KEY


def test_a_wrapping_is_fresh_each_time(site):
    provider = site.provider()
    first, second = (provider.wrap(KEY, CONTEXT) for _ in range(2))
    assert first.data != second.data
    assert first.kek == second.kek
    assert provider.unwrap(first, CONTEXT, "root") == provider.unwrap(second, CONTEXT, "root") == KEY


@pytest.mark.parametrize("context", [b"", CONTEXT + b"x", CONTEXT[:-1]], ids=["none", "longer", "shorter"])
def test_another_context_is_refused(site, context):
    provider = site.provider()
    wrapped = provider.wrap(KEY, CONTEXT)
    with pytest.raises(Unverified, match="does not open"):
        provider.unwrap(wrapped, context, "root")
    assert provider.unwrap(wrapped, CONTEXT, "root") == KEY


@pytest.mark.parametrize("where", [-1, -8, -20, -40])
def test_a_changed_byte_is_refused(site, where):
    provider = site.provider()
    wrapped = provider.wrap(KEY, CONTEXT)
    data = bytearray(wrapped.data)
    data[where] ^= 1
    with pytest.raises(Unverified):
        provider.unwrap(replace(wrapped, data=bytes(data)), CONTEXT, "root")


@pytest.mark.parametrize("data", [b"", b"x", bytes(60), b"vault:v1:\xff"], ids=len)
def test_what_no_provider_wrapped_is_refused(site, data):
    provider = site.provider()
    kek = provider.wrap(KEY, CONTEXT).kek
    with pytest.raises(Unverified):
        provider.unwrap(Wrapped(kek, data), CONTEXT, "root")


def test_another_key_is_refused(site):
    provider = site.provider()
    own, others = provider.wrap(KEY, CONTEXT), site.provider(site.other_key).wrap(KEY, CONTEXT)
    assert own.kek != others.kek
    with pytest.raises(site.other_key_refused):
        provider.unwrap(Wrapped(own.kek, others.data), CONTEXT, "root")


def test_a_new_version_wraps_and_the_earlier_one_still_opens(site):
    provider = site.provider()
    before = provider.wrap(KEY, CONTEXT)
    site.rotate()
    after = provider.wrap(KEY, CONTEXT)
    assert (after.kek != before.kek) == (site.settings.key_provider is not Custody.AWS_KMS)  # KMS does not tell
    for each in (before, after):
        assert provider.unwrap(each, CONTEXT, "root") == site.provider().unwrap(each, CONTEXT, "root") == KEY


@pytest.mark.timeout(30)
def test_a_provider_that_cannot_do_it_now_is_asked_again_later(site):
    wrapped = site.provider().wrap(KEY, CONTEXT)
    assert site.away
    for reason, settings in site.away.items():
        with pytest.raises(RetryLater) as refused:
            site.provider(settings).wrap(KEY, CONTEXT)
        assert_tells_nothing(str(refused.value) + refused.value.hint, reason)
        if reason not in ("not permitted", "no such key"):  # those are of the key that is to wrap
            with pytest.raises(RetryLater) as refused:
                site.provider(settings).unwrap(wrapped, CONTEXT, "root")
            assert_tells_nothing(str(refused.value) + refused.value.hint, reason)


def test_no_message_and_no_repr_tells_a_key(site):
    provider = site.provider()
    wrapped = provider.wrap(KEY, CONTEXT)
    assert_tells_nothing(repr(provider) + repr(wrapped) + repr(provider.unwrap(wrapped, CONTEXT, "root")), "repr")
    with pytest.raises(Unverified) as refused:
        provider.unwrap(wrapped, b"other", "root")
    assert_tells_nothing(str(refused.value) + repr(refused.value.__dict__), "refusal")
    assert refused.value.__cause__ is None


def test_what_a_destroyed_key_wrapped_does_not_open_again(site):
    """The last test of a provider: its earlier keys are gone."""
    if site.destroy_earlier is None:
        pytest.skip("this stand-in goes on to decrypt under a key that is to be deleted")
    provider = site.provider()
    before = provider.wrap(KEY, CONTEXT)
    site.rotate()
    after = provider.wrap(KEY, CONTEXT)
    assert provider.unwrap(before, CONTEXT, "root") == KEY
    site.destroy_earlier()
    for each in (provider, site.provider()):
        with pytest.raises(RetryLater):
            each.unwrap(before, CONTEXT, "root")
        assert each.unwrap(after, CONTEXT, "root") == KEY


def assert_tells_nothing(text: str, where: str) -> None:
    assert KEY.reveal().hex() not in text, where
    assert "AAECAwQFBgcICQ" not in text, where
    assert "hvs." not in text, where
    assert "538201" not in text, where


@pytest.mark.parametrize("name", list(Custody))
def test_a_setting_that_is_missing_is_named(tmp_path, name):
    for key in NEEDS[name]:
        given = dict.fromkeys(NEEDS[name], "x") | {key: type(getattr(Settings(), key))()}
        with pytest.raises(SettingsError, match=f"{key} is not set"):
            open_provider(name, replace(Settings(), **given), Layout(tmp_path))


@pytest.mark.parametrize(
    ("name", "module", "extra", "given"),
    [
        (Custody.VAULT, "hvac", "vault", {"vault_address": "https://vault:8200"}),
        (Custody.AWS_KMS, "boto3", "aws", {"aws_key": "alias/sealbus"}),
        (Custody.AZURE, "azure.keyvault.keys.crypto", "azure", {"azure_key": "https://v.vault.azure.net/keys/k"}),
        (
            Custody.GCP_KMS,
            "google.cloud.kms",
            "gcp",
            {"gcp_key": "projects/p/locations/l/keyRings/r/cryptoKeys/k"},
        ),
        (Custody.PKCS11, "pkcs11", "pkcs11", {"pkcs11_token": "t"}),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path, monkeypatch, name, module, extra, given):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    files = dict.fromkeys(("vault_token_file", "pkcs11_module", "pkcs11_pin_file"), tmp_path / "x")
    with pytest.raises(SettingsError, match=f"{module} is not installed") as refused:
        open_provider(name, replace(Settings(), **given, **files), Layout(tmp_path))
    assert refused.value.hint == f"pip install 'sealbus[{extra}]'"


@pytest.mark.parametrize(("address", "ok"), [("http://vault:8200", False), ("http://127.0.0.1:1", True)])
def test_a_token_is_sent_over_tls_or_to_this_machine_only(tmp_path, address, ok):
    pytest.importorskip("hvac", reason="hvac is not installed: pip install 'sealbus[vault]'")
    settings = replace(Settings(), vault_address=address, vault_token_file=tmp_path / "token")
    if ok:
        open_provider(Custody.VAULT, settings, Layout(tmp_path))
        return
    with pytest.raises(SettingsError, match="expected https://"):
        open_provider(Custody.VAULT, settings, Layout(tmp_path))
