"""Masking: the published topology keys never reach a reader of a masked domain, nor does any key off the allowlist."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.policy.masking import KEPT, NEVER_KEPT, mask_metadata, mask_profile
from bus.wire.envelope import Kind, user_digest
from bus.wire.names import Tier
from tests.unit.build import profile_of

PUBLISHED = ("sender_ip", "routing_path", "internal_id", "timestamp")
TOLD = {
    "kind": Kind.MEMORY,
    "task_type": "summary",
    "labels": ("pii",),
    "purpose": "care",
    "tier_floor": Tier.RETRIEVAL,
    "schema": b"12345678",
    "on_behalf_of": b"a token",
}
BEHIND = {"on_behalf_of": user_digest(b"a token")}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_key_goes(name):
    assert mask_metadata({name: "10.0.0.1", "locale": "en"}) == {"locale": "en"}


def test_a_published_key_goes_even_when_the_allowlist_names_it(monkeypatch):
    monkeypatch.setattr("bus.policy.masking.KEPT", KEPT | set(PUBLISHED))
    assert mask_metadata(dict.fromkeys(PUBLISHED, "x") | {"locale": "en"}) == {"locale": "en"}


def test_the_allowlist_and_the_published_keys_share_no_name():
    assert frozenset(PUBLISHED) == NEVER_KEPT
    assert not KEPT & NEVER_KEPT


@pytest.mark.parametrize("name", ["Locale", "locale ", "Sender_IP", "sender-ip", "hostname", ""])
def test_a_key_that_only_resembles_a_kept_one_goes(name):
    assert mask_metadata({name: "x"}) == {}


@given(st.dictionaries(st.one_of(st.sampled_from([*KEPT, *PUBLISHED]), st.text()), st.text()))
def test_what_is_left_is_on_the_allowlist_and_unchanged(metadata):
    masked = mask_metadata(metadata)
    assert masked == {key: metadata[key] for key in metadata if key in KEPT}
    assert mask_metadata(masked) == masked


def test_masking_a_profile_takes_metadata_and_delegation_and_nothing_else():
    profile = profile_of(**TOLD, metadata={"sender_ip": "10.0.0.1", "locale": "en"}, delegation=b"token")
    assert mask_profile(profile, masked=True) == profile_of(**TOLD | BEHIND, metadata={"locale": "en"})
    assert profile.metadata == {"sender_ip": "10.0.0.1", "locale": "en"}, "the original is not changed"


def test_the_delegation_token_goes_where_metadata_is_not_masked_too():
    profile = profile_of(**TOLD, metadata={"sender_ip": "10.0.0.1"}, delegation=b"token")
    assert mask_profile(profile, masked=False) == profile_of(**TOLD | BEHIND, metadata={"sender_ip": "10.0.0.1"})
