"""Every command and program that README shows is run, `make test` itself excepted."""

import os
import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.broker

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)


def block(language, name=""):
    (found,) = [text for kind, title, text in BLOCKS if (kind, title) == (language, name)]
    return found


def shell(text, cwd, **more):
    environ = {key: value for key, value in os.environ.items() if not key.startswith("BUS_")}
    return subprocess.Popen(
        ["bash", "-euc", text],
        cwd=cwd,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def finished(process, timeout=150):
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, out + err
    return out


@pytest.fixture
def checkout(tmp_path):
    """A folder that looks as the checkout does after `make demo`, with no stack of its own yet."""
    for name in (".venv", "policies"):
        (tmp_path / name).symlink_to(ROOT / name)
    yield tmp_path
    finished(shell(". .venv/bin/activate; bus stack down || true", tmp_path))


def test_readme_shows_no_command_that_is_not_run_here():
    assert [(kind, title) for kind, title, _ in BLOCKS] == [
        ("sh", ""),
        ("sh", ""),
        ("sh", "terminal-1"),
        ("sh", "terminal-2"),
        ("sh", "terminal-3"),
        ("python", ""),
        ("sh", "law"),
    ]
    assert [text.strip() for kind, title, text in BLOCKS if (kind, title) == ("sh", "")] == ["make demo", "make test"]


@pytest.mark.timeout(400)
def test_make_demo_meets_every_expectation():
    done = finished(shell("make demo", ROOT), timeout=300)
    told = re.search(r"(\d+) of (\d+) as expected", done)
    assert told is not None
    assert told[1] == told[2] != "0"


def test_the_example_law_is_tested_explained_and_drawn(checkout):
    told = finished(shell(block("sh", "law"), checkout))
    assert re.search(r"[0-9]+ cases, 0 failed, [0-9]+ mutants, 0 survive", told)
    assert "ALLOW if executor-1 also held RETRIEVER" in told
    assert (checkout / "mesh.svg").read_text().startswith("<svg")


@pytest.mark.timeout(300)
def test_the_quick_start_in_three_terminals_and_the_python_program(checkout):
    assert "changes" in finished(shell(block("sh", "terminal-1"), checkout))
    program = checkout / "quickstart.py"
    program.write_text(block("python"))
    told = finished(shell(". .venv/bin/activate; python quickstart.py", checkout))
    assert "retriever-1 customer_id='c-17' text='prefers mail'" in told
    assert "pii_inference.produce" in told
    reader = shell(block("sh", "terminal-2"), checkout)
    told = finished(shell(block("sh", "terminal-3"), checkout))
    assert "ALLOW" in told
    assert "refused, as the policy says" in told
    assert "all hold" in told
    assert "prefers mail" in finished(reader)
    assert not (checkout / ".sealbus").exists()
