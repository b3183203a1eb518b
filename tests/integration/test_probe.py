"""`bus probe` on a stack of its own, with the traces that the project carries."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.broker, pytest.mark.long, pytest.mark.timeout(300)]


def test_the_controls_find_everything_and_the_observers_nothing(tmp_path):
    report = tmp_path / "leaks.html"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BUS_")}
    command = [sys.executable, "-m", "bus.cli.main", "probe", "--json", "--report", str(report)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["failed"] == []
    assert (told["messages"], told["items"]) == (60, 77)
    seen = told["observers"]
    assert {count for name, count in seen.items() if "control" in name or name == "full-mesh auditor"} == {77}
    assert seen["broker's disks"] == told["records_opened_by_uncleared_role"] == 0
    assert "<svg" in report.read_text()
