"""The `azure` provider's own envelope, with RSA that Azure's client does itself: no vault was there."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from bus.authority.providers.azure import AzureProvider
from bus.crypto.keys import Secret
from bus.errors import RetryLater, SettingsError, Unverified
from bus.settings import Settings
from tests.custody.sites import need

KEY = "https://v.vault.azure.net/keys/kek"
ROOT = Secret(bytes(range(32)), "root")
CONTEXT = b"context"


@pytest.fixture
def provider():
    crypto, keys = need("azure.keyvault.keys.crypto", "azure"), need("azure.keyvault.keys", "azure")
    need("azure.identity", "azure")
    made = AzureProvider(replace(Settings(), azure_key=KEY))
    private = rsa.generate_private_key(65537, 2048).private_numbers()
    numbers = {"n": private.public_numbers.n, "e": private.public_numbers.e, "d": private.d, "p": private.p}
    numbers |= {"q": private.q, "dp": private.dmp1, "dq": private.dmq1, "qi": private.iqmp}
    parts = {name: value.to_bytes((value.bit_length() + 7) // 8, "big") for name, value in numbers.items()}
    jwk = keys.JsonWebKey(kid=f"{KEY}/1", kty="RSA", key_ops=["wrapKey", "unwrapKey"], **parts)
    made._client = lambda _key: crypto.CryptographyClient.from_jwk(jwk)
    return made


def test_what_was_wrapped_is_unwrapped_and_names_the_keys_version(provider):
    wrapped = provider.wrap(ROOT, CONTEXT)
    assert wrapped.kek == f"azure:{KEY}/1"
    assert len(wrapped.data) == 60 + 256
    assert ROOT.reveal() not in wrapped.data
    assert provider.unwrap(wrapped, CONTEXT, "root") == ROOT
    assert provider.wrap(ROOT, CONTEXT).data != wrapped.data


@pytest.mark.parametrize(("context", "at"), [(b"other", None), (CONTEXT, 0), (CONTEXT, 20), (CONTEXT, 59)])
def test_another_context_or_byte_is_refused(provider, context, at):
    wrapped = provider.wrap(ROOT, CONTEXT)
    data = bytearray(wrapped.data)
    if at is not None:
        data[at] ^= 1
    with pytest.raises(Unverified, match="does not open"):
        provider.unwrap(replace(wrapped, data=bytes(data)), context, "root")


def test_a_root_of_another_vault_is_not_asked_of_it(provider):
    wrapped = provider.wrap(ROOT, CONTEXT)
    with pytest.raises(RetryLater, match="is not there"):
        provider.unwrap(replace(wrapped, kek="azure:https://v.vault.azure.net.other/keys/kek/1"), CONTEXT, "root")


@pytest.mark.parametrize("key", ["http://v.vault.azure.net/keys/kek", "https://v/keys/kek/1", "kek"])
def test_a_key_that_is_no_address_is_refused(key):
    with pytest.raises(SettingsError, match="azure_key: expected"):
        AzureProvider(replace(Settings(), azure_key=key))
