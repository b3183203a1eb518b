"""Files of a deployment: modes, whole-or-nothing replacement, and secrets that others may read are refused."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bus.codes import Code
from bus.errors import Refused
from bus.files import Layout, make_folder, read_secret, write_file, write_secret

CRASH = """
import os, sys
from pathlib import Path
from bus import files
setattr(Path, sys.argv[2], lambda *_: os._exit(9))
files.write_secret(Path(sys.argv[1]), b"new " * 1000)
"""


@pytest.fixture
def umask():
    """Sets the process's umask until the test ends."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_files_have_the_mode_that_was_asked_for_under_any_umask(tmp_path, umask, mask):
    umask(mask)
    write_secret(tmp_path / "secret", b"s")
    write_file(tmp_path / "public", b"p")
    assert (mode(tmp_path / "secret"), mode(tmp_path / "public")) == (0o600, 0o644)


def test_a_secret_that_was_open_to_others_is_closed_when_it_is_replaced(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"old")
    path.chmod(0o644)
    write_secret(path, b"new")
    assert (mode(path), read_secret(path)) == (0o600, b"new")


def test_a_crash_before_the_rename_leaves_the_old_bytes(tmp_path):
    path = tmp_path / "secret"
    write_secret(path, b"old")
    died = subprocess.run([sys.executable, "-c", CRASH, path, "replace"], check=False)
    assert died.returncode == 9
    assert read_secret(path) == b"old"
    left = [each for each in tmp_path.iterdir() if each != path]
    assert [each.suffix for each in left] == [".new"]
    assert [mode(each) for each in left] == [0o600]
    write_secret(path, b"next")
    assert read_secret(path) == b"next"


@pytest.mark.parametrize("name", ["fsync", "fdopen"])
def test_an_error_while_writing_leaves_the_old_bytes_and_nothing_else(tmp_path, monkeypatch, name):
    path = tmp_path / "secret"
    write_secret(path, b"old")

    def full(descriptor, *_):
        if name == "fdopen":
            os.close(descriptor)
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(os, name, full)
    with pytest.raises(OSError, match="no space left"):
        write_secret(path, b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["secret"]
    assert read_secret(path) == b"old"


def test_a_link_in_the_place_of_the_temporary_file_is_not_written_through(tmp_path):
    path, target = tmp_path / "secret", tmp_path / "target"
    target.write_bytes(b"untouched")
    (tmp_path / f"secret.{os.getpid()}.new").symlink_to(target)
    write_secret(path, b"s")
    assert (target.read_bytes(), read_secret(path)) == (b"untouched", b"s")


def test_a_link_that_appears_in_that_place_meanwhile_is_not_written_through(tmp_path, monkeypatch):
    path, target = tmp_path / "secret", tmp_path / "target"
    target.write_bytes(b"untouched")
    unlink = Path.unlink

    def unlink_and_lose_the_race(self, missing_ok=False):
        unlink(self, missing_ok=missing_ok)
        self.symlink_to(target)

    monkeypatch.setattr(Path, "unlink", unlink_and_lose_the_race)
    with pytest.raises(FileExistsError):
        write_secret(path, b"s")
    assert target.read_bytes() == b"untouched"
    assert not path.exists()


@pytest.mark.parametrize("open_bits", [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o644, 0o666, 0o777])
def test_a_secret_that_others_may_touch_is_refused(tmp_path, open_bits):
    path = tmp_path / "secret"
    write_secret(path, b"the secret bytes")
    assert read_secret(path) == b"the secret bytes"
    path.chmod(open_bits)
    with pytest.raises(Refused, match=f"expected mode 0600, found {open_bits:04o}") as refused:
        read_secret(path)
    assert refused.value.code is Code.CREDENTIAL
    assert refused.value.hint == f"chmod 600 {path}"
    assert "the secret bytes" not in str(refused.value)


def test_an_owner_may_take_his_own_right_to_write(tmp_path):
    path = tmp_path / "secret"
    write_secret(path, b"s")
    path.chmod(0o400)
    assert read_secret(path) == b"s"


def test_a_secret_that_is_missing_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_secret(tmp_path / "absent")


def test_folders_are_closed_and_their_parents_may_be_entered_but_not_listed(tmp_path, umask):
    umask(0)
    folder = make_folder(tmp_path / "state" / "agents" / "writer-1")
    assert [mode(each) for each in (folder, folder.parent, folder.parent.parent)] == [0o700, 0o711, 0o711]


def test_a_folder_that_was_opened_is_closed_again(tmp_path):
    folder = make_folder(tmp_path / "keys")
    folder.chmod(0o755)
    assert mode(make_folder(folder)) == 0o700


def test_files_can_be_handed_to_an_owner(tmp_path):
    owner = os.getuid()
    folder = make_folder(tmp_path / "keys", owner=owner)
    write_secret(folder / "1", b"k", owner)
    assert {each.stat().st_uid for each in (folder, folder / "1")} == {owner}


def test_every_path_lies_under_the_state_folder_and_services_apart_from_agents():
    layout = Layout(Path("/state"))
    fixed = [getattr(layout, name) for name, each in vars(Layout).items() if isinstance(each, property)]
    assert len(fixed) == 14
    named = [layout.signer("issuer"), layout.agent("a"), layout.service("bus-audit")]
    assert all(path.is_relative_to("/state") for path in fixed + named)
    assert len(set(fixed + named)) == 17
    assert layout.principal("writer-1") == layout.agent("writer-1")
    assert layout.principal("bus-enforcer-1") == layout.service("bus-enforcer-1")
    assert layout.agent("busy") == layout.principal("busy")
