"""On whose behalf: users' tokens, what an attacker makes of them, and what the enforcer does with each."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from bus.codes import Code
from bus.crypto.users import claimed, parse_issuers, user_id, verify
from bus.errors import Unverified
from bus.policy.conditions import compile_condition
from bus.policy.replay import context_of
from bus.wire.envelope import user_digest
from consumers.enforcer.issuers import IssuersFile
from consumers.enforcer.outcome import Accepted, Refused
from tests.unit.build import NOW, SKEW
from tests.unit.inspected import Site, refusal

ISSUER, AUDIENCE, SUBJECT = "https://id.example", "sealbus", "user-7"
ID = user_id(ISSUER, SUBJECT)
KEYS: dict[str, Any] = {
    "es": ECKey.generate_key("P-256", {"kid": "es"}),
    "ed": OKPKey.generate_key("Ed25519", {"kid": "ed"}),
    "rs": RSAKey.generate_key(2048, {"kid": "rs"}),
    "ps": RSAKey.generate_key(2048, {"kid": "ps", "alg": "PS256"}),
}
ALGORITHMS = {"es": "ES256", "ed": "Ed25519", "rs": "RS256", "ps": "PS256"}
STRANGER = ECKey.generate_key("P-256", {"kid": "es"})


def document(*kids: str, **changes: Any) -> dict[str, Any]:
    keys = [KEYS[kid].as_dict(private=False) for kid in kids or KEYS]
    entry = {"issuer": ISSUER, "audience": AUDIENCE, "jwks": {"keys": keys}} | changes
    return {"format": "sealbus.users/1", "issuers": [entry]}


ISSUERS = parse_issuers(json.dumps(document()).encode())


def claims(**changes: Any) -> dict[str, Any]:
    told = {"iss": ISSUER, "aud": AUDIENCE, "sub": SUBJECT, "iat": NOW // 1000 - 60, "exp": NOW // 1000 + 600}
    return {name: value for name, value in (told | changes).items() if value is not None}


def token(kid: str = "es", key: Any = None, header: dict[str, Any] | None = None, **changes: Any) -> bytes:
    head = {"alg": ALGORITHMS[kid], "kid": kid, "typ": "JWT"} | (header or {})
    payload = json.dumps(claims(**changes)).encode()
    return jws.serialize_compact(head, payload, key or KEYS[kid], algorithms=[head["alg"]]).encode()


def encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def part(value: Any) -> str:
    return encoded(json.dumps(value).encode()).decode()


def by_hmac() -> bytes:
    """Signed with what is our public key, as if it were a secret."""
    signed = f"{part({'alg': 'HS256', 'kid': 'es'})}.{part(claims())}".encode()
    return signed + b"." + encoded(hmac.digest(KEYS["es"].as_pem(private=False), signed, "sha256"))


@pytest.mark.parametrize("kid", KEYS)
def test_a_token_of_a_trusted_issuer_names_its_user(kid):
    user = verify(token(kid), ISSUERS, NOW, SKEW)
    assert (user.id, user.until) == (ID, (NOW // 1000 + 600) * 1000 + SKEW - 1)
    assert claimed(token(kid)) == ID


@pytest.mark.parametrize("audience", [AUDIENCE, ["other", AUDIENCE]])
def test_an_audience_may_be_one_of_many(audience):
    assert verify(token(aud=audience), ISSUERS, NOW, SKEW).id == ID


def test_two_issuers_share_no_user():
    assert user_id("a", "bc") != user_id("ab", "c")
    assert len(ID) == 32


ATTACKS = {
    "another audience": (token(aud="other"), "audience"),
    "no audience": (token(aud=None), "audience"),
    "expired": (token(exp=(NOW - SKEW) // 1000), "time"),
    "without an end": (token(exp=None), "time"),
    "an end that is true": (token(exp=True), "time"),
    "an end beyond numbers": (token(exp=1e300), "time"),
    "not yet": (token(nbf=(NOW + SKEW) // 1000 + 1), "time"),
    "issued in the future": (token(iat=(NOW + SKEW) // 1000 + 1), "time"),
    "another issuer": (token(iss="https://evil.example"), "issuer"),
    "no issuer": (token(iss=None), "issuer"),
    "a list of issuers": (token(iss=[ISSUER]), "issuer"),
    "an unknown kid": (token(header={"kid": "x"}), "issuer"),
    "a kid that is a path": (token(header={"kid": "../../dev/null"}), "issuer"),
    "a kid that is a list": (f"{part({'alg': 'ES256', 'kid': ['es']})}.{part(claims())}.AA".encode(), "issuer"),
    "another's key under this kid": (token(key=STRANGER), "signature"),
    "its own key in the header": (token(key=STRANGER, header={"jwk": STRANGER.as_dict(private=False)}), "signature"),
    "alg none": (f"{part({'alg': 'none', 'kid': 'es'})}.{part(claims())}.".encode(), "issuer"),
    "alg in other letters": (f"{part({'alg': 'NONE', 'kid': 'es'})}.{part(claims())}.AA".encode(), "issuer"),
    "an HMAC under the public key": (by_hmac(), "issuer"),
    "another algorithm of the same key": (token("rs", header={"alg": "PS256"}), "issuer"),
    "a critical extension": (
        f"{part({'alg': 'ES256', 'kid': 'es', 'crit': ['x'], 'x': 1})}.{part(claims())}.AA".encode(),
        "header",
    ),
    "claims changed": (token().replace(b".", b"." + part({"sub": "x"}).encode(), 1), "form"),
    "no subject": (token(sub=None), "subject"),
    "an empty subject": (token(sub=""), "subject"),
    "a long subject": (token(sub="x" * 256), "subject"),
    "five parts": (token() + b".a.b", "form"),
    "no JSON": (b"a.b.c", "form"),
    "a name twice": (
        b".".join([token().split(b".")[0], base64.urlsafe_b64encode(b'{"sub":1,"sub":2}'), b"AA"]),
        "form",
    ),
    "too long": (token(pad="x" * 9000), "form"),
    "empty": (b"", "form"),
    "a digest, as an agent would write it": (bytes(32), "form"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_an_attacker_makes_of_a_token_is_refused(name):
    made, step = ATTACKS[name]
    with pytest.raises(Unverified) as refused:
        verify(made, ISSUERS, NOW, SKEW)
    assert refused.value.step == step
    assert SUBJECT not in str(refused.value)


def test_every_flipped_bit_is_refused():
    honest = token()
    for at in range(len(honest) - 1):  # the last character has bits that say nothing
        changed = bytearray(honest)
        changed[at] ^= 1
        with pytest.raises(Unverified):
            verify(bytes(changed), ISSUERS, NOW, SKEW)


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_and_name_nobody_by_accident(data):
    with pytest.raises(Unverified):
        verify(data, ISSUERS, NOW, SKEW)
    assert claimed(data) == ""


@pytest.mark.parametrize(
    "broken",
    [
        {"format": "sealbus.users/2", "issuers": []},
        document(audience=""),
        document(issuer=7),
        document(jwks={"keys": []}),
        document(jwks={"keys": [KEYS["es"].as_dict(private=True)]}),
        document(jwks={"keys": [OctKey.generate_key(256, {"kid": "k"}).as_dict()]}),
        document(jwks={"keys": [ECKey.generate_key("P-384", {"kid": "k"}).as_dict(private=False)]}),
        document(jwks={"keys": [RSAKey.generate_key(1024, {"kid": "k"}).as_dict(private=False)]}),
        document(jwks={"keys": [KEYS["es"].as_dict(private=False)] * 2}),
        document(jwks={"keys": [{**KEYS["es"].as_dict(private=False), "alg": "ES384"}]}),
        document(jwks={"keys": [{**KEYS["rs"].as_dict(private=False), "alg": "RS512"}]}),
        {"format": "sealbus.users/1", "issuers": document()["issuers"] * 2},
        [],
        7,
    ],
)
def test_a_file_of_issuers_that_is_none_is_refused(broken):
    with pytest.raises(Unverified) as refused:
        parse_issuers(json.dumps(broken).encode())
    assert refused.value.code is Code.SETTINGS


# In the enforcer.
def site(**domain: Any) -> Site:
    made = Site(**domain)
    made.context.issuers = ISSUERS
    return made


NEEDED = {"user_required": True}


def test_a_record_on_behalf_of_a_user_goes_on_with_the_tokens_digest_alone():
    there, shown = site(**NEEDED), token()
    outcome, hop, made = there.one({"n": 1}, on_behalf_of=shown)
    assert isinstance(outcome, Accepted)
    (delivery,) = there.read(made)
    assert delivery.profile.on_behalf_of == hop.tail.on_behalf_of == user_digest(shown)
    assert hop.tail.facts["user"] == ID
    assert there.says(made, shown.decode(), SUBJECT, ISSUER) == []


@pytest.mark.parametrize("domain", [{}, NEEDED], ids=["asked for", "needed"])
def test_a_token_that_does_not_hold_refuses_the_record_whatever_the_domain_asks(domain):
    there = site(**domain)
    outcome, hop, made = there.one({"n": 1}, on_behalf_of=token(aud="other"))
    assert refusal(there, outcome, hop, made) == ("user", "user.audience", "")
    assert hop.tail.facts.get("user") is None


def test_a_domain_that_needs_a_user_refuses_a_record_without_one():
    there = site(**NEEDED)
    outcome, hop, made = there.one({"n": 1})
    assert refusal(there, outcome, hop, made)[:2] == ("user", "memory.user")
    assert isinstance(site().one({"n": 1})[0], Accepted)


def test_a_condition_may_ask_for_the_user():
    only = compile_condition("only-seven", f'context.user == "{ID}"')
    there = site(when=(only,))
    assert isinstance(there.one({"n": 1}, on_behalf_of=token())[0], Accepted)
    for other in (token(sub="user-8"), b""):
        outcome, hop, made = there.one({"n": 1}, on_behalf_of=other)
        assert refusal(there, outcome, hop, made)[:2] == ("condition", "only-seven")


def test_a_token_serves_until_it_ends_and_is_verified_anew_each_minute(monkeypatch):
    from consumers.enforcer import rights

    asked = []
    plain = rights.users.verify
    monkeypatch.setattr(rights.users, "verify", lambda *told: asked.append(told[2]) or plain(*told))
    there, shown = site(**NEEDED), token(exp=NOW // 1000 + 100)
    times = [0, 1000, 59_000, 61_000, 100_000 + SKEW - 1, 100_000 + SKEW]
    outcomes = []
    for after in times:
        (outcome,), _ = there.run(there.sealed({"n": 1}, on_behalf_of=shown, expires_at=NOW + 900_000), at=NOW + after)
        outcomes.append(outcome.decision.rule if isinstance(outcome, Refused) else "")
    assert outcomes == ["", "", "", "", "", "user.time"]
    assert asked[:2] == [NOW, NOW + 61_000]


def test_issuers_that_are_trusted_no_more_refuse_within_a_minute():
    there, shown = site(**NEEDED), token()
    assert isinstance(there.one({"n": 1}, on_behalf_of=shown)[0], Accepted)
    there.context.issuers = {}
    (outcome,), _ = there.run(there.sealed({"n": 1}, on_behalf_of=shown, expires_at=NOW + 900_000), at=NOW + 60_001)
    assert outcome.decision.rule == "user.issuer"


def test_a_hop_is_decided_again_with_its_user():
    there = site(**NEEDED)
    _, hop, _ = there.one({"n": 1}, on_behalf_of=token())
    context = context_of(hop, there.context.policy)
    assert context is not None
    assert context.user == ID
    _, refused, _ = there.one({"n": 1}, on_behalf_of=token(aud="other"))
    assert context_of(refused, there.context.policy) is None, "whether a token holds is not for a replay to say"


def test_a_file_is_read_again_when_it_changes_and_one_that_is_broken_leaves_the_last(tmp_path):
    path = tmp_path / "users.json"
    path.write_text(json.dumps(document("es")))
    file = IssuersFile(path)
    assert set(file.first[ISSUER].keys) == {"es"}
    assert file.read() is None
    path.write_text(json.dumps(document("es", "ed")))
    assert set((file.read() or {})[ISSUER].keys) == {"es", "ed"}
    path.write_text("{")
    assert file.read() is None
    path.unlink()
    assert file.read() is None
    path.write_text(json.dumps(document("rs")))
    assert set((file.read() or {})[ISSUER].keys) == {"rs"}


def test_an_enforcer_does_not_start_with_a_file_that_holds_no_issuers(tmp_path):
    path = tmp_path / "users.json"
    for text in (None, "{}"):
        if text is not None:
            path.write_text(text)
        with pytest.raises(Exception, match=r"user_issuers: .*users\.json"):
            IssuersFile(path)
