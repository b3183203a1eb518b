"""`bus keys`: which key wraps which root, a new wrapping key, and roots wrapped anew without a moment without them."""

from __future__ import annotations

import json
import os
import threading

import pytest

from bus.authority.custody import Custodian
from bus.authority.local import open_roots
from bus.authority.providers import base
from bus.authority.providers.file import FileProvider
from bus.authority.roots import Kept
from bus.errors import RetryLater, Unverified
from bus.files import Layout
from bus.settings import Custody
from bus.stack.local import write_settings
from tests.unit.ledger_build import DAY, NOON, make_authority, make_policy


@pytest.fixture
def authority(tmp_path):
    made = make_authority(tmp_path)
    made.issuer.step(make_policy(), NOON)
    write_settings(made.settings, made.layout.settings)
    return made


@pytest.fixture
def keys(run, authority):
    def keys(*arguments, **environ):
        return run("keys", *arguments, BUS_CONFIG=str(authority.layout.settings), **environ)

    return keys


def roots(authority):
    """Every root, by its place."""
    store = open_roots(authority.settings, authority.layout, authority.trust)
    found = {
        (each.epoch.epoch, each.epoch.domain): each.root for number in store.numbers() for each in store.load(number)
    }
    return found | {day: store.audit_root(day) for day in (DAY, DAY + 1)}


def keks(authority):
    return {each.kek for each in authority.store.kept()}


def test_status_tells_names_and_numbers_and_no_bytes(keys, authority):
    told = keys("status", "--json")
    document = told.document()
    (kek,) = keks(authority)
    assert told.code == 0
    assert document["format"] == "bus.keys/1"
    assert (document["provider"], document["wraps"], document["keks"]) == ("file", kek, {kek: 4})
    assert (document["epochs"], document["roots"], document["audit_days"]) == ([1], 2, 2)
    text = told.out + keys("status").out
    secret = [each.reveal() for each in roots(authority).values()] + [authority.layout.kek.read_bytes()]
    assert not [each for each in secret if each.hex() in text]


def test_status_says_that_the_provider_does_not_answer(keys, authority):
    authority.layout.kek.rename(authority.layout.kek.with_name("away"))
    told = keys("status")
    assert told.code == 4
    assert "does not answer" in told.out
    assert keys("status", "--json").document()["failure"].startswith("key provider file")
    authority.layout.kek.with_name("away").rename(authority.layout.kek)
    assert keys("status").code == 0


def test_a_rotated_key_wraps_what_is_new_and_all_after_rewrap(keys, authority):
    before, (old,) = roots(authority), keks(authority)
    assert keys("rotate").code == 0
    assert roots(authority) == before
    assert keks(authority) == {old}
    told = keys("rewrap", "--json").document()
    (new,) = keks(authority)
    assert new != old
    assert (told["wraps"], told["rewrapped"], told["as_they_were"]) == (new, 4, 0)
    assert roots(authority) == before
    again = keys("rewrap", "--json").document()
    assert (again["rewrapped"], again["as_they_were"]) == (0, 4)
    assert keys("rewrap", "--all", "--json").document()["rewrapped"] == 4
    # The key that wraps nothing any more is not needed.
    earlier = authority.layout.kek.with_name(f"kek.{old.removeprefix('file:')}")
    assert earlier.stat().st_mode & 0o777 == 0o600
    earlier.unlink()
    assert roots(authority) == before


def test_without_the_earlier_key_what_it_wrapped_waits(keys, authority):
    (old,) = keks(authority)
    keys("rotate")
    authority.layout.kek.with_name(f"kek.{old.removeprefix('file:')}").unlink()
    with pytest.raises(RetryLater, match=f"the wrapping key {old} is not there"):
        roots(authority)
    told = keys("rewrap")
    assert told.code == 4
    assert old in told.err


def test_a_running_service_follows_a_rotation(keys, authority):
    """Its store was opened before."""
    before = authority.store.load(1)
    keys("rotate")
    keys("rewrap")
    assert authority.store.load(1) == before
    authority.issuer.step(make_policy(), NOON + 700_000)
    assert len(keks(authority)) == 1


def test_rewrap_goes_on_where_it_was_ended(keys, authority, monkeypatch):
    before = roots(authority)
    keys("rotate")
    real, calls = FileProvider.wrap, []

    def fails_at_third(self, key, context):
        calls.append(context)
        if len(calls) == 3:
            raise base.away("file", TimeoutError())
        return real(self, key, context)

    monkeypatch.setattr(FileProvider, "wrap", fails_at_third)
    assert keys("rewrap").code == 4
    assert len(keks(authority)) == 2
    assert roots(authority) == before
    monkeypatch.setattr(FileProvider, "wrap", real)
    assert keys("rewrap", "--json").document()["rewrapped"] == 3
    assert len(keks(authority)) == 1
    assert roots(authority) == before


def test_every_root_can_be_read_at_every_moment_of_a_rewrap(keys, authority):
    before, failures, stop = roots(authority), [], threading.Event()

    def read():
        while not stop.is_set():
            try:
                if roots(authority) != before:
                    failures.append("another root")
            except Exception as error:
                failures.append(repr(error))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(5):
            assert keys("rotate").code == 0
            assert keys("rewrap").code == 0
    finally:
        stop.set()
        reader.join()
    assert failures == []


class Wraps:
    """A provider that does something of its own between unwrap and replacement."""

    def __init__(self, authority, then):
        self._real, self._then = Custodian(authority.settings, authority.layout), then

    def wrap(self, key, context):
        wrapped = self._real.wrap(key, context)
        self._then()
        return wrapped

    def unwrap(self, wrapped, context, name):
        return self._real.unwrap(wrapped, context, name)


def test_a_root_that_is_destroyed_meanwhile_does_not_come_back(authority):
    provider = Wraps(authority, lambda: authority.store.destroy(1))
    assert not authority.store.rewrap(Kept(1, ".notes", ""), provider)
    assert authority.store.numbers() == []
    assert not authority.store.rewrap(Kept(1, ".notes", ""), Custodian(authority.settings, authority.layout))


def test_a_wrapping_that_does_not_open_takes_no_ones_place(authority):
    before = (authority.layout.roots / "1" / ".notes").read_bytes()

    class Broken(Wraps):
        def wrap(self, key, context):
            return self._real.wrap(key, context + b"x")

    with pytest.raises(Unverified):
        authority.store.rewrap(Kept(1, ".notes", ""), Broken(authority, lambda: None))
    assert (authority.layout.roots / "1" / ".notes").read_bytes() == before


def test_a_rewrapped_root_keeps_its_owner_and_mode(keys, authority):
    if os.getuid() != 0:
        pytest.skip("only root gives files away")
    path = authority.layout.roots / "1" / ".notes"
    os.chown(path, 4711, -1)
    keys("rotate")
    keys("rewrap")
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (4711, 0o600)
    assert json.loads(path.read_text())["kek"] == base.Wrapped(*keks(authority), b"").kek


@pytest.mark.parametrize("name", ["vault", "aws-kms", "azure", "gcp-kms"])
def test_keys_of_others_are_rotated_by_their_administrators(keys, name):
    told = keys("rotate", BUS_KEY_PROVIDER=name)
    assert told.code == 1
    assert "rotated by its own administrator" in told.err
    assert "then bus keys rewrap" in told.err


def test_a_root_of_a_provider_that_is_not_set_here_waits(authority):
    path = authority.layout.roots / "1" / ".notes"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kek": "vault:transit/sealbus:v1"}))
    with pytest.raises(RetryLater, match="vault:transit/sealbus:v1 is not there") as waits:
        authority.store.load(1)
    assert "vault_address is not set" in waits.value.hint
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kek": "nothing:x"}))
    with pytest.raises(Unverified):
        authority.store.load(1)


def test_a_provider_that_lacks_a_setting_is_refused_at_once(keys):
    told = keys("status", BUS_KEY_PROVIDER="vault")
    assert told.code == 2
    assert "vault_address is not set" in told.err


def test_the_layouts_own_key_is_made_for_the_file_provider_only(tmp_path):
    from bus.authority.local import ensure_authority

    ensure_authority(Layout(tmp_path / "a"), bytes(16), Custody.VAULT)
    assert not Layout(tmp_path / "a").kek.exists()
    ensure_authority(Layout(tmp_path / "b"), bytes(16))
    assert Layout(tmp_path / "b").kek.exists()
