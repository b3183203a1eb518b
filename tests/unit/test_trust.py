"""The trust file and policy snapshots: verified before use, never older than one seen, never outside validity."""

from __future__ import annotations

import contextlib
import json
import stat
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bus.authority.local import SIGNERS, ensure_authority, ensure_enforcer, load_signer, read_applied
from bus.authority.trust import LiveSnapshot, TrustFile, open_snapshot, read_trust
from bus.codes import Code
from bus.crypto.signing import Signer, sign_object
from bus.errors import BusError, Refused, Unverified, WireError
from bus.files import Layout
from bus.wire.objects import EnforcerCertificate, SignedSnapshot
from tests.unit.ledger_build import (
    ANCHOR,
    DEPLOYMENT,
    ENFORCER,
    NOON,
    OTHER_DEPLOYMENT,
    STRANGER,
    certificate,
    make_policy,
)

SIGNER = Signer(bytes([5]) * 32)
TRUST = TrustFile(DEPLOYMENT, ANCHOR.public_key, SIGNER.public_key, bytes(32), (certificate(),))
YEAR = 365 * 86_400_000
POLICY = make_policy()


def snapshot(number: int = 3, *, signer: Signer = SIGNER, **changes: object) -> bytes:
    value = SignedSnapshot(DEPLOYMENT, number, POLICY.digest, NOON, NOON + YEAR, POLICY.document)
    return sign_object(signer, replace(value, **changes))


def test_a_trust_file_comes_back_and_is_public(tmp_path):
    path = tmp_path / "trust.json"
    TRUST.write(path)
    assert read_trust(path) == TRUST
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    trust = TRUST.trust()
    assert trust.knows(ENFORCER.key_id, "notes")
    assert not trust.knows(STRANGER.key_id, "notes")
    assert not trust.knows(ENFORCER.key_id, "elsewhere")


def test_a_certificate_more_leaves_the_others_in_place():
    more = TRUST.with_certificate(certificate(STRANGER))
    assert more.certificates == (*TRUST.certificates, certificate(STRANGER))
    assert TRUST.certificates == (certificate(),)
    assert more.trust().knows(ENFORCER.key_id, "notes")
    assert more.trust().knows(STRANGER.key_id, "notes")


@pytest.mark.parametrize(
    ("bad", "step"),
    [
        (certificate(anchor=STRANGER), "signature"),
        (certificate(deployment=OTHER_DEPLOYMENT), "deployment"),
        (certificate()[:-1] + b"\0", "signature"),
    ],
)
def test_a_certificate_that_the_anchor_did_not_sign_for_this_deployment_is_refused(bad, step):
    with pytest.raises(Unverified) as refused:
        TRUST.with_certificate(bad).trust()
    assert refused.value.step == step


def test_a_certificate_whose_key_id_is_not_its_keys_is_refused():
    value = EnforcerCertificate.parse(certificate())
    forged = sign_object(ANCHOR, replace(value, key_id=STRANGER.key_id))
    with pytest.raises(Unverified, match="key id is not its key's") as refused:
        TRUST.with_certificate(forged).trust()
    assert refused.value.step == "certificate"


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"\xff", b'{"format": 1}'])
def test_bytes_that_are_no_trust_file_are_refused(tmp_path, data):
    path = tmp_path / "trust.json"
    path.write_bytes(data)
    with pytest.raises(WireError):
        read_trust(path)


def test_another_format_is_told_apart_from_damage(tmp_path):
    path = tmp_path / "trust.json"
    TRUST.write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": "sealbus.trust/2"}))
    with pytest.raises(WireError) as refused:
        read_trust(path)
    assert refused.value.code is Code.VERSION


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(["deployment", "anchor", "policy_signer", "ledger", "certificates"]), value=JSON)
def test_a_trust_file_with_any_value_is_refused_and_nothing_else_raised(tmp_path, key, value):
    path = tmp_path / "trust.json"
    TRUST.write(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with contextlib.suppress(BusError):
        read_trust(path).trust()


def test_a_snapshot_brings_its_policy():
    live = open_snapshot(snapshot(), TRUST)
    assert (live.policy, live.signed.number) == (POLICY, 3)


@pytest.mark.parametrize(
    ("data", "step"),
    [
        (snapshot(signer=STRANGER), "signature"),
        (snapshot(signer=ANCHOR), "signature"),
        (snapshot(deployment=OTHER_DEPLOYMENT), "deployment"),
        (snapshot()[:-1] + b"\0", "signature"),
        (snapshot()[:-1], "signature"),
        (b"", "signature"),
    ],
)
def test_a_snapshot_that_the_policy_signer_did_not_sign_for_this_deployment_is_refused(data, step):
    with pytest.raises(Unverified) as refused:
        open_snapshot(data, TRUST)
    assert refused.value.step == step


def test_a_snapshot_whose_digest_is_not_its_documents_is_refused():
    with pytest.raises(WireError, match="digest does not match"):
        open_snapshot(snapshot(digest=bytes(32)), TRUST)


@pytest.mark.parametrize("document", [b"", b"{}", b"[]", b'{"format": "sealbus.policy/2"}'])
def test_a_signed_document_that_is_no_policy_is_refused(document):
    with pytest.raises(WireError, match="policy"):
        open_snapshot(snapshot(document=document), TRUST)


def test_a_lower_number_than_one_that_was_seen_is_a_rollback():
    held = open_snapshot(snapshot(3), TRUST)
    assert open_snapshot(snapshot(4), TRUST, held).signed.number == 4
    assert open_snapshot(snapshot(3), TRUST, held).signed.number == 3
    with pytest.raises(Refused, match=r"snapshot 2: expected at least 3 \(rollback\)") as refused:
        open_snapshot(snapshot(2), TRUST, held)
    assert refused.value.code is Code.POLICY


@pytest.mark.parametrize("skew", [0, 30_000])
def test_a_snapshot_holds_within_its_validity_and_the_skew(skew):
    live = open_snapshot(snapshot(), TRUST)
    for at in (NOON - skew, NOON, NOON + YEAR, NOON + YEAR + skew):
        live.check_validity(at, skew)
    for at in (NOON - skew - 1, NOON + YEAR + skew + 1):
        with pytest.raises(Refused, match="not valid now") as refused:
            live.check_validity(at, skew)
        assert (refused.value.code, refused.value.hint) == (Code.POLICY, "bus policy apply")


def test_the_applied_policy_is_read_back_or_is_not_there(tmp_path):
    layout = Layout(tmp_path)
    assert read_applied(layout, TRUST) is None
    layout.snapshot.parent.mkdir()
    layout.snapshot.write_bytes(snapshot(5))
    live = read_applied(layout, TRUST)
    assert isinstance(live, LiveSnapshot)
    layout.snapshot.write_bytes(snapshot(4))
    with pytest.raises(Refused, match="rollback"):
        read_applied(layout, TRUST, live)


def test_an_authority_is_made_once_and_read_back(tmp_path):
    layout = Layout(tmp_path / "state")
    first = ensure_authority(layout, DEPLOYMENT)
    assert ensure_authority(layout, DEPLOYMENT) == first
    keys = {load_signer(layout.signer(name)).public_key for name in SIGNERS}
    assert keys == {first.anchor, first.policy_signer, first.ledger}
    assert len(keys) == 3
    assert {stat.S_IMODE(layout.signer(name).stat().st_mode) for name in SIGNERS} == {0o600}
    with pytest.raises(FileNotFoundError):
        load_signer(layout.signer("nobody"))


def test_an_enforcer_gets_a_certificate_and_keeps_it_while_it_fits(tmp_path):
    layout = Layout(tmp_path / "state")
    trust = ensure_authority(layout, DEPLOYMENT)
    name, day = "bus-enforcer-1", 86_400_000
    first = ensure_enforcer(layout, trust, name, ["notes"], NOON)
    assert len(first.certificates) == 1
    assert ensure_enforcer(layout, first, name, ["notes"], NOON + 80 * day) == first
    ending = ensure_enforcer(layout, first, name, ["notes"], NOON + 84 * day)
    wider = ensure_enforcer(layout, first, name, ["plans", "notes"], NOON)
    assert (len(ending.certificates), len(wider.certificates)) == (2, 2)
    key_id = load_signer(layout.service(name) / "signing.key").key_id
    held = [EnforcerCertificate.parse(each) for each in (*ending.certificates, *wider.certificates)]
    assert {each.key_id for each in held} == {key_id}
    assert held[-1].domains == ("notes", "plans")
    assert {each.not_before for each in held} == {NOON - 60_000}
    wider.trust().enforcer_key(key_id, "", "plans", NOON)
    assert read_trust(layout.trust) == wider
