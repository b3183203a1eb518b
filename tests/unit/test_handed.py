"""Keys that were given on an attestation: sealed to the attested key, for one result, policy and epoch."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from bus.authority.handed import hand, take
from bus.errors import Refused, Unverified

KEY = ec.generate_private_key(ec.SECP256R1())
POLICY = bytes(range(32))


def der(key):
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def pem(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def test_it_opens_with_the_attested_key_for_what_it_was_given_for():
    sealed = hand(b"bundle", der(KEY), "result", POLICY, 7)
    assert b"bundle" not in sealed
    assert take(sealed, pem(KEY), "result", POLICY, 7) == b"bundle"
    assert hand(b"bundle", der(KEY), "result", POLICY, 7) != sealed


@pytest.mark.parametrize(
    ("key", "result", "policy", "epoch"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "result", POLICY, 7),
        (KEY, "another", POLICY, 7),
        (KEY, "result", bytes(32), 7),
        (KEY, "result", POLICY, 8),
    ],
)
def test_for_anything_else_it_stays_closed(key, result, policy, epoch):
    sealed = hand(b"bundle", der(KEY), "result", POLICY, 7)
    with pytest.raises(Unverified, match="not sealed to this agent's attested key"):
        take(sealed, pem(key), result, policy, epoch)


def test_every_byte_is_authenticated():
    sealed = hand(b"bundle", der(KEY), "result", POLICY, 7)
    for place in range(len(sealed)):
        changed = sealed[:place] + bytes((sealed[place] ^ 1,)) + sealed[place + 1 :]
        with pytest.raises(Unverified):
            take(changed, pem(KEY), "result", POLICY, 7)
    with pytest.raises(Unverified):
        take(b"", pem(KEY), "result", POLICY, 7)


def test_other_kinds_of_key_are_refused():
    other = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(Refused, match="expected a P-256 key"):
        hand(b"bundle", der(other), "result", POLICY, 7)
    with pytest.raises(Refused, match="expected a P-256 key"):
        take(b"x", pem(other), "result", POLICY, 7)
