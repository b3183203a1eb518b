"""A reader in another language, written from the page alone, agrees with the vectors and notices every change of them.

``tools/OpenVectors.java`` runs on the Java runtime that the local stack brings. That runtime has no compiler: the
Eclipse compiler, one jar of Maven Central, is fetched once beside Kafka's jars and checked against its digest.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from jgo.maven import MavenContext

from bus.stack.jars import cache_folder, find_java

VECTORS = Path(__file__).with_name("sealbus-v1.json")
SOURCE = Path(__file__).parents[2] / "tools" / "OpenVectors.java"
DOCUMENT = json.loads(VECTORS.read_text(encoding="utf-8"))

ECJ: Final = "3.43.0"
"""Runs on Java 17 and newer and knows class files up to Java 25's."""
ECJ_SHA256: Final = "c786468c65e906498e7e36ece4e0d04c6d3dd34c9a61b34a3a5b512801911a82"

Run = Callable[[Path], "subprocess.CompletedProcess[str]"]


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def compiler() -> Path:
    """The compiler's jar, from the cache or the Maven repository; a broken download never becomes part of the cache."""
    folder = cache_folder().parent
    jar = folder / f"ecj-{ECJ}.jar"
    if not jar.is_file() or digest_of(jar) != ECJ_SHA256:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            context = MavenContext(repo_cache=Path(temporary), timeout=60)
            fetched = Path(str(context.project("org.eclipse.jdt", "ecj").at_version(ECJ).artifact().resolve()))
            assert digest_of(fetched) == ECJ_SHA256
            fetched.replace(jar)
    return jar


def java(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    # What options the brokers of tests are given, Java would tell on stderr.
    environ = {name: value for name, value in os.environ.items() if name != "JDK_JAVA_OPTIONS"}
    return subprocess.run(
        [find_java(), *arguments],
        env=environ,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def open_vectors(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The compiled program: give it a file of vectors."""
    classes = tmp_path_factory.mktemp("classes")
    main = "org.eclipse.jdt.internal.compiler.batch.Main"
    # -17 and not --release 17: that needs signatures of older releases, which a runtime without a compiler lacks.
    done = java("-cp", compiler(), main, "-17", "-proc:none", "-failOnWarning", "-d", classes, SOURCE)
    assert done.returncode == 0, done.stdout + done.stderr
    return lambda path: java("-cp", classes, "OpenVectors", path)


def text_of(payload: str) -> str:
    return bytes.fromhex(payload).decode()


def test_it_opens_the_honest_values_and_refuses_the_malformed_ones(open_vectors: Run) -> None:
    done = open_vectors(VECTORS)
    roles = ", ".join(DOCUMENT["inputs"]["roles"])
    readers = {"derived": (roles, roles, DOCUMENT["inputs"]["target"]), "derived_plaintext": ("everybody",)}
    refused = Counter(each["of"] for each in DOCUMENT["malformed"])
    assert done.stdout.splitlines() == [
        f"sealed: {text_of(DOCUMENT['envelope']['payload'])}",
        *(
            f"{name} {index} for {reader}: {text_of(record['released']['payload'])}"
            for name, names in readers.items()
            for index, (reader, record) in enumerate(zip(names, DOCUMENT[name]["records"], strict=True))
        ),
        *(
            f"malformed {of}: {refused[of]} refused as listed"
            for of in ("certificate", "derived", "envelope", "profile", "sealed")
        ),
        "310 values compared, 0 differences",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def flipped(value: str, place: int) -> str:
    data = bytearray.fromhex(value)
    data[place] ^= 1
    return data.hex()


def variant(document: dict[str, Any], of: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in document["malformed"] if (each["of"], each["name"]) == (of, name))
    return found


def flip_sealed(document: dict[str, Any]) -> None:
    document["sealed"]["value"] = flipped(document["sealed"]["value"], -1)


def flip_derived(document: dict[str, Any]) -> None:
    document["derived"]["value"] = flipped(document["derived"]["value"], -66)


def flip_root(document: dict[str, Any]) -> None:
    document["inputs"]["root"] = flipped(document["inputs"]["root"], 0)


def flip_an_aad(document: dict[str, Any]) -> None:
    record = document["derived"]["records"][2]
    record["aad"] = flipped(record["aad"], -1)


def heal_sealed(document: dict[str, Any]) -> None:
    variant(document, "sealed", "trailing byte")["value"] = document["sealed"]["value"]


def heal_derived(document: dict[str, Any]) -> None:
    variant(document, "derived", "counter flipped, signed anew")["value"] = document["derived"]["value"]


def list_another_code(document: dict[str, Any]) -> None:
    variant(document, "derived", "counter flipped, signed anew")["code"] = "unverified"


def lose_the_variants_of_sealed(document: dict[str, Any]) -> None:
    document["malformed"] = [each for each in document["malformed"] if each["of"] != "sealed"]


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (flip_sealed, "sealed: cannot be finished: OpenVectors$Refused: mac"),
        (flip_derived, "derived: cannot be finished: OpenVectors$Refused: unverified"),
        (flip_root, "keys.agent.mac.value: expected"),
        (flip_an_aad, "derived.records.2.aad: expected"),
        (heal_sealed, 'sealed "trailing byte": expected bounds, found accepted'),
        (heal_derived, 'derived "counter flipped, signed anew": expected open, found accepted'),
        (list_another_code, 'derived "counter flipped, signed anew": expected unverified, found open'),
        (lose_the_variants_of_sealed, "malformed: no variant of sealed or of derived"),
    ],
)
def test_it_fails_on_one_changed_value(
    change: Callable[[dict[str, Any]], None], difference: str, open_vectors: Run, tmp_path: Path
) -> None:
    document = copy.deepcopy(DOCUMENT)
    change(document)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    done = open_vectors(path)
    assert done.returncode == 1, done.stdout
    assert difference in done.stderr


def test_a_file_that_it_cannot_read_is_not_called_a_difference(open_vectors: Run, tmp_path: Path) -> None:
    path = tmp_path / "cut.json"
    path.write_bytes(VECTORS.read_bytes()[:-3])
    assert open_vectors(path).returncode == 2
