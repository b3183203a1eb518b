"""A deployment moves from the `file` provider to another one and back: every root can be read at every step."""

from __future__ import annotations

import dataclasses

import pytest

from bus.authority.local import open_roots
from bus.settings import Custody, Settings
from bus.stack.local import write_settings
from tests.custody.sites import SITES
from tests.unit.ledger_build import NOON, make_authority, make_policy
from tests.unit.running import runner


@pytest.fixture(params=[Custody.VAULT, Custody.AWS_KMS, Custody.PKCS11], ids=str)
def site(request, tmp_path):
    folder = tmp_path / "provider"
    folder.mkdir()
    with SITES[request.param](folder) as made:
        yield made


def test_roots_move_to_another_provider_and_back(site, tmp_path, monkeypatch, capsys):
    given = {
        each.name: getattr(site.settings, each.name)
        for each in dataclasses.fields(Settings)
        if each.name.startswith(("vault_", "aws_", "pkcs11_"))
    }
    authority = make_authority(tmp_path, **given)  # both are set, `file` wraps
    authority.issuer.step(make_policy(), NOON)
    write_settings(authority.settings, authority.layout.settings)
    run = runner(tmp_path, monkeypatch, capsys)
    before = [each.root for each in authority.store.load(1)]
    name = str(site.settings.key_provider)
    told = run("keys", "rewrap", "--to", name, "--json", BUS_CONFIG=str(authority.layout.settings))
    assert told.code == 0, told.err
    assert told.document()["rewrapped"] == 4
    assert {each.kek.partition(":")[0] for each in authority.store.kept()} == {name}
    assert [each.root for each in authority.store.load(1)] == before  # a service that was running
    # A service that is started with the other one as its own needs the old one's file no more.
    authority.layout.kek.rename(tmp_path / "kek")
    settings = dataclasses.replace(authority.settings, key_provider=site.settings.key_provider)
    moved = open_roots(settings, authority.layout, authority.trust)
    assert [each.root for each in moved.load(1)] == before
    assert run("keys", "status", BUS_KEY_PROVIDER=name).code == 0
    (tmp_path / "kek").rename(authority.layout.kek)
    assert run("keys", "rewrap", "--to", "file", "--json").document()["rewrapped"] == 4
    assert {each.kek.partition(":")[0] for each in authority.store.kept()} == {"file"}
    assert [each.root for each in authority.store.load(1)] == before
