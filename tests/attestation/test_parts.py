"""What all kinds share: measurements as text, framing, the agent's key, certificate paths; any bytes at all."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.attestation import evidence
from bus.attestation.chain import check_chain, read_certificate
from bus.attestation.confirmation import jwk, read_key, to_der
from bus.attestation.eat import verify_result
from bus.attestation.evidence import Question, kind_of, pack, unpack
from bus.attestation.nitro import NitroVerifier
from bus.attestation.snp import SnpVerifier
from bus.attestation.software import SoftwareVerifier
from bus.attestation.tpm import TpmVerifier
from bus.attestation.tpm_structures import read_attestation_key, read_quote, read_signature
from bus.crypto.keys import Secret
from bus.errors import Refused, WireError
from bus.wire.measurement import EvidenceKind, Measurement, parse_measurement
from tests.attestation.made import ASKED, GOLDEN, IMAGE, KEY, LAUNCHED, NOW, Authority, Chip, Enclave, Tpm, refused
from tests.attestation.test_eat import EXPECTED, KEYS, TOKEN

settings.register_profile("attestation", deadline=None)
settings.load_profile("attestation")


# Measurements.
@given(st.sampled_from(EvidenceKind), st.integers(0, 15), st.binary(min_size=48, max_size=48).filter(any))
def test_a_measurement_is_read_back(kind, register, digest):
    short = kind in (EvidenceKind.SOFTWARE, EvidenceKind.TPM)
    numbered = kind in (EvidenceKind.TPM, EvidenceKind.NITRO)
    found = Measurement(kind, register if numbered else 0, digest[-32:] if short else digest)
    if found.told:
        assert parse_measurement(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        *("", "tpm", "tpm:pcr14:", "tpm:pcr16:" + "1" * 64, "tpm:pcr014:" + "1" * 64, "tpm:pcr14:" + "1" * 96),
        *("tpm:pcr14:" + "A" * 64, "tpm:pcr14:" + "1" * 64 + "\n", "nitro:pcr0:" + "1" * 64, "snp:" + "1" * 64),
        *("snp:pcr0:" + "1" * 96, "software:" + "1" * 64, "software:sha1:" + "1" * 40, "sgx:" + "1" * 64),
        *("tpm:pcr14:" + "0" * 64, "snp:" + "0" * 96, "nitro:pcr8:" + "0" * 96, "tpm:pcr\u0661:" + "1" * 64),
    ],
)
def test_other_texts_are_no_measurement(text):
    with pytest.raises(WireError):
        parse_measurement(text)


# Framing.
def test_framing_bounds_every_part():
    data = pack(EvidenceKind.TPM, b"ab", b"c")
    assert unpack(EvidenceKind.TPM, data, (2, 1)) == [b"ab", b"c"]
    assert kind_of(data) is EvidenceKind.TPM
    for limits in ((1, 1), (2,), (2, 1, 1), (2, 0)):
        refused("bounds", unpack, EvidenceKind.TPM, data, limits)
    refused("version", unpack, EvidenceKind.SNP, data, (2, 1))
    refused("bounds", unpack, EvidenceKind.TPM, data[:-1], (2, 1))
    refused("bounds", unpack, EvidenceKind.TPM, b"", (2, 1))
    refused("bounds", unpack, EvidenceKind.TPM, data + bytes(evidence.MAX_EVIDENCE), (2, 1))
    refused("bounds", pack, EvidenceKind.TPM, bytes(65536))
    refused("bounds", pack, EvidenceKind.TPM, bytes(30000), bytes(30000))
    refused("bounds", kind_of, b"")
    refused("version", kind_of, b"\0")


@pytest.mark.parametrize("nonce", [b"", bytes(16), bytes(33)])
def test_a_nonce_that_is_none_is_refused_by_every_verifier(nonce):
    asked = Question(nonce, ASKED.agent)
    for verifier in VERIFIERS:
        refused("nonce", verifier.appraise, b"", asked, ACCEPTED, NOW)
    refused("nonce", VERIFIERS[1].challenge, b"", asked, NOW)


# The agent's key.
def test_three_kinds_of_key_have_a_jwk_and_no_other():
    assert jwk(KEY)["crv"] == "Ed25519"
    assert jwk(to_der(x25519.X25519PrivateKey.generate().public_key()))["crv"] == "X25519"
    assert jwk(to_der(ec.generate_private_key(ec.SECP256R1()).public_key())).keys() == {"kty", "crv", "x", "y"}
    others = (
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        ed448.Ed448PrivateKey.generate().public_key(),
    )
    for other in others:
        refused("decode", read_key, other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    large = rsa.generate_private_key(65537, 2048).public_key()
    refused("bounds", read_key, large.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    refused("decode", read_key, KEY + b"\0")


# Certificate paths.
ROOT = Authority("root")
ROOTS = {"root": ROOT.certificate}
MIDDLE = Authority("middle", ROOT)
LEAF = ec.generate_private_key(ec.SECP256R1()).public_key()


def test_a_path_to_a_named_root_holds():
    assert check_chain([MIDDLE.issue("leaf", LEAF), MIDDLE.certificate], ROOTS, NOW, "x") == "root"
    assert check_chain([ROOT.issue("leaf", LEAF)], {"other": MIDDLE.certificate, **ROOTS}, NOW, "x") == "root"


def test_a_path_with_anything_wrong_is_refused():
    leaf = MIDDLE.issue("leaf", LEAF)
    short = Authority("short", ROOT, path_length=0)
    below = Authority("below", short)
    silent = Authority("silent", ROOT, may_sign=False)
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"")
    for step, path in (
        ("chain", []),
        ("chain", [leaf]),
        ("chain", [MIDDLE.certificate, leaf]),
        ("chain", [leaf, Authority("middle", Authority("root")).certificate]),
        ("chain", [Authority("middle", ROOT).issue("leaf", LEAF), MIDDLE.certificate]),
        ("chain", [leaf] + [MIDDLE.certificate] * 7),
        ("chain", [below.issue("leaf", LEAF), below.certificate, short.certificate]),
        ("chain", [silent.issue("leaf", LEAF), silent.certificate]),
        ("chain", [MIDDLE.issue("leaf", LEAF, extensions=((unknown, True),)), MIDDLE.certificate]),
        ("validity", [MIDDLE.issue("leaf", LEAF, end=NOW - timedelta(seconds=1)), MIDDLE.certificate]),
        ("validity", [MIDDLE.issue("leaf", LEAF, begin=NOW + timedelta(seconds=1)), MIDDLE.certificate]),
    ):
        refused(step, check_chain, path, ROOTS, NOW, "x")
    refused("chain", check_chain, [leaf, MIDDLE.certificate], {}, NOW, "x")
    ended = NOW + timedelta(days=2)
    refused("validity", check_chain, [MIDDLE.issue("leaf", LEAF, end=ended), MIDDLE.certificate], ROOTS, ended, "x")


def test_a_certificate_has_a_bound():
    der = MIDDLE.der
    assert read_certificate(der, "x") == MIDDLE.certificate
    for other in (b"", der + bytes(4097 - len(der))):
        refused("bounds", read_certificate, other, "x")
    refused("decode", read_certificate, der + b"\0", "x")


def test_a_leaf_cannot_issue():
    private = ec.generate_private_key(ec.SECP384R1())
    middle = Authority("leaf")
    middle.key, middle.certificate = private, ROOT.issue("leaf", private.public_key())
    refused("chain", check_chain, [middle.issue("under", LEAF), middle.certificate], ROOTS, NOW, "x")


# Any bytes at all.
CHIP, ENCLAVE, TPM = Chip(), Enclave(), Tpm(ROOT)
VERIFIERS = (
    SoftwareVerifier(),
    TpmVerifier(ROOTS, Secret.random("verifier")),
    SnpVerifier({"ark": CHIP.root.certificate}),
    NitroVerifier({"aws": ENCLAVE.root.certificate}),
)
ACCEPTED = frozenset({GOLDEN, LAUNCHED, IMAGE})
HONEST = (CHIP.evidence(), ENCLAVE.evidence(), TPM.evidence(bytes(32)))
QUOTE, SIGNATURE = TPM.quote(bytes(32))


def returns_or_refuses(call, *told):
    try:
        return call(*told)
    except Refused:
        return None


@given(st.binary(max_size=400), st.sampled_from([1, 2, 3, 4]))
def test_any_bytes_are_refused_by_every_verifier(data, number):
    for verifier in VERIFIERS:
        with pytest.raises(Refused):
            verifier.appraise(bytes([number]) + data, ASKED, ACCEPTED, NOW)


@settings(max_examples=300)
@given(st.sampled_from(HONEST), st.data())
def test_honest_evidence_with_bytes_changed_is_refused(honest, data):
    place = data.draw(st.integers(0, len(honest) - 1))
    length = data.draw(st.integers(0, 4))
    put = data.draw(st.binary(max_size=4))
    changed = honest[:place] + put + honest[place + length :]
    if changed != honest:
        for verifier in VERIFIERS:
            with pytest.raises(Refused):
                verifier.appraise(changed, ASKED, ACCEPTED, NOW)


@settings(max_examples=300)
@given(
    st.sampled_from([TPM.certificate, QUOTE, SIGNATURE, TPM.public, KEY, b""]), st.integers(0), st.binary(max_size=64)
)
def test_every_parser_returns_or_refuses(honest, place, put):
    place %= len(honest) + 1
    data = honest[:place] + put + honest[place + len(put) :]
    for parse in (read_quote, read_signature, read_attestation_key, read_key):
        returns_or_refuses(parse, data)
    returns_or_refuses(read_certificate, data, "x")


@given(st.text(max_size=200), st.integers(0))
def test_any_text_is_no_result(put, place):
    place %= len(TOKEN)
    for token in (put, TOKEN[:place] + put + TOKEN[place + len(put) :]):
        if token != TOKEN:
            with pytest.raises(Refused):
                verify_result(token, KEYS, EXPECTED, NOW)
