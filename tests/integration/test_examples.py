"""Every example runs as its page says, and prints what it claims: one with a stack of its own, the others on one."""

import contextlib
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from demo.computing import site

pytestmark = pytest.mark.broker
ROOT = Path(__file__).resolve().parents[2]
SAID = {
    "retrieval": r"keys +\['customer/c-17'\]\n.*letters.*\nfound .*prefers mail.*prefers letters.*\ndenied memory",
    "tee": r"income 4200, debt 1000: \{'score': 3.2, 'opened': 'PermissionError'\} by worker-1\n.*'score': 0.2,",
    "mpc": r"rows +2000\nmean +(\d+\.\d\d)\d +in the clear \1",
    "fhe": r"1024 applicants scored without being seen\nwithin \de-0[5-9] .*\nright in (\S+), the clear model in \1",
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with site(tmp_path_factory.mktemp("examples")) as stack:
        yield stack


def test_every_example_is_named_and_run_here():
    files = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"__init__"}
    named = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "examples" / "README.md").read_text(), re.M))
    assert files == named == set(SAID)


def test_one_runs_by_itself_as_the_page_says():
    command = [sys.executable, "-m", "examples.retrieval"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(SAID["retrieval"], done.stdout), done.stdout


@pytest.mark.parametrize("name", sorted({*SAID} - {"retrieval"}))
def test_it_says_what_it_claims(name, shared, monkeypatch, capsys):
    module = importlib.import_module(f"examples.{name}")
    monkeypatch.setattr(module, "site", lambda _: contextlib.nullcontext(shared))
    module.main()
    told = capsys.readouterr().out
    assert re.search(SAID[name], told), told
