"""What moto does not say as AWS does, and Google's message types: the official clients' own stubs, no cloud.

Which error code means what is from the providers' references; whether they keep to it was not run.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bus.authority.providers.aws import AwsProvider
from bus.authority.providers.base import Wrapped
from bus.authority.providers.gcp import GcpProvider
from bus.crypto.keys import Secret
from bus.errors import RetryLater, SettingsError, Unverified
from bus.settings import Settings
from tests.custody.sites import need

ARN = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
KEY = "projects/p/locations/l/keyRings/r/cryptoKeys/k"
ROOT = Secret(bytes(range(32)), "root")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("InvalidCiphertextException", Unverified),
        ("IncorrectKeyException", Unverified),
        ("DisabledException", RetryLater),
        ("KMSInvalidStateException", RetryLater),
        ("NotFoundException", RetryLater),
        ("AccessDeniedException", RetryLater),
        ("ExpiredTokenException", RetryLater),
        ("ThrottlingException", RetryLater),
        ("KMSInternalException", RetryLater),
    ],
)
def test_only_forged_bytes_are_refused_for_good_by_kms(code, kind):
    need("boto3", "aws")
    stub = need("botocore.stub", "aws")
    provider = AwsProvider(replace(Settings(), aws_key=ARN, aws_region="eu-west-1"))
    with stub.Stubber(provider._client) as stubbed:
        stubbed.add_client_error("decrypt", code, "about AAECAwQFBgcICQ")
        with pytest.raises(kind) as refused:
            provider.unwrap(Wrapped(f"aws-kms:{ARN}", b"x" * 60), b"context", "root")
    assert "AAECAwQFBgcICQ" not in str(refused.value) + refused.value.hint


class Google:
    """Google's client in so far as it takes and gives its own message types; raises ``failure`` where there is one."""

    def __init__(self, types, errors):
        self._types, self._errors = types, errors
        self._aead = AESGCM(bytes(32))
        self.failure = None

    def _call(self, timeout, retry):
        assert (timeout, retry) == (5, None)  # bounded: without them Google's client tries again for minutes
        if self.failure:
            raise self.failure

    def encrypt(self, request, timeout, retry):
        self._call(timeout, retry)
        asked = self._types.EncryptRequest(request)
        data = self._aead.encrypt(bytes(12), asked.plaintext, asked.additional_authenticated_data)
        return self._types.EncryptResponse(name=f"{asked.name}/cryptoKeyVersions/3", ciphertext=data)

    def decrypt(self, request, timeout, retry):
        self._call(timeout, retry)
        asked = self._types.DecryptRequest(request)
        assert asked.name == KEY
        try:
            value = self._aead.decrypt(bytes(12), asked.ciphertext, asked.additional_authenticated_data)
        except InvalidTag:
            raise self._errors.InvalidArgument("Decryption failed") from None
        return self._types.DecryptResponse(plaintext=value)


@pytest.fixture
def google():
    types, errors = need("google.cloud.kms", "gcp"), need("google.api_core.exceptions", "gcp")
    provider = GcpProvider(replace(Settings(), gcp_key=KEY))
    provider._client = Google(types, errors)
    return provider, errors


def test_google_is_asked_for_the_key_and_told_the_context(google):
    provider, _ = google
    wrapped = provider.wrap(ROOT, b"context")
    assert wrapped.kek == f"gcp-kms:{KEY}/cryptoKeyVersions/3"
    assert provider.unwrap(wrapped, b"context", "root") == ROOT
    for bad, context in ((wrapped, b"other"), (replace(wrapped, kek="gcp-kms:projects/x"), b"context")):
        with pytest.raises(Unverified, match="does not open"):
            provider.unwrap(bad, context, "root")


@pytest.mark.parametrize("name", ["ServiceUnavailable", "DeadlineExceeded", "Forbidden", "NotFound", "RetryError"])
def test_what_google_may_do_later_waits(google, name):
    provider, errors = google
    wrapped = provider.wrap(ROOT, b"context")
    kind = getattr(errors, name)
    provider._client.failure = kind("x", None) if name == "RetryError" else kind("x")
    with pytest.raises(RetryLater):
        provider.wrap(ROOT, b"context")
    with pytest.raises(RetryLater):
        provider.unwrap(wrapped, b"context", "root")


@pytest.mark.parametrize("key", ["k", f"{KEY}/cryptoKeyVersions/1", f"/{KEY}"])
def test_a_google_key_that_is_none_is_refused(key):
    with pytest.raises(SettingsError, match="gcp_key: expected"):
        GcpProvider(replace(Settings(), gcp_key=key))
