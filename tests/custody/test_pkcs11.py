"""What only a token can show: the key is never in the process, and two threads do not crash the library."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from bus.authority.providers.pkcs11 import Pkcs11Provider
from bus.crypto.keys import Secret
from bus.errors import RetryLater, SettingsError
from tests.custody.sites import pkcs11

CONTEXT = b"context"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with pkcs11(tmp_path_factory.mktemp("pkcs11")) as made:
        yield made


def test_the_wrapping_key_cannot_be_read_out_of_the_token(site):
    import pkcs11 as library

    provider = Pkcs11Provider(site.settings)
    provider.wrap(Secret.random("root"), CONTEXT)
    for kek in provider._keys():
        with pytest.raises(library.exceptions.AttributeSensitive):
            kek[library.Attribute.VALUE]
        assert kek[library.Attribute.NEVER_EXTRACTABLE]
        assert kek[library.Attribute.ALWAYS_SENSITIVE]


def test_a_key_that_can_be_read_out_wraps_nothing(site):
    import pkcs11 as library

    provider = Pkcs11Provider(replace(site.settings, pkcs11_key="open"))
    attribute = library.Attribute
    template = {attribute.SENSITIVE: False, attribute.EXTRACTABLE: True}
    provider._open().generate_key(library.KeyType.AES, 256, label="open", id=b"\1", store=True, template=template)
    with pytest.raises(SettingsError, match="can be read out of the token"):
        provider.wrap(Secret.random("root"), CONTEXT)
    assert provider.rotate() == "pkcs11:sealbus/open/00000002"
    assert provider.wrap(Secret.random("root"), CONTEXT).kek == "pkcs11:sealbus/open/00000002"


def test_threads_wait_for_each_other(site):
    providers = [Pkcs11Provider(site.settings) for _ in range(2)]
    key, done = Secret.random("root"), []

    def work(provider: Pkcs11Provider) -> None:
        for _ in range(300):
            if provider.unwrap(provider.wrap(key, CONTEXT), CONTEXT, "root") == key:
                done.append(1)

    threads = [threading.Thread(target=work, args=(each,)) for each in providers]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(done) == 600


def test_a_session_that_was_lost_is_opened_anew(site):
    provider = Pkcs11Provider(site.settings)
    wrapped = provider.wrap(Secret.random("root"), CONTEXT)
    provider._session.close()
    with pytest.raises(RetryLater):
        provider.unwrap(wrapped, CONTEXT, "root")
    provider.unwrap(wrapped, CONTEXT, "root")
