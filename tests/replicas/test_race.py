"""Two replicas, each a process of its own, are told at the same moment that an epoch is due: it has one root."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bus.stack.local import write_settings
from tests.unit.ledger_build import NOON, make_authority

EPOCHS, INTERVAL = 40, 600_000
NUMBERS = itertools.count()


@pytest.fixture(params=["files", "authority", "postgres"])
def replicas(request, tmp_path):
    """Two that share a store: a folder, SQLite, PostgreSQL."""
    made = make_authority(tmp_path, backlog_horizon_ms=10**12)
    write_settings(made.settings, made.layout.settings)
    database = request.param
    if database == "postgres":
        database = request.getfixturevalue("cluster").database(f"race{next(NUMBERS)}")
    command = [sys.executable, "-m", "tests.replicas.replica", str(made.settings.state), database]
    root = Path(__file__).parents[2]
    both = [
        subprocess.Popen(command, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    yield both
    for each in both:
        each.stdin.close()
        each.wait(30)


def told(replicas, at: int) -> list[tuple[dict, int]]:
    """Both step at once; what each holds then, and how often it came second."""
    for each in replicas:
        each.stdin.write(f"{at}\n")
        each.stdin.flush()
    return [json.loads(each.stdout.readline()) for each in replicas]


def test_each_epoch_has_one_root_whoever_was_first(replicas):
    at = NOON
    for _ in range(EPOCHS):
        told(replicas, at)
        at += INTERVAL
    (first, first_lost), (second, second_lost) = told(replicas, at)
    assert first == second
    assert len(first) >= EPOCHS
    spans = {tuple(each[1:3]) for roots in first.values() for each in roots}
    assert len(spans) == len(first), "what begins and ends together was made once"
    assert first_lost + second_lost > 0, "they never met"
