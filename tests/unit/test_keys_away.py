"""The folder of the `file` provider goes away under a running issuer and enforcer: nothing is made in its place."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest

from bus.errors import BusError
from consumers.enforcer.watch import Watcher
from tests.unit.ledger_build import NOON, make_authority, make_policy


@pytest.fixture
def authority(tmp_path):
    made = make_authority(tmp_path)
    made.issuer.step(make_policy(), NOON)
    return made


@pytest.mark.parametrize("later_ms", [1000, 3_600_000])
def test_an_issuer_whose_key_folder_is_away_makes_no_new_roots(authority, later_ms):
    keys = authority.layout.kek.parent
    keys.rename(keys.with_name("away"))
    with contextlib.suppress(BusError, OSError):
        authority.issuer.step(make_policy(), NOON + later_ms)
    assert not keys.exists(), f"new keys in place of those that are away: {sorted(keys.rglob('*'))}"


class NoFeed:
    """A policy topic on which nothing comes."""

    def poll(self, _timeout):
        return None


def test_a_watcher_that_cannot_see_the_key_folder_does_not_say_that_it_has_read_the_keys(authority):
    """A record under a key that is not known then would be refused for good as `unknown-key`."""
    watcher = Watcher(NoFeed(), NoFeed(), authority.store, authority.trust, dataclasses.replace)
    assert watcher._round().failure is None
    keys = authority.layout.kek.parent
    keys.rename(keys.with_name("away"))
    assert watcher._round().failure is not None
