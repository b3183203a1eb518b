"""The policy that an agent goes by: the newest of what it followed and what is on its machine, and nothing unsigned."""

from __future__ import annotations

import pytest

from bus.authority.local import load_signer
from bus.authority.trust import open_snapshot
from bus.client.law import Law
from bus.crypto.signing import sign_object
from bus.files import make_folder, write_file
from bus.wire.objects import SignedSnapshot
from tests.unit.ledger_build import DEPLOYMENT, NOON, STRANGER, make_authority, make_policy


@pytest.fixture
def site(tmp_path):
    made = make_authority(tmp_path)
    make_folder(made.layout.snapshot.parent)
    return made


def snapshot(site, number, policy, signer=None):
    signer = signer or load_signer(site.layout.signer("policy"))
    return sign_object(signer, SignedSnapshot(DEPLOYMENT, number, policy.digest, NOON, NOON + 1000, policy.document))


OLD, NEW = make_policy(), make_policy(agents={"reader-1": ["READER"]})


def test_the_newer_of_both_is_in_force(site):
    live = open_snapshot(snapshot(site, 1, OLD), site.trust)
    followed = [live]
    law = Law(site.layout.snapshot, site.trust, lambda: followed[0])
    assert law().digest == OLD.digest
    write_file(site.layout.snapshot, snapshot(site, 2, NEW))
    assert law().digest == NEW.digest
    followed[0] = open_snapshot(snapshot(site, 3, OLD), site.trust)
    assert law().digest == OLD.digest
    followed[0] = None
    assert law().digest == NEW.digest


def test_a_file_that_is_older_unsigned_or_gone_changes_nothing(site):
    law = Law(site.layout.snapshot, site.trust, lambda: None)
    assert law() is None
    write_file(site.layout.snapshot, snapshot(site, 2, NEW))
    assert law().digest == NEW.digest
    for data in (snapshot(site, 1, OLD), snapshot(site, 3, OLD, STRANGER), b"", b"x" * 500):
        write_file(site.layout.snapshot, data)
        assert law().digest == NEW.digest
    site.layout.snapshot.unlink()
    assert law().digest == NEW.digest
