"""Every example runs as its page says, and prints what it claims."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.broker
ROOT = Path(__file__).resolve().parents[2]
SAID = {
    "retrieval": r"keys +\['customer/c-17'\]\n.*letters.*\nfound .*prefers mail.*prefers letters.*\ndenied memory",
    "tee": r"income 4200, debt 1000: \{'score': 3.2, 'opened': 'PermissionError'\} by worker-1\n.*'score': 0.2,",
    "mpc": r"rows +2000\nmean +(\d+\.\d\d)\d +in the clear \1",
    "fhe": r"1024 applicants scored without being seen\nwithin \de-0[5-9] .*\nright in (\S+), the clear model in \1",
}


def test_every_example_is_named_and_run_here():
    files = {path.stem for path in (ROOT / "examples").glob("*.py")} - {"__init__"}
    named = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "examples" / "README.md").read_text(), re.M))
    assert files == named == set(SAID)


@pytest.mark.parametrize("name", SAID)
def test_it_runs_and_says_what_it_claims(name):
    done = subprocess.run(
        [sys.executable, "-m", f"examples.{name}"], cwd=ROOT, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(SAID[name], done.stdout), done.stdout
