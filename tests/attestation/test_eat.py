"""The result as a token: what is believed, every published attack refused, and the published vectors."""

from __future__ import annotations

import hmac
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bus.attestation import base64url
from bus.attestation.confirmation import jwk
from bus.attestation.eat import MAX_LIFE, PROFILE, Expected, VerifierKeys, sign_result, verify_result
from bus.attestation.evidence import Appraised, Question
from bus.crypto.signing import Signer
from bus.errors import Refused
from bus.wire.measurement import EvidenceKind, Measurement, parse_measurement
from bus.wire.names import AgentId
from tests.attestation.made import ASKED, DATA, GOLDEN, IMAGE, KEY, LAUNCHED, NOW, OTHER_KEY, refused

SIGNER = Signer(bytes(range(32)))
KEYS = VerifierKeys([SIGNER.public_key])
DEVICE = bytes(range(100, 132))
FOUND = Appraised(EvidenceKind.TPM, GOLDEN, ASKED, KEY, DEVICE)
TOKEN = sign_result(SIGNER, FOUND, "verifier", "issuer", NOW)
EXPECTED = Expected("verifier", "issuer", AgentId("ana"), ASKED.nonce, KEY)
HEADER = {"alg": "Ed25519", "kid": SIGNER.key_id.hex(), "typ": "eat+jwt"}
CLAIMS: dict[str, Any] = json.loads(base64url.decode(TOKEN.split(".")[1]))


def text(value: Any) -> str:
    return base64url.encode(json.dumps(value, separators=(",", ":"), sort_keys=True).encode())


def signed(header: Any = HEADER, claims: Any = CLAIMS, signer: Signer = SIGNER) -> str:
    body = f"{text(header)}.{text(claims)}"
    return f"{body}.{base64url.encode(signer.sign(body.encode()))}"


def verify(token, expected=EXPECTED, now=NOW, keys=KEYS):
    return verify_result(token, keys, expected, now)


@pytest.mark.parametrize(
    "measurement", [GOLDEN, LAUNCHED, IMAGE, Measurement(EvidenceKind.SOFTWARE, 0, GOLDEN.digest)], ids=str
)
def test_what_was_signed_is_read_back(measurement):
    found = replace(FOUND, kind=measurement.kind, measurement=measurement)
    result = verify(sign_result(SIGNER, found, "verifier", "issuer", NOW))
    assert (result.measurement, result.agent, result.nonce) == (measurement, "ana", ASKED.nonce)
    assert (result.confirmation, result.device) == (jwk(KEY), DEVICE)
    assert result.expires - result.issued == MAX_LIFE == 600


def test_the_claims_are_those_of_rfc_9711_and_rfc_7800():
    assert signed() == TOKEN
    assert CLAIMS["eat_profile"] == PROFILE
    assert 8 <= len(CLAIMS["eat_nonce"]) <= 88
    ueid = base64url.decode(CLAIMS["ueid"])
    assert (ueid[0], len(ueid)) == (1, 33)  # RAND, 256 bits
    assert CLAIMS["measres"] == [["sealbus", [[str(GOLDEN), "success"]]]]
    assert CLAIMS["cnf"]["jwk"]["crv"] == "Ed25519"
    assert "dbgstat" not in CLAIMS  # nothing is known of a TPM's host
    snp = sign_result(SIGNER, replace(FOUND, kind=EvidenceKind.SNP, measurement=LAUNCHED), "v", "i", NOW)
    assert json.loads(base64url.decode(snp.split(".")[1]))["dbgstat"] == "disabled"


@pytest.mark.parametrize(
    ("step", "after"),
    [
        *(("", timedelta(seconds=599)), ("", timedelta(seconds=-30)), ("expired", timedelta(seconds=600))),
        *(("future", timedelta(seconds=-31)), ("expired", timedelta(days=400))),
    ],
)
def test_a_result_lives_ten_minutes_and_begins_when_it_was_made(step, after):
    if step:
        refused(step, verify, TOKEN, EXPECTED, NOW + after)
    else:
        assert verify(TOKEN, EXPECTED, NOW + after).agent == "ana"


@pytest.mark.parametrize(
    ("step", "change"),
    [
        ("audience", {"audience": "console"}),
        ("issuer", {"issuer": "another"}),
        ("agent", {"agent": AgentId("eve")}),
        ("nonce", {"nonce": bytes(32)}),
        ("confirmation", {"confirmation": OTHER_KEY}),
    ],
)
def test_a_result_for_somebody_else_is_refused(step, change):
    refused(step, verify, TOKEN, replace(EXPECTED, **change))


@pytest.mark.parametrize("algorithm", ["none", "None", "", "HS256", "EdDSA", "ES256", "ed25519", None, ["Ed25519"]])
def test_another_algorithm_is_refused_whatever_the_signature(algorithm):
    refused("algorithm", verify, signed({**HEADER, "alg": algorithm}))
    head = text({**HEADER, "alg": algorithm})
    refused("algorithm", verify, f"{head}.{text(CLAIMS)}.")


def test_the_public_key_as_an_hmac_key_is_refused():
    for secret in (SIGNER.public_key, SIGNER.public_key.hex().encode()):
        for algorithm, step in (("HS256", "algorithm"), ("Ed25519", "signature")):
            body = f"{text({**HEADER, 'alg': algorithm})}.{text(CLAIMS)}"
            forged = f"{body}.{base64url.encode(hmac.digest(secret, body.encode(), 'sha256'))}"
            refused(step, verify, forged)


@pytest.mark.parametrize(
    "key_id",
    [
        *("", "../../dev/null", "' OR 1=1 --", "/etc/keys/0", SIGNER.key_id.hex().upper(), SIGNER.key_id.hex() + "0"),
        *(7, None, [SIGNER.key_id.hex()], {"kid": SIGNER.key_id.hex()}, Signer(bytes(32)).key_id.hex()),
    ],
)
def test_a_key_id_is_looked_up_and_never_followed(key_id):
    refused("key", verify, signed({**HEADER, "kid": key_id}))


def test_a_key_of_ones_own_is_refused_by_id_and_by_signature():
    own = Signer(bytes(32))
    refused("key", verify, signed({**HEADER, "kid": own.key_id.hex()}, signer=own))
    refused("signature", verify, signed(signer=own))
    refused("key", verify_result, TOKEN, VerifierKeys([]), EXPECTED, NOW)
    assert verify(signed({**HEADER, "kid": own.key_id.hex()}, signer=own), keys=VerifierKeys([own.public_key]))


@pytest.mark.parametrize(
    "more",
    [
        {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": base64url.encode(Signer(bytes(32)).public_key)}},
        {"jku": "https://example.org/keys"},
        {"x5u": "https://example.org/key"},
        {"x5c": ["MIIB"]},
        {"crit": ["b64"], "b64": False},
        {"zip": "DEF"},
        {"typ": "JWT"},
        {"typ": "application/eat+jwt"},
    ],
)
def test_a_header_that_says_more_is_refused(more):
    refused("header", verify, signed({**HEADER, **more}))


@pytest.mark.parametrize(
    "change",
    [
        {"exp": CLAIMS["iat"] + 601},
        {"exp": CLAIMS["iat"]},
        {"exp": float(CLAIMS["exp"])},
        {"exp": str(CLAIMS["exp"])},
        {"iat": True, "exp": 2},
        {"iat": -1},
        {"aud": ["issuer", "console"], "iss": None, "eat_profile": "tag:psacertified.org,2019:psa"},
        {"measres": [["sealbus", [[str(GOLDEN), "fail"]]]]},
        {"measres": [["other", [[str(GOLDEN), "success"]]]]},
        {"measres": [["sealbus", [[str(GOLDEN), "success"], [str(LAUNCHED), "success"]]]]},
        {"measres": [["sealbus", [["tpm:pcr16:" + "1" * 64, "success"]]]]},
        {"measres": []},
        {"ueid": CLAIMS["ueid"][:-4]},
        {"eat_nonce": CLAIMS["eat_nonce"] + "="},
        {"cnf": {"jwk": CLAIMS["cnf"]["jwk"], "kid": "x"}},
        {"cnf": {"jkt": "x"}},
        {"cnf": CLAIMS["cnf"]["jwk"]},
        {"dbgstat": "disabled"},
        {"nbf": CLAIMS["iat"]},
        {"submods": {}},
    ],
)
def test_signed_claims_of_another_profile_are_refused(change):
    refused("claims", verify, signed(claims={**CLAIMS, **change}))


def test_an_audience_of_several_is_another_audience():
    refused("audience", verify, signed(claims={**CLAIMS, "aud": ["issuer", "console"]}))


@pytest.mark.parametrize("missing", sorted(CLAIMS))
def test_a_claim_that_is_missing_is_refused(missing):
    refused("claims", verify, signed(claims={key: value for key, value in CLAIMS.items() if key != missing}))


def test_json_and_base64_have_one_form():
    head, body, signature = TOKEN.split(".")
    twice = base64url.encode(b'{"alg":"none","alg":"Ed25519","kid":"x","typ":"eat+jwt"}')
    spaced = base64url.encode(json.dumps(HEADER, sort_keys=True).encode())
    for token in (
        f"{twice}.{body}.{signature}",
        f"{spaced}.{body}.{signature}",
        f"{head}=.{body}.{signature}",
        f"{head}.{body}.{signature}\n",
        f"{head}.{body}",
        f"{TOKEN}.",
        f"{head}.{body}.{signature[:-1]}" + chr(ord(signature[-1]) + 1),  # other bits behind the last byte
        f"{base64url.encode(b'[' * 2000)}.{body}.{signature}",
        f"{base64url.encode(b'NaN')}.{body}.{signature}",
        f"{head}.é.{signature}",
        "",
    ):
        refused("decode", verify, token)
    refused("bounds", verify, TOKEN + "A" * 4096)
    refused("signature", verify, f"{head}.{body}.")


def test_every_character_of_a_token_counts():
    for place in range(len(TOKEN)):
        changed = TOKEN[:place] + ("A" if TOKEN[place] != "A" else "B") + TOKEN[place + 1 :]
        with pytest.raises(Refused):
            verify(changed)


# Published vectors.
def jose(name: str) -> Any:
    return json.loads((DATA / "jose" / f"{name}.json").read_text())


def test_rfc_8037s_ed25519_signature_is_what_our_parts_make_of_it_and_its_algorithm_name_is_refused():
    vector = jose("jws")
    head, body, signature = vector["output"]["compact"].split(".")
    assert f"{head}.{body}" == vector["signing"]["sig-input"]
    assert base64url.decode(body).decode() == vector["input"]["payload"]
    key = base64url.decode(vector["input"]["key"]["x"])
    Ed25519PublicKey.from_public_bytes(key).verify(base64url.decode(signature), f"{head}.{body}".encode())
    seed = base64url.decode(vector["input"]["key"]["d"])
    assert base64url.encode(Signer(seed).sign(f"{head}.{body}".encode())) == signature
    refused("algorithm", verify, vector["output"]["compact"], EXPECTED, NOW, VerifierKeys([key]))


@pytest.mark.parametrize("name", ["4_3.ecdsa_signature", "4_4.hmac-sha2_integrity_protection"])
def test_rfc_7520s_tokens_of_other_algorithms_are_refused(name):
    refused("algorithm", verify, jose(name)["output"]["compact"])


def test_rfc_9711s_tokens_signed_with_hmac_are_refused():
    for name, step, find in (
        ("deb", "algorithm", lambda told: told[0]),
        ("submods", "decode", lambda told: told["submods"]["Subsystem J"]),  # its header is not sorted
    ):
        kind, token = find(json.loads((DATA / "eat_rfc9711" / f"{name}.json").read_text()))
        assert kind == "JWT"
        refused(step, verify, token)


@pytest.mark.parametrize("name", ["simple", "valid_results", "main_token_claims", "submods"])
def test_rfc_9711s_claims_are_of_other_profiles_though_signed_by_a_trusted_key(name):
    claims = json.loads((DATA / "eat_rfc9711" / f"{name}.json").read_text())
    refused("claims", verify, signed(claims=claims))


def test_another_nonce_is_another_question():
    other = Question(bytes(range(32)), AgentId("ana"))
    token = sign_result(SIGNER, replace(FOUND, question=other), "verifier", "issuer", NOW)
    refused("nonce", verify, token)
    assert verify(token, replace(EXPECTED, nonce=other.nonce)).nonce == other.nonce
    assert parse_measurement(str(GOLDEN)) == GOLDEN
